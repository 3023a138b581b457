import math

import numpy as np
import pytest
import torch
from PIL import Image

from sporeprint import Fungi, Recipe
from sporeprint.data.scenes.scenes import open_scenes, read_scene
from sporeprint.errors import SampleError
from sporeprint.features.dense.dense_settings import Dense
from sporeprint.segment.propagate import Propagator, propagate

FOUR = 1 / math.log(4)  # temperature at which exp(similarity / temperature) is 4 ** similarity


def directions(*degrees):
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def propagator(degrees, histograms, **options):
    features, shares = torch.from_numpy(directions(*degrees)), torch.tensor(histograms, dtype=torch.float32)
    return Propagator(features, shares, np.arange(shares.shape[1]), **options)


def rows(*degrees):
    """Features of an image one patch high."""
    return directions(*degrees)[None]


def test_a_worked_example_of_votes():
    carry = propagator([0, 60, 90], [[1, 0], [1, 0], [0, 1]], k=2, temperature=FOUR)
    np.testing.assert_allclose(carry.votes(directions(0)), [[3 / 4, 1 / 4]], rtol=1e-5)  # (4 + 2) / 2 against 1


def test_only_the_nearest_patches_of_each_class_vote():
    carry = propagator([0, 60, 90], [[1, 0], [1, 0], [0, 1]], k=1, temperature=FOUR)
    np.testing.assert_allclose(carry.votes(directions(0)), [[4 / 5, 1 / 5]], rtol=1e-5)


def test_a_patch_of_two_classes_weighs_in_each_by_its_share():
    carry = propagator([0, 60], [[1, 0], [0.5, 0.5]], k=2, temperature=FOUR)
    ours, theirs = (4 * 1 + 2 * 0.5) / 1.5, 2.0
    np.testing.assert_allclose(
        carry.votes(directions(0)), [[ours / (ours + theirs), theirs / (ours + theirs)]], rtol=1e-5
    )


def test_marking_more_of_the_same_does_not_outvote_a_small_class():
    even = propagator([0, 90], [[1, 0], [0, 1]])
    many = propagator([0] * 100 + [90], [[1, 0]] * 100 + [[0, 1]], k=500)
    queries = directions(10, 44, 46, 80)
    np.testing.assert_allclose(many.votes(queries), even.votes(queries), rtol=1e-4)
    assert many.votes(queries).argmax(axis=1).tolist() == [0, 0, 1, 1]


def test_equals_a_loop_over_classes():
    random = np.random.default_rng(0)
    features, queries = random.normal(size=(40, 5)), random.normal(size=(7, 5))
    features, queries = (
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32) for vectors in (features, queries)
    )
    histograms = (random.dirichlet(np.ones(3), 40) * (random.random((40, 3)) < 0.6)).astype(np.float32)
    carry = Propagator(torch.tensor(features), torch.tensor(histograms), np.arange(3), k=4, temperature=0.1)
    votes = carry.votes(queries)
    for query, shares in zip(queries, votes, strict=True):
        scores = []
        for label in range(3):
            pairs = [(f @ query, h[label]) for f, h in zip(features, histograms, strict=True) if h[label]]
            own = sorted(pairs, reverse=True)
            scores.append(sum(h * math.exp(s / 0.1) for s, h in own[:4]) / sum(h for _, h in own[:4]))
        np.testing.assert_allclose(shares, np.array(scores) / sum(scores), rtol=1e-4)


def test_unlabelled_pixels_take_no_part_and_label_values_come_back():
    labels = np.array([[7, 7, 255, 255, 200, 255]])  # three patches of two pixels
    carry = Propagator.of([(rows(0, 30, 90), labels)])
    assert len(carry) == 2
    carried = carry(rows(80, 10), (1, 2))
    assert carried.labels.tolist() == [[200, 7]]
    assert carried.labels.dtype == np.int32


def test_several_references_are_joined():
    first, other = np.array([[1, 255]]), np.array([[255, 2]])
    carry = Propagator.of([(rows(0, 45), first), (rows(45, 90), other)])
    assert carry(rows(10, 80), (1, 2)).labels.tolist() == [[1, 2]]


def test_shares_are_interpolated_between_the_centres_of_patches():
    carry = propagator([0, 90], [[1, 0], [0, 1]], temperature=FOUR)  # at 0 degrees 4 to 1, at 90 degrees 1 to 4
    carried = carry(rows(0, 90), (1, 4))  # centres at pixels 0.5 and 2.5
    assert carried.labels.tolist() == [[0, 0, 1, 1]]
    np.testing.assert_allclose(carried.confidence, [[0.8, 0.65, 0.65, 0.8]], rtol=1e-5)
    assert carried.confidence.dtype == np.float32


def test_a_tie_goes_to_the_lower_value():
    carry = propagator([0, 90], [[1, 0], [0, 1]])
    assert carry(rows(45), (1, 1)).labels.tolist() == [[0]]


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ([[3, 3]], "only the label 3 is given; .* mark the background too"),
        ([[0, 255]], "only the label 0 is given apart from 255, .* if 255 is a label, do not ignore it"),
        ([[255, 255]], "no label is given"),
    ],
)
def test_one_label_alone_cannot_be_propagated(labels, complaint):
    with pytest.raises(SampleError, match=complaint):
        Propagator.of([(rows(0, 90), np.array(labels))])


@pytest.mark.parametrize("options", [{"k": 0}, {"k": True}, {"temperature": 0}, {"temperature": math.nan}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(SampleError, match="expected"):
        propagator([0, 90], [[1, 0], [0, 1]], **options)


def halves(turned=False):
    """Black next to white, or above it."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 32:] = 255
    return Image.fromarray(image.transpose(1, 0, 2) if turned else image)


def plain():
    return Fungi(Recipe(backbone="tiny", dtype="float32", dense=Dense(objectives=())))


def test_two_points_on_one_image_label_others():
    labels = np.full((64, 64), 255)
    labels[30, 10], labels[30, 50] = 4, 9
    same, other = propagate(plain(), [(halves(), labels)], [halves(), halves(turned=True)])
    white = np.arange(64) >= 32
    assert (same.labels == np.where(white, 9, 4)[None]).mean() > 0.95
    assert (other.labels == np.where(white, 9, 4)[:, None]).mean() > 0.95


def test_labels_of_another_size_than_their_image():
    with pytest.raises(SampleError, match=r"32 x 64 pixels \(width x height\), their image is 64 x 64"):
        next(propagate(plain(), [(halves(), np.zeros((64, 32), int))], []))


@pytest.mark.real
def test_one_frame_of_a_street_labels_the_next_ones(shared):
    scenes = [read_scene(scene) for scene in open_scenes(shared / "data/camvid/train.parquet", limit=4)]
    fungi = Fungi(Recipe(backbone=str(shared / "models/deit-tiny"), dense=Dense(objectives=())))
    images = [image for image, _ in scenes]
    results = list(propagate(fungi, [scenes[0]], images[1:], ignore=(11,)))
    truth = np.stack([labels for _, labels in scenes[1:]])
    right = np.stack([result.labels for result in results]) == truth
    assert right[truth != 11].mean() > 0.7
