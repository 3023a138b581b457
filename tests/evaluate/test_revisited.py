import json
import math
import pickle

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
        scores = []
        for query, parts in zip(queries, lists, strict=True):
            ranked = sorted(range(images), key=lambda at, query=query: math.dist(query, database[at]))
            wanted = {image for kind in relevant for image in parts[kind]}
            if wanted:
                scores.append(slow(ranked, wanted, {image for kind in junk for image in parts[kind]}, (1, 3, 10)))
        assert result.queries[name] == len(scores)
        if not scores:
            assert math.isnan(result.mean_precision[name])
            continue
        assert result.mean_precision[name] == pytest.approx(np.mean([area for area, _ in scores]))
        expected = np.mean([at_k for _, at_k in scores], axis=0)
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
    one_query = truth([([1], [], [])], 3)
    names = ["image_2", "image_1", "distractor", "image_0"]
    # image_0 ties and comes first, then image_1: AP = (0 / 1 + 1 / 2) / 2.
    assert revisited([[0.0]], np.ones((4, 1)), one_query, database_names=names).value == 1 / 4


def test_an_image_listed_twice_is_counted_as_the_official_code_does():
    # Order 0 1 2. Medium: 0, 1 relevant, 0 also junk: it keeps rank 1, but 1 behind it moves up to rank 1 as well.
    # AP: (1 + 1) / 2 / 2 for 0; for 1, at rank 1 with two found: (1 + 2 / 1) / 2 / 2.
    assert revisited([[0.0]], IMAGES[:3], truth([([0], [1], [0])], 3)).value == (1 + 3 / 2) / 2
    # Image 0 is easy and hard: two to find, one there.
    assert revisited([[0.0]], IMAGES[:3], truth([([0], [0], [])], 3)).value == 1 / 2


def as_arrays(ground_truth):
    gnd = [
        {name: np.array(numbers, dtype=np.int64) for name, numbers in entry.items()} for entry in ground_truth["gnd"]
    ]
    return {
        "imlist": np.array(ground_truth["imlist"]),
        "qimlist": [np.str_(name) for name in ground_truth["qimlist"]],
        "gnd": [{**entry, "bbx": np.array([1.5, 2, 3, 4])} for entry in gnd],
    }


def test_arrays_and_json_read_alike(tmp_path):
    arrays = as_arrays(TRUTH)
    arrays["gnd"][0]["easy"] = [np.int32(1)]
    arrays["gnd"][0]["junk"] = np.array([[0, 2]], dtype=">i2")
    read = load_ground_truth(arrays)
    assert read == {**TRUTH, "gnd": [{**entry, "bbx": [1.5, 2, 3, 4]} for entry in TRUTH["gnd"]]}
    path = tmp_path / "gnd.json"
    path.write_text(json.dumps(read), encoding="utf-8-sig")  # as some editors save it
    assert load_ground_truth(path) == read
    assert revisited(QUERIES, IMAGES, path).value == 5 / 8


RAN = []


class Runs:
    """A pickle of this calls `RAN.append` when it is opened."""

    def __reduce__(self):
        return RAN.append, (1,)


@pytest.mark.parametrize(
    ("name", "protocol"), [("gnd.pkl", 0), ("gnd.pkl", 2), ("gnd.PICKLE", 4), ("gnd", 2), ("gnd", 5)]
)
def test_a_pickle_is_refused_unopened_with_the_name_of_the_converter(tmp_path, name, protocol):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({**TRUTH, "extra": Runs()}, protocol))
    with pytest.raises(
        SampleError, match=rf"'{name}' is a pickle, .*; expected JSON. .*benchmarks/convert_ground_truth"
    ):
        revisited(QUERIES, IMAGES, path)
    assert not RAN


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
        (b"", r"'gnd' is not JSON \(.*benchmarks/convert_ground_truth.py"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "is a list; expected a dictionary"),
        (b"{}", "has no 'imlist'; expected a dictionary"),
        (b"hello \xff", "is not JSON"),
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
    body = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert body["mean_precision"] == {"easy": 0.625, "medium": 0.625, "hard": None}
    assert body["settings"] == {"metric": "euclidean", "ks": [1], "ground_truth": None}
