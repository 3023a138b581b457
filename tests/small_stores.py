"""Stores made by hand, as `extract` would make them, without a network."""

import numpy as np

from sporeprint.errors import RowFailure
from sporeprint.store.writer import StoreWriter


def circle(degrees):
    """Points of the unit circle: those that are d degrees apart have the distance 2 sin(d / 2)."""
    turned = np.deg2rad(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)


def store_of(folder, source, blocks, failed=(), modality="text"):
    """A store of these rows, as `extract` would make it. blocks: {name: [rows, D]} of all rows, failed ones too."""
    plan = {"recipe": {"seed": 0}, "resolved": {"backbone": {"name": "b", "modality": modality}, "device": "cpu"}}
    plan["source"] = {**source.describe(), "digest": source.digest()}
    rows = list(source.rows())
    kept = [at for at in range(len(rows)) if at not in failed]
    ids, labels = [rows[at].id or str(at) for at in kept], [rows[at].label for at in kept]
    with StoreWriter(folder, plan, shard_rows=1024) as writer:
        failures = [RowFailure(rows[at].id, "no text") for at in failed]
        writer.write_shard(0, ids, labels, {name: block[kept] for name, block in blocks.items()}, failures, {})
        families = {"embedding": "embedding", "kl": "gradients", "cls-2": "layers"}
        same = {"views": "whole", "passes": 1}
        info = {name: {"dim": blocks[name].shape[1], "family": families[name], **same} for name in blocks}
        writer.commit(blocks=info, label_names=source.label_names, cost={})
    return folder
