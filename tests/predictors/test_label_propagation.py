import numpy as np
import pytest
from sklearn.semi_supervised import LabelSpreading

from sporeprint.errors import SampleError
from sporeprint.predictors.label_propagation import Propagation, graph_of
from sporeprint.predictors.lda import ShrunkLDA


def circles(rows=60, labelled=(0, 1, 2, 3)):
    """Rows near two rays of a plane and a third direction, their classes by turns, and y with -1 where unknown."""
    rng = np.random.default_rng(0)
    truth = np.arange(rows) % 2
    angles = truth + rng.uniform(-0.55, 0.55, rows)
    points = np.stack([np.cos(angles), np.sin(angles), 0.1 * rng.normal(size=rows)], axis=1)
    y = np.full(rows, -1)
    y[list(labelled)] = truth[list(labelled)]
    return points, truth, y


def slow_graph(rows, count):
    """The weights of the edges, row by row."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    squares = ((unit[:, None] - unit[None]) ** 2).sum(axis=2)
    weights = np.zeros(squares.shape)
    for row in range(len(rows)):
        others = np.setdiff1d(np.argsort(squares[row], kind="stable"), [row], assume_unique=True)[:count]
        for other in others:
            weights[row, other] = np.exp(-4 * squares[row, other] / squares[row, others[-1]])
    return np.maximum(weights, weights.T)


@pytest.mark.parametrize("alpha", [0.5, 0.95])
def test_it_is_the_limit_of_label_spreading_on_the_same_graph(alpha):
    rows, _, y = circles()
    model = Propagation(5, alpha, normalise=False).fit(rows, y)
    weights = slow_graph(rows, 5)
    oracle = LabelSpreading(kernel=lambda a, b: weights, alpha=alpha, max_iter=100_000, tol=1e-13).fit(rows, y)
    model_shares = model.label_distributions_[4:] ** model.temperature_
    shares = model_shares / model_shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares, oracle.label_distributions_[4:], atol=1e-6)


def test_the_graph_is_that_of_a_loop_over_rows():
    rows, _, _ = circles()
    np.testing.assert_allclose(graph_of(rows, 7).toarray(), slow_graph(rows, 7), atol=1e-12)


def test_normalised_classes_share_the_unlabelled_rows_as_they_share_the_labels():
    rows, _, y = circles(labelled=(0, 1, 2, 4))  # one label of class 1, three of class 0
    model = Propagation(5).fit(rows, y)
    weights = slow_graph(rows, 5)
    degrees = weights.sum(axis=1)
    known = np.zeros((60, 2))
    known[y >= 0, y[y >= 0]] = 1
    spread = np.linalg.solve(np.eye(60) - 0.8 * weights / np.sqrt(np.outer(degrees, degrees)), known)
    spread *= np.array([0.75, 0.25]) / spread[y < 0].mean(axis=0)
    expected = (spread / spread.sum(axis=1, keepdims=True)) ** (1 / model.temperature_)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.label_distributions_[y < 0], expected[y < 0], atol=1e-6)


def test_rows_that_no_path_joins_to_a_label_are_answered_by_lda():
    rng = np.random.default_rng(0)
    near, far = np.array([1.0, 0, 0, 0]), np.array([0, 0, 0, 1.0])
    rows = np.concatenate([near + 0.05 * rng.normal(size=(12, 4)), far + 0.05 * rng.normal(size=(8, 4))])
    rows[:12:2, 1] += 0.3
    y = np.full(20, -1)
    y[:6] = [0, 1] * 3
    model = Propagation(3).fit(rows, y)
    assert model.unreached_ == 8
    lda = ShrunkLDA().fit(rows[:6], y[:6])
    assert (model.transduction_[12:] == lda.predict(rows[12:])).all()
    assert Propagation(3).fit(rows[:12], y[:12]).unreached_ == 0


def test_duplicates_are_neighbours_at_full_weight():
    rows, _, y = circles()
    rows, y = np.concatenate([rows, np.repeat(rows[:1], 8, axis=0)]), np.concatenate([y, [-1] * 8])
    model = Propagation(5).fit(rows, y)
    assert np.isfinite(model.label_distributions_).all()
    assert (model.transduction_[60:] == y[0]).all()


def test_more_neighbours_than_rows_join_all_rows():
    rows, _, y = circles()
    few = Propagation(100).fit(rows[:8], y[:8])
    assert few.transduction_[:4].tolist() == y[:4].tolist()
    assert np.isfinite(few.label_distributions_).all()


def test_texts_new_rows_and_labelled_rows():
    rows, truth, y = circles()
    names = np.array([None if code < 0 else ("left", "right")[code] for code in y], dtype=object)
    model = Propagation(5).fit(rows, names)
    assert model.transduction_[:4].tolist() == names[:4].tolist()
    new = np.stack([np.cos([0.0, 1.0]), np.sin([0.0, 1.0]), [0.0, 0.0]], axis=1)
    assert model.predict(new).tolist() == ["left", "right"]
    np.testing.assert_allclose(model.predict_proba(new).sum(axis=1), 1)
    assert (model.transduction_ == np.array(["left", "right"])[truth]).mean() > 0.8


def test_a_new_row_takes_what_its_equal_neighbours_have():
    rows, _, y = circles()
    model = Propagation(1).fit(rows, y)
    np.testing.assert_allclose(model.predict_proba(rows[10:20]), model.label_distributions_[10:20], atol=1e-9)


def test_all_rows_labelled_and_one_row_alone():
    rows, truth, _ = circles()
    assert (Propagation(5).fit(rows, truth).transduction_ == truth).all()
    assert Propagation(5).fit(rows[:1], [7]).transduction_.tolist() == [7]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 2}, "alpha=2; expected a number of at least 0 and below 1"),
        ({"alpha": 1}, "alpha=1;"),
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"alpha": "a"}, "alpha='a'"),
        ({"neighbours": 0}, "neighbours=0; expected an integer of at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    rows, _, y = circles()
    with pytest.raises(SampleError, match=message):
        Propagation(**settings).fit(rows, y)


def test_bad_rows_are_refused():
    rows, _, y = circles()
    with pytest.raises(SampleError, match="none of 60 rows has a label"):
        Propagation().fit(rows, np.full(60, -1))
    rows[3, 2] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        Propagation().fit(rows, y)
