"""How much memory do dense features of an image take beyond the network's own pass? A ViT-S/16, random weights.

python benchmarks/dense_memory.py [--side 512] [--projection rademacher] [--losses simclr kl]

Prints the MiB of the process's peak (Linux) beyond that of a plain forward pass at the same size. Two fitting images, a
support of 20,000 tokens.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine_class
from PIL import Image
from transformers import ViTConfig, ViTModel

from sporeprint import Backbone, Dense, Fungi, Preprocess, Recipe
from sporeprint.features.dense.dense_settings import NAMES


def peak() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def reset() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--projection", default="rademacher")
    parser.add_argument("--losses", nargs="*", choices=list(NAMES), default=list(NAMES))
    options = parser.parse_args()
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, image_size=224)
    network = ViTModel(config, add_pooling_layer=False).eval()
    backbone = Backbone(network, preprocess=Preprocess(size=224))
    noise = np.random.default_rng(0).integers(0, 255, (options.side, options.side, 3), dtype=np.uint8)
    images = [Image.fromarray(np.roll(noise, 7 * at, axis=0)) for at in range(2)]
    dense = Dense(objectives=[NAMES[name]() for name in options.losses], size=options.side)
    fungi = Fungi(Recipe(dtype="float32", projection=options.projection, dense=dense), backbone=backbone)
    prepared = backbone.preprocess.at(images[0], options.side, options.side).unsqueeze(0)
    assert fungi.patches.engine.limit >= (options.side // 16) ** 2
    with torch.no_grad():
        network(prepared, interpolate_pos_encoding=True)
        reset()
        network(prepared, interpolate_pos_encoding=True)
    plain = peak()
    fungi.fit_dense(images)
    reset()
    started = time.perf_counter()
    fungi.dense(images[:1])
    seconds = time.perf_counter() - started
    print("\n".join(machine_class("cpu")))
    print(f"{options.side} x {options.side}, {options.projection}, {', '.join(options.losses)}: {peak() - plain:.0f} "
          f"MiB beyond the network's own pass ({plain:.0f} MiB in all); {seconds:.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
