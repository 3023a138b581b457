import unicodedata

from sporeprint.data.look_alikes import look_alike_note, look_alikes, strangers_note

NFC, NFD = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")


def test_labels_that_differ_by_blanks_case_or_form_are_groups():
    labels = ["cat", "dog", "cat ", "Cat", NFC, NFD, "hot dog", "hot  dog", "hot\u00a0dog", "c\u200bat", "cats", "cat"]
    assert look_alikes(labels) == [
        ["Cat", "cat", "cat ", "c\u200bat"],
        sorted([NFC, NFD]),
        ["hot  dog", "hot dog", "hot\u00a0dog"],
    ]
    assert look_alikes([["a", "b"], ["B"], None, 1, 1.0, True]) == [["B", "b"]]


def test_other_labels_are_none():
    assert look_alikes(["Masse", "Ma\u00dfe", "1", "01", "a_b", "a b", "", 1, None]) == []
    assert look_alike_note(["a", "b"]) == ""


def test_the_note_shows_what_differs():
    assert look_alike_note(["cat", "Cat ", "x", NFC, NFD]) == (
        "labels that differ by blanks, case or Unicode form only are taken as different: 'Cat ' and 'cat'; "
        r"'cafe\u0301' and 'caf\xe9'; if they are one label, write them in one way"
    )
    many = [form for letter in "abcde" for form in (letter, letter.upper())]
    assert "'A' and 'a'; 'B' and 'b'; 'C' and 'c'; 2 more; if" in look_alike_note(many)


def test_labels_that_are_not_known_but_look_so_are_named():
    assert strangers_note(["cat ", "dog", "emu", "cat "], ["cat", "dog"]) == (
        "different by blanks, case or Unicode form only: 'cat ' and 'cat'; write one label in one way"
    )
    assert strangers_note([["Cat"], ["dog"]], [["cat", "dog"]]).startswith("different by blanks")
    assert strangers_note(["dog", "emu", 3], ["cat", "dog", "Dog", 3.0]) == ""
