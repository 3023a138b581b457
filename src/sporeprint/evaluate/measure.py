"""Every way to make features, on one pair of sets: chosen and fitted on the training rows, asked about the test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.combine import Axes, Blocks, Combination, Combiner, family, named
from sporeprint.evaluate.comparison import Compared
from sporeprint.evaluate.intervals import Interval
from sporeprint.evaluate.knn import knn_predict, leave_one_out
from sporeprint.evaluate.select import RAW, WHITE, Selection, select

Info = Mapping[str, Mapping[str, Any]]
FREE, ALL = "chosen, one pass", "chosen, all passes"
_NOTHING = Interval(float("nan"), float("nan"), float("nan"))


def candidates(names: Sequence[str]) -> dict[str, tuple[str, Combination]]:
    """Name to (role, combination) of what a comparison always measures, beside what is chosen."""
    of = {kind: tuple(name for name in names if family(name) == kind) for kind in ("layers", "views", "gradients")}
    made: dict[str, tuple[str, Combination]] = {
        RAW: ("embedding", Combination(("embedding",))),
        WHITE: ("embedding", Combination(("embedding",), whiten="auto")),
    }
    made |= {f"{name} alone": ("block", Combination((name,))) for name in of["gradients"]}
    for name in of["views"]:
        made[name] = ("control", Combination((name,)))
        made[f"{name}, white"] = ("control", Combination((name,), whiten="auto"))
    joined = [("embedding", "views"), ("embedding", "layers"), ("embedding", "layers", "views")]
    joined += [("embedding", "gradients"), ("embedding", "layers", "gradients")]
    for blocks in joined:
        if all(of.get(one, True) for one in blocks):
            role = "combined" if "gradients" in blocks else "control"
            made[f"{' + '.join(blocks)}, white"] = (role, Combination(blocks, whiten="auto"))
    if of["gradients"]:
        made["paper"] = ("paper", named("paper"))
    made["decorrelated"] = ("combined", named("decorrelated"))
    return made


class Facts:
    """What a set of blocks costs. info: `Store.blocks_info`; seconds: spent on each set of views for so many rows."""

    def __init__(self, info: Info, seconds: Mapping[str, float], rows: int):
        self.info, self.seconds, self.rows = info, seconds, rows

    def passes(self, blocks: Sequence[str]) -> int:
        sets = {self.info[name]["views"]: int(self.info[name]["passes"]) for name in blocks}
        return sum(sets.values())

    def rows_per_second(self, blocks: Sequence[str]) -> float | None:
        sets = {self.info[name]["views"] for name in blocks}
        if not self.rows or not sets <= set(self.seconds):
            return None
        spent = sum(self.seconds[one] for one in sets)
        every = [name for name, one in self.info.items() if one["family"] == "gradients"]
        if every:  # the projection's time is shared by the gradient blocks alike
            spent += self.seconds.get("projection", 0.0) * sum(name in blocks for name in every) / len(every)
        return self.rows / spent if spent else None

    def price(self, combiner: Combiner) -> dict[str, Any]:
        """The fields of `Compared` that say what a combination takes."""
        names, width = combiner.names, combiner.width
        rates = {"passes": self.passes(names), "rows_per_second": self.rows_per_second(names)}
        return {"blocks": names, "width": width, "bytes_per_row": 4 * width, **rates}

    def free(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self.info[name]["passes"] == 1]


class Measured:
    """entries: without intervals, which one pair of sets may or may not give. guesses: test labels by entry."""

    def __init__(
        self,
        train: Blocks,
        labels: NDArray[Any],
        test: Blocks,
        test_labels: NDArray[Any],
        facts: Facts,
        most_rows: int,
        seed: int,
    ):
        self.train, self.labels, self.test, self.test_labels = train, labels, test, test_labels
        self.whiteners: dict[tuple[str, Any], Axes] = {}
        free = facts.free(list(train))
        self.choices: dict[str, Selection] = {
            FREE: select({name: train[name] for name in free}, labels, most_rows=most_rows, seed=seed),
            ALL: select(train, labels, most_rows=most_rows, seed=seed),
        }
        self.reference = self.choices[ALL].reference
        listed = {**candidates(list(train)), **{n: ("chosen", one.combination) for n, one in self.choices.items()}}
        self.guesses: dict[str, NDArray[Any]] = {}
        self.entries: list[Compared] = []
        if len(labels) > most_rows:
            drawn = np.sort(np.random.default_rng(seed).choice(len(labels), most_rows, replace=False))
        else:
            drawn = np.arange(len(labels))
        for name, (role, combination) in listed.items():
            combiner, features, asked = self.features(combination)
            rights = leave_one_out(features[drawn], labels[drawn])
            k = max(rights, key=lambda one: (rights[one].mean(), -one))
            guess = knn_predict(features, labels, asked, k)
            self.guesses[name] = guess
            per_class = [float((guess[test_labels == one] == one).mean()) for one in np.unique(test_labels)]
            self.entries.append(
                Compared(
                    name=name,
                    role=role,
                    combination=combination,
                    k=k,
                    leave_one_out=float(rights[k].mean()),
                    value=_NOTHING,
                    mean_per_class=float(np.mean(per_class)),
                    gain=_NOTHING,
                    **facts.price(combiner),
                )
            )

    def features(self, combination: Combination) -> tuple[Combiner, NDArray[np.float32], NDArray[np.float32]]:
        """The combiner, features of the training rows, features of the test rows."""
        combiner = combination.fit(self.train, self.whiteners)
        return combiner, combiner.transform(self.train), combiner.transform(self.test)
