"""Every family of text networks, tiny and with random weights, against one unpadded view at a time and autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from small_text import ENCODERS, FAMILIES, TEXTS, Family, wordpiece
from sporeprint import KL, Fungi, Recipe, SimCLR
from sporeprint.backbones.backbone import Backbone
from sporeprint.errors import BackboneError, LayerError
from sporeprint.features.contracts import check_backbone
from sporeprint.objectives.view_sets import generator
from sporeprint.objectives.views.text import Deletions

tf = pytest.importorskip("transformers")

KL_, SIMCLR_ = KL(latent=24), SimCLR(latent=12, negatives=3)
IDS = [f"row-{number}" for number in range(len(TEXTS))]
every = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
each_encoder = pytest.mark.parametrize("family", ENCODERS, ids=[family.network for family in ENCODERS])


@pytest.fixture(autouse=True)
def _a_call_for_each_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sporeprint.features.engine.TOGETHER_BYTES", 1)


def backbone_of(family: Family, dtype: torch.dtype = torch.float32, pooling: str = "auto") -> Backbone:
    return Backbone(family.build(dtype), preprocess=family.tokenizer(), pooling=pooling, modality=family.modality)


class Kept:
    """Stands in for a projection: keeps the gradients that it gets, [N, O * (I + 1)], of length 1."""

    dim = 2

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, gradients: Tensor) -> Tensor:
        self.seen.append(gradients)
        return gradients[:, :2]


def fungi_of(backbone: Backbone, simclr: SimCLR = SIMCLR_) -> Fungi:
    return Fungi(Recipe(objectives=[KL_, simclr], layers=2, seed=3), backbone=backbone)


@every
def test_finds_the_part_the_target_and_the_pooling(family: Family) -> None:
    module = family.build()
    backbone = Backbone(module, preprocess=family.tokenizer(), modality=family.modality)
    assert backbone.module is module.get_submodule(family.part)
    assert list(backbone.targets) == [family.target]
    assert (backbone.pooling, backbone.modality, backbone.width) == (family.pooling, "text", 32)
    first = {"cls": ("cls",), "mean": ()}.get(family.pooling, ("last",))
    assert backbone.layer_kinds == (*first, "tokens", "max")


@every
def test_keeps_the_contract(family: Family) -> None:
    check_backbone(backbone_of(family))


def state_of(module: nn.Module) -> list[Any]:
    """Every number, flag, hook and gradient."""
    parts = [(name, part.training, dict(part._forward_hooks)) for name, part in module.named_modules()]
    parameters = [(name, each.requires_grad, each.grad) for name, each in module.named_parameters()]
    return [{name: value.clone() for name, value in module.state_dict().items()}, parts, parameters]


@each_encoder
def test_the_users_network_is_left_as_it_was(family: Family) -> None:
    module = family.build().train()
    for parameter in list(module.parameters())[::2]:
        parameter.requires_grad_(False)
    numbers, *rest = state_of(module)
    backbone = Backbone(module, preprocess=family.tokenizer())
    fungi_of(backbone).fit_blocks(TEXTS)
    after, *rest_after = state_of(module)
    assert rest_after == rest
    assert all(torch.equal(value, after[name]) for name, value in numbers.items())


# The slow oracle


def embeddings_of(family: Family, part: nn.Module, text: str) -> dict[str, Tensor]:
    """By pooling, [E] of one text, unpadded."""
    fed = family.tokenizer()(text, return_tensors="pt")["input_ids"]
    output = part(input_ids=fed)
    if family.pooling == "own":
        return {"own": output.pooler_output[0]}
    tokens = output.last_hidden_state[0]
    return {"cls": tokens[0], "mean": tokens.mean(dim=0), "last": tokens[-1]}


def linear(head: nn.Linear, x: Tensor) -> Tensor:
    return x @ head.weight.T.double() + head.bias.double()


def cosine(first: Tensor, other: Tensor) -> Tensor:
    """The cosine of unit vectors; equal ones have no gradient, though the bank of negatives was rounded to float32."""
    cosines = first @ other
    return cosines.detach() if (first - other).norm() < 3e-5 else cosines


def oracle_losses(fungi: Fungi, whole: Tensor, views: Tensor) -> dict[str, Tensor]:
    """The losses of one text. whole: [E]. views: [12, E]."""
    logits = linear(fungi.heads["kl"], whole / whole.norm())
    log_p = logits - logits.exp().sum().log()
    latents = [row / row.norm() for row in linear(fungi.heads["simclr"], views)]
    others = [row / row.norm() for row in fungi.negatives["simclr"].double()]
    losses = []
    for at, latent in enumerate(latents):
        siblings = [cosine(latent, sibling) / 0.07 for number, sibling in enumerate(latents) if number != at]
        everything = [*siblings, *(cosine(latent, other) / 0.07 for other in others)]
        losses.append(torch.stack(everything).exp().sum().log() - torch.stack(siblings).mean())
    return {"kl": -np.log(24) - log_p.mean(), "simclr": torch.stack(losses).mean()}


def flat_gradient(layer: Any, loss: Tensor) -> Tensor:
    """[O * (I + 1)], or without a bias [O * I], by plain autograd on the layer's own parameters."""
    layer.zero_grad()
    loss.backward(retain_graph=True)
    weight = layer.weight.grad if isinstance(layer, nn.Linear) else layer.weight.grad.T
    parts = [weight] if layer.bias is None else [weight, layer.bias.grad.unsqueeze(1)]
    return torch.cat(parts, dim=1).flatten().clone()


def poolings(family: Family) -> list[str]:
    if family.pooling == "own":
        return ["own"]
    causal = family.pooling == "last"  # its first token sees nothing of the text
    return ["mean", "last"] if causal else ["cls", "mean", "last"]


@each_encoder
def test_gradients_equal_autograd_of_one_unpadded_view_at_a_time(family: Family) -> None:
    slow = family.build(torch.float64).requires_grad_(False)
    layer = slow.get_submodule(family.target).requires_grad_(True)
    texts, ids = [*TEXTS[1:3], "dog"], [*IDS[1:3], "one-word"]  # a long one, one of two words, one of one
    once = []
    for row_id, text in zip(ids, texts, strict=True):
        views = Deletions(12).texts(text, generator(3, row_id, "simclr"))
        once.append((embeddings_of(family, slow, text), [embeddings_of(family, slow, view) for view in views]))
    for pooling in poolings(family):
        asked = "auto" if pooling == "own" else pooling
        exact, single = (fungi_of(backbone_of(family, dtype, asked)) for dtype in (torch.float64, torch.float32))
        exact.draw_negatives(list(zip(IDS, TEXTS, strict=True)))
        single.negatives["simclr"] = exact.negatives["simclr"]
        expected: dict[str, list[Tensor]] = {"kl": [], "simclr": []}
        for whole, views in reversed(once):  # the shorter row comes first
            for name, loss in oracle_losses(exact, whole[pooling], torch.stack([v[pooling] for v in views])).items():
                gradient = flat_gradient(layer, loss)
                expected[name].append(gradient / gradient.norm())
        for fungi, tolerance in ((exact, 1e-9), (single, 1e-5)):
            fungi.projection = kept = Kept()  # type: ignore[assignment]
            fungi.blocks(texts, ids=ids)
            for (name, rows), gradients in zip(expected.items(), kept.seen, strict=True):
                assert gradients.dtype == fungi.network.dtype
                assert (gradients - torch.stack(rows)).norm(dim=1).max() < tolerance, (pooling, name, gradients.dtype)


@each_encoder
def test_embedding_views_and_layers_equal_those_of_unpadded_texts(family: Family) -> None:
    backbone = backbone_of(family, torch.float64)
    part, tokenizer, number = backbone.module, family.tokenizer(), backbone.depth - 1
    fungi = fungi_of(backbone)
    fungi.draw_negatives(list(zip(IDS, TEXTS, strict=True)))
    texts, ids = TEXTS[:3], IDS[:3]
    blocks = fungi.blocks(texts, ids=ids)
    lasting = "cls" if family.pooling == "cls" else "last"
    with torch.no_grad():
        for at, (row_id, text) in enumerate(zip(ids, texts, strict=True)):
            fed = tokenizer(text, return_tensors="pt")["input_ids"]
            tokens = part(input_ids=fed, output_hidden_states=True).hidden_states[number][0]
            views = [
                embeddings_of(family, part, view) for view in Deletions(12).texts(text, generator(3, row_id, "simclr"))
            ]
            expected = {
                "embedding": embeddings_of(family, part, text)[family.pooling],
                "simclr.views": sum(view[family.pooling] / view[family.pooling].norm() for view in views),
                f"tokens-{number}": tokens.mean(dim=0),
                f"{lasting}-{number}": tokens[0 if lasting == "cls" else -1],
            }
            for name in expected.keys() & blocks.keys():
                value = (expected[name] / expected[name].norm()).numpy()
                assert np.abs(blocks[name][at] - value).max() < 1e-6, name
    assert len(expected.keys() & blocks.keys()) == (3 if family.pooling == "mean" else 4)


# Every family with its own pooling, the first with every one; above, all gradients are those of unpadded views.
FIRST = ENCODERS[0]
POOLED = [*((family, "auto") for family in ENCODERS), *((FIRST, pooling) for pooling in poolings(FIRST)[1:])]


@pytest.mark.parametrize(
    ("family", "pooling"), POOLED, ids=[f"{family.network}-{pooling}" for family, pooling in POOLED]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_a_row_does_not_depend_on_its_batch(family: Family, pooling: str, dtype: torch.dtype, tolerance: float) -> None:
    texts = ["dog", "quick", *TEXTS[1:3]]  # twelve equal views, which are among the negatives too: nearly all cancels
    fungi = fungi_of(backbone_of(family, dtype, pooling), SimCLR(latent=12))
    fungi.draw_negatives([(text, text) for text in texts])
    fungi.projection = kept = Kept()  # type: ignore[assignment]
    together = fungi.blocks(texts, ids=texts)
    gradients, kept.seen = kept.seen, []
    for place, at in enumerate(sorted(range(len(texts)), key=lambda at: len(texts[at]))):
        alone = fungi.blocks([texts[at]], ids=[texts[at]])
        for name, values in together.items():
            if name not in ("kl", "simclr"):
                assert np.linalg.norm(values[at] - alone[name][0]) < max(tolerance, 1e-6), name
        for whole, single in zip(gradients, kept.seen, strict=True):
            assert (whole[place] - single[0]).norm() < tolerance
        kept.seen.clear()


def test_albert_whose_blocks_share_one_layer_is_refused_by_name() -> None:
    options = {"embedding_size": 16, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
    module = tf.AlbertModel(tf.AlbertConfig(vocab_size=130, num_hidden_layers=2, **options))
    with pytest.raises(LayerError, match=r"attention\.dense' ran 2 times in one pass \(shared weights\)"):
        Backbone(module, preprocess=wordpiece())


def test_siglips_text_tower_is_refused_by_name() -> None:
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with pytest.raises(BackboneError, match="SigLIP's text tower needs every text padded to 64 tokens"):
        Backbone(tf.SiglipTextModel(tf.SiglipTextConfig(vocab_size=130, **text)), preprocess=wordpiece())


def test_a_network_of_texts_without_a_tokenizer_asks_for_it() -> None:
    with pytest.raises(BackboneError, match="no preprocess given; give preprocess=tokenizer"):
        Backbone(FAMILIES["BertModel"].build())
