"""Which rule should choose features and predictor? Several, on the same labels; figures for docs/results.md.

python benchmarks/answers_tried.py TRAIN TEST [TRAIN TEST ...] [--shots 5,10,20,all] [--draws 3]

For sets on which the choice is designed, since test rows judge the rules. A rule says which predictors are asked, what
it starts from, by what loss it compares, and by how many standard errors another pair must be better. Gains are over
the best of kNN, LDA, ridge and probe on the raw and the half-whitened embedding by training loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from answers import Pair

from sporeprint.evaluate.choice.candidates import RAW, REFERENCES, choices, joined, title_of
from sporeprint.evaluate.choice.guard import surely_better
from sporeprint.evaluate.choice.judges import CHOSEN
from sporeprint.evaluate.choice.leave_one_out import Outcomes, leave_one_out_of
from sporeprint.evaluate.shots import draws

LAYERS = title_of(joined(("embedding", "layers")))
EVERY = ("kNN", "LDA", "ridge", "class means")


@dataclass(frozen=True)
class Rule:
    """words: the predictors that are asked. guard: standard errors; None takes the start as it is.

    start: features with LDA; None starts from the reference. accuracy: compares shares of errors, not squared errors.
    """

    words: Sequence[str]
    guard: float | None
    start: str | None = None
    accuracy: bool = False

    def __str__(self) -> str:
        if self.guard is None:
            return f"{self.start}, LDA: nothing chosen"
        start = "the reference" if self.start is None else f"{self.start}, LDA"
        by = ", by accuracy" if self.accuracy else ""
        return f"{' or '.join(self.words)}{by}, from {start}, guard {self.guard:g}"

    def chosen(self, outcomes: Outcomes, reference: tuple[str, str]) -> tuple[str, str]:
        """The features and the predictor."""
        start = reference if self.start is None else (self.start, "LDA")
        if self.guard is None:
            return start
        losses = {
            (name, word): 1.0 - outcome.right if self.accuracy else outcome.losses
            for name, of in outcomes.items()
            for word, outcome in of.items()
            if word in self.words
        }
        best = min(losses, key=lambda pair: losses[pair].mean())
        of_start = outcomes[start[0]][start[1]]
        gains = (1.0 - of_start.right if self.accuracy else of_start.losses) - losses[best]
        return best if surely_better(gains, self.guard) else start


RULES = (
    *(Rule(EVERY, guard) for guard in (0, 1, 2)),
    Rule(EVERY, 1, accuracy=True),
    Rule(CHOSEN, 1),
    *(Rule(("LDA",), guard, RAW) for guard in (0, 1, 2)),
    Rule(("LDA",), 1, LAYERS),
    Rule((), None, RAW),
    Rule((), None, LAYERS),
)


def gains(pair: Pair, rows: np.ndarray) -> dict[Rule, float]:
    """Accuracy of each rule over the reference's, in points."""
    labels = np.full(len(pair.labels), None, dtype=object)
    labels[rows] = pair.labels[rows]
    listed = choices(list(pair.train))
    outcomes = leave_one_out_of(pair.train, labels, listed, (*EVERY, "probe"), probed=tuple(REFERENCES))
    pairs = [(name, word) for name in REFERENCES for word in CHOSEN]
    reference = min(pairs, key=lambda which: outcomes[which[0]][which[1]].loss)
    chosen = {rule: rule.chosen(outcomes, reference) for rule in RULES}
    accuracy = {
        (name, word): pair.right(listed[name], outcomes[name][word].predictor, rows).mean()
        for name, word in {reference, *chosen.values()}
    }
    return {rule: 100 * float(accuracy[which] - accuracy[reference]) for rule, which in chosen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", help="TRAIN TEST [TRAIN TEST ...]")
    parser.add_argument("--shots", default="5,10,20,all", help="comma-separated; all for every label")
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    columns: dict[str, list[dict[Rule, float]]] = {}
    for train, test in zip(options.stores[::2], options.stores[1::2], strict=True):
        pair = Pair(train, test, None)
        for word in options.shots.split(","):
            every = word == "all"
            subsets = [np.arange(len(pair.labels))] if every else draws(pair.labels, int(word), options.draws)
            columns[f"{pair.name}, {word}"] = [gains(pair, rows) for rows in subsets]
    print(f"| rule | {' | '.join(columns)} | mean | worst |\n|{'---|' * (len(columns) + 3)}")
    for rule in RULES:
        means = [np.mean([case[rule] for case in cases]) for cases in columns.values()]
        worst = min(case[rule] for cases in columns.values() for case in cases)
        print(f"| {rule} | {' | '.join(f'{value:+.1f}' for value in (*means, np.mean(means), worst))} |", flush=True)


if __name__ == "__main__":
    main()
