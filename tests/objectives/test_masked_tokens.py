from __future__ import annotations

import copy
import inspect
import math

import numpy as np
import pytest
import torch

from small import small_backbone
from small_text import (
    BERT,
    DEBERTA,
    DISTIL,
    MODERN,
    MPNET,
    OUT_LIN,
    ROBERTA,
    SELF_OUTPUT,
    TEXTS,
    byte_level,
    roberta,
    tf,
    wordpiece,
)
from sporeprint import KL, Backbone, Fungi, Recipe, check_backbone
from sporeprint.data.texts import text_digest
from sporeprint.errors import BackboneError, RecipeError
from sporeprint.objectives import MaskedTokens
from sporeprint.objectives.view_sets import generator
from sporeprint.objectives.views.token_masks import IGNORED, Masks

HEADED = [
    ("BertForMaskedLM", "BertConfig", BERT, wordpiece, "bert.encoder.layer.1.attention.output.dense"),
    ("RobertaForMaskedLM", "RobertaConfig", ROBERTA, roberta, "roberta.encoder.layer.1.attention.output.dense"),
    ("DistilBertForMaskedLM", "DistilBertConfig", DISTIL, wordpiece, f"distilbert.{OUT_LIN}"),
    ("MPNetForMaskedLM", "MPNetConfig", ROBERTA, roberta, f"mpnet.{MPNET}"),
    ("DebertaV2ForMaskedLM", "DebertaV2Config", DEBERTA, wordpiece, f"deberta.{SELF_OUTPUT}"),
    ("ElectraForMaskedLM", "ElectraConfig", BERT, wordpiece, f"electra.{SELF_OUTPUT}"),
    ("ModernBertForMaskedLM", "ModernBertConfig", MODERN, wordpiece, "model.layers.3.attn.Wo"),
]


def build(name: str, config: str, options: dict, dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = getattr(tf, name)(getattr(tf, config)(**options))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def test_loss_is_the_mean_over_views_of_the_mean_over_masked_tokens():
    logits = torch.zeros(1, 2, 3, 4)
    logits[0, 1, 0, 2] = math.log(5)  # softmax of the right one: 5 / 8
    labels = torch.tensor([[[1, IGNORED, 3], [2, IGNORED, IGNORED]]])
    expected = (math.log(4) + math.log(8 / 5)) / 2
    assert MaskedTokens().loss(logits, labels=labels).tolist() == pytest.approx([expected])


@pytest.mark.parametrize(("name", "config", "options", "tokenizer", "target"), HEADED, ids=[row[0] for row in HEADED])
def test_gradients_equal_those_of_the_checkpoints_own_loss(name, config, options, tokenizer, target):
    module = build(name, config, options)
    backbone = Backbone(module, preprocess=tokenizer())
    objective = MaskedTokens(augmentation=Masks(views=3, probability=0.3))
    fungi = Fungi(Recipe(objectives=[KL(), objective], layers=0, dim=24), backbone=backbone)
    texts = [*TEXTS, "dog"]
    blocks = fungi.blocks(texts)
    layer = module.get_submodule(target)
    matrix, typed = fungi.projection.matrix().double(), "token_type_ids" in inspect.signature(module.forward).parameters
    for at, text in enumerate(texts):
        loss = torch.zeros((), dtype=torch.float64)
        for view in objective.augmentation(text, backbone.preprocess, generator(0, text_digest(text), "mlm")):
            batch = {key: torch.tensor([values]) for key, values in view.items()}
            batch = {key: values for key, values in batch.items() if key != "token_type_ids" or typed}
            loss = loss + module(**batch).loss / 3
        weight, *bias = torch.autograd.grad(loss, [part for part in (layer.weight, layer.bias) if part is not None])
        projected = matrix @ torch.cat([weight, *(part[:, None] for part in bias)], dim=1).flatten()
        expected = (projected / projected.norm()).numpy()
        assert np.linalg.norm(blocks["mlm"][at] - expected) < 1e-6  # the block itself is float32
    assert list(blocks) == ["embedding", "mlm.views", "kl", "mlm"]


def test_a_row_does_not_depend_on_its_batch():
    module = build(*HEADED[0][:3], dtype=torch.float32)
    fungi = Fungi(Recipe(objectives=[MaskedTokens()], layers=0), backbone=Backbone(module, preprocess=wordpiece()))
    together = fungi.blocks(TEXTS)
    for at, text in enumerate(TEXTS):
        alone = fungi.blocks([text])
        assert np.abs(together["mlm"][at] - alone["mlm"][0]).max() < 1e-5


def test_network_is_left_as_it_was_and_its_head_counts_in_the_digest():
    module = build(*HEADED[0][:3], dtype=torch.float32).train()
    before = copy.deepcopy(module.state_dict())
    backbone = Backbone(module, preprocess=wordpiece())
    check_backbone(backbone)
    Fungi(Recipe(objectives=[MaskedTokens()]), backbone=backbone).blocks(TEXTS)
    assert module.training
    assert all(part.training for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks for part in module.modules())
    digest = backbone.digest()
    with torch.no_grad():
        module.cls.predictions.bias[0] += 1
    assert backbone.digest() != digest


def test_a_folder_with_a_head_is_loaded_with_it_and_one_without_is_refused(tmp_path):
    module = build(*HEADED[0][:3], dtype=torch.float32)
    for folder, saved in (("with", module), ("without", module.bert)):
        saved.save_pretrained(tmp_path / folder)
        wordpiece().save_pretrained(tmp_path / folder)
    recipe = Recipe(backbone=str(tmp_path / "with"), objectives=[MaskedTokens()], layers=0)
    given = Fungi(Recipe(objectives=[MaskedTokens()], layers=0), backbone=Backbone(module, preprocess=wordpiece()))
    np.testing.assert_allclose(Fungi(recipe).blocks(TEXTS)["mlm"], given.blocks(TEXTS)["mlm"], atol=1e-5)
    with pytest.raises(BackboneError, match="no masked-language-model head"):
        Fungi(Recipe(backbone=str(tmp_path / "without"), objectives=[MaskedTokens()])).blocks(TEXTS)


def test_networks_that_have_no_such_head_are_refused():
    with pytest.raises(RecipeError, match="'mlm' is for text; the backbone takes image"):
        Fungi(Recipe(objectives=[MaskedTokens()]), backbone=small_backbone()).fit([])
    causal = tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=261, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    fungi = Fungi(Recipe(objectives=[MaskedTokens()]), backbone=Backbone(causal, preprocess=byte_level()))
    with pytest.raises(BackboneError, match="no mask token"):
        fungi.blocks(TEXTS)
    bare = tf.BertModel(tf.BertConfig(**BERT))
    fungi = Fungi(Recipe(objectives=[MaskedTokens()]), backbone=Backbone(bare, preprocess=wordpiece()))
    with pytest.raises(BackboneError, match="no masked-language-model head"):
        fungi.blocks(TEXTS)


def test_a_recipe_with_it_comes_back_from_json():
    recipe = Recipe(backbone="x/y", objectives=[KL(), MaskedTokens(augmentation=Masks(4, 0.2))])
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_the_head_runs_at_the_masked_tokens_alone_and_gives_there_what_it_gives_everywhere():
    name, config, options, make_tokenizer, target = HEADED[0]
    module = build(name, config, options)
    backbone = Backbone(module, target=target.partition(".")[2], preprocess=make_tokenizer())
    inputs, rng = backbone.preprocess, np.random.default_rng(0)
    batch = inputs.collate([view for text in TEXTS[:3] for view in Masks(3, 0.4)(text, inputs, rng)])
    with backbone.run(batch, logits=True) as one_pass:
        logits, labels = one_pass.logits, one_pass.labels
    hidden = batch["labels"] != IGNORED
    assert logits.shape[:2] == labels.shape == (9, int(hidden.sum(dim=1).max()))
    everywhere = module(**{key: value for key, value in batch.items() if key != "labels"}).logits
    for view in range(9):
        kept = labels[view] != IGNORED
        assert torch.equal(labels[view][kept], batch["labels"][view][hidden[view]])
        torch.testing.assert_close(logits[view][kept], everywhere[view][hidden[view]], rtol=0, atol=1e-12)
