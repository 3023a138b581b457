"""A 512 x 512 image through a ViT-S/16 (of two blocks, the depth adds nothing): memory beyond the network's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import numpy as np, torch
from PIL import Image
from transformers import ViTConfig, ViTModel
from sporeprint import Backbone, Dense, Fungi, Preprocess, Recipe, TokenKL, TokenSimCLR

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

def reset():
    open("/proc/self/clear_refs", "w").write("5")

torch.set_num_threads(1)
network = ViTModel(
    ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, image_size=224, num_hidden_layers=2),
    add_pooling_layer=False,
).eval()
backbone = Backbone(network, preprocess=Preprocess(size=224))
noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
dense = Dense(objectives=(TokenSimCLR(), TokenKL()), size=512)
fungi = Fungi(Recipe(dtype="float32", dense=dense), backbone=backbone)
images = [Image.fromarray(np.roll(noise, 7 * at, axis=0)) for at in range(2)]
prepared = backbone.preprocess.at(images[0], 512, 512).unsqueeze(0)
fungi.patches
with torch.no_grad():
    network(prepared, interpolate_pos_encoding=True)
    reset()
    network(prepared, interpolate_pos_encoding=True)
own = peak()
fungi.fit_dense(images)
reset()
assert fungi.dense(images[:1]).shape == (1, 32, 32, 1152)
print(peak() - own)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_dense_features_take_at_most_300_mib_beside_the_networks_own_pass() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 300
