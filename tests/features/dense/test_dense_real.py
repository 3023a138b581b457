"""DeiT-tiny's own weights on a street: the gradient of every token against plain autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sporeprint import Dense, Fungi, Recipe, TokenKL, TokenSimCLR
from sporeprint.data.images import load_image
from sporeprint.data.scenes.scenes import open_scenes
from sporeprint.evaluate.segmentation import confusion, segmentation

pytestmark = pytest.mark.real


def test_tokens_of_deit_have_the_gradients_of_plain_autograd(shared):
    image = load_image(open_scenes(shared / "data/camvid/val.parquet", limit=1)[0].image)
    dense = Dense(objectives=(TokenKL(), TokenSimCLR(neighbours=0)), size=(48, 80))
    recipe = Recipe(backbone=str(shared / "models/deit-tiny"), dtype="float32", dense=dense)
    fungi = Fungi(recipe).fit_dense([image])
    (_, blocks), *_ = fungi.patches.blocks([("a", image)])
    module, layer = fungi.network.module, next(iter(fungi.network.targets.values())).layer
    captured: dict[str, Tensor] = {}

    def watch(_, args, output):
        captured["inputs"], captured["outputs"] = args[0].detach(), output.detach().requires_grad_()
        return captured["outputs"]

    handle = layer.register_forward_hook(watch)
    with torch.enable_grad():
        prepared = fungi.network.preprocess.at(image, 48, 80).unsqueeze(0)
        tokens = module(pixel_values=prepared, interpolate_pos_encoding=True).last_hidden_state[0, -15:]
    handle.remove()
    matrix = fungi.projection.matrix().double()
    for objective in dense.objectives:
        head = fungi.patches.engine.heads[objective.name]
        unit = torch.nn.functional.normalize(tokens, dim=-1) if objective.normalize else tokens
        loss = objective.loss(head(unit)).sum()
        (felt,) = torch.autograd.grad(loss, captured["outputs"], retain_graph=True)
        for at in range(15):
            token = captured["inputs"].shape[1] - 15 + at
            with_one = torch.cat([captured["inputs"][0, token], torch.ones(1)])
            gradient = torch.outer(felt[0, token], with_one).double().flatten()
            expected = torch.nn.functional.normalize(matrix @ (gradient / gradient.norm()), dim=0)
            gradient = torch.from_numpy(blocks[objective.name].reshape(15, -1)[at]).double()
            assert (gradient - expected).norm() < 1e-4


def test_layers_whitened_segment_streets_better_than_plain_tokens(shared):
    from sporeprint import Combination
    from sporeprint.data.scenes.scenes import read_scene
    from sporeprint.segment.bank import MemoryBank
    from sporeprint.segment.patches import patch_histograms
    from sporeprint.segment.vote import upsample

    train = [read_scene(scene, 11, (11,)) for scene in list(open_scenes(shared / "data/camvid/train.parquet"))[::12]]
    test = [read_scene(scene, 11, (11,)) for scene in list(open_scenes(shared / "data/camvid/val.parquet"))[::10]]
    dense = Dense(objectives=(), layers=(4, 6, 8, 10), size=(240, 320))
    fungi = Fungi(Recipe(backbone=str(shared / "models/deit-tiny"), dense=dense))
    fitted = fungi.patches.fit([(str(at), image) for at, (image, _) in enumerate(train)])
    maps = [blocks for _, blocks in fungi.patches.blocks([(str(at), image) for at, (image, _) in enumerate(train)])]
    tests = [blocks for _, blocks in fungi.patches.blocks([(f"t{at}", image) for at, (image, _) in enumerate(test)])]
    histograms = np.concatenate([patch_histograms(labels, (15, 20), 11, (11,)).reshape(300, 11) for _, labels in train])
    labelled = histograms.sum(axis=1) > 0
    scores = {}
    for name, combination in {
        "embedding": Combination(("embedding",)),
        "layers": Combination(("embedding", "layers"), whiten="auto", exponent=0.5),
    }.items():
        combiner = combination.fit(fitted)
        features = np.concatenate([fungi.patches.joined(blocks, combiner).reshape(300, -1) for blocks in maps])
        bank = MemoryBank.of(features[labelled], histograms[labelled])
        confusions = []
        for blocks, (_, labels) in zip(tests, test, strict=True):
            shares = bank.predict(fungi.patches.joined(blocks, combiner).reshape(300, -1)).reshape(15, 20, 11)
            confusions.append(confusion(labels, upsample(shares, labels.shape), 11, (11,)))
        scores[name] = segmentation(confusions).value
    assert scores["embedding"] > 0.35  # METHOD's first try: 38.5 with 60 images
    assert scores["layers"] > scores["embedding"] + 0.02
