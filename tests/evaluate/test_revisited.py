import builtins
import codecs
import copyreg
import json
import math
import pickle
import pickletools
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sporeprint.errors import SampleError
from sporeprint.evaluate.ground_truth import load_ground_truth
from sporeprint.evaluate.revisited import revisited


def truth(entries, images):
    return {
        "imlist": [f"image_{number}" for number in range(images)],
        "qimlist": [f"query_{number}" for number in range(len(entries))],
        "gnd": [dict(zip(("easy", "hard", "junk"), entry, strict=True)) for entry in entries],
    }


# On a line, so that query 0 at 0 ranks the images 0 1 2 3 4 5 and query 1 at 7 ranks them 5 4 3 2 1 0.
IMAGES = np.arange(1.0, 7.0)[:, None]
QUERIES = np.array([[0.0], [7.0]])
TRUTH = truth([([1], [3, 4], [0, 2]), ([4], [], [3])], 6)

# Query 0. Easy: 1 is relevant; 0, 2, 3, 4 are removed: the rank of 1 is 1st. AP = (1 + 1) / 2 / 1 = 1.
#   Medium: 1, 3, 4 are relevant; 0, 2 removed: ranks 1, 2, 3. Precision before and at: (1, 1), (1, 1), (1, 1). AP = 1.
#   Hard: 3, 4 are relevant; 0, 1, 2 removed: ranks 1, 2. AP = 1.
# Query 1, order 5 4 3 2 1 0. Easy and medium: 4 is relevant, 3 removed: rank 2.
#   AP = (0 / 1 + 1 / 2) / 2 / 1 = 1/4. P@1 = 0; P@5 stops at the last relevant rank, 2: 1/2. Hard: nothing to find.


def test_a_hand_worked_example():
    result = revisited(QUERIES, IMAGES, TRUTH, ks=(1, 5))
    assert result.mean_precision == {"easy": (1 + 1 / 4) / 2, "medium": (1 + 1 / 4) / 2, "hard": 1}
    assert result.value == 5 / 8
    assert result.precision_at == {
        "easy": {1: 1 / 2, 5: (1 + 1 / 2) / 2},
        "medium": {1: 1 / 2, 5: (1 + 1 / 2) / 2},
        "hard": {1: 1, 5: 1},
    }
    assert result.queries == {"easy": 2, "medium": 2, "hard": 1}


def test_a_hand_worked_example_with_relevant_images_apart():
    # Order 0 ... 8. Medium: 1, 4, 8 are relevant, 2 and 3 removed, so 1 stands 2nd, 4 (5th) 3rd, 8 (9th) 7th.
    # Precision before and at: (0/1, 1/2), (1/2, 2/3), (2/6, 3/7). P@1 = 0, P@5 = 2/5, P@10 stops at 7: 3/7.
    result = revisited([[0.0]], np.arange(1.0, 10.0)[:, None], truth([([1, 8], [4], [2, 3])], 9))
    assert result.value == pytest.approx((0 + 1 / 2 + 1 / 2 + 2 / 3 + 2 / 6 + 3 / 7) / 2 / 3)
    assert result.precision_at["medium"] == pytest.approx({1: 0, 5: 2 / 5, 10: 3 / 7})
    # Easy: 1, 8 are relevant, 2, 3, 4 removed: 2nd and 6th. Hard: 4 is, 1, 2, 3, 8 removed: 2nd.
    assert result.mean_precision["easy"] == pytest.approx((0 + 1 / 2 + 1 / 5 + 2 / 6) / 2 / 2)
    assert result.mean_precision["hard"] == pytest.approx((0 + 1 / 2) / 2)


def slow(ranked, relevant, junk, ks):
    """Walk down the list; junk is passed over. Area under precision over recall, trapezoid by trapezoid."""
    seen, hits, area, precision, hit_at = 0, 0, 0.0, 1.0, []
    for image in ranked:
        if image in junk:
            continue
        seen += 1
        hits += image in relevant
        if image in relevant:
            area += (precision + hits / seen) / 2 / len(relevant)
            hit_at.append(seen)
        precision = hits / seen
    depths = [min(k, hit_at[-1]) for k in ks]
    return area, [sum(at <= depth for at in hit_at) / depth for depth in depths]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 40), st.sampled_from(["euclidean", "cosine"]))
def test_random_ground_truths_agree_with_a_walk_down_the_list(seed, images, metric):
    rng = np.random.default_rng(seed)
    kinds = rng.choice(4, (5, images), p=[0.15, 0.15, 0.2, 0.5])
    kinds[0, 0] = 0  # at least one relevant image
    lists = [[np.flatnonzero(row == kind).tolist() for kind in range(3)] for row in kinds]
    queries, database = rng.standard_normal((5, 6)), rng.standard_normal((images, 6))
    result = revisited(queries, database, truth(lists, images), ks=(1, 3, 10), metric=metric)
    if metric == "cosine":
        queries, database = ([row / math.sqrt(row @ row) for row in rows] for rows in (queries, database))
    apart = np.sort([[math.dist(query, row) for row in database] for query in queries], axis=1)
    assume((np.diff(apart) > 1e-6).all())  # nearer ones are equal to float32, and go by their order
    for name, relevant, junk in (("easy", [0], [1, 2]), ("medium", [0, 1], [2]), ("hard", [1], [0, 2])):
        made = []
        for query, parts in zip(queries, lists, strict=True):
            ranked = sorted(range(images), key=lambda at, query=query: math.dist(query, database[at]))
            wanted = {image for kind in relevant for image in parts[kind]}
            if wanted:
                made.append(slow(ranked, wanted, {image for kind in junk for image in parts[kind]}, (1, 3, 10)))
        assert result.queries[name] == len(made)
        if not made:
            assert math.isnan(result.mean_precision[name])
            continue
        assert result.mean_precision[name] == pytest.approx(np.mean([area for area, _ in made]))
        expected = np.mean([at_k for _, at_k in made], axis=0)
        assert list(result.precision_at[name].values()) == pytest.approx(expected.tolist())


def test_names_put_rows_in_order_add_distractors_and_leave_out_the_queries_own_images():
    names = ["d/query_0.jpg", "x/image_5.JPG", "image_0", "far.away", "image_1.png", "image_2", "image_3", "image_4"]
    places = {"query_0": 0.0, "far": 2.5}  # its own image would come first; the distractor stands third for query 0
    rows = [[places["query_0"]], IMAGES[5], IMAGES[0], [places["far"]], *IMAGES[1:5]]
    result = revisited(
        QUERIES[::-1], np.vstack(rows), TRUTH, query_names=["q/query_1.jpg", "q/query_0.jpg"], database_names=names
    )
    assert (result.database_rows, result.distractors, result.query_images) == (7, 1, 1)
    # Query 0 now ranks 0 1 far 2 3 4 5. Medium, 0 and 2 removed: 1, 3, 4 are 1st, 3rd, 4th. Query 1 as before.
    first = (1 + 1 + 1 / 2 + 2 / 3 + 2 / 3 + 3 / 4) / 2 / 3
    assert result.value == pytest.approx((first + 1 / 4) / 2)


def test_ties_go_by_the_order_of_the_ground_truth_not_of_the_rows():
    found = truth([([1], [], [])], 3)
    names = ["image_2", "image_1", "distractor", "image_0"]
    # image_0 ties and comes first, then image_1: AP = (0 / 1 + 1 / 2) / 2.
    assert revisited([[0.0]], np.ones((4, 1)), found, database_names=names).value == 1 / 4


def test_an_image_listed_twice_is_counted_as_the_official_code_does():
    # Order 0 1 2. Medium: 0, 1 relevant, 0 also junk: it keeps rank 1, but 1 behind it moves up to rank 1 as well.
    # AP: (1 + 1) / 2 / 2 for 0; for 1, at rank 1 with two found: (1 + 2 / 1) / 2 / 2.
    assert revisited([[0.0]], IMAGES[:3], truth([([0], [1], [0])], 3)).value == (1 + 3 / 2) / 2
    # Image 0 is easy and hard: two to find, one there.
    assert revisited([[0.0]], IMAGES[:3], truth([([0], [0], [])], 3)).value == 1 / 2


def as_arrays(found):
    gnd = [{name: np.array(numbers, dtype=np.int64) for name, numbers in one.items()} for one in found["gnd"]]
    return {
        "imlist": np.array(found["imlist"]),
        "qimlist": [np.str_(name) for name in found["qimlist"]],
        "gnd": [{**one, "bbx": np.array([1.5, 2, 3, 4])} for one in gnd],
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_lists_and_of_arrays_read_as_the_json_form(tmp_path, protocol):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps(TRUTH, protocol))
    assert load_ground_truth(path) == TRUTH
    arrays = as_arrays(TRUTH)
    arrays["gnd"][0]["easy"] = [np.int32(1)]
    arrays["gnd"][0]["junk"] = np.array([[0, 2]], dtype=">i2")
    path.write_bytes(pickle.dumps(arrays, protocol))
    read = load_ground_truth(path)
    expected = [{**entry, "bbx": [1.5, 2, 3, 4]} for entry in TRUTH["gnd"]]
    assert read == {**TRUTH, "gnd": expected}
    assert read == load_ground_truth(arrays)
    form = tmp_path / "gnd.json"
    form.write_text(json.dumps(read), encoding="utf-8-sig")  # as some editors save it
    assert load_ground_truth(form) == read
    assert revisited(QUERIES, IMAGES, form).value == 5 / 8


def test_a_pickle_of_python_2_is_read(tmp_path):
    # As Python 2.7 writes it: texts and the bytes of arrays are both SHORT_BINSTRING (U). "junk" is numpy.array([255]).
    text = lambda value: b"U" + bytes([len(value)]) + value  # noqa: E731
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R("
        b"K\x01K\x01\x85cnumpy\ndtype\n" + text(b"i8") + b"K\x00K\x01\x87R("
        b"K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(b"\xff" + bytes(7)) + b"tb"
    )
    entry = b"}(" + text(b"easy") + b"]K\x00a" + text(b"hard") + b"]" + text(b"junk") + array + b"u"
    names = b"](" + b"".join(text(b"i%d" % number) for number in range(256)) + b"e"
    whole = b"}(" + text(b"imlist") + names + text(b"qimlist") + b"]" + text(b"q") + b"a" + text(b"gnd") + b"]" + entry
    path = tmp_path / "gnd.pkl"
    path.write_bytes(b"\x80\x02" + whole + b"au.")
    read = load_ground_truth(path)
    assert read["gnd"] == [{"easy": [0], "hard": [], "junk": [255]}]
    assert read["imlist"][255] == "i255"


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function, *given):
        self.call = function, given

    def __reduce__(self):
        return self.call


RAN = []


def ran(*given):
    RAN.append(given)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("call", [(ran, 1), (builtins.eval, "1"), (getattr, 1, "real"), (np.load, "x"), (bytearray, 9)])
def test_a_pickle_that_names_anything_else_is_refused_and_nothing_runs(tmp_path, protocol, call):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps({**TRUTH, "extra": Runs(*call)}, protocol))
    RAN.clear()
    with pytest.raises(SampleError, match=f"names .*{call[0].__name__}.*Nothing was run"):
        load_ground_truth(path)
    assert not RAN


def test_objects_of_an_array_are_never_taken_from_bytes(tmp_path):
    # NumPy itself would follow these bytes as pointers, were its type's state to say so.
    array = np.array([1], dtype=np.int64)
    data = pickle.dumps({**TRUTH, "imlist": array}, 2).replace(b"i8q", b"O8q")
    assert any(given == "O8" for _, given, _ in pickletools.genops(data))
    path = tmp_path / "gnd.pkl"
    path.write_bytes(data)
    with pytest.raises(SampleError, match="something other than numbers and texts"):
        load_ground_truth(path)


@pytest.mark.parametrize("call", [(bytes, 10**9), (codecs.encode, "a", "rot13"), (np.dtype,)])
def test_what_an_array_needs_is_refused_where_it_is_called_otherwise(tmp_path, call):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(pickle.dumps({**TRUTH, "extra": Runs(*call)}))
    with pytest.raises(SampleError, match="neither JSON nor a pickle"):
        load_ground_truth(path)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (b"r\x00\x00\x10\x00", "a memory of 1048576 objects"),  # remembered as number 1048576: 16 MB for 9 bytes
        (b"p1048576\n", "a memory of 1048576 objects"),
        (b"\x96" + bytes([0, 0, 0, 1, 0, 0, 0, 0]), "expected 16777216 bytes"),
    ],
)
def test_a_few_bytes_cannot_take_much_memory(tmp_path, step, message):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(b"\x80\x05N" + step + b".")
    with pytest.raises(SampleError, match=message):
        load_ground_truth(path)


def test_registered_extensions_are_refused_since_they_bypass_the_names(tmp_path, monkeypatch):
    monkeypatch.setitem(copyreg._extension_cache, 1, ran)
    path = tmp_path / "gnd.pkl"
    path.write_bytes(b"\x80\x02\x82\x01)R.")
    RAN.clear()
    with pytest.raises(SampleError, match="a registered extension"):
        load_ground_truth(path)
    assert not RAN


@pytest.mark.parametrize(
    "state", [b"}X\x04\x00\x00\x00nameX\x04\x00\x00\x00evals", b"N}X\x04\x00\x00\x00nameK\x05s\x86"]
)
def test_a_stand_in_turned_by_the_pickle_runs_nothing(tmp_path, state):
    path = tmp_path / "gnd.pkl"
    path.write_bytes(b"\x80\x02cnumpy\ndtype\n" + state + b"bX\x04\x00\x00\x001+10\x85R.")
    with pytest.raises(SampleError, match="neither JSON nor a pickle"):
        load_ground_truth(path)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_a_damaged_pickle_is_refused_or_read_but_never_anything_else(tmp_path_factory, at, byte, cut):
    data = bytearray(pickle.dumps(as_arrays(TRUTH), 4))
    data[at % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / "gnd.pkl"
    path.write_bytes(bytes(data[: at % len(data)]) if cut else bytes(data))
    with suppress(SampleError):
        assert set(load_ground_truth(path)) == {"imlist", "qimlist", "gnd"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imlist": []}, "imlist is not a list of names, or empty"),
        ({"imlist": "image"}, "imlist is a str; expected a list"),
        ({"imlist": ["a", "a"]}, "imlist names an image twice"),
        ({"qimlist": ["q", 3]}, "qimlist is not a list of names"),
        ({"gnd": []}, "gnd has 0 entries for 2 queries"),
        ({"gnd": [{"ok": [1], "junk": []}] * 2}, r"gnd\[0\] has no 'easy'; expected easy, hard and junk"),
        ({"gnd": [[1], [2]]}, r"gnd\[0\] is a list; expected easy"),
        ({"gnd": [{"easy": [6], "hard": [], "junk": []}] * 2}, "easy has 6; expected numbers from 0 to 5"),
        ({"gnd": [{"easy": [], "hard": [-1], "junk": []}] * 2}, "hard has -1"),
        ({"gnd": [{"easy": [], "hard": [], "junk": [1.5]}] * 2}, "junk has 1.5"),
        ({"gnd": [{"easy": [], "hard": [], "junk": [1]}] * 2}, "no query has an easy or a hard image"),
        ({"gnd": [{"easy": [1], "hard": [], "junk": [], "bbx": [1, 2]}] * 2}, "bbx is not four numbers"),
    ],
)
def test_what_is_wrong_with_a_ground_truth_is_named(change, message):
    with pytest.raises(SampleError, match=message):
        load_ground_truth({**TRUTH, **change})


def test_files_that_are_no_ground_truth_are_refused(tmp_path):
    with pytest.raises(SampleError, match=r"'absent.pkl' cannot be read \(No such file"):
        load_ground_truth(tmp_path / "absent.pkl")
    for content, message in (
        (b"", "neither JSON nor a pickle"),
        (b"{", "neither JSON nor a pickle"),
        (b"[1]", "is a list; expected a dictionary"),
        (b"{}", "has no 'imlist'; expected a dictionary"),
        (b"hello", "neither JSON nor a pickle"),
    ):
        (tmp_path / "gnd").write_bytes(content)
        with pytest.raises(SampleError, match=message):
            load_ground_truth(tmp_path / "gnd")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((QUERIES[:1], IMAGES), {}, "1 query rows for 2 images in the ground truth; expected one each, or query_names"),
        ((QUERIES, IMAGES[:5]), {}, "5 database rows for 6 images"),
        ((QUERIES, IMAGES), {"query_names": ["query_0"]}, "1 query names for 2 query rows"),
        ((QUERIES, IMAGES), {"query_names": ["query_0", "x"]}, "1 of 2 images .* have no query row: query_1; expected"),
        ((QUERIES, IMAGES), {"database_names": list("abcdef")}, "6 of 6 .*image_0, image_1, image_2, ...; expected"),
        ((QUERIES, IMAGES), {"query_names": ["query_0", "a/query_0.jpg"]}, "no query row: query_1"),
        (
            (np.vstack([QUERIES, QUERIES[:1]]), IMAGES),
            {"query_names": ["query_0", "query_1", "a/query_0.jpg"]},
            "query_names has query_0 2 times; expected once",
        ),
        ((np.zeros((3, 1)), IMAGES), {"query_names": ["query_0", "query_1", "x"]}, "3 query rows, but .* 2 queries"),
        ((np.zeros((2, 3)), IMAGES), {}, "query features are 3 wide, database features 1"),
        ((QUERIES * np.nan, IMAGES), {}, "2 of 2 query rows are NaN"),
        ((QUERIES, IMAGES), {"ks": (0,)}, "ks has 0"),
        ((QUERIES, IMAGES), {"metric": "cosine"}, "1 of 2 query rows are all 0"),
    ],
)
def test_rows_that_do_not_match_the_ground_truth_are_refused(arguments, options, message):
    with pytest.raises(SampleError, match=message):
        revisited(*arguments, TRUTH, **options)


def test_a_result_is_one_line_for_people_and_plain_json_for_machines():
    result = revisited(QUERIES, IMAGES, truth([([1], [], [0, 2]), ([4], [], [3])], 6), ks=(1,))
    assert str(result) == "mAP easy 62.5%, medium 62.5%, hard nan%, medium mP@1 50.0% (2 queries, 6 images)"
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert found["mean_precision"] == {"easy": 0.625, "medium": 0.625, "hard": None}
    assert found["settings"] == {"metric": "euclidean", "ks": [1], "ground_truth": None}
