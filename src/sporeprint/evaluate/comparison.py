"""The result of a comparison, as values: for the command line, for JSON, for the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sporeprint.evaluate.analyse import Analysis, ClassChange
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.choice.verdict import advised
from sporeprint.evaluate.result import plain
from sporeprint.evaluate.table import Entry
from sporeprint.features.combine import Combination
from sporeprint.predictors.predictor import Predictor


@dataclass(frozen=True)
class Accuracy:
    """What a comparison says of an entry under one judge.

    value: top-1 accuracy on the test rows. mean_per_class: the mean of the classes' accuracies there. gain: over the
    reference, on the same test rows. predictor: for people, such as "kNN, k = 5" or "LDA". leave_one_out: accuracy on
    the training rows, a fraction. loss: the squared error of the calibrated leave-one-out probabilities, from 0 to 2,
    by which everything was chosen.
    """

    value: Interval
    mean_per_class: float
    gain: Interval
    predictor: str
    leave_one_out: float
    loss: float

    @property
    def word(self) -> str:
        """The predictor without its settings: "kNN" of "kNN, k = 5"."""
        return self.predictor.split(",")[0]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**self.__dict__, "value": self.value.to_json(), "gain": self.gain.to_json()}


@dataclass(frozen=True)
class Neighbour:
    """A training row: its number, its id and its label."""

    row: int
    id: str
    label: str


@dataclass(frozen=True)
class Changed:
    """A test row that the reference and the chosen features classify differently, and its neighbours under both."""

    row: int
    id: str
    label: str
    before: str  # predicted label
    after: str
    neighbours_before: tuple[Neighbour, ...]  # nearest first
    neighbours_after: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns: the verdict, the table, and what is needed to believe them.

    verdict: a sentence of at most 25 words, with the gain, its interval and the price.
    entries: in the order of the table, each with an `Accuracy` by judge: "knn", "closed" (the best of LDA, ridge and
    class means) and, for the embeddings, the named combinations and the choices, "probe". reference, free, chosen:
    names of entries; their `judge` is the predictor that belongs to them. reference: the best predictor on the raw or
    the half-white embedding. free: the choice among what the embedding's own pass gives, gradients read in it included.
    chosen: that, or the choice among everything where it is surely better. All three are chosen by leave-one-out on the
    training rows; no test row has a say, except in repeated splits: there all rows name the one reference and which
    choice is `chosen`, and each split makes its own choices, while the entries show those of all rows.
    predictor: the chosen one, unfitted, with its choices fixed.
    changed: test rows that the reference and the chosen features classify differently.
    classes: per-class change of accuracy from the reference to the chosen. analysis: of the blocks.
    settings: backbone, rows, classes, metric, level, seed and the like. notes: what stands
    behind the verdict, and what a reader must know about the rows.
    """

    verdict: str
    entries: tuple[Entry, ...]
    reference: str
    free: str
    chosen: str
    classes: tuple[ClassChange, ...]
    analysis: Analysis
    predictor: Predictor | None = field(default=None, compare=False)  # scikit-learn's estimators are equal to no other
    changed: tuple[Changed, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.verdict

    def entry(self, name: str) -> Entry:
        """The entry of that name."""
        return next(entry for entry in self.entries if entry.name == name)

    @property
    def reference_judge(self) -> str:
        """The judge of the reference: "knn", "closed" or "probe"."""
        return self.entry(self.reference).judge

    @property
    def base(self) -> Accuracy:
        """The reference's accuracy."""
        return self.entry(self.reference).result

    @property
    def best(self) -> Accuracy:
        """The chosen entry's accuracy with the chosen predictor."""
        return self.entry(self.chosen).result

    @property
    def advised(self) -> Entry:
        """The entry that the verdict says to use: the chosen one, or the reference where that is no better here."""
        return advised(self.entries, self.reference, self.chosen)

    @property
    def combination(self) -> Combination:
        """The chosen entry's combination, for `Fungi.load` and `Fungi.recombine`."""
        return self.entry(self.chosen).combination

    def noted(self, notes: Iterable[str]) -> Comparison:
        """This comparison with more notes, first."""
        return replace(self, notes=(*notes, *self.notes))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        whole = {**self.__dict__, "entries": [entry.to_json() for entry in self.entries]}
        whole |= {"predictor": self.best.predictor, "reference_judge": self.reference_judge}
        whole |= {"classes": [change.__dict__ for change in self.classes], "analysis": self.analysis.to_json()}
        whole["changed"] = [
            {**row.__dict__, **{key: [near.__dict__ for near in getattr(row, key)] for key in _NEIGHBOURS}}
            for row in self.changed
        ]
        return dict(plain(whole))


_NEIGHBOURS = ("neighbours_before", "neighbours_after")
