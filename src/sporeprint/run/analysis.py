"""`sporeprint analyse`: what the blocks of a store are like, and which classes gain or lose by joining them."""

from __future__ import annotations

import numpy as np

from sporeprint.errors import RecipeError
from sporeprint.evaluate.analyse import Analysis, analyse
from sporeprint.evaluate.choice.joined_features import features
from sporeprint.evaluate.knn import choose_k, knn_predict
from sporeprint.features.combine import NAMED, Combination, named
from sporeprint.run.combination_flags import Wanted, combinations
from sporeprint.run.scores import Progress
from sporeprint.run.store_pair import one_label, read_pair
from sporeprint.run.store_source import Rows
from sporeprint.store.reader import Store


def analysis(
    train: Rows,
    test: Rows | None,
    what: Wanted,
    label_column: str | None = None,
    k: int | str = "auto",
    most_rows: int = 10_000,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> tuple[Analysis, str]:
    """The blocks of a store; with a labelled test store also which classes gain and lose against the embedding.

    The gain is that of kNN on the features that are wanted, by default the decorrelated ones.
    """
    if test is None:
        white = what.combination is not None and what.combination.whiten is not None
        if label_column is not None or what.loo or what.size is not None or white or what.name in NAMED:
            raise RecipeError("how blocks are joined, and labels, are for what classes gain: give TEST_STORE too")
        store = Store.open(train.store)
        blocks = store.blocks(what.reads(store))
        progress(f"{len(blocks)} blocks")
        note = f"{store.plan['resolved']['backbone']['name']}, {len(store)} rows"
        return analyse(blocks, most_rows=most_rows, seed=seed), note
    if what.table:
        what = Wanted(named("decorrelated", what.size), name="decorrelated")
    reads = what.reads
    pair = read_pair(train, test, lambda store: tuple(dict.fromkeys(["embedding", *reads(store)])), label_column)
    labels, truth = one_label(pair.labels, train.store, "analyse"), one_label(pair.test_labels, test.store, "analyse")
    made, _ = combinations(what, pair.blocks, labels, seed=seed)
    ((name, one),) = made.items()
    predicted = []
    progress("neighbours")
    for made_of in features(pair.blocks, pair.test_blocks, (Combination(("embedding",)), one)):
        table = choose_k(made_of.rows, labels) if k == "auto" else {int(k): 0.0}
        nearest = max(table, key=lambda each: (np.nan_to_num(table[each]), -each))
        predicted.append(knn_predict(made_of.rows, labels, made_of.others, k=nearest))
    progress(f"{len(pair.blocks)} blocks")
    before, after = predicted
    found = analyse(pair.blocks, truth, before, after, most_rows, seed)
    return found, f"{pair.note}; classes by k nearest neighbours, from the embedding to {name}"
