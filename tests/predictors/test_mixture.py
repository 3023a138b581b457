import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs

from sporeprint.errors import SampleError
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.mixture import MixtureLDA


def blobs(labelled=12, unlabelled=60, classes=3, width=6, seed=0):
    """Rows [labelled + unlabelled, width], their classes, and y with -1 where a row has no label."""
    rows, truth = make_blobs(labelled + unlabelled, width, centers=classes, cluster_std=4, random_state=seed)
    first = np.concatenate([np.flatnonzero(truth == code)[: labelled // classes] for code in range(classes)])
    order = np.concatenate([first, np.setdiff1d(np.arange(len(rows)), first)])
    y = truth[order].copy()
    y[labelled:] = -1
    return rows[order], truth[order], y


def softmax(scores):
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)


def ledoit_wolf_of_repeated_rows(apart, weights):
    """Ledoit and Wolf 2004 of centred rows that count with these weights, from their definition, row by row."""
    total, width = weights.sum(), apart.shape[1]
    covariance = sum(w * np.outer(row, row) for w, row in zip(weights, apart, strict=True)) / total
    mean = np.trace(covariance) / width
    distance = ((covariance - mean * np.eye(width)) ** 2).sum()
    noise = (
        sum(w * ((np.outer(row, row) - covariance) ** 2).sum() for w, row in zip(weights, apart, strict=True))
        / total**2
    )
    share = min(noise, distance) / distance
    return (1 - share) * covariance + share * mean * np.eye(width)


def slow_em(rows, y, weight, rounds):
    """Scores [N, C] in float64, row by row and class by class, with explicit inverses."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    known, classes = np.flatnonzero(y >= 0), y.max() + 1
    unknown = np.flatnonzero(y < 0)
    each = min(1.0, weight * len(known) / len(unknown))
    members = np.zeros((len(rows), classes))
    members[known, y[known]] = 1
    shares = np.bincount(y[known]) / len(known)
    for _ in range(rounds + 1):
        counts = members.sum(axis=0)
        means = np.array([(members[:, c : c + 1] * rows).sum(axis=0) / counts[c] for c in range(classes)])
        apart = np.concatenate([rows - means[c] for c in range(classes)])
        covariance = ledoit_wolf_of_repeated_rows(apart, members.T.ravel())
        inverse = np.linalg.inv(covariance)
        scores = np.array(
            [
                [np.log(shares[c]) - (row - means[c]) @ inverse @ (row - means[c]) / 2 for c in range(classes)]
                for row in rows
            ]
        )
        members[unknown] = each * softmax(scores[unknown])
    return scores


@pytest.mark.parametrize(("weight", "width"), [(2.0, 6), (0.5, 6), (100.0, 6), (2.0, 90)])
def test_em_agrees_with_a_slow_one_in_fewer_and_in_more_dimensions_than_rows(weight, width):
    rows, _, y = blobs(width=width)
    model = MixtureLDA(weight=weight, rounds=4).fit(rows, y)
    slow = slow_em(rows, y, weight, 4)
    expected = softmax(slow / model.temperature_)
    np.testing.assert_allclose(model.predict_proba(rows), expected, atol=1e-9)
    np.testing.assert_allclose(model.label_distributions_[12:], expected[12:], atol=1e-9)


def test_without_rounds_it_is_the_shrunk_lda_of_the_labelled_rows():
    rows, _, y = blobs()
    model, lda = MixtureLDA(rounds=0).fit(rows, y), ShrunkLDA().fit(rows[:12], y[:12])
    lda.temperature_ = model.temperature_
    np.testing.assert_allclose(model.predict_proba(rows), lda.predict_proba(rows), atol=1e-9)


def test_hidden_labels_are_answered_by_fits_that_do_not_know_them():
    rows, _, y = blobs()
    left_out = MixtureLDA().fit(rows, y).left_out_
    hidden = np.array([0, 4, 8])  # the first of each class of four rows is the first fold
    masked = y.copy()
    masked[hidden] = -1
    again = MixtureLDA().fit(rows, masked)
    again.temperature_ = 1.0
    np.testing.assert_allclose(softmax(left_out.scores[hidden]), again.predict_proba(rows[hidden]), atol=1e-8)


def test_unlabelled_rows_find_classes_that_few_labels_miss():
    gains = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth = np.tile([0, 1], 100)
        rows = rng.normal(size=(200, 40)) + np.where(truth[:, None], 0.35, -0.35)
        y = np.where(np.arange(200) < 6, truth, -1)
        found = MixtureLDA().fit(rows, y).transduction_[6:] == truth[6:]
        gains.append(found.mean() - (ShrunkLDA().fit(rows[:6], truth[:6]).predict(rows[6:]) == truth[6:]).mean())
    assert min(gains) > 0
    assert np.mean(gains) > 0.03


def test_labelled_rows_keep_their_labels():
    rows, _, y = blobs()
    y[0] = 1 + y[0] if y[0] < 2 else 0  # surely wrong
    model = MixtureLDA().fit(rows, y)
    assert model.transduction_[0] == y[0]
    assert model.label_distributions_[0].max() == 1


def test_texts_are_labels_and_none_marks_rows_without():
    rows, _, y = blobs()
    names = np.array([None if code < 0 else "abc"[code] for code in y], dtype=object)
    named, coded = MixtureLDA().fit(rows, names), MixtureLDA().fit(rows, y)
    assert named.classes_.tolist() == ["a", "b", "c"]
    assert named.transduction_.tolist() == ["abc"[code] for code in coded.transduction_]


def test_every_order_of_the_unlabelled_rows_gives_the_same_answers():
    rows, _, y = blobs()
    order = np.concatenate([np.arange(12), 12 + np.random.default_rng(0).permutation(60)])
    straight, mixed = MixtureLDA().fit(rows, y), MixtureLDA().fit(rows[order], y[order])
    np.testing.assert_allclose(mixed.label_distributions_, straight.label_distributions_[order], atol=1e-9)


def test_without_unlabelled_rows_it_is_lda():
    rows, truth, _ = blobs()
    model, lda = MixtureLDA().fit(rows, truth), ShrunkLDA().fit(rows, truth)
    assert (model.predict(rows) == lda.predict(rows)).all()


def test_duplicates_of_a_labelled_row_follow_it():
    rows, _, y = blobs()
    rows, y = np.concatenate([rows, rows[:3]]), np.concatenate([y, [-1] * 3])
    model = MixtureLDA().fit(rows, y)
    assert np.isfinite(model.label_distributions_).all()
    np.testing.assert_allclose(model.predict_proba(rows[:3]), model.label_distributions_[-3:], atol=1e-9)


def test_constant_features_give_the_classes_shares():
    y = np.array([0, 0, 0, 1, -1, -1])
    model = MixtureLDA().fit(np.ones((6, 3)), y)
    model.temperature_ = 1.0
    np.testing.assert_allclose(model.predict_proba(np.ones((1, 3))), [[0.75, 0.25]], atol=1e-9)


def test_one_class_and_one_label_a_class_have_an_answer():
    rows, _, y = blobs()
    alone = np.where(y == 0, 0, -1)
    assert (MixtureLDA().fit(rows, alone).transduction_ == 0).all()
    single = np.full(len(y), -1)
    single[[0, 4, 8]] = [0, 1, 2]
    model = MixtureLDA().fit(rows, single)
    assert np.isfinite(model.label_distributions_).all()
    assert model.transduction_[[0, 4, 8]].tolist() == [0, 1, 2]


def test_rows_in_parts_give_what_rows_at_once_give(monkeypatch):
    rows, _, y = blobs()
    whole = MixtureLDA().fit(rows, y)
    for module in ("mixture", "principal"):
        monkeypatch.setattr(f"sporeprint.predictors.{module}._NUMBERS", 40)
    monkeypatch.setattr("sporeprint.predictors.principal._MOST_HELD", 0)
    np.testing.assert_allclose(MixtureLDA().fit(rows, y).label_distributions_, whole.label_distributions_, atol=1e-9)


def test_bad_rows_and_labels_are_refused():
    rows, _, y = blobs()
    with pytest.raises(SampleError, match="none of 72 rows has a label"):
        MixtureLDA().fit(rows, np.full(72, -1))
    with pytest.raises(SampleError, match=r"labels have shape \(71,\) for 72 rows"):
        MixtureLDA().fit(rows, y[1:])
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        MixtureLDA().fit(rows, y)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -3}, "weight=-3; expected a number of at least 0"),
        ({"weight": "a"}, "weight='a'"),
        ({"weight": np.nan}, "weight=nan"),
        ({"rounds": -1}, "rounds=-1; expected an integer of at least 0"),
        ({"rounds": 1.5}, "rounds=1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    rows, _, y = blobs()
    with pytest.raises(SampleError, match=message):
        MixtureLDA(**settings).fit(rows, y)


def test_a_mark_among_texts_is_no_class_and_labels_of_two_kinds_are_refused():
    rows = np.random.default_rng(0).normal(size=(6, 3))
    model = MixtureLDA().fit(rows, ["a", "b", -1, "a", "b", None])
    assert model.classes_.tolist() == ["a", "b"]
    assert model.transduction_[[0, 1, 3, 4]].tolist() == ["a", "b", "a", "b"]
    with pytest.raises(SampleError, match="labels are of different kinds"):
        MixtureLDA().fit(rows, ["a", 1, -1, "a", "b", None])
    with pytest.raises(SampleError, match="labels are bytes"):
        MixtureLDA().fit(rows, [b"a", b"b", None] * 2)


@pytest.mark.parametrize("apart", [1e-5, 1e-3, 1e-2])
@pytest.mark.parametrize("seed", range(3))
def test_one_class_of_two_labels_that_are_nearly_equal_is_certain(apart, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(6, 8))
    rows[1] = rows[0] + apart * rng.normal(size=8)
    np.testing.assert_array_equal(MixtureLDA().fit(rows, [0, 0, -1, -1, -1, -1]).label_distributions_, 1)


def test_it_is_cloned_with_its_settings():
    assert clone(MixtureLDA(weight=3.0, rounds=7)).get_params() == {"weight": 3.0, "rounds": 7}


class Watched(MixtureLDA):
    """Notes the weighted log-likelihood of its rows after each fit of means and covariance to all rows."""

    def _maximise(self, which, members, total):
        super()._maximise(which, members, total)
        rows = self._rows[which] / np.linalg.norm(self._rows[which], axis=1, keepdims=True)
        counts = members.sum(axis=0)
        means = members.T @ rows / counts[:, None]
        apart = rows[:, None] - means  # [n, C, D]
        covariance = np.einsum("nc,ncd,nce->de", members, apart, apart) / counts.sum()
        distances = np.einsum("ncd,de,nce->nc", apart, np.linalg.inv(covariance), apart)
        joint = self._shares - distances / 2 - np.linalg.slogdet(2 * np.pi * covariance)[1] / 2
        known = members.max(axis=1) == 1
        each = members[~known].sum(axis=1)
        unknown = each * np.log(np.exp(joint[~known]).sum(axis=1))
        self.likelihoods = [*getattr(self, "likelihoods", []), joint[known][members[known] == 1].sum() + unknown.sum()]


def test_without_shrinkage_every_round_raises_the_weighted_likelihood(monkeypatch):
    def unshrunk(trace, squared, fourth, count, width, least):
        return 1 / count, 0.0

    monkeypatch.setattr("sporeprint.predictors.mixture.ledoit_wolf", unshrunk)
    rng = np.random.default_rng(3)
    truth = np.tile([0, 1, 2], 100)
    rows = rng.normal(size=(300, 4)) + 1.5 * np.eye(4)[truth]
    y = np.where(np.arange(300) < 60, truth, -1)
    watched = Watched(weight=2.0, rounds=12)
    watched._hidden = lambda labelled, codes, unlabelled: np.zeros((60, 3))  # the final fit alone
    watched.fit(rows, y)
    rises = np.diff(watched.likelihoods[1:])
    assert len(rises) == 11
    assert (rises > -1e-9).all()
    assert rises[0] > 0.01
