import json
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from sporeprint.errors import SampleError
from sporeprint.evaluate.probe import probe
from sporeprint.evaluate.shots import draws
from sporeprint.predictors.logistic import FALLBACK, PENALTIES, Probe, held_out


def clouds(rows, seed, classes=3, width=6, apart=1.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    centres = apart * np.random.default_rng(99).standard_normal((classes, width))
    return centres[labels] + rng.standard_normal((rows, width)), labels


def slow_probabilities(train, labels, test, penalty, standardise=False):
    """The documented objective, minimised over every weight by a general optimiser."""
    rows, queries = train - train.mean(axis=0), test - train.mean(axis=0)
    if standardise:
        rows, queries = rows / train.std(axis=0), queries / train.std(axis=0)
    length = np.sqrt((rows**2).sum(axis=1).mean())
    rows, queries = rows / length, queries / length
    classes, width = labels.max() + 1, train.shape[1]

    def objective(flat):
        weights, biases = flat[:-classes].reshape(classes, width), flat[-classes:]
        logits = rows @ weights.T + biases
        entropy = (logsumexp(logits, axis=1) - logits[np.arange(len(rows)), labels]).mean()
        off = (softmax(logits, axis=1) - np.eye(classes)[labels]) / len(rows)
        return entropy + penalty / 2 * (weights**2).sum(), np.r_[
            (off.T @ rows + penalty * weights).ravel(), off.sum(axis=0)
        ]

    best = minimize(objective, np.zeros(classes * (width + 1)), jac=True, options={"gtol": 1e-9, "maxiter": 10_000}).x
    return softmax(queries @ best[:-classes].reshape(classes, width).T + best[-classes:], axis=1)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("width", [4, 70])  # 70: more than twice the rows
@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_probabilities_minimise_the_documented_objective(width, penalty, standardise):
    (train, labels), (test, _) = clouds(30, 0, width=width), clouds(10, 1, width=width)
    spread = np.linspace(0.1, 3, width)
    train, test = train * spread + 5, test * spread + 5
    fitted = Probe([penalty], standardise=standardise).fit(train, labels)
    slow = slow_probabilities(train, labels, test, penalty, standardise)
    assert softmax(test @ fitted.coef_.T + fitted.intercept_, axis=1) == pytest.approx(slow, abs=2e-3)
    assert fitted.predict(test).tolist() == slow.argmax(axis=1).tolist()


def test_a_result_does_not_depend_on_the_features_scale_or_origin():
    (train, labels), (test, test_labels) = clouds(60, 0), clouds(40, 1)
    first = probe(train, labels, test, test_labels)
    moved = probe(train * 1e-3 + 7, labels, test * 1e-3 + 7, test_labels)
    assert (moved.value, moved.penalty, moved.validation) == (first.value, first.penalty, first.validation)
    assert 0.5 < first.value < 1


def test_the_penalty_is_the_best_on_the_held_out_rows_and_then_all_rows_are_fitted():
    (train, labels), (test, test_labels) = clouds(80, 0), clouds(60, 1)
    result = probe(train, labels, test, test_labels, seed=4)
    first = np.argsort(train[:, 0])  # rows are drawn by content, not by the order given
    train, labels = train[first], labels[first]
    held = held_out(labels, 0.2, 4)
    for penalty in (PENALTIES[0], PENALTIES[5], PENALTIES[-1]):
        alone = probe(train[~held], labels[~held], train[held], labels[held], penalties=[penalty])
        assert result.validation[penalty] == pytest.approx(alone.value, abs=1 / held.sum())
    assert list(result.validation) == list(PENALTIES)
    best = max(result.validation.values())
    assert result.penalty == max(penalty for penalty, accuracy in result.validation.items() if accuracy == best)
    again = probe(train, labels, test, test_labels, penalties=[result.penalty])
    assert (again.value, again.penalty, again.validation) == (result.value, result.penalty, {})


def test_of_equally_good_penalties_the_strongest_is_taken():
    train, labels = clouds(40, 0, apart=50.0)
    assert probe(train, labels, train, labels, penalties=[1e-6, 1e-3, 1e-5]).penalty == 1e-3


def test_a_needless_direction_of_little_variance_is_left_alone_unless_standardised():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 100)
    train = np.c_[labels * 4.0, rng.standard_normal((200, 30)) * 1e-3]
    weights = [
        np.abs(fitted.coef_[1][1:] * train[:, 1:].std(axis=0)).max() / np.abs(fitted.coef_[1][0] * train[:, 0].std())
        for fitted in (Probe([1e-4]).fit(train, labels), Probe([1e-4], standardise=True).fit(train, labels))
    ]
    assert weights[0] < 1e-3
    assert weights[1] > 1e-2


def test_held_out_is_a_share_of_each_class_but_never_all_of_it():
    codes = np.repeat([0, 1, 2, 3, 4], [1, 2, 3, 10, 41])
    held = held_out(codes, 0.2, 0)
    assert np.bincount(codes[held], minlength=5).tolist() == [0, 1, 1, 2, 8]
    assert np.bincount(codes[held_out(codes, 0.99, 0)], minlength=5).tolist() == [0, 1, 2, 9, 40]
    assert (held == held_out(codes, 0.2, 0)).all()
    assert (held != held_out(codes, 0.2, 1)).any()


def test_a_class_that_is_absent_from_train_counts_as_wrong():
    train, labels = [[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]], ["a", "a", "b", "b"]
    result = probe(train, labels, [[0.0, 0.1], [5.0, 5.1], [0.1, 0.1], [9.0, 0.0]], ["a", "b", "a", "c"])
    assert (result.value, result.mean_per_class) == (3 / 4, pytest.approx(2 / 3))


def test_of_a_single_class_it_is_predicted():
    result = probe([[1.0], [2.0]], ["a", "a"], [[1.0], [5.0], [2.0]], ["a", "b", "a"])
    assert (result.value, result.mean_per_class) == (pytest.approx(2 / 3), 0.5)
    assert (result.penalty, result.validation, result.converged) == (None, {}, True)
    assert probe([[1.0]], [3], [[1.0]], [3]).value == 1


def test_a_class_of_one_row_is_fitted_but_not_validated():
    train, labels = [[0.0], [0.1], [0.2], [9.0]], [0, 0, 0, 1]
    result = probe(train, labels, [[0.0], [9.0]], [0, 1], penalties=[1e-3, 1e-5])
    assert result.value == 1
    assert result.validation == {1e-3: 1.0, 1e-5: 1.0}


def test_where_every_class_has_one_row_the_penalty_is_the_fixed_one():
    result = probe([[0.0], [1.0], [2.0]], ["a", "b", "c"], [[0.0], [2.0]], ["a", "c"])
    assert (result.penalty, result.validation, result.value) == (FALLBACK, {}, 1)
    assert probe([[0.0], [1.0]], ["a", "b"], [[0.0]], ["a"], penalties=[0.5]).penalty == 0.5


@pytest.mark.parametrize("width", [1, 9])
@pytest.mark.parametrize("standardise", [False, True])
def test_of_constant_features_the_most_frequent_class_is_predicted(width, standardise):
    train = np.full((5, width), 0.1, dtype=np.float32)
    fitted = Probe(standardise=standardise).fit(train, list("abbab"))
    assert fitted.predict(train[:2] + 1).tolist() == ["b", "b"]


def test_one_constant_dimension_changes_nothing():
    (train, labels), (test, _) = clouds(60, 0), clouds(40, 1)
    plain = Probe([1e-3], standardise=True).fit(train, labels)
    more = Probe([1e-3], standardise=True).fit(np.c_[train, np.full(60, 0.3)], labels)
    assert more.coef_[:, :6] == pytest.approx(plain.coef_, rel=1e-3)
    assert more.predict(np.c_[test, np.full(40, 0.7)]).tolist() == plain.predict(test).tolist()


def test_few_shot_draws_are_probes_on_the_drawn_rows():
    (train, labels), (test, test_labels) = clouds(90, 0), clouds(60, 1)
    result = probe(train, labels, test, test_labels, shots=5, draws=3, seed=7)
    first = np.argsort(train[:, 0])
    train, labels = train[first], labels[first]
    each = [
        probe(train[rows], labels[rows], test, test_labels, seed=7 + number)
        for number, rows in enumerate(draws(labels, 5, 3, 7))
    ]
    values = [single.value for single in each]
    mean = sum(values) / 3
    assert result.value == pytest.approx(mean)
    assert result.spread == pytest.approx((sum((value - mean) ** 2 for value in values) / 2) ** 0.5)
    assert result.mean_per_class == pytest.approx(sum(single.mean_per_class for single in each) / 3)
    assert [draw["penalty"] for draw in result.draws] == [single.penalty for single in each]
    assert [draw["train_rows"] for draw in result.draws] == [15, 15, 15]
    assert (result.penalty, result.validation) == (None, {})
    assert "3 draws of 5 a class" in str(result)
    assert (result.settings["shots"], result.settings["draws"], result.settings["seed"]) == (5, 3, 7)


def test_one_shot_takes_the_fixed_penalty_in_each_draw_and_one_draw_has_no_spread():
    (train, labels), (test, test_labels) = clouds(90, 0), clouds(60, 1)
    result = probe(train, labels, test, test_labels, shots=1, draws=1)
    assert [draw["penalty"] for draw in result.draws] == [FALLBACK]
    assert (result.spread, result.mean_per_class_spread) == (None, None)


def test_a_fit_that_did_not_converge_says_so_without_a_warning():
    (train, labels), (test, test_labels) = clouds(60, 0), clouds(40, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = probe(train, labels, test, test_labels, iterations=1)
        enough = probe(train, labels, test, test_labels)
        few = probe(train, labels, test, test_labels, shots=1, iterations=1)
        Probe().fit(np.eye(40), np.arange(40))  # scikit-learn takes this many classes for a regression
    assert (short.converged, enough.converged, few.converged) == (False, True, False)
    assert "NOT CONVERGED in 1 iterations" in str(short)
    assert "NOT CONVERGED" not in str(enough)


def test_a_result_reads_as_a_line_and_as_json():
    train, labels = [[0.0], [0.1], [5.0], [5.1]], ["a", "a", "b", "b"]
    result = probe(train, labels, [[0.0], [5.0]], ["a", "a"], penalties=[1e-3, 1e-5])
    assert str(result) == "top-1 50.0%, mean per class 50.0%, penalty 0.001 (validation)"
    read = json.loads(json.dumps(result.to_json()))
    assert read["validation"] == {"0.001": 1.0, "1e-05": 1.0}
    assert read["settings"]["penalties"] == [1e-3, 1e-5]
    assert (read["settings"]["train_rows"], read["settings"]["classes"]) == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalties": []}, "penalties="),
        ({"penalties": [0.1, 0.0]}, "positive numbers"),
        ({"penalties": [float("nan")]}, "positive numbers"),
        ({"validation": 0}, "between 0 and 1"),
        ({"validation": 1.0}, "between 0 and 1"),
        ({"iterations": 0}, "iterations=0"),
        ({"shots": 0}, "shots=0"),
        ({"shots": 1, "draws": 0}, "draws=0"),
        ({"test": [[1.0, 2.0]]}, "test features 2"),
        ({"test": [[float("nan")]]}, "NaN"),
        ({"labels": ["a"]}, "one label a row"),
        ({"test_labels": [1]}, "test labels are not"),
    ],
)
def test_what_cannot_be_done_is_refused(options, message):
    given = {"train": [[0.0], [1.0]], "labels": ["a", "b"], "test": [[0.0]], "test_labels": ["a"]} | options
    with pytest.raises(SampleError, match=message):
        probe(**given)
