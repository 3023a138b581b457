"""Answers do not depend on the order of training and test rows: with duplicates, ties and constant features."""

import numpy as np
import pytest

from sporeprint.evaluate.choice.candidates import choices
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.evaluate.cluster import cluster
from sporeprint.evaluate.demonstrations import demonstrations
from sporeprint.evaluate.knn_accuracy import knn
from sporeprint.evaluate.multilabel import multilabel
from sporeprint.evaluate.probe import probe
from sporeprint.evaluate.regress import regress
from sporeprint.evaluate.retrieve import retrieve
from sporeprint.evaluate.similarity import anisotropy, cka, effective_rank
from sporeprint.predictors.knn import choose_k, knn_predict

ROWS, TESTS = 60, 20


def lattice(rng, rows):
    return rng.integers(-1, 2, (rows, 3)).astype(np.float32)


def doubles(rng, rows):
    return np.random.default_rng(9).standard_normal((7, 5)).astype(np.float32)[rng.integers(0, 7, rows)]


def constant(rng, rows):
    return np.full((rows, 4), 0.1, np.float32)


def zeros(rng, rows):
    return np.zeros((rows, 4), np.float32)


KINDS = [lattice, doubles, constant, zeros]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def data(request):
    """Training rows and labels, test rows and labels."""
    rng = np.random.default_rng(3)
    labels, test_labels = rng.choice(list("abc"), ROWS, p=[0.3, 0.5, 0.2]), rng.choice(list("abc"), TESTS)
    return request.param(rng, ROWS), labels, request.param(rng, TESTS), test_labels


def orders(rows):
    return [np.arange(rows)[::-1], *(np.random.default_rng(seed).permutation(rows) for seed in range(3))]


@pytest.mark.parametrize("vote", ["uniform", "distance", "softmax"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 4, 20, 59])
def test_predictions_of_neighbours(data, k, metric, vote):
    train, labels, test, _ = data
    expected = knn_predict(train, labels, test, k, metric, vote)
    for order, asked in zip(orders(ROWS), orders(TESTS), strict=True):
        actual = knn_predict(train[order], labels[order], test[asked], k, metric, vote)
        assert actual.tolist() == expected[asked].tolist()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_k_and_figures_of_neighbours(data, metric):
    train, labels, test, truth = data
    expected = knn(train, labels, test, truth, "auto", metric)
    assert choose_k(train, labels, metric) == expected.leave_one_out
    for order, asked in zip(orders(ROWS), orders(TESTS), strict=True):
        assert knn(train[order], labels[order], test[asked], truth[asked], "auto", metric) == expected


@pytest.mark.parametrize("word", ["kNN", "class means", "LDA", "ridge"])
def test_leave_one_out_of_joined_blocks(data, word):
    train, labels, *_ = data
    blocks = {"embedding": train, "kl": train[:, ::-1] + 1}
    candidates = choices(list(blocks))
    expected = leave_one_out_of(blocks, labels, candidates, (word,))
    for order in orders(ROWS):
        turned = {name: rows[order] for name, rows in blocks.items()}
        actual = leave_one_out_of(turned, labels[order], candidates, (word,))
        for name in candidates:
            assert actual[name][word].loss == pytest.approx(expected[name][word].loss, abs=1e-3), name
            if word == "kNN":
                assert actual[name][word].right.tolist() == expected[name][word].right[order].tolist(), name


@pytest.mark.parametrize("method", ["knn", "ridge"])
def test_figures_of_a_regression(data, method):
    train, _, test, _ = data
    targets, truth = np.random.default_rng(1).standard_normal((ROWS, 2)), np.random.default_rng(2).random((TESTS, 2))
    expected = regress(train, targets, test, truth, method)
    for order, asked in zip(orders(ROWS), orders(TESTS), strict=True):
        actual = regress(train[order], targets[order], test[asked], truth[asked], method)
        assert (actual.k, actual.penalty) == (expected.k, expected.penalty)
        assert actual.value == pytest.approx(expected.value, rel=1e-12)
        assert (actual.mae, actual.rmse) == (pytest.approx(expected.mae), pytest.approx(expected.rmse))


@pytest.mark.parametrize("method", ["knn", "probe"])
def test_figures_of_several_labels_a_row(data, method):
    train, labels, test, truth = data
    known, wanted = (np.stack([side == name for name in "abc"], 1) for side in (labels, truth))
    known[:, 0] |= labels == "c"
    expected = multilabel(train, known, test, wanted, method)
    for order, asked in zip(orders(ROWS), orders(TESTS), strict=True):
        actual = multilabel(train[order], known[order], test[asked], wanted[asked], method)
        assert (actual.k, actual.penalty) == (expected.k, expected.penalty)
        assert (actual.value, actual.micro) == (pytest.approx(expected.value), pytest.approx(expected.micro))


def test_figures_of_a_probe(data):
    train, labels, test, truth = data
    expected = probe(train, labels, test, truth)
    for order, asked in zip(orders(ROWS), orders(TESTS), strict=True):
        assert probe(train[order], labels[order], test[asked], truth[asked]) == expected


def test_few_shots_are_the_same_rows(data):
    train, labels, test, truth = data
    for evaluate in (knn, probe):
        expected = evaluate(train, labels, test, truth, shots=3)
        for order in orders(ROWS):
            assert evaluate(train[order], labels[order], test, truth, shots=3) == expected


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_figures_of_a_retrieval(data, metric):
    train, labels, test, truth = data
    if metric == "cosine":
        train, test = train + 2, test + 2
    expected, alone = retrieve(test, truth, train, labels, metric=metric), retrieve(train, labels, metric=metric)
    for order, asked in zip(orders(ROWS), orders(TESTS), strict=True):
        for actual, figures in (
            (retrieve(test[asked], truth[asked], train[order], labels[order], metric=metric), expected),
            (retrieve(train[order], labels[order], metric=metric), alone),
        ):
            assert actual.value == pytest.approx(figures.value, rel=1e-12)
            assert actual.precision_at == pytest.approx(figures.precision_at, rel=1e-12)
            assert actual.recall_at == pytest.approx(figures.recall_at, rel=1e-12)


def test_clusters(data):
    train, labels, *_ = data
    expected = cluster(train, labels)
    for order in orders(ROWS):
        assert cluster(train[order], labels[order]) == expected


def test_prompts(data):
    train, labels, test, _ = data
    texts, asking = [f"text {row}" for row in range(ROWS)], [f"asked {row}" for row in range(TESTS)]
    for choose in ("nearest", "balanced"):
        expected = [each.prompt for each in demonstrations(train, texts, labels, test, asking, 5, choose)]
        for order in orders(ROWS):
            turned = demonstrations(train[order], [texts[row] for row in order], labels[order], test, asking, 5, choose)
            assert [each.prompt for each in turned] == expected


def test_figures_of_blocks(data):
    train = data[0]
    other = train[:, :2] ** 2 + 1
    for order in orders(ROWS):
        for figure in (effective_rank, anisotropy):
            assert figure(train[order]) == pytest.approx(figure(train), nan_ok=True, rel=1e-9)
        assert cka(train[order], other[order]) == pytest.approx(cka(train, other), nan_ok=True, rel=1e-9)


@pytest.mark.parametrize("features", [constant, zeros])
def test_constant_features_give_the_share_of_the_most_frequent_class(features):
    labels, truth = np.array(list("abb") * 20), np.array(list("bbba") * 5)
    train, test = features(None, 60), features(None, 20)
    for metric in ("euclidean", "cosine"):
        result = knn(train, labels, test, truth, "auto", metric)
        assert result.value == 3 / 4
        assert result.leave_one_out == {1: 2 / 3, 3: 2 / 3, 5: 2 / 3, 10: 2 / 3, 20: 2 / 3}
        assert result.k == 1
    assert probe(train, labels, test, truth).value == 3 / 4
    assert cluster(train, labels).value == 2 / 3
    assert retrieve(test + 1, truth, train + 1, labels).precision_at[1] == pytest.approx(3 / 4 * 2 / 3 + 1 / 4 * 1 / 3)
    assert multilabel(train, [[x] for x in labels], test, [[x] for x in truth]).per_class == {"a": 1 / 4, "b": 3 / 4}
    assert regress(train, np.arange(60.0), test, np.arange(20.0)).mae == (pytest.approx(np.mean(29.5 - np.arange(20))),)
