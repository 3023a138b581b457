"""How much accuracy does each set of views give for its passes? Tables for docs/speed.md.

python benchmarks/frontier.py table --set NAME TRAIN[,MORE] TEST[,MORE] [--set ...] --candidate "fast=dino+simclr" ...
python benchmarks/frontier.py cost RECIPE.json SOURCE --name NAME --out costs.json [--rows 16] [--rounds 3]

`table`: a set is a store of training rows and one of test rows; more stores of the same rows, comma-separated, give
more sets of views. A candidate is sets of views joined with +, each named as in `sporeprint info` or written
STORE:NAME, where STORE is the place in the list (0 the first); nothing after = is one pass alone. Without --candidate:
one pass, then each set of views by itself. Every candidate has the embedding, layers and the blocks of its own views.
They are joined without labels (several ways), as the paper does (embedding and gradients), and by `select` on the
training rows. Figures: k by leave-one-out on the training rows / k = 20 / --shots labels a class, mean of three draws.
--svg draws the points named by --show, mean over the sets. A candidate may differ by set: "fast=d2p4;trec/t2" is t2 on
trec and d2p4 elsewhere.

`cost`: CPU seconds (all threads together) a row of each set of views, with its gradients and projection, in units of
the embedding alone: no layers, no KL. Rounds take turns; the median is given.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from frontier_plot import Point, plot
from machine import table

from sporeprint import Combination, Fungi, Recipe, Store, open_source
from sporeprint.data.sampling import Sampled
from sporeprint.evaluate.choice.select import select
from sporeprint.evaluate.shots import draws
from sporeprint.features.combine import named
from sporeprint.features.whiten import Axes
from sporeprint.objectives.view_sets import view_sets
from sporeprint.predictors.knn import choose_k, knn_predict

EVERY = ("embedding", "layers", "views", "gradients")
WAYS: dict[str, Combination] = {
    "embedding": Combination(("embedding",)),
    "paper": named("paper"),
    "decorrelated": named("decorrelated"),
    "0.75": Combination(EVERY, whiten="auto", exponent=0.75),
    "white": Combination(EVERY, whiten="auto"),
    "white, alike": Combination(EVERY, whiten="auto", weights=(1.0,) * 4),
    "no gradients, 0.75": Combination(EVERY[:3], whiten="auto", exponent=0.75),
    "no embedding, 0.75": Combination(EVERY[1:], whiten="auto", exponent=0.75),
}


@dataclass
class Rows:
    """Rows holds the blocks of the same rows from several stores, by name."""

    train: dict[str, np.ndarray] = field(default_factory=dict)
    test: dict[str, np.ndarray] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)  # {block: "0:simclr"}
    passes: dict[str, float] = field(default_factory=dict)  # {set of views: passes}
    labels: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))
    whiteners: dict[tuple[str, Any], Axes] = field(default_factory=dict)

    def of(self, sets: Sequence[str]) -> list[str]:
        """Return the names of the blocks of one pass and of these sets of views."""
        return [name for name, views in self.views.items() if views == "whole" or views in sets]

    def cost(self, sets: Sequence[str]) -> float:
        return 1 + sum(self.passes[views] for views in sets)


def read(train: str, test: str, target: str, drop: Sequence[str]) -> Rows:
    """Read the stores of a set; the embedding, layers and gradients of one pass are the first store's."""
    rows = Rows()
    ids: list[list[str]] = []
    for place, folders in enumerate(zip(train.split(","), test.split(","), strict=True)):
        stores = [Store.open(folder) for folder in folders]
        ids = ids or [store.ids for store in stores]
        if place == 0:
            rows.labels = np.asarray(stores[0].labels), np.asarray(stores[1].labels)
        orders = [order(store, store_ids) for store, store_ids in zip(stores, ids, strict=True)]
        for name, block in stores[0].blocks_info.items():
            plain, _, path = name.partition("@")
            if (path and not path.endswith(tuple(target.split(",")))) or any(word in name for word in drop):
                continue
            views = "whole" if block["views"] == "whole" else f"{place}:{block['views']}"
            if views == "whole" and place:  # the first store's
                continue
            key = plain if views == "whole" else f"s{place}-{plain}"
            rows.views[key], rows.passes[views] = views, block["passes"]
            rows.train[key], rows.test[key] = (
                store.blocks([name])[name][at] for store, at in zip(stores, orders, strict=True)
            )
    return rows


def order(store: Store, ids: Sequence[str]) -> list[int]:
    """Return the positions of these rows in a store, which may have others too."""
    at = {row_id: place for place, row_id in enumerate(store.ids)}
    if missing := [row_id for row_id in ids if row_id not in at]:
        raise SystemExit(f"{store.folder} has no row {missing[0]!r}, which the first store of its set has")
    return [at[row_id] for row_id in ids]


def measure(rows: Rows, names: Sequence[str], way: Combination, shots: int) -> tuple[float, float, float, float]:
    """Return top-1 with k by leave-one-out, with k = 20, few-shot, and the leave-one-out figure itself."""
    combiner = way.over(names).fit(rows.train, rows.whiteners)
    features, queries = combiner.transform(rows.train), combiner.transform(rows.test)
    labels, truth = rows.labels

    def top(subset: np.ndarray, k: int | None = None) -> tuple[float, float]:
        scores = choose_k(features[subset], labels[subset]) if k is None else {k: float("nan")}
        best = max(scores, key=lambda k: (scores[k], -k))
        return float((knn_predict(features[subset], labels[subset], queries, best) == truth).mean()), scores[best]

    every = np.arange(len(labels))
    value, inner = top(every)
    few = float(np.mean([top(subset)[0] for subset in draws(labels, shots, 3)])) if shots else float("nan")
    return value, top(every, 20)[0], few, inner


def tables(options: argparse.Namespace) -> None:
    drop = tuple(word for word in options.drop.split(",") if word)
    sets = {name: read(train, test, options.target or "", drop) for name, train, test in options.set}
    costs: dict[str, float] = json.loads(Path(options.costs).read_text()) if options.costs else {}
    first = next(iter(sets.values()))
    given = dict(word.split("=", 1) for word in options.candidate or ())
    if not given:
        given = {"one pass": "", **{views: views for views in first.passes if views != "whole"}}
    points: list[Point] = []
    lines: list[list[str]] = []
    for title, text in given.items():
        by_way: dict[str, list[tuple[float, ...]]] = {}
        cost: list[float] = []
        spent: list[float] = []
        for name, rows in sets.items():
            parts = [word if ":" in word else f"0:{word}" for word in _of_set(text, name).split("+") if word]
            if missing := [part for part in parts if part not in rows.passes]:
                raise SystemExit(f"{name}: no views {missing[0]}; there are: {', '.join(rows.passes)}")
            names = rows.of(parts)
            cost.append(rows.cost(parts))
            views = ["whole", *(part.partition(":")[2] for part in parts)]
            if all(f"{name}/{part}" in costs for part in views):
                spent.append(sum(costs[f"{name}/{part}"] for part in views))
            for way in options.way:
                if way == "embedding" and parts:
                    continue  # the same for every candidate
                by_way.setdefault(way, []).append(_measure(rows, names, way, options.shots))
        for way, results in by_way.items():
            figures = [" / ".join(f"{100 * value:.1f}" for value in result[:3]) for result in results]
            mean = np.mean(results, axis=0)
            shown = "-".join(f"{passes:.1f}" for passes in sorted({min(cost), max(cost)}))
            price = "" if not spent else f"{np.mean(spent):.1f}"
            last = " / ".join(f"{100 * value:.1f}" for value in mean[:3])
            lines.append([title, way, shown, price, *figures, last])
            print("|", " | ".join(lines[-1]), "|", flush=True)
            points.append(Point(title, way, float(np.mean(cost)), float(mean[0]), tuple(r[0] for r in results)))
    print("\n" + table(["candidate", "joined", "passes", "measured", *sets, "mean"], lines))
    if options.svg:
        Path(options.svg).write_text(plot(points, list(sets), options.show) + "\n")


def _of_set(text: str, name: str) -> str:
    """Return a candidate's text for a set: "n9+d4;trec/t4" is t4 on trec and n9+d4 elsewhere."""
    words = dict(word.split("/", 1) if "/" in word else ("", word) for word in text.split(";"))
    return words.get(name, words.get("", ""))


def _measure(rows: Rows, names: list[str], way: str, shots: int) -> tuple[float, ...]:
    if way != "select":
        return measure(rows, names, WAYS[way], shots)
    choice = _select(rows, names, rows.labels[0])
    all_labels = measure(rows, names, choice, 0)
    few = []
    for subset in draws(rows.labels[0], shots, 3) if shots else ():
        labels = np.full(len(rows.labels[0]), None, dtype=object)
        labels[subset] = rows.labels[0][subset]
        few.append(_few(rows, _select(rows, names, labels), subset))
    return all_labels[0], all_labels[1], float(np.mean(few)) if few else float("nan"), all_labels[3]


def _select(rows: Rows, names: list[str], labels: np.ndarray) -> Combination:
    return select({name: rows.train[name] for name in names}, labels, predictors=("kNN",)).combination


def _few(rows: Rows, way: Combination, subset: np.ndarray) -> float:
    combiner = way.fit(rows.train, rows.whiteners)
    features, labels = combiner.transform(rows.train)[subset], rows.labels[0][subset]
    scores = choose_k(features, labels)
    k = max(scores, key=lambda k: (scores[k], -k))
    return float((knn_predict(features, labels, combiner.transform(rows.test), k) == rows.labels[1]).mean())


def costs(options: argparse.Namespace) -> None:
    recipe = Recipe.from_json(json.loads(Path(options.recipe).read_text()))
    whole = Fungi(recipe)
    modality = str(whole.describe()["backbone"].get("modality", "image"))
    source = Sampled(open_source(options.source, modality=modality), options.rows)
    samples = [row.sample for row in source.rows()]
    parts = {"embedding": replace(recipe, objectives=(), layers=0)}
    for views in view_sets(whole.engine.objectives):
        layers = recipe.layers if views.name == "whole" else 0
        parts[views.name] = replace(recipe, objectives=views.objectives, layers=layers)
    fungis = {name: Fungi(part, backbone=whole.network).fit(samples) for name, part in parts.items()}
    seconds: dict[str, list[float]] = {name: [] for name in fungis}
    for _ in range(options.rounds):
        for name, fungi in fungis.items():
            start = time.process_time()
            fungi.blocks(samples)
            seconds[name].append(time.process_time() - start)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    base = middle["embedding"]
    relative = {
        name: (time if name == "whole" else time - base) / base for name, time in middle.items() if name != "embedding"
    }
    print(f"embedding: {1000 * base / len(samples):.1f} ms CPU a row")
    _save(options, relative)


def _save(options: argparse.Namespace, relative: Mapping[str, float]) -> None:
    file = Path(options.out)
    known = json.loads(file.read_text()) if file.exists() else {}
    for name, value in relative.items():
        print(f"{name}: {value:.2f} embeddings")
        known[f"{options.name}/{name}"] = value
    file.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    table_options = commands.add_parser("table")
    table_options.add_argument("--set", nargs=3, action="append", required=True, metavar=("NAME", "TRAIN", "TEST"))
    table_options.add_argument("--candidate", action="append", metavar="NAME=VIEWS+VIEWS[;SET/VIEWS+VIEWS]")
    table_options.add_argument("--way", action="append", choices=[*WAYS, "select"])
    table_options.add_argument("--shots", type=int, default=5, help="labels a class; 0 leaves the few-shot figures out")
    table_options.add_argument(
        "--target", help="of stores with several target layers, read these (ends of paths, comma-separated)"
    )
    table_options.add_argument("--drop", default="", help="comma-separated parts of names of blocks to leave out")
    table_options.add_argument("--costs", help="what `cost` wrote")
    table_options.add_argument("--svg", help="file to draw")
    table_options.add_argument(
        "--show", action="append", default=[], metavar="CANDIDATE:WAY[:WORDS]", help="points of the SVG"
    )
    table_options.set_defaults(run=tables)
    cost_options = commands.add_parser("cost")
    cost_options.add_argument("recipe")
    cost_options.add_argument("source")
    cost_options.add_argument("--rows", type=int, default=16)
    cost_options.add_argument("--rounds", type=int, default=3)
    cost_options.add_argument("--name", required=True, help="of the set, as in `table`")
    cost_options.add_argument("--out", required=True)
    cost_options.set_defaults(run=costs)
    options = parser.parse_args()
    if options.run is tables:
        options.way = options.way or [*WAYS, "select"]
    options.run(options)


if __name__ == "__main__":
    main()
