"""What the heads of an attention gave, before its output projection: a block that costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from small import PREPROCESS, noise_pictures, seen_by, small_backbone, small_module
from small_text import FAMILIES, TEXTS, Family
from sporeprint import KL, Backbone, Fungi, Recipe
from sporeprint.errors import RecipeError

KINDS = ("cls", "patches", "attention")
every = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def views(count: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_is_the_input_of_the_output_projection_pooled_as_the_embedding(pooling: str) -> None:
    module = small_module(dtype=torch.float64)
    with small_backbone(dtype=torch.float64, pooling=pooling).run(views(), layers=2, kinds=KINDS) as one_pass:
        layers = one_pass.layers
    with torch.no_grad(), seen_by(module.blocks[1].attn.proj) as seen:
        module(views(dtype=torch.float64))
    expected = seen[0][:, 0] if pooling == "cls" else seen[0][:, 1:].mean(dim=1)
    assert list(layers) == ["cls-1", "patches-1", "cls-2", "patches-2", "attention-2"]
    torch.testing.assert_close(layers["attention-2"], expected, rtol=1e-12, atol=0)


@every
def test_of_padded_texts_is_that_of_each_text_alone(family: Family) -> None:
    module = family.build(torch.float64)
    backbone = Backbone(family.build(torch.float64), preprocess=family.tokenizer(), modality=family.modality)
    kinds = (*backbone.layer_kinds, "attention")
    with backbone.run(
        backbone.preprocess.collate([backbone.preprocess(text) for text in TEXTS[:3]]), 1, kinds=kinds
    ) as one_pass:
        found = one_pass.layers[f"attention-{backbone.depth}"]
    part = module.get_submodule(family.part)
    for row, text in enumerate(TEXTS[:3]):
        with torch.no_grad(), seen_by(part.get_submodule(family.target)) as seen:
            part(input_ids=family.tokenizer()(text, return_tensors="pt")["input_ids"])
        tokens = seen[0][0]
        expected = {"cls": tokens[0], "mean": tokens.mean(dim=0)}.get(family.pooling, tokens[-1])
        torch.testing.assert_close(found[row], expected, rtol=1e-6, atol=1e-8)


def test_a_fused_attention_of_torch_gives_its_heads() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        module = nn.Sequential(
            nn.Conv2d(3, 16, 8, stride=8),
            nn.Flatten(2),
            Turn(),
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        ).eval()
    backbone = Backbone(module, preprocess=PREPROCESS, pooling="mean", prefix=0)
    with backbone.run(views(), layers=1, kinds=("attention",)) as one_pass:
        found = one_pass.layers["attention-2"]
    with torch.no_grad():
        tokens = module[3].layers[0](module[:3](views()))
        attention = module[3].layers[1].self_attn
        query, key, value = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (query, key, value))
        heads = torch.softmax(query @ key.transpose(-1, -2) / 8**0.5, dim=-1) @ value
        expected = heads.transpose(1, 2).flatten(2).mean(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class Turn(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.transpose(1, 2)


def blocks_of(recipe: Recipe, **options: object) -> list[str]:
    fungi = Fungi(recipe, backbone=small_backbone(**options))
    blocks = fungi.fit_blocks(noise_pictures(2))
    assert list(blocks) == list(fungi.block_info())
    assert all(np.allclose(np.linalg.norm(block, axis=1), 1, atol=1e-5) for block in blocks.values())
    return list(blocks)


def test_is_a_block_where_it_is_asked_for() -> None:
    kinds = ["mean", "attention"]
    assert blocks_of(Recipe(layers=1)) == ["embedding", "cls-2", "patches-2", "kl"]
    assert blocks_of(Recipe(layers=2, layer_kinds=kinds)) == [
        *("embedding", "patches-1", "patches-2", "attention-2", "kl"),
    ]
    assert blocks_of(Recipe(layers=1, layer_kinds="attention", objectives=[])) == ["embedding", "attention-2"]
    assert blocks_of(Recipe(layers=0, layer_kinds=kinds)) == ["embedding", "kl"]


def test_each_target_that_closes_an_attention_gives_one() -> None:
    recipe = Recipe(layers=2, layer_kinds=["attention"], objectives=[])
    first, second = "blocks.0.attn.proj", "blocks.1.attn.proj"
    assert blocks_of(recipe, target=[first, second]) == ["embedding", "attention-1", "attention-2"]
    assert blocks_of(recipe, target=[first]) == ["embedding", "attention-1"]


def test_another_target_gives_none() -> None:
    with pytest.raises(RecipeError, match="reads no attention's output projection"):
        blocks_of(Recipe(layers=1, layer_kinds=["attention"]), target="blocks.1.mlp.fc2")


def test_no_objective_may_have_its_name() -> None:
    with pytest.raises(RecipeError, match="attention-N"):
        Recipe(objectives=[KL(name="attention-12")])
