"""`sporeprint analyse`: what the blocks of a store are like, and which classes gain or lose by joining them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sporeprint.backbones.description import caveats_text
from sporeprint.errors import RecipeError
from sporeprint.evaluate.analyse import Analysis, analyse
from sporeprint.evaluate.choice.candidates import DECORRELATED, EMBEDDING, EMBEDDINGS, RAW
from sporeprint.evaluate.table import features
from sporeprint.features.combine import NAMED, named
from sporeprint.predictors.knn import choose_k, knn_predict
from sporeprint.run.combination_flags import Wanted, candidates
from sporeprint.run.scores import Progress
from sporeprint.run.store_pair import read_pair
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
        progress(f"what {len(blocks)} blocks share")
        backbone = store.plan["resolved"]["backbone"]
        note = "; ".join([f"{backbone['name']}, {len(store)} rows", *caveats_text(backbone)])
        return analyse(blocks, most_rows=most_rows, seed=seed), note
    if what.table:
        what = Wanted(named(DECORRELATED, what.size), name=DECORRELATED)
    reads = what.reads
    pair = read_pair(
        train, test, lambda store: tuple(dict.fromkeys([EMBEDDING, *reads(store)])), label_column, who="analyse"
    )
    (candidate,), _ = candidates(what, pair.blocks, pair.labels, seed=seed, progress=progress)
    predicted: list[Any] = []
    for of in features(pair.blocks, pair.test_blocks, (EMBEDDINGS[RAW], candidate.combination)):
        progress(f"neighbours of the {'joined features' if predicted else 'embedding'}")
        table = choose_k(of.rows, pair.labels) if k == "auto" else {int(k): 0.0}
        nearest = max(table, key=lambda count: (np.nan_to_num(table[count]), -count))
        predicted.append(knn_predict(of.rows, pair.labels, of.others, k=nearest))
    progress(f"what {len(pair.blocks)} blocks share")
    before, after = predicted
    figures = analyse(pair.blocks, pair.test_labels, before, after, most_rows, seed)
    return figures, f"{pair.note}; classes by k nearest neighbours, from the embedding to {candidate.name}"
