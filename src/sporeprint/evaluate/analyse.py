"""What blocks are like, what they share, and which classes gain or lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError
from sporeprint.evaluate.result import plain
from sporeprint.evaluate.similarity import anisotropy, cka_matrix, effective_rank
from sporeprint.features.blocks import check_blocks
from sporeprint.predictors.checks import are_strings, features_of, label_array, labels_of
from sporeprint.values import check_count, printable

_SHOWN = 5  # classes with the largest gains, and as many with the largest losses, in a text


@dataclass(frozen=True)
class BlockFigures:
    """The figures of one block, as `similarity` defines them.

    width: dimensions. effective_rank: how many of them are in use. anisotropy: mean cosine of two rows.
    """

    width: int
    effective_rank: float
    anisotropy: float


@dataclass(frozen=True)
class ClassChange:
    """One class: its number of test rows, the fractions of them that are right before and after, and the change."""

    label: str | int | float
    count: int
    before: float
    after: float
    change: float


@dataclass(frozen=True)
class Analysis:
    """What `analyse` returns.

    blocks: by name. cka: of every two of them, in that order, debiased. classes: largest gain first.
    used: how many of the `rows` the figures are computed on. NaN (None in JSON) stands where a block has no figure.
    """

    rows: int
    used: int
    blocks: dict[str, BlockFigures]
    cka: tuple[tuple[float, ...], ...]
    classes: tuple[ClassChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON types; NaN becomes None."""
        return dict(plain(asdict(self)))

    def __str__(self) -> str:
        """Two aligned tables: the blocks with their CKA, and the classes that changed most, if known."""
        head = ["block", "width", "effective rank", "anisotropy", *(f"CKA {name}" for name in self.blocks)]
        lines = [
            [name, str(of.width), f"{of.effective_rank:.1f}", f"{of.anisotropy:.3f}", *(f"{x:.2f}" for x in shared)]
            for (name, of), shared in zip(self.blocks.items(), self.cka, strict=True)
        ]
        text = f"{_table(head, lines)}\n{self.used:,} of {self.rows:,} rows"
        if not self.classes:
            return text
        most = self.classes
        if len(most) > 2 * _SHOWN:
            most = most[:_SHOWN] + most[-_SHOWN:]
        changes = [
            [str(of.label), f"{of.count:,}", f"{of.before:.1%}", f"{of.after:.1%}", f"{100 * of.change:+.1f}"]
            for of in most
        ]
        table = _table(["class", "rows", "before", "after", "points"], changes)
        return f"{text}\n\n{table}\n{len(most):,} of {len(self.classes):,} classes"


@quiet_floats
def analyse(
    blocks: Mapping[str, ArrayLike],
    labels: ArrayLike | None = None,
    before: ArrayLike | None = None,
    after: ArrayLike | None = None,
    most_rows: int = 10_000,
    seed: int = 0,
) -> Analysis:
    """Width, effective rank and anisotropy of each block [N, D], and the CKA of every two.

    labels, before, after: [M], the test rows' labels and two predictions of them (say, from the embedding and from
    the features), for `per_class_change`; all three or none. M need not be N.
    Where there are more than most_rows rows, that many are drawn, the same of every block: CKA takes its time.
    Raises SampleError for no blocks, rows with NaN, and counts that do not match.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sporeprint import analyse
    >>> features, _ = load_iris(return_X_y=True)
    >>> print(analyse({"sepal": features[:, :2], "petal": features[:, 2:]}))
    block  width  effective rank  anisotropy  CKA sepal  CKA petal
    sepal      2             1.7       0.992       1.00       0.77
    petal      2             1.1       0.992       0.77       1.00
    150 of 150 rows
    """
    check_count("most_rows", most_rows, error=SampleError)
    check_count("seed", seed, 0, SampleError)
    check_blocks(blocks, SampleError)
    if not blocks:
        raise SampleError("no blocks to analyse; expected at least one")
    if labels is None and before is None and after is None:
        classes = []
    elif labels is None or before is None or after is None:
        raise SampleError("some of labels, before and after are not given; expected all three, or none of them")
    else:
        classes = per_class_change(labels, before, after)
    arrays = {name: features_of(rows, f"block {name!r}") for name, rows in blocks.items()}
    total = len(next(iter(arrays.values())))
    if len({len(rows) for rows in arrays.values()}) == 1 and total > most_rows:
        drawn = np.sort(np.random.default_rng(seed).choice(total, most_rows, replace=False))
        arrays = {name: rows[drawn] for name, rows in arrays.items()}
    names, matrix = cka_matrix(arrays)
    figures = {
        name: BlockFigures(rows.shape[1], effective_rank(rows), anisotropy(rows)) for name, rows in arrays.items()
    }
    return Analysis(total, len(arrays[names[0]]), figures, tuple(map(tuple, matrix.tolist())), tuple(classes))


def per_class_change(labels: ArrayLike, before: ArrayLike, after: ArrayLike) -> list[ClassChange]:
    """The accuracy of each class under two predictions [M] of the test labels [M], the largest gain first.

    Equal changes go by the label. A predicted class that no test row has is wrong, and has no line of its own.
    Raises SampleError for no rows, missing labels, counts that do not match, and texts mixed with numbers.
    """
    array = label_array(labels)
    if array.ndim != 1 or not len(array):
        raise SampleError(f"test labels have shape {array.shape}; expected one label a row, at least one row")
    array = labels_of(array, len(array), "test")
    if array.dtype.kind == "f" and (missing := int(np.isnan(array).sum())):
        raise SampleError(f"{missing} of {len(array)} test labels are NaN (missing); drop those rows")
    right = [_right(array, predicted, which) for predicted, which in ((before, "earlier"), (after, "later"))]
    names, codes, counts = np.unique(array, return_inverse=True, return_counts=True)
    hits = [np.bincount(codes, weights=hit, minlength=len(names)).astype(int) for hit in right]
    order = sorted(range(len(names)), key=lambda at: (hits[0][at] - hits[1][at]) / counts[at])  # stable: by label
    return [
        ClassChange(
            label=names[at].item(),
            count=int(counts[at]),
            before=float(hits[0][at] / counts[at]),
            after=float(hits[1][at] / counts[at]),
            change=float((hits[1][at] - hits[0][at]) / counts[at]),
        )
        for at in order
    ]


def _right(labels: NDArray[Any], predicted: ArrayLike, which: str) -> NDArray[np.bool_]:
    array = np.asarray(predicted)
    if array.shape != labels.shape:
        raise SampleError(
            f"{which} predictions have shape {array.shape} for {len(labels)} labels; expected one a label"
        )
    array = labels_of(array, len(labels), "predicted")
    if are_strings(labels) != are_strings(array):
        raise SampleError(
            f"test labels are {'strings' if are_strings(labels) else 'numbers'}, {which} predictions are not; "
            "expected the same names in both"
        )
    return np.asarray(array == labels)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The lines as text, the first column aligned to the left, the others to the right."""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    padded = [
        [
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in (head, *lines)
    ]
    return "\n".join("  ".join(line) for line in padded)
