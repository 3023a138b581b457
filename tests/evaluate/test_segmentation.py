import json
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from sporeprint.errors import SampleError
from sporeprint.evaluate.segmentation import confusion, difference, over_runs, segmentation, tally

VOID = 9
TRUTH = np.array([[0, 0, 1], [1, 1, VOID]], np.int32)
PREDICTED = np.array([[0, 1, 1], [1, 2, 0]], np.int32)


def random_maps(images=6, classes=5, seed=0, right=0.6, absent=()):
    """Pairs of label maps of different sizes, in part void; `right` of the pixels are, classes in `absent` are not."""
    rng = np.random.default_rng(seed)
    there = np.setdiff1d(np.arange(classes), absent)
    for number in range(images):
        truth = rng.choice(there, (7 + number, 9))
        predicted = np.where(rng.random(truth.shape) < right, truth, rng.integers(classes, size=truth.shape))
        truth[rng.random(truth.shape) < 0.1] = VOID
        yield truth.astype(np.int32), predicted.astype(np.int32)


def confusions(**options):
    classes = options.get("classes", 5)
    return np.stack([confusion(*pair, classes, [VOID]) for pair in random_maps(**options)])


def labelled(maps):
    """All labelled pixels of the truth and their predictions, one after the other."""
    pairs = [(truth[truth != VOID], predicted[truth != VOID]) for truth, predicted in maps]
    return tuple(np.concatenate(side) for side in zip(*pairs, strict=True))


def slow_miou(matrices):
    total = np.sum(matrices, axis=0).tolist()
    ious = []
    for label, row in enumerate(total):
        if sum(row):
            ious.append(row[label] / (sum(row) + sum(other[label] for other in total) - row[label]))
    return sum(ious) / len(ious)


def test_a_confusion_worked_by_hand():
    matrix = confusion(TRUTH, PREDICTED, 3, [VOID])
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 1], [0, 0, 0]]


def test_figures_worked_by_hand():
    result = segmentation([confusion(TRUTH, PREDICTED, 3, [VOID])], ["road", "sky", "car"])
    assert result.iou[:2] == pytest.approx([1 / 2, 2 / 4])  # union of sky: 3 in the truth, 1 more predicted
    assert math.isnan(result.iou[2])
    assert result.value == pytest.approx(0.5)
    assert result.accuracy == pytest.approx(3 / 5)
    assert result.mean_class_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert (result.images, result.pixels, result.names) == (1, 5, ("road", "sky", "car"))
    assert result.per_class == pytest.approx({"road": 0.5, "sky": 0.5})


@pytest.mark.parametrize("seed", range(3))
def test_confusions_are_those_of_scikit_learn(seed):
    truth, predicted = labelled(random_maps(seed=seed))
    expected = confusion_matrix(truth, predicted, labels=range(5))
    assert confusions(seed=seed).sum(0).tolist() == expected.tolist()


@pytest.mark.parametrize("absent", [(), (1,), (0, 4)])
def test_figures_are_those_of_scikit_learn(absent):
    truth, predicted = labelled(random_maps(absent=absent))
    assert np.isin(absent, predicted).all()  # an absent class is predicted, and still in no mean
    result = segmentation(confusions(absent=absent))
    there = np.unique(truth)
    assert result.value == pytest.approx(jaccard_score(truth, predicted, labels=there, average="macro"))
    assert result.iou[there] == pytest.approx(jaccard_score(truth, predicted, labels=there, average=None))
    assert np.flatnonzero(np.isnan(result.iou)).tolist() == list(absent)
    assert result.accuracy == pytest.approx(accuracy_score(truth, predicted))
    if not absent:  # scikit-learn warns of classes that only predictions have
        assert result.mean_class_accuracy == pytest.approx(balanced_accuracy_score(truth, predicted))


def test_the_data_set_is_summed_and_not_the_mean_of_its_images():
    large = np.array([[90, 0], [0, 10]])
    small = np.array([[0, 0], [10, 0]])  # class 1 wrong everywhere
    result = segmentation([large, small])
    assert result.iou == pytest.approx([90 / 100, 10 / 20])
    assert result.value == pytest.approx(0.7)
    assert tally([large, small]).by_image() == pytest.approx([1.0, 0.0])


def test_an_image_without_a_labelled_pixel_counts_in_no_figure():
    empty = confusion(np.full((2, 2), VOID), np.zeros((2, 2), int), 5, [VOID])
    matrices = confusions()
    both, alone = segmentation([*matrices, empty]), segmentation(matrices)
    assert (both.value, both.pixels, both.images) == (alone.value, alone.pixels, alone.images + 1)
    assert np.isnan(tally([empty]).by_image()).tolist() == [True]


def test_every_kind_of_void_is_left_out_and_a_class_can_be_void():
    truth = np.array([[0, 1, 8, VOID]])
    assert confusion(truth, np.array([[1, 1, 1, 1]]), 2, [0, 8, VOID]).tolist() == [[0, 0], [0, 1]]


def test_label_maps_of_bytes_do_not_overflow():
    labels = np.full((1, 3), 149, np.uint8)
    assert confusion(labels, labels, 150, [255])[149, 149] == 3


def test_a_generator_gives_what_the_array_gives():
    matrices = confusions()
    assert segmentation(matrix for matrix in matrices).to_json() == segmentation(matrices).to_json()


def test_a_tally_is_small_and_gives_the_same():
    matrices = confusions(classes=40)
    counts = tally(iter(matrices))
    assert sum(part.nbytes for part in (counts.hits, counts.truth, counts.predicted)) == matrices.nbytes * 3 / 40
    assert segmentation(counts).to_json() == segmentation(matrices).to_json()


def test_the_result_is_json_without_nan():
    result = segmentation(confusions(absent=(1,)), settings={"neighbours": 30})
    read = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert read["iou"][1] is None
    assert read["value"] == result.value
    assert read["settings"] == {"neighbours": 30}


def test_the_line_says_how_many_classes_are_absent():
    assert str(segmentation([[[1, 1, 0], [0, 2, 1], [0, 0, 0]]])) == (
        "mIoU 50.0% of 2 classes (1 absent left out), pixel accuracy 60.0%, mean class accuracy 58.3%, 1 images"
    )


def test_a_difference_is_second_less_first_of_the_whole_set():
    a, b = confusions(right=0.5), confusions(right=0.7)
    interval = difference(a, b, draws=200)
    assert interval.value == pytest.approx(slow_miou(b) - slow_miou(a))
    assert interval.low < interval.value < interval.high
    assert interval.low > 0  # the better one is better


@pytest.mark.parametrize("absent", [(), (2,)])
def test_the_interval_is_that_of_a_plain_bootstrap(absent):
    a, b = (confusions(images=30, right=right, absent=absent) for right in (0.55, 0.6))
    rng = np.random.default_rng(5)
    drawn = [rng.integers(30, size=30) for _ in range(4000)]
    expected = np.quantile([slow_miou(b[rows]) - slow_miou(a[rows]) for rows in drawn], [0.025, 0.975])
    interval = difference(a, b, draws=4000)
    assert [interval.low, interval.high] == pytest.approx(expected, abs=0.06 * (expected[1] - expected[0]))


def test_a_draw_without_a_class_leaves_it_out():
    a = np.array([[[1, 0], [0, 0]], [[0, 0], [1, 0]]])  # class 1 is in the second image only, and is wrong
    b = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]]])
    interval = difference(a, b, draws=1000)
    # draws: first image twice: 1 - 1; both: 1 - (1/2 + 0) / 2; second image twice: 1 - 0
    assert (interval.low, interval.high) == (0.0, 1.0)
    assert interval.value == pytest.approx(0.75)


def test_a_difference_depends_on_its_seed_alone_and_not_on_how_draws_are_parted(monkeypatch):
    a, b = confusions(right=0.5), confusions(right=0.6)
    whole = difference(a, b, draws=300, seed=3)
    assert difference(tally(a), iter(b), draws=300, seed=3) == whole
    assert difference(a, b, draws=300, seed=4) != whole
    monkeypatch.setattr("sporeprint.evaluate.segmentation._CHUNK", 100)
    assert difference(a, b, draws=300, seed=3) == whole


def test_equal_predictions_differ_by_nothing_and_one_image_has_no_interval():
    a = confusions()
    same = difference(a, a, draws=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    interval = difference(a[:1], a[:1])
    assert interval.value == 0
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_images_without_a_labelled_pixel_are_not_drawn():
    a, b, empty = confusions(right=0.5), confusions(right=0.6), np.zeros((3, 5, 5), int)
    assert difference([*a, *empty], [*b, *empty], draws=100) == difference(a, b, draws=100)


def test_runs_are_averaged_with_their_spread():
    runs = [
        segmentation([[[3, 1], [0, 4]]], settings={"seed": 0, "bank": 10}),
        segmentation([[[2, 2], [0, 4]]], settings={"seed": 1, "bank": 10}),
    ]
    mean = over_runs(runs)
    first, second = (3 / 4 + 4 / 5) / 2, (2 / 4 + 4 / 6) / 2
    assert mean.values == pytest.approx((first, second))
    assert mean.value == pytest.approx((first + second) / 2)
    assert mean.spread == pytest.approx(abs(first - second) / math.sqrt(2))
    assert mean.iou == pytest.approx([(3 / 4 + 2 / 4) / 2, (4 / 5 + 4 / 6) / 2])
    assert mean.accuracy == pytest.approx((7 / 8 + 6 / 8) / 2)
    assert (mean.images, mean.pixels, mean.settings) == (1, 8, {"bank": 10})
    assert mean.confusion.tolist() == [[5, 3], [0, 8]]
    assert "(± 13.6% over 2 runs)" in str(mean)
    assert over_runs(runs[:1]).spread is None


@pytest.mark.parametrize(
    ("truth", "predicted", "classes", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((1, 2), int), 2, "2 x 3 pixels, the prediction 1 x 2; .*enlarge"),
        (np.full((2, 2), 255), np.zeros((2, 2), int), 2, r"the truth has the labels \[255\]; expected 0 to 1.*ignore"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), 2, r"the prediction has the labels \[-1\]"),
        (np.zeros((2, 2), int), np.zeros((2, 2)), 2, "the prediction has shape .* float64.*argmax"),
        (np.zeros(4, int), np.zeros(4, int), 2, r"the truth has shape \(4,\)"),
        (np.zeros((2, 2), int), np.zeros((2, 2), int), 0, "classes=0; expected an integer of at least 1"),
    ],
)
def test_maps_that_cannot_be_compared_are_named(truth, predicted, classes, message):
    with pytest.raises(SampleError, match=message):
        confusion(truth, predicted, classes, [VOID])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no confusions"),
        ([np.eye(2, dtype=int), np.eye(3, dtype=int)], r"confusion 1 has shape \(3, 3\)"),
        ([np.eye(2)], "confusion 0 has shape .* float64"),
        ([-np.eye(2, dtype=int)], "confusion 0"),
        (np.zeros((2, 3), int), r"confusion 0 has shape \(3,\)"),
        (np.zeros((2, 3, 3), int), "no pixel of 2 images is labelled"),
    ],
)
def test_what_are_no_confusions_is_named(given, message):
    with pytest.raises(SampleError, match=message):
        segmentation(given)


def test_results_that_do_not_go_together_are_refused():
    a = confusions()
    with pytest.raises(SampleError, match="4 names for 5 classes"):
        segmentation(a, ["a", "b", "c", "d"])
    with pytest.raises(SampleError, match="different truths"):
        difference(a, a[::-1])
    with pytest.raises(SampleError, match=r"\(6, 5\) and \(5, 5\)"):
        difference(a, a[:5])
    with pytest.raises(SampleError, match="draws=0"):
        difference(a, a, draws=0)
    with pytest.raises(SampleError, match="level=95"):
        difference(a, a, level=95)
    with pytest.raises(SampleError, match="run 1 has another truth"):
        over_runs([segmentation(a), segmentation(a[:5])])
    with pytest.raises(SampleError, match="no results"):
        over_runs([])
