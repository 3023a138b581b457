"""Gather facts about stores and backbones for the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sporeprint.backbones.description import caveats_text
from sporeprint.evaluate.table import Costs
from sporeprint.features.blocks import family
from sporeprint.store.reader import Store
from sporeprint.store.shards import count_labels

_FEW = 3  # blocks of a family that are named

SUPPORTED = [  # modality, library and families, embedding
    ("image", "transformers: ViT, DeiT, DINO, DINOv2 (registers too), DINOv3, MAE, data2vec-vision", "CLS"),
    ("image", "transformers: CLIP and SigLIP vision towers, BEiT", "the tower's own pooled output"),
    ("image", "timm: ViT, DeiT, EVA and others with forward_features / forward_head", "forward_head, pre_logits"),
    ("image", "torchvision: VisionTransformer (fused attention is unfused)", "CLS"),
    ("image", "sporeprint: tiny, trained by us without labels, for the demo and tests", "CLS"),
    ("text", "sentence-transformers: folder, hub id or object", "its own pooling, prompt, length, normalisation"),
    ("text", "transformers: BERT, RoBERTa, DistilBERT, MPNet, DeBERTa, ELECTRA, ModernBERT, XLM-R, MiniLM", "CLS"),
    ("text", "transformers: T5 and other encoders without a CLS token", "mean of the tokens"),
    ("text", "transformers: Qwen, Llama, GPT-2, Mistral and other decoders", "last token"),
    ("text", "transformers: text towers of CLIP and CLAP (--modality text)", "the tower's own pooled output"),
    ("audio", "transformers: Whisper's encoder", "mean over the real frames"),
    ("audio", "transformers: wav2vec 2.0, HuBERT, WavLM, data2vec-audio", "mean over the real frames"),
    ("audio", "transformers: AST; CLAP's audio tower", "its own pooled output"),
    ("any", "Backbone(any nn.Module, target=PATH, preprocess=...)", "its output; CLS, mean or last of its tokens"),
]


def store_summary(store: Store) -> dict[str, Any]:
    """Summarise a store as JSON: rows, blocks, plan, failures, cost."""
    return {
        "store": str(store.folder),
        "rows": len(store),
        "blocks": store.blocks_info,
        "labels": store.label_counts,
        "label_names": store.label_names,
        "truncated": store.truncated,
        "failures": [failure.to_json() for failure in store.failures],
        "cost": store.cost,
        "plan": store.plan,
    }


def source_lines(source: dict[str, Any], notes: Sequence[str] | None = None) -> Iterator[str]:
    """Describe what `Source.describe` gives: the columns of a table; the files of a folder that are not rows.

    notes: those of the source, which say more of these files; a store does not keep them.
    """
    columns = source.get("columns", {})
    if columns.get("sample"):
        texts = " (texts, as they stand)" if source.get("kind") == "csv" else ""
        label = f"labels from {columns['label']!r}{texts}" if columns["label"] else "no labels"
        ids = f"ids from {columns['id']!r}" if columns["id"] else "ids are row numbers"
        yield f"columns: samples from {columns['sample']!r}, {label}, {ids}"
    if notes is not None:
        yield from notes
    elif count := source.get("ignored_files"):
        yield f"passed over: {count} other file{'' if count == 1 else 's'}"


def store_answer(store: Store) -> str:
    """Say in a sentence what a store holds."""
    failed = f"{len(store.failures):,} not read" if store.failures else "every row was read"
    blocks = "1 block" if len(store.block_names) == 1 else f"{len(store.block_names)} blocks"
    return f"{len(store):,} rows with {blocks} of {store.plan['resolved']['backbone']['name']}; {failed}."


def store_lines(store: Store, verified: bool, everything: bool = True) -> Iterator[str]:
    """Describe a store for people, its blocks and their cost aside. everything: also what seldom matters."""
    plan = store.plan
    resolved, source = plan["resolved"], plan["source"]
    backbone = resolved["backbone"]
    yield f"store: {store.folder}{' (every file checked)' if verified else ''}"
    yield f"rows: {len(store)} from {source.get('name', source.get('kind'))}, {len(store.failures)} not read"
    yield from source_lines(source)
    if store.truncated:
        yield f"too long: {store.truncated} rows, of which the backbone saw the beginning only"
    yield f"labels: {_labels_text(store, verified)}"
    targets, weights = ", ".join(backbone["targets"]), f", weights {backbone['weights']}" if everything else ""
    yield (
        f"backbone: {backbone['name']} ({backbone['class']}), pooling {backbone['pooling']}, "
        f"{_limits_text(backbone)}, targets {targets}{weights}"
    )
    for caveat in caveats_text(backbone):
        yield f"warning: {caveat}"
    yield f"computed in: {resolved['dtype']} on {resolved['device']}, kept as {store.dtype}"
    yield f"seed: {plan['recipe']['seed']}"
    yield f"fitted on: {plan['fit']['from']}"


def blocks_text(names: Iterable[str], everything: bool = True) -> str:
    """Name blocks; without `everything` a family of many by their number."""
    of: dict[str, list[str]] = {}
    for name in names:
        of.setdefault(family(name), []).append(name)
    return ", ".join(
        ", ".join(members) if everything or len(members) <= _FEW else f"{kind} ({len(members)} blocks)"
        for kind, members in of.items()
    )


def cost_lines(store: Store, everything: bool = True) -> Iterator[str]:
    """Say how long the blocks took, in all, or for each set of views."""
    spent = {name: seconds for name, seconds in store.cost.get("seconds", {}).items() if seconds}
    negatives = spent.pop("negatives", 0.0)
    if everything and negatives:
        yield f"time to draw negatives: {negatives:.1f} s, once, before the rows"
    listed = spent if everything else {"all blocks": sum(spent.values())} if spent else {}
    for name, seconds in listed.items():
        yield f"time in {name}: {seconds:.1f} s, {store.cost['rows'] / seconds:,.1f} rows/s"
    if everything and spent:
        yield f"times: {measured(store.cost)}, reading and decoding rows left out"


def family_rows(store: Store) -> list[tuple[str, int, float]]:
    """The families of a store's blocks: what they are, the numbers of all of them together, and their passes."""
    of: dict[str, list[str]] = {}
    for name, block in store.blocks_info.items():
        of.setdefault(block["family"], []).append(name)
    costs = Costs(store.blocks_info)
    return [
        (blocks_text(names, False), sum(store.blocks_info[name]["dim"] for name in names), costs.passes(names))
        for names in of.values()
    ]


def measured(cost: Mapping[str, Any]) -> str:
    """Say how the seconds of a store's cost came about: as the clock on the wall had them."""
    threads = cost.get("threads")
    how_many = "" if not threads else "1 thread of " if threads == 1 else f"{threads} threads of "
    return f"measured while extracting, on {how_many}{cost.get('device', 'cpu')}, whatever else ran"


def _limits_text(backbone: dict[str, Any]) -> str:
    """Say what a backbone takes: its size of images, or its longest text or sound."""
    if "image_size" in backbone:
        return f"{backbone['image_size']} px"
    if "max_tokens" in backbone:
        return f"at most {backbone['max_tokens'] or 'any number of'} tokens"
    return f"{backbone['sample_rate_hz']} Hz, at most {backbone['max_seconds']:g} s"


def _labels_text(store: Store, verified: bool) -> str:
    """Count labels by the manifest, or, in an older store, only where every file was read anyway."""
    counts = store.label_counts
    if counts is None and verified:
        counts = count_labels([] if store.labels is None else store.labels.tolist())
    if counts is None:
        return "not counted in this store (--verify counts them)"
    rows_without = f", {counts['missing']} rows have none" if counts["missing"] else ""
    return f"{counts['different']} different{rows_without}" if counts["different"] else "none"


def describe_backbone(
    name: str, modality: str = "auto", trust_remote_code: bool = False, allow_random: bool = False
) -> dict[str, Any]:
    """Load a backbone and say what was found in it."""
    from sporeprint.backbones.load import load_backbone

    backbone = load_backbone(name, modality=modality, trust_remote_code=trust_remote_code, allow_random=allow_random)
    return {**backbone.describe(), "linear_layers": backbone.linear_layers()}
