import numpy as np
import pytest

from sporeprint.errors import SampleError
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.mixture import MixtureLDA
from sporeprint.predictors.predictor import LeftOut
from sporeprint.predictors.ridge import Ridge
from sporeprint.predictors.semi_supervised import folds_of
from sporeprint.predictors.unlabelled import with_unlabelled


def drawn(seed=0, shots=5, rows=200, width=40):
    """Labelled rows, their labels, unlabelled rows, their true labels: two classes of equal size."""
    rng = np.random.default_rng(seed)
    truth = np.tile([0, 1], rows // 2)
    points = rng.normal(size=(rows, width)) + np.where(truth[:, None], 0.35, -0.35)
    return points[: 2 * shots], truth[: 2 * shots], points[2 * shots :], truth[2 * shots :]


class Misled(MixtureLDA):
    """Its unlabelled rows teach it the opposite."""

    def _solve(self, labelled, codes, unlabelled):
        return -super()._solve(labelled, codes, unlabelled)


def test_rows_that_do_not_harm_are_used_and_give_what_em_gives():
    X, y, others, truth = drawn()
    answer = with_unlabelled(X, y, others)
    em = MixtureLDA().fit(np.concatenate([X, others]), np.concatenate([y, np.full(len(others), -1)]))
    assert answer.used
    np.testing.assert_array_equal(answer.probabilities, em.label_distributions_[len(X) :])
    assert (answer.predictions == truth).mean() > (ShrunkLDA().fit(X, y).predict(others) == truth).mean()


@pytest.mark.parametrize(("sure", "used"), [(20.0, False), (-20.0, True)])
def test_what_would_answer_otherwise_is_what_they_are_compared_with(sure, used):
    X, y, others, _ = drawn(seed=3)
    scores = sure * (2 * np.eye(2)[y] - 1)
    answer = with_unlabelled(X, y, others, guard=0, instead=LeftOut(scores, np.array([0, 1]), y, 1.0))
    assert (answer.used, answer.before) == (used, float(sure > 0))


@pytest.mark.parametrize("names", [["no", "yes"], [-1, 7]])
def test_everything_that_answers_speaks_of_the_labels(names):
    X, y, others, _ = drawn()
    labels = np.array(names)[y]
    answer = with_unlabelled(X, labels, others)
    assert answer.used
    assert answer.predictor.transduction_.tolist() == [*labels, *answer.predictions]
    assert set(answer.predictor.predict(others)) == set(names)
    assert answer.left_out.predictions.tolist() == labels.tolist() == answer.predictor.left_out_.predictions.tolist()
    unused = with_unlabelled(X, labels, others, method=Misled())
    assert not unused.used
    assert unused.left_out.predictions.tolist() == labels.tolist()


def test_both_are_compared_on_the_same_hidden_labels():
    X, y, others, _ = drawn(shots=10)
    answer = with_unlabelled(X, y, others)
    folds, right = folds_of(y), []
    em = MixtureLDA().fit(np.concatenate([X, others]), np.concatenate([y, np.full(len(others), -1)])).left_out_
    for fold in range(5):
        right += (
            ShrunkLDA().fit(X[folds != fold], y[folds != fold]).predict(X[folds == fold]) == y[folds == fold]
        ).tolist()
    assert answer.before == np.mean(right)
    assert answer.after == em.right.mean()
    changes = em.losses - ShrunkLDA().leave_one_out(X, y, groups=folds).losses
    assert answer.loss == pytest.approx(changes.mean())
    assert answer.error == pytest.approx(np.std(changes, ddof=1) / np.sqrt(20))
    assert answer.why == (
        f"Unlabelled rows are used: of 20 labels, hidden in turn, {answer.after:.1%} are found with them, "
        f"{answer.before:.1%} without."
    )


def test_rows_that_surely_harm_are_not_used():
    X, y, others, _ = drawn(shots=10)
    answer = with_unlabelled(X, y, others, method=Misled())
    lda = ShrunkLDA().fit(X, y)
    assert answer.loss > 2 * answer.error
    assert not answer.used
    assert answer.why.startswith("Unlabelled rows are not used, they harm: of 20 labels, hidden in turn, ")
    np.testing.assert_array_equal(answer.probabilities, lda.predict_proba(others))
    assert with_unlabelled(X, y, others, method=Misled(), guard=np.inf).used


def test_a_guard_below_zero_asks_for_a_sure_gain():
    X, y, others, _ = drawn(shots=10)
    answer = with_unlabelled(X, y, others)
    strict = answer.loss / answer.error
    assert with_unlabelled(X, y, others, guard=strict + 0.01).used
    assert not with_unlabelled(X, y, others, guard=strict - 0.01).used


def test_the_predictor_that_answers_without_them_may_be_another():
    X, y, others, _ = drawn(shots=10)
    answer = with_unlabelled(X, y, others, Ridge(), Misled())
    assert not answer.used
    np.testing.assert_array_equal(answer.probabilities, Ridge().fit(X, y).predict_proba(others))


def test_folds_have_about_as_many_rows_of_each_class():
    codes = np.array([1, 0, 0, 1, 0, 0, 0, 1, 0, 2])
    folds = folds_of(codes)
    assert folds.tolist() == [0, 0, 1, 1, 2, 3, 4, 2, 0, 0]
    assert folds_of(np.array([0, 1, 2])).tolist() == [0, 0, 0]


def test_fewer_than_four_labels_a_class_cannot_show_harm():
    X, y, others, _ = drawn(shots=4)
    assert with_unlabelled(X, y, others).left_out is not None
    answer = with_unlabelled(X[1:], y[1:], others)
    assert (answer.used, answer.left_out, answer.predictions.shape) == (False, None, (192,))
    assert np.isnan(answer.before)
    assert answer.why == (
        "Unlabelled rows are not used: 7 labels of 2 classes are too few to see harm by; label 4 a class."
    )


def test_features_wider_than_all_rows_are_not_used():
    X, y, others, _ = drawn(rows=40, width=40)
    assert with_unlabelled(X, y, others).why.startswith("Unlabelled rows are used: of 10 labels")
    answer = with_unlabelled(X[1:], y[1:], others)
    assert (answer.used, answer.left_out) == (False, None)
    assert "features of 40 numbers are wider than the 39 rows in all" in answer.why


def test_one_class_is_all_there_is():
    X, _, others, _ = drawn()
    answer = with_unlabelled(X, ["same"] * 10, others)
    assert set(answer.predictions.tolist()) == {"same"}
    assert answer.why == "Unlabelled rows are not used: all labels are of one class."


def test_minus_one_and_texts_are_labels_like_others():
    X, y, others, _ = drawn()
    signs = with_unlabelled(X, np.where(y == 0, -1, 1), others)
    texts = with_unlabelled(X, np.where(y == 0, "no", "yes"), others)
    assert signs.classes.tolist() == [-1, 1]
    np.testing.assert_allclose(texts.predictor.predict_proba(others), texts.probabilities, atol=1e-12)
    assert texts.predictor.predict(others).tolist() == texts.predictions.tolist()
    assert texts.classes.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(signs.probabilities, texts.probabilities)


def test_a_class_with_one_label_does_not_stop_the_others():
    X, y, others, _ = drawn(shots=10)
    y = y.copy()
    y[0] = 2
    answer = with_unlabelled(X, y, others)
    assert np.isfinite(answer.loss)
    assert np.isfinite(answer.probabilities).all()


@pytest.mark.parametrize("bad", [np.empty((0, 40)), np.full((3, 40), np.nan), np.ones((3, 39))])
def test_no_rows_nan_and_other_widths_are_refused(bad):
    X, y, _, _ = drawn()
    with pytest.raises(SampleError, match=r"unlabelled features have shape \(0, 40\)|3 of 3 unlabelled|39"):
        with_unlabelled(X, y, bad)
