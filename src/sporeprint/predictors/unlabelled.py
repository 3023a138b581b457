"""Whether rows without labels help to label themselves, decided on labelled rows whose labels are hidden."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from sporeprint.data.floats import quiet_floats
from sporeprint.predictors.checks import check_same_width, features_of, labels_of
from sporeprint.predictors.lda import ShrunkLDA
from sporeprint.predictors.mixture import MixtureLDA
from sporeprint.predictors.predictor import LeftOut, Predictor
from sporeprint.predictors.semi_supervised import UNLABELLED, SemiSupervised, folds_of

GUARD = 2.0  # standard errors
LEAST = 4  # labels a class, on average: with 2, losses of 7 points were not seen


@dataclass(frozen=True)
class WithUnlabelled:
    """Answers for rows without labels, and whether these rows took part in them.

    used: whether they did. predictor: what answers, fitted. probabilities: calibrated [M, C]. classes: [C], sorted.
    left_out: what the predictor says of labelled rows whose labels are hidden; None where none could be. before, after:
    accuracy on these, without and with the unlabelled rows; NaN where none could be hidden. loss: by how much the
    squared error of the probabilities rises with them (falls, where negative). error: its standard error. why: the
    decision in a sentence.
    """

    used: bool
    predictor: Predictor | SemiSupervised
    probabilities: NDArray[np.float64]
    classes: NDArray[Any]
    left_out: LeftOut | None
    before: float
    after: float
    loss: float
    error: float
    why: str

    @property
    def predictions(self) -> NDArray[Any]:
        """The most probable class of each unlabelled row [M]."""
        return self.classes[self.probabilities.argmax(axis=1)]


@quiet_floats
def with_unlabelled(
    X: ArrayLike,
    y: ArrayLike,
    unlabelled: ArrayLike,
    predictor: Predictor | None = None,
    method: SemiSupervised | None = None,
    guard: float = GUARD,
    instead: LeftOut | None = None,
) -> WithUnlabelled:
    """Label rows [M, D] from features X [N, D] and labels y [N], with the help of the unlabelled rows if that is safe.

    The labels of the labelled rows are hidden row by row, a fifth of each class at a time (where rows have near twins,
    such as frames of one video, accuracies are too high with and without), and the hidden rows are answered
    without unlabelled rows by `predictor` (default `ShrunkLDA`) and with them by `method` (default `MixtureLDA`). The
    unlabelled rows are left out where that raises the squared error of the probabilities by more than `guard` standard
    errors; a guard of -2 asks for a sure fall instead. They are left out as well where features are wider than the rows
    are many, where 5 labels a class did not see losses of 8 points. A few labels can prove harm but seldom a gain:
    docs/unlabelled.md shows what the default rule won and lost.
    Raises SampleError for NaN rows, no rows, and labels of several kinds.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import with_unlabelled
    >>> rng = np.random.default_rng(0)
    >>> truth = np.tile(["no", "yes"], 100)
    >>> rows = rng.normal(size=(200, 40)) + np.where(truth[:, None] == "yes", 0.35, -0.35)
    >>> answer = with_unlabelled(rows[:20], truth[:20], rows[20:])
    >>> round(float((answer.predictions == truth[20:]).mean()), 2)
    0.97
    >>> print(answer.why)
    Unlabelled rows are used: of 20 labels, hidden in turn, 100.0% are found with them, 95.0% without.
    """
    rows, others = features_of(X, "train"), features_of(unlabelled, "unlabelled")
    check_same_width(rows, others)
    labels = labels_of(y, len(rows), "train")
    classes, codes = np.unique(labels, return_inverse=True)
    plain = clone(ShrunkLDA() if predictor is None else predictor).fit(rows, labels)
    answers, folds, unknown = plain.predict_proba(others), folds_of(codes), (np.nan,) * 4
    if why := _unknowable(classes, folds, len(rows) + len(others), rows.shape[1]):
        return WithUnlabelled(False, plain, answers, classes, None, *unknown, f"Unlabelled rows are not used: {why}.")
    left_out = clone(plain).leave_one_out(rows, labels, groups=folds) if instead is None else instead
    together = clone(MixtureLDA() if method is None else method)
    # By number, so that a label of -1 is one.
    together.fit(np.concatenate([rows, others]), np.concatenate([codes, np.full(len(others), UNLABELLED)]))
    together.classes_, together.transduction_ = classes, classes[together.transduction_]
    together.left_out_ = replace(together.left_out_, classes=classes)
    loss, error = _rise(left_out, together.left_out_)
    before, after = float(left_out.right.mean()), float(together.left_out_.right.mean())
    seen = f"of {len(rows)} labels, hidden in turn, {after:.1%} are found with them, {before:.1%} without"
    figures = before, after, loss, error
    if loss > guard * error:
        why = f"Unlabelled rows are not used, they {'harm' if guard >= 0 else 'do not surely help'}: {seen}."
        return WithUnlabelled(False, plain, answers, classes, left_out, *figures, why)
    answers, why = together.label_distributions_[len(rows) :], f"Unlabelled rows are used: {seen}."
    return WithUnlabelled(True, together, answers, classes, together.left_out_, *figures, why)


def _unknowable(classes: NDArray[Any], folds: NDArray[np.intp], rows: int, width: int) -> str:
    """Return why hidden labels could not tell harm, or an empty string."""
    if len(classes) == 1:
        return "all labels are of one class"
    if len(folds) < LEAST * len(classes):
        return f"{len(folds)} labels of {len(classes)} classes are too few to see harm by; label {LEAST} a class"
    if width > rows:
        return (
            f"features of {width:,} numbers are wider than the {rows:,} rows in all; take fewer blocks, reduce them by "
            "PCA, or give more rows"
        )
    return ""


def _rise(before: LeftOut, after: LeftOut) -> tuple[float, float]:
    change = after.losses - before.losses
    return float(change.mean()), float(change.std(ddof=1) / np.sqrt(len(change)))
