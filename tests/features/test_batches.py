import pytest
from PIL import Image

from small import PREPROCESS, noise_pictures
from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.data.images import content_digest
from sporeprint.errors import SampleError, TooManyFailures
from sporeprint.features import batches as reading
from sporeprint.features.batches import as_rows, decode, decoded_batches, name_rows, separate
from sporeprint.features.failures import Failures


def test_a_row_is_decoded_to_rgb_under_its_id_or_the_digest_of_its_pixels():
    grey = Image.new("L", (3, 2), 7)
    row_id, image = decode(PREPROCESS, ("name", grey))
    assert (row_id, image.mode, image.size) == ("name", "RGB", (3, 2))
    assert decode(PREPROCESS, ("", grey))[0] == content_digest(image)
    row_id, reason = decode(PREPROCESS, ("broken", b"no picture"))
    assert row_id == "broken"
    assert isinstance(reason, SampleError)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_so_many_rows_in_order_broken_ones_too(workers):
    rows = [(str(number), image) for number, image in enumerate(noise_pictures(7))]
    rows[3] = ("3", b"broken")
    batches = list(decoded_batches(PREPROCESS, rows, 3, workers))
    assert [[row_id for row_id, _ in batch.rows] for batch in batches] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


def test_a_batch_of_large_images_closes_early(monkeypatch):
    monkeypatch.setattr(reading, "BATCH_BYTES", 3 * 250)  # three bytes a pixel
    rows = [(str(number), Image.new("RGB", (10, 10))) for number in range(7)]
    assert [len(batch.rows) for batch in decoded_batches(PREPROCESS, rows, 32, 0)] == [3, 3, 1]


class Numbers(Inputs):
    """Strings of digits to a list of them, then to their sum; an odd sum is refused."""

    def load(self, sample, limits):
        if not sample.isdigit():
            raise SampleError("not digits")
        return [int(letter) for letter in sample]

    def digest(self, loaded):
        return "-".join(map(str, loaded))

    def prepare(self, loaded):
        if sum(loaded) % 2:
            raise SampleError("odd")
        return sum(loaded)

    def bulk(self, ready):
        return 10 * ready


def test_a_row_is_loaded_named_by_its_content_and_prepared_for_the_backbone():
    assert decode(Numbers(), ("", "42")) == ("4-2", 6)
    assert decode(Numbers(), ("name", "42")) == ("name", 6)
    for given, why in (("x", "not digits"), ("41", "odd")):
        row_id, reason = decode(Numbers(), ("name", given))
        assert (row_id, str(reason)) == ("name", why)
    assert isinstance(decode(Numbers(), ("", "41"))[1], SampleError)


def test_a_batch_closes_by_the_size_of_what_was_prepared(monkeypatch):
    monkeypatch.setattr(reading, "BATCH_BYTES", 100)
    rows = [(str(at), sample) for at, sample in enumerate(["44", "1", "2", "8", "x", "33", "22"])]
    # bulk 80, unreadable 0, 20 | 80, unreadable 0, 60 | 40
    batches = [[row_id for row_id, _ in batch.rows] for batch in decoded_batches(Numbers(), rows, 32, 0)]
    assert batches == [["0", "1", "2"], ["3", "4", "5"], ["6"]]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_rows_without_an_id_are_named_and_unreadable_ones_left_out(batch_size):
    rows = [("", "42"), ("mine", "x"), ("", "41"), ("", "y"), ("", "8"), ("", "2")]
    named = list(name_rows(Numbers(), iter(rows), batch_size, 0))
    assert named == [("mine", "x"), ("4-2", "42"), ("8", "8"), ("2", "2")]


def test_unreadable_rows_without_an_id_are_counted_by_their_number_among_all_rows():
    rows = [("", "42"), ("mine", "x"), ("", "41"), ("", "8"), ("", "y")]
    failures = Failures(1.0, 5)
    assert [row_id for row_id, _ in name_rows(Numbers(), iter(rows), 2, 0, failures)] == ["mine", "4-2", "8"]
    assert [(row.id, row.reason) for row in failures.rows] == [("row 2", "odd"), ("row 4", "not digits")]
    naming = name_rows(Numbers(), iter(rows), 32, 0, Failures(0.2, 5))
    assert [next(naming)[0] for _ in range(3)] == ["mine", "4-2", "8"]
    with pytest.raises(TooManyFailures, match=r"2 of 5 rows .* \(row 2: odd; row 4: not digits\)"):
        next(naming)


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_of_a_batch_are_named_by_the_given_id_or_their_number(workers):
    rows = [("", "42"), ("mine", "x"), ("", "y"), ("", "8"), ("last", "2")]
    batches = list(decoded_batches(Numbers(), rows, 3, workers, first=10))
    assert [batch.names for batch in batches] == [["row 10", "mine", "row 12"], ["row 13", "last"]]
    assert [[row_id for row_id, _ in batch.rows] for batch in batches] == [["4-2", "mine", ""], ["8", "last"]]


def test_readable_rows_are_separated_from_the_reasons_of_the_others():
    (batch,) = decoded_batches(Numbers(), [("", "x"), ("", "42"), ("mine", "41"), ("", "8")], 32, 0)
    assert separate(batch.rows) == ({1: ("4-2", 6), 3: ("8", 8)}, {0: "not digits", 2: "odd"})
    assert separate([]) == ({}, {})


def test_no_row_is_decoded_long_before_its_batch_is_asked_for():
    read = []

    def rows():
        for number in range(10):
            read.append(number)
            yield str(number), "2"

    batches = decoded_batches(Numbers(), rows(), 2, 0)
    assert read == []
    next(batches)
    assert read == [0, 1]


def test_ids_that_are_no_unicode_are_refused():
    with pytest.raises(SampleError, match="not Unicode"):
        as_rows([b"1"], ["\ud800"])
    assert as_rows([b"1"], [5]) == [("5", b"1")]
