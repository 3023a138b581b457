"""A comparison with made-up numbers, for the report's tests."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from sporeprint.evaluate.analyse import Analysis, BlockFigures, ClassChange
from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.comparison import Accuracy, Changed, Comparison, Neighbour
from sporeprint.evaluate.table import Entry
from sporeprint.features.combine import Combination
from sporeprint.predictors.lda import ShrunkLDA


def entry(name: str, role: str, passes: int, accuracy: float, **others: Any) -> Entry:
    """An entry whose figures follow from its accuracy, which is that of LDA. others: its fields, or its accuracy's."""

    def judged(value: float, predictor: str, loss: float) -> Accuracy:
        return Accuracy(
            value=Interval(value, value - 0.02, value + 0.03, difference=False),
            mean_per_class=value - 0.05,
            gain=Interval(value - 0.6, value - 0.63, value - 0.57),
            predictor=predictor,
            leave_one_out=value - 0.01,
            loss=loss,
        )

    results = {
        "knn": judged(accuracy - 0.08, "kNN, k = 5", 1.1 - accuracy),
        "closed": judged(accuracy, "LDA", 1 - accuracy),
    }
    if role in ("embedding", "chosen"):
        results["probe"] = judged(accuracy - 0.02, "probe", float("nan"))
    row = Entry(
        name=name,
        role=role,
        combination=Combination(("embedding",)),
        blocks=("embedding",),
        width=384,
        passes=passes,
        rows_per_second=1240.0 / passes,
        results=results,
        judge="closed",
    )
    return altered(row, **others)


def altered(row: Entry, **others: Any) -> Entry:
    """The entry with other fields, its own or of its accuracy by its judge."""
    names = {field.name for field in fields(Accuracy)} & others.keys()
    accuracy = replace(row.result, **{name: others.pop(name) for name in names})
    return replace(row, **{"results": {**row.results, row.judge: accuracy}, **others})


def comparison(**others: Any) -> Comparison:
    both = ("embedding", "kl")
    entries = (
        entry("embedding", "embedding", 1, 0.6),
        entry("layers", "combined", 1, 0.7),
        entry("kl alone", "block", 1, 0.5),
        entry("paper's assembly", "paper", 100, 0.65),
        entry("all, white", "chosen", 10, 0.8, combination=Combination(both), blocks=both, features="embedding + kl"),
    )
    classes = (ClassChange("rose", 10, 0.5, 0.8, 0.3), ClassChange("daisy", 4, 0.75, 0.5, -0.25))
    analysis = Analysis(
        90,
        80,
        {"embedding": BlockFigures(384, 120.26, 0.1234), "kl": BlockFigures(768, 300.0, float("nan"))},
        ((1.0, 0.25), (0.25, 1.0)),
    )
    before = tuple(Neighbour(at, f"train-{at}", "daisy") for at in range(3))
    after = (Neighbour(7, "train-7", "rose"), Neighbour(1, "train-1", "daisy"))
    changed = (Changed(2, "test-2", "rose", "daisy", "rose", before, after),)
    whole = Comparison(
        verdict="Use all of it.",
        entries=entries,
        reference="embedding",
        free="layers",
        chosen="all, white",
        predictor=ShrunkLDA(),
        classes=classes,
        analysis=analysis,
        changed=changed,
        settings={"backbone": "tiny", "test_rows": 1400},
        notes=("Two rows are in both stores.",),
    )
    return replace(whole, **others)
