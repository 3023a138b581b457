"""Every way to make features: chosen and fitted on training rows alone, then asked about others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.evaluate.choice.intervals import Interval
from sporeprint.evaluate.choice.joined_features import passes_of
from sporeprint.evaluate.choice.leave_one_out import leave_one_out_of
from sporeprint.evaluate.choice.select import GUARD, RAW, REFERENCES, choose, paired, select, select_candidates
from sporeprint.evaluate.comparison import Compared
from sporeprint.evaluate.knn import CANDIDATES, knn_predict, leave_one_out
from sporeprint.evaluate.votes import winners
from sporeprint.features.blocks import Blocks, family
from sporeprint.features.combine import Combination, Combiner, named
from sporeprint.features.whiten import Axes
from sporeprint.search.neighbours import neighbours

Info = Mapping[str, Mapping[str, Any]]
FREE, PLAIN, ALL = "chosen, one pass", "chosen, no gradients", "chosen, all passes"
EMBEDDINGS = {**REFERENCES, f"{RAW}, white 1": Combination((RAW,), whiten="auto")}
_NOTHING = Interval(float("nan"), float("nan"), float("nan"))


def candidates(names: Sequence[str]) -> dict[str, tuple[str, Combination]]:
    """Name to (role, combination) of what a comparison always measures, beside what is chosen."""
    of = {kind: tuple(name for name in names if family(name) == kind) for kind in ("layers", "views", "gradients")}
    made = {name: ("embedding", one) for name, one in EMBEDDINGS.items()}
    for name in (*of["layers"], *of["views"], *of["gradients"]):
        role, title = ("block", f"{name} alone") if name in of["gradients"] else ("control", name)
        made[title] = (role, Combination((name,)))
        made[f"{title}, white 1"] = (role, Combination((name,), whiten="auto"))
    joined = [("embedding", "views"), ("embedding", "layers"), ("embedding", "layers", "views")]
    joined += [("embedding", "gradients"), ("embedding", "layers", "gradients")]
    for blocks in joined:
        if all(of.get(one, True) for one in blocks):
            role = "combined" if "gradients" in blocks else "control"
            made[f"{' + '.join(blocks)}, white 1"] = (role, Combination(blocks, whiten="auto"))
    if of["gradients"]:
        made["paper"] = ("paper", named("paper"))
    made["decorrelated"] = ("combined" if of["gradients"] else "control", named("decorrelated"))
    return made


class Facts:
    """What a set of blocks costs. info: `Store.blocks_info`; seconds: spent on each set of views for so many rows."""

    def __init__(self, info: Info, seconds: Mapping[str, float], rows: int):
        self.info, self.seconds, self.rows = info, seconds, rows

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
        rates = {"passes": passes_of(names, self.info), "rows_per_second": self.rows_per_second(names)}
        return {"blocks": names, "width": width, "bytes_per_row": 4 * width, **rates}

    def free(self, names: Sequence[str]) -> list[str]:
        """Those of the embedding's own pass. Another single view is one pass more, and not free."""
        return [name for name in names if self.info[name]["views"] == self.info["embedding"]["views"]]


class Trained:
    """What training rows decide: the choices, the reference, each entry's k. It is never shown a test row.

    entries: without what test rows say. reference: the best of the raw and the whitened embeddings by leave-one-out.
    recommended: the choice among everything if it beats the choice of one pass by two standard errors, else that.
    """

    def __init__(self, train: Blocks, labels: NDArray[Any], facts: Facts, most_rows: int, seed: int):
        self.train, self.labels = train, labels
        self.whiteners: dict[tuple[str, Any], Axes] = {}
        listed = candidates(list(train)) | self._choices(facts, most_rows, seed)
        asking = np.arange(len(labels))
        if len(labels) > most_rows:
            asking = np.sort(np.random.default_rng(seed).choice(len(labels), most_rows, replace=False))
        self.entries: list[Compared] = []
        rights = {}
        for name, (role, combination) in listed.items():
            combiner = combination.fit(train, self.whiteners)
            right = votes_of_others(combiner.transform(train), labels, asking)
            k = max(right, key=lambda one: (right[one].mean(), -one))
            entry = Compared(
                name=name,
                role=role,
                combination=combination,
                k=k,
                leave_one_out=float(right[k].mean()),
                value=_NOTHING,
                mean_per_class=float("nan"),
                gain=_NOTHING,
                **facts.price(combiner),
            )
            self.entries.append(entry)
            rights[name] = right[k]
        self.reference = max(EMBEDDINGS, key=lambda one: self.entry(one).leave_one_out)
        gain, error = paired(rights[FREE], rights[ALL])
        self.recommended = ALL if gain > GUARD * error else FREE

    def _choices(self, facts: Facts, most_rows: int, seed: int) -> dict[str, tuple[str, Combination]]:
        names = list(self.train)
        found = select_candidates(names)
        rights = leave_one_out_of(self.train, self.labels, found, most_rows=most_rows, seed=seed)
        some = [name for name in names if family(name) != "gradients"]
        free = {name: self.train[name] for name in facts.free(names)}
        made = {FREE: ("chosen", select(free, self.labels, most_rows=most_rows, seed=seed).combination)}
        if len(some) < len(names):  # the control is chosen with the same care, from the same candidates
            among = {name: found[name] for name in select_candidates(some)}
            made[PLAIN] = ("control", choose(among, rights).combination.over(some))
        return {**made, ALL: ("chosen", choose(found, rights).combination.over(names))}

    def entry(self, name: str) -> Compared:
        return next(one for one in self.entries if one.name == name)

    def guesses(self, test: Blocks) -> dict[str, NDArray[Any]]:
        """The label of each test row by each entry."""
        found = {}
        for one in self.entries:
            features, asked = self.features(one.name, test)
            found[one.name] = knn_predict(features, self.labels, asked, one.k)
        return found

    def features(self, name: str, test: Blocks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """An entry's features of the training rows, and of the test rows."""
        combiner = self.entry(name).combination.fit(self.train, self.whiteners)
        return combiner.transform(self.train), combiner.transform(test)


def votes_of_others(
    features: NDArray[Any], labels: NDArray[Any], asking: NDArray[np.intp], ks: Sequence[int] = CANDIDATES
) -> dict[int, NDArray[np.bool_]]:
    """`leave_one_out` of the rows `asking` [M] only; all other rows [N, D] remain their neighbours."""
    if len(asking) == len(labels):
        return leave_one_out(features, labels, ks)
    possible = [k for k in ks if k < len(labels)]
    classes, codes = np.unique(labels, return_inverse=True)
    found, start = [], 0
    for near, _ in neighbours(features, features[asking], max(possible) + 1):
        own = near == asking[start : start + len(near), None]
        own[~own.any(axis=1), -1] = True  # among so many duplicates that it is not even listed
        found.append(codes[near[~own].reshape(len(near), -1)])
        start += len(near)
    votes = np.concatenate(found)
    return {k: winners(votes[:, :k], np.ones((len(votes), k)), len(classes)) == codes[asking] for k in possible}
