"""The judges of a comparison in words, and what each says that layers, views and gradients add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from sporeprint.evaluate.choice.candidates import ALL, CHOICES, FREE, PLAIN, RAW
from sporeprint.evaluate.choice.verdict import is_pair
from sporeprint.evaluate.comparison import Accuracy, Comparison
from sporeprint.evaluate.table import Entry
from sporeprint.report.main_rows import main_rows

TITLES = {"knn": "kNN", "closed": "closed form", "probe": "probe"}
MORE = "more passes, over one pass"


@dataclass(frozen=True)
class Step:
    """What the entry `after` adds to the entry `before`. gains: by judge, fractions on the test rows."""

    words: str
    before: Entry
    after: Entry

    @property
    def gains(self) -> dict[str, float]:
        """The difference of the two accuracies by each judge that both have."""
        before, after = self.before.results, self.after.results
        return {
            judge: after[judge].value.value - before[judge].value.value
            for judge in TITLES
            if judge in before and judge in after
        }


def main_of(comparison: Comparison) -> list[int]:
    """The numbers of the entries that matter: the reference, the choices, the paper's, and the best of each family."""
    return main_rows(comparison.entries, lambda entry: -entry.result.loss, (RAW, comparison.reference, PLAIN))


def titles_of(comparison: Comparison) -> dict[str, str]:
    """The names of the rows of a table; of choices that are one and the same, the recommended or first has them all."""
    titles = {entry.name: entry.name for entry in comparison.entries}
    same: dict[str, list[str]] = {}
    for entry in comparison.entries:
        if entry.name in CHOICES:
            alike = [name for name in same if _is_alike(comparison.entry(name), entry)]
            same.setdefault(alike[0] if alike else entry.name, []).append(entry.name)
    for names in same.values():
        kept = comparison.chosen if comparison.chosen in names else names[0]
        *first, last = [name.removeprefix("chosen, ") for name in names]
        for name in names:
            del titles[name]
        titles[kept] = f"chosen, {', '.join(first)} and {last}" if first else kept
    return titles


def _is_alike(entry: Entry, other: Entry) -> bool:
    return is_pair(entry, other) and entry.value == other.value


def steps(comparison: Comparison) -> list[Step]:
    """One pass against the embedding, all passes against one, and with gradients against without."""
    by_name = {entry.name: entry for entry in comparison.entries}
    pairs = (
        ("one pass, over the embedding", comparison.reference, FREE),
        (MORE, FREE, ALL),
        ("gradients, over the best without", PLAIN, ALL),
    )
    listed = [
        Step(words, by_name[before], by_name[after])
        for words, before, after in pairs
        if before in by_name and after in by_name
    ]
    return [step for step in listed if step.words != MORE or step.after.passes > step.before.passes]


def judges_of(comparison: Comparison) -> list[str]:
    """The judges that any entry has, in the order of columns."""
    return [judge for judge in TITLES if any(judge in entry.results for entry in comparison.entries)]


def accuracy_of(entry: Entry, judge: str) -> Accuracy | None:
    """What this judge says of the entry; None where it was not asked."""
    return cast("Accuracy | None", entry.results.get(judge))


def settings_of(accuracy: Accuracy) -> str:
    """The settings of the predictor: "k = 5" of "kNN, k = 5"; "" where it has none."""
    return accuracy.predictor.partition(",")[2].strip()
