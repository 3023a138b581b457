"""Facts about stores, backbones and accuracies, gathered for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sporeprint.combine import Combination
from sporeprint.data.plan import differences
from sporeprint.data.store import Store
from sporeprint.errors import RecipeError, StoreError
from sporeprint.evaluate.table import Candidate, Entry, evaluate, standard_candidates

MOST_PCA = 512  # the paper's, for wide backbones

SUPPORTED = [
    ["transformers", "ViT, DeiT, DINO, DINOv2 (registers too), DINOv3, MAE, data2vec-vision", "CLS", "by structure"],
    ["transformers", "CLIP and SigLIP vision towers, BEiT", "the tower's own pooled output", "by structure"],
    [
        "timm",
        "ViT, DeiT, EVA and others with forward_features / forward_head",
        "forward_head, pre_logits",
        "by structure",
    ],
    ["torchvision", "VisionTransformer (fused attention is unfused)", "CLS", "by structure"],
    ["any nn.Module", "Backbone(module, target=PATH, preprocess=...)", "its output; CLS or mean of tokens", "by path"],
    ["sporeprint", "tiny: shipped, trained by us without labels, for the demo and tests", "CLS", "by structure"],
]


def store_summary(store: Store) -> dict[str, Any]:
    """As JSON: rows, blocks, plan, failures, cost."""
    return {
        "store": str(store.folder),
        "rows": len(store),
        "blocks": store.blocks_info,
        "label_names": store.label_names,
        "failures": [failure.to_json() for failure in store.failures],
        "cost": store.cost,
        "plan": store.plan,
    }


def store_lines(store: Store, verified: bool) -> Iterator[str]:
    """The same for people."""
    plan = store.plan
    labels = store.labels
    resolved, source = plan["resolved"], plan["source"]
    backbone = resolved["backbone"]
    yield f"store: {store.folder}{' (every file checked)' if verified else ''}"
    yield f"rows: {len(store)} from {source.get('name', source.get('kind'))}, {len(store.failures)} not read"
    yield f"labels: {'none' if labels is None else f'{len(set(map(str, labels)))} different'}"
    yield (
        f"backbone: {backbone['name']} ({backbone['class']}), pooling {backbone['pooling']}, "
        f"{backbone['image_size']} px, targets {', '.join(backbone['targets'])}, weights {backbone['weights']}"
    )
    yield f"computed in: {resolved['dtype']} on {resolved['device']}, kept as {store.dtype}"
    yield f"seed: {plan['recipe']['seed']}"
    yield f"fitted on: {plan['fit']['from']}"
    for name, block in store.blocks_info.items():
        yield f"  {name}: {block['dim']} numbers, {block['family']}, {block['passes']} passes (views: {block['views']})"
    for name, seconds in store.cost.get("seconds", {}).items():
        rate = store.cost["rows"] / seconds if seconds else float("inf")
        yield f"  time in {name}: {seconds:.1f} s, {rate:,.1f} rows/s on {store.cost['threads']} threads"
    for failure in store.failures:
        yield f"  not read: {failure.id}: {failure.reason}"


def knn_table(
    train_path: Path, test_path: Path, blocks: str | None, whiten: int | None, size: int | None, k: str
) -> tuple[list[Entry], str]:
    """The standard table of two stores, or one row where blocks are named; and a note on what was compared."""
    train, test = Store.open(train_path), Store.open(test_path)
    differing = differences(_comparable(train), _comparable(test), ("the first", "the second"))
    if differing:
        raise StoreError(
            f"{test_path} was not made like {train_path}:\n  "
            + "\n  ".join(differing)
            + f"\nMake the test store with: sporeprint extract ... --fit-from {train_path}"
        )
    if not _same_fit(train, test):
        raise StoreError(
            f"{test_path} was not fitted with {train_path}'s heads and negatives, so its gradients are not comparable. "
            f"Make it with: sporeprint extract ... --fit-from {train_path}"
        )
    labels, test_labels = _labels(train, train_path), _labels(test, test_path)
    ks = [_k(one) for one in k.split(",")]
    if blocks is None:
        if whiten is not None:
            raise RecipeError("--whiten goes with --blocks; the table whitens its controls by itself")
        size = size or min(MOST_PCA, train.blocks_info["embedding"]["dim"], len(train) - 1)
        candidates = standard_candidates(train.block_names, len(train), size)
    else:
        names = tuple(name.strip() for name in blocks.split(","))
        candidates = [Candidate(" + ".join(names), Combination(names, whiten, size))]
    wanted = list(dict.fromkeys(name for one in candidates for name in one.combination.blocks or ()))
    features, test_features = train.blocks(wanted), test.blocks(wanted)
    entries = [evaluate(one, features, labels, test_features, test_labels, train.blocks_info, ks) for one in candidates]
    classes = len(np.unique(labels))
    name = train.plan["resolved"]["backbone"]["name"]
    return entries, f"{name}, {len(train)} training rows, {len(test)} test rows, {classes} classes"


def describe_backbone(name: str) -> dict[str, Any]:
    """Load a backbone and say what was found in it."""
    from sporeprint.backbones.load import load_backbone

    backbone = load_backbone(name)
    return {**backbone.describe(), "linear_layers": backbone.linear_layers()}


def _comparable(store: Store) -> dict[str, Any]:
    """What two stores must share for their blocks to be comparable: not the device, and not the rows."""
    resolved = {key: value for key, value in store.plan["resolved"].items() if key != "device"}
    return {"recipe": store.plan["recipe"], "resolved": resolved}


def _same_fit(train: Store, test: Store) -> bool:
    """Whether two stores have the same heads, negatives and projections; a fitted combination does not count."""
    if train.manifest["states"] == test.manifest["states"]:
        return True
    from sporeprint import saved  # torch takes seconds to import

    def fitted(store: Store) -> dict[str, Any]:
        tensors = saved.unpack(store.read_state, str(store.folder))[1]
        return {name: value for name, value in tensors.items() if not name.startswith("combiner/")}

    ours, theirs = fitted(train), fitted(test)
    return ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


def _labels(store: Store, path: Path) -> Any:
    if store.labels is None:
        raise StoreError(f"{path} has no labels; extract it from a labelled source (--label-column NAME)")
    return store.labels


def _k(word: str) -> Any:
    word = word.strip()
    if word == "auto":
        return "auto"
    if not word.isdigit() or int(word) < 1:
        raise RecipeError(f"--k {word!r}; expected positive integers or auto, comma-separated")
    return int(word)
