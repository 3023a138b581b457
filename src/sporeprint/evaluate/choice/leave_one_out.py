"""Leave-one-out of many features under many predictors: blocks whitened once, inner products added up."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sporeprint.data.floats import quiet_floats
from sporeprint.errors import SampleError, SporeprintWarning
from sporeprint.evaluate.choice.judges import PREDICTORS, fixed
from sporeprint.features.blocks import Blocks, family
from sporeprint.features.combine import Combination
from sporeprint.features.whiten import Axes
from sporeprint.predictors.checks import label_array, labels_of
from sporeprint.predictors.groups import Groups, absent_classes, group_codes, groups_of
from sporeprint.predictors.predictor import LeftOut, Predictor
from sporeprint.predictors.principal import Floats, Principal

MOST_ROWS = 2000  # labelled rows that leave-one-out looks at: 32 MB a matrix of inner products
FEW = 30  # rows of the median class, below which features are chosen for LDA alone
_ROUNDING = 1e-5  # of the rows' squared lengths, which are sums of float32


def silent(step: str) -> None:
    """The progress of who asked for none."""


@dataclass(frozen=True)
class Outcome:
    """What a predictor says of each labelled row from some features, without that row and its group.

    predictor: unfitted, with its choices fixed, but for ridge's penalty where only some rows were asked.
    right: [N], whether a row is classified rightly. losses: [N], the
    squared error of its calibrated probabilities, from 0 to 2, which a row gets whose class no other row has.
    """

    predictor: Predictor
    right: NDArray[np.bool_]
    losses: Floats

    @property
    def value(self) -> float:
        """Leave-one-out accuracy, a fraction."""
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        """The mean of the losses."""
        return float(self.losses.mean())


Outcomes = dict[str, dict[str, Outcome]]  # by the features' name, then by the predictor's word


class Labelled(NamedTuple):
    """The rows that choose: their numbers [n], the codes of their labels [n], and their groups.

    few: whether a class has few rows, of all that have a label. drawn: whether there are more such rows than choose.
    """

    rows: NDArray[np.intp]
    codes: NDArray[np.intp]
    groups: Groups
    few: bool
    drawn: bool


@quiet_floats
def leave_one_out_of(
    blocks: Blocks,
    labels: ArrayLike,
    candidates: Mapping[str, Combination],
    predictors: Sequence[str],
    groups: ArrayLike | None = None,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
    probed: Collection[str] = (),
    progress: Callable[[str], None] = silent,
    whiteners: dict[tuple[str, Any], Axes] | None = None,
) -> Outcomes:
    """What each predictor says of each labelled row by each candidate's features, without the row and its group.

    Of more than `most_rows` labelled rows, those drawn by `seed` stand for all: they alone answer, and are asked.
    The inner products of a joined feature are the weighed sum of its blocks', so each block is whitened, and multiplied
    with itself, once for all; all predictors share one eigendecomposition. probed: the candidates that the probe sees,
    which takes longer. progress: called with each candidate as its turn comes. whiteners: of the same blocks, from
    earlier calls. Raises SampleError as `select`.
    """
    blocks = check_candidates(blocks, candidates)
    labelled = labelled_rows(blocks, labels, groups, most_rows, seed)
    finite = np.all([np.isfinite(block).all(axis=1) for block in blocks.values()], axis=0)
    if not finite.all():
        blocks = {name: block[finite] for name, block in blocks.items()}
        labelled = labelled._replace(rows=np.searchsorted(np.flatnonzero(finite), labelled.rows))
    names = list(blocks)
    outcomes: Outcomes = {}
    known: dict[Any, dict[str, Outcome]] = {}  # of features that have several names
    whiteners = {} if whiteners is None else whiteners
    whitenings = dict.fromkeys((combination.whiten, combination.exponent) for combination in candidates.values())
    for whitening in whitenings:  # one at a time: only the inner products of one whitening are held
        listed = {name: how for name, how in candidates.items() if (how.whiten, how.exponent) == whitening}
        features = {name: (whitening, frozenset(how.members(names).items())) for name, how in listed.items()}
        distinct = {features[name]: how for name, how in listed.items()}
        products = _Products(blocks, labelled, distinct.values(), whiteners)
        for name, combination in listed.items():
            asked = [word for word in predictors if word != "probe" or name in probed]
            of_features = known.setdefault(features[name], {})
            if missing := [word for word in asked if word not in of_features]:
                progress(f"choosing: {name} ({len(outcomes) + 1} of {len(candidates)})")
                joined = _Features(combination, products)
                of_features |= {word: _outcome(joined, word, labelled) for word in missing}
            outcomes[name] = {word: of_features[word] for word in asked}
    return {name: outcomes[name] for name in candidates}


def _outcome(features: _Features, word: str, labelled: Labelled) -> Outcome:
    predictor = PREDICTORS[word]()
    left: LeftOut
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SporeprintWarning)  # one row a class: no predictor can be calibrated
        if word == "probe":
            left = predictor.leave_one_out(features.rows, labelled.codes, _numbers(labelled.groups))
        else:
            principal = features.unit if word == "LDA" else features.principal
            left = predictor.leave_one_out_of(principal, labelled.codes, labelled.groups)
    alone = absent_classes(labelled.codes, labelled.groups, len(left.classes))[np.arange(len(left.codes)), left.codes]
    losses = np.where(alone, 2.0, left.losses)  # no answer can be right: how wrong it is must not choose
    if labelled.drawn and word == "ridge":  # the best penalty falls with the rows; all of them choose it without a cost
        return Outcome(PREDICTORS[word](), left.right, losses)
    return Outcome(fixed(predictor), left.right, losses)


def _numbers(groups: Groups) -> NDArray[np.intp]:
    """The number of each row's group."""
    numbers = np.empty(sum(map(len, groups)), np.intp)
    for number, group in enumerate(groups):
        numbers[group] = number
    return numbers


class _Products:
    """Inner products of the labelled rows by families of blocks, each computed once and kept while it is needed."""

    def __init__(
        self,
        blocks: Blocks,
        labelled: Labelled,
        combinations: Iterable[Combination],
        whiteners: dict[tuple[str, Any], Axes],
    ) -> None:
        self.blocks, self.rows, self.whiteners = blocks, labelled.rows, whiteners
        self.needed = Counter(part for how in combinations for part, _ in _families(how, list(blocks)))
        self.kept: dict[tuple[str, ...], tuple[Floats, int]] = {}

    def features(self, combination: Combination) -> NDArray[np.float32]:
        """The joined features [n, D] of the labelled rows."""
        combiner = combination.fit(self.blocks, self.whiteners)
        return combiner.transform({name: self.blocks[name][self.rows] for name in combiner.names})

    def joined(self, combination: Combination) -> tuple[Floats, int]:
        """The inner products [n, n] of the joined features, and their width D."""
        total, dimensions = np.zeros((len(self.rows), len(self.rows))), 0
        for members, weight in _families(combination, list(self.blocks)):
            products, width = self.kept.pop(members) if members in self.kept else self._of(members, combination)
            total += weight**2 * products
            dimensions += width
            self.needed[members] -= 1
            if self.needed[members] > 0:
                self.kept[members] = products, width
        return total, dimensions

    def _of(self, members: tuple[str, ...], combination: Combination) -> tuple[Floats, int]:
        total, dimensions = np.zeros((len(self.rows), len(self.rows))), 0
        for name in members:
            alone = Combination((name,), combination.whiten, exponent=combination.exponent)
            part = self.features(alone).astype(np.float64)
            total += part @ part.T
            dimensions += part.shape[1]
        return total, dimensions


class _Features:
    """The features of the labelled rows by one combination, as far as they are asked for."""

    def __init__(self, combination: Combination, products: _Products) -> None:
        self.combination, self.products = combination, products

    @cached_property
    def rows(self) -> NDArray[np.float32]:
        """The features [n, D]."""
        return self.products.features(self.combination)

    @cached_property
    def gram(self) -> tuple[Floats, int]:
        """Their inner products [n, n], and their width."""
        return self.products.joined(self.combination)

    @cached_property
    def principal(self) -> Principal:
        """Their principal coordinates."""
        gram, width = self.gram
        return Principal.of_gram(gram, width) if width > len(gram) else Principal.fit(self.rows)

    @cached_property
    def unit(self) -> Principal:
        """Those of the rows brought to length 1: but for the scale the same, where all rows are of one length."""
        gram, width = self.gram
        lengths = np.diagonal(gram)
        if np.ptp(lengths) <= _ROUNDING * lengths.max():
            return self.principal
        norms = np.sqrt(np.where(lengths > 0, lengths, 1))
        return Principal.of_gram(gram / norms / norms[:, None], width)


def check_candidates(blocks: Blocks, candidates: Mapping[str, Combination]) -> dict[str, NDArray[Any]]:
    """The blocks as arrays. Raises SampleError."""
    arrays = {name: np.asarray(block) for name, block in blocks.items()}
    shapes = {name: block.shape for name, block in arrays.items()}
    if (
        not shapes
        or any(len(shape) != 2 for shape in shapes.values())
        or len({shape[0] for shape in shapes.values()}) > 1
    ):
        raise SampleError(f"blocks have shapes {shapes}; expected [rows, dimensions], the same rows in each")
    for title, combination in candidates.items():
        if not isinstance(combination, Combination):
            raise SampleError(f"candidate {title!r} is a {type(combination).__name__}; expected a Combination(...)")
        if combination.size is not None:
            raise SampleError(f"candidate {title!r} has size={combination.size}; choose first, then reduce")
        if missing := [name for name in combination.members(arrays) if name not in arrays]:
            raise SampleError(f"candidate {title!r} takes block {missing[0]!r}; there are: {', '.join(arrays)}")
    return arrays


def labelled_rows(
    blocks: Blocks, labels: ArrayLike, groups: ArrayLike | None = None, most_rows: int = MOST_ROWS, seed: int = 0
) -> Labelled:
    """The rows that have a label and no NaN, at most `most_rows` of them. Raises SampleError."""
    total = len(next(iter(blocks.values())))
    given = label_array(labels)
    if given.shape != (total,):
        raise SampleError(f"labels have shape {given.shape} for {total} rows; expected one label a row, None for none")
    if given.dtype.kind == "O":
        has = np.array([not _is_missing(label) for label in given], bool)
    else:
        has = ~np.isnan(given) if given.dtype.kind == "f" else np.ones(total, bool)
    for block in blocks.values():
        has &= np.isfinite(block).all(axis=1)
    rows = np.flatnonzero(has)
    if min(len(rows), most_rows) < 2:
        raise SampleError(
            f"{min(len(rows), most_rows)} rows with a label and features; expected at least two to leave one out"
        )
    few, drawn = has_few(labels_of(given[rows], len(rows), "train")), len(rows) > most_rows
    if drawn:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most_rows, replace=False))
    codes = np.unique(labels_of(given[rows], len(rows), "train"), return_inverse=True)[1]
    numbers = None if groups is None else group_codes(groups, total)[rows]
    return Labelled(rows, codes, groups_of(numbers, len(rows)), few, drawn)


def has_few(labels: NDArray[Any]) -> bool:
    """Whether the median class of labels [N] has fewer than `FEW` rows."""
    return bool(np.median(np.unique(labels, return_counts=True)[1]) < FEW)


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, (float, np.floating)) and bool(np.isnan(label)))


def _families(combination: Combination, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], float]]:
    """The blocks of each weight and family, since candidates share families."""
    groups: dict[tuple[str, float], list[str]] = {}
    for name, weight in combination.members(names).items():
        groups.setdefault((family(name), weight), []).append(name)
    for (_, weight), members in groups.items():
        yield tuple(members), weight
