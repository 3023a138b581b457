"""Label the rows of a source by a saved model, a part at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sporeprint.data.assumptions import Assumptions
from sporeprint.data.rows import Row, Source
from sporeprint.errors import RowFailure, StoreError
from sporeprint.features.batches import decoded_batches
from sporeprint.features.failures import Failures, first_reasons
from sporeprint.features.gathered import Gathered
from sporeprint.features.progress import Progress, silent
from sporeprint.gradients.switches import own_settings
from sporeprint.predictors.conformal import least_probability
from sporeprint.run.answer_columns import classified_columns
from sporeprint.run.predictions_file import PredictionsFile
from sporeprint.run.saved_classifier import Model
from sporeprint.run.store_pair import count
from sporeprint.run.store_source import named_label

_TOGETHER = 1024  # rows that are labelled and written together


@dataclass(frozen=True)
class Predicted:
    """What `predict_rows` did.

    title: of features and predictor. rows: that are labelled. compared: of them with a known label; right: of those.
    failures: rows that could not be read. notes: what a reader must know, a sentence each.
    """

    title: str
    rows: int
    compared: int
    right: int
    failures: list[RowFailure]
    notes: tuple[str, ...]

    @property
    def accuracy(self) -> float | None:
        return self.right / self.compared if self.compared else None

    def verdict(self, out: Path) -> str:
        """Return the answer in a sentence."""
        seen = "" if self.accuracy is None else f"; {self.accuracy:.1%} right of {count(self.compared, 'labelled row')}"
        return f"{out}: {count(self.rows, 'row')} labelled by {self.title}{seen}."

    def to_json(self) -> dict[str, Any]:
        return {
            "choice": self.title,
            "rows": self.rows,
            "accuracy": self.accuracy,
            "compared": self.compared,
            "failures": [failure.to_json() for failure in self.failures],
            "notes": list(self.notes),
        }


@own_settings()
def predict_rows(
    model: Model,
    source: Source,
    out: Path,
    error: float | None = None,
    everything: bool = False,
    progress: Progress = silent,
) -> Predicted:
    """Label every row of a source that can be read, into the file `out`. error, everything: as of `classify_stores`.

    About a thousand rows are held at a time. Raises TooManyFailures, RecipeError for an error that the training rows
    cannot hold, StoreError where no row can be read.
    """
    if error is not None:
        least_probability(model.training.own, error)  # raises before a network runs
    failures, assumptions = Failures(model.fungi.max_failures, len(source)), Assumptions()
    known = set(model.training.labels.tolist())
    rows = compared = right = strange = truncated = 0
    labelled: bool | None = None  # as the first part is: every part has the same columns
    with PredictionsFile(out) as file:
        for read, gathered in _parts(model, source, failures, assumptions, progress):
            truth = [named_label(read[at].label, source.label_names) for at in gathered.positions]
            labelled = any(label is not None for label in truth) if labelled is None else labelled
            columns = classified_columns(
                model.predictor,
                model.training,
                gathered.ids,
                model.fungi.combiner.transform(gathered.computed()),
                truth if labelled else None,
                error,
                everything,
            )
            file.write(columns)
            pairs = [pair for pair in zip(columns["label"], truth, strict=True) if pair[1] is not None]
            rows, compared, truncated = rows + len(truth), compared + len(pairs), truncated + len(gathered.truncated)
            right += sum(label == own for label, own in pairs)
            strange += sum(isinstance(own, list) or own not in known for _, own in pairs)
        if not rows:
            raise StoreError(f"none of {len(source)} rows can be read ({first_reasons(failures.rows, 5)}); fix them")
    notes = []
    if compared and strange == compared:
        notes.append("no label of these rows is one of the training rows: the predictions are not compared with them")
        compared = right = 0
    elif strange:
        notes.append(f"counted as wrong, since no training row has their label: {count(strange, 'row')}")
    if truncated:
        notes.append(f"too long: {count(truncated, 'row')}, of which the backbone saw the beginning only")
    return Predicted(model.title, rows, compared, right, failures.rows, (*notes, *assumptions.sentences()))


def _parts(
    model: Model, source: Source, failures: Failures, assumptions: Assumptions, progress: Progress
) -> Iterator[tuple[list[Row], Gathered]]:
    """Yield rows, without their samples, and what was gathered of them. Raises TooManyFailures."""
    fungi, waiting = model.fungi, deque[Row]()  # decoded, or about to be
    inputs, total = fungi.network.preprocess, len(source)

    def samples() -> Iterator[tuple[str, Any]]:
        for row in source.rows():
            waiting.append(replace(row, sample=None))
            yield row.id, row.sample

    gathered, read = Gathered(inputs, failures, assumptions), list[Row]()
    done = 0
    progress("rows", done, total)  # else the first batch would be taken for what an earlier run left
    for batch in decoded_batches(inputs, samples(), fungi.batch_size, fungi.workers, limits=fungi.engine.limits):
        gathered.add(batch, *fungi.compute(*batch))
        read += [waiting.popleft() for _ in batch.rows]
        done += len(batch.rows)
        progress("rows", done, total)
        if len(read) >= _TOGETHER and gathered.ids:
            yield read, gathered
            gathered, read = Gathered(inputs, failures, assumptions), []
    if gathered.ids:
        yield read, gathered
