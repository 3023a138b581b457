"""Weights that the features read and the checkpoint lacks are refused, unless asked for; then everything says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from small import VISION, noise_pictures
from small_sentence import save_bert
from sporeprint.backbones.description import caveats_text
from sporeprint.backbones.load import load_backbone
from sporeprint.errors import BackboneError
from sporeprint.features.fungi import Fungi
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import KL

tf = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "vit"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tf.ViTModel(tf.ViTConfig(**VISION), add_pooling_layer=False).save_pretrained(folder)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def vit(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "vit")


def rewrite(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    weights = {new: weight for name, weight in load_file(path).items() if (new := change(name))}
    save_file(weights, path, {"format": "pt"})


def prefixed(name: str) -> str:
    return f"module.{name}"


def without_one_layer(name: str) -> str:
    return "" if "layer.1.attention.output.dense.weight" in name else name


def test_a_checkpoint_whose_names_have_a_prefix_is_refused_with_that_prefix(vit):
    rewrite(vit, prefixed)
    with pytest.raises(
        BackboneError, match=r"vit: \d\d weights that the features read .*'module\.embeddings\.[^;]*'module\.'"
    ):
        load_backbone(str(vit), device="cpu")


def test_one_missing_weight_is_enough(vit):
    rewrite(vit, without_one_layer)
    with pytest.raises(BackboneError, match=r"vit: 1 weight that the features read is not in .*--allow-random"):
        load_backbone(str(vit), device="cpu")


def test_a_weight_of_another_shape_is_refused_with_both_shapes(vit):
    content = json.loads((vit / "config.json").read_text())
    (vit / "config.json").write_text(json.dumps({**content, "intermediate_size": 48}))
    with pytest.raises(BackboneError, match=r"vit: 6 weights .*; it holds \S+fc1\.bias as \[64\], .* makes it \[48\]"):
        load_backbone(str(vit), device="cpu")


def save_audio(folder: Path, kind: str = "Wav2Vec2") -> Path:
    config = getattr(tf, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=[8, 8],
        conv_kernel=[10, 8], conv_stride=[5, 4], num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    getattr(tf, f"{kind}Model")(config).save_pretrained(folder)
    tf.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def test_what_the_features_do_not_read_may_be_missing(vit, tmp_path, recwarn):
    assert "random_weights" not in load_backbone(str(vit), device="cpu").describe()
    audio = save_audio(tmp_path / "audio")
    rewrite(audio, lambda name: "" if name == "masked_spec_embed" else name)
    assert "random_weights" not in load_backbone(str(audio), device="cpu").describe()
    assert not [warning for warning in recwarn if "random" in str(warning.message)]


def test_a_sentence_folder_and_a_head_are_held_to_the_same(tmp_path):
    bert = save_bert(tmp_path / "bert")
    (bert / "modules.json").write_text(
        json.dumps(
            [
                {"type": "sentence_transformers.models.Transformer", "path": ""},
                {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            ]
        )
    )
    (bert / "1_Pooling").mkdir()
    (bert / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert load_backbone(str(bert), device="cpu").pooling == "mean"
    with pytest.raises(BackboneError, match=r"bert: .*it has no masked-language-model head"):
        load_backbone(str(bert), device="cpu", head=True)
    rewrite(bert, lambda name: "" if "layer.0.attention.self.query.weight" in name else name)
    with pytest.raises(BackboneError, match=r"bert: 1 weight .*query"):
        load_backbone(str(bert), device="cpu")


def test_random_weights_that_were_asked_for_are_the_same_at_every_load_and_recorded(vit):
    rewrite(vit, prefixed)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    with pytest.warns(UserWarning, match=r"weights that the features read .*they are random, as was asked for"):
        first = load_backbone(str(vit), device="cpu", allow_random=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    with pytest.warns(UserWarning, match="random"):
        second = load_backbone(str(vit), device="cpu", allow_random=True)
    described = first.describe()
    assert described == second.describe()
    names = len(load_file(vit / "model.safetensors"))
    assert described["random_weights"] == names


@pytest.fixture
def dirty_memory(monkeypatch):
    """Memory that nobody has set holds NaN."""
    fill = {"empty": torch.empty, "empty_like": torch.empty_like}
    for name, make in fill.items():

        def dirty(*args: Any, make: Any = make, **named: Any) -> torch.Tensor:
            made = make(*args, **named)
            return made.fill_(torch.nan) if made.is_floating_point() else made

        monkeypatch.setattr(torch, name, dirty)


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert", "WavLM"])
def test_weights_that_transformers_does_not_set_are_drawn_too(kind, tmp_path, dirty_memory):
    audio = save_audio(tmp_path / "audio", kind)
    rewrite(audio, prefixed)
    with pytest.raises(BackboneError, match=r"weights that the features read are not in .*without 'module\.'"):
        load_backbone(str(audio), device="cpu")
    with pytest.warns(UserWarning, match="random"):
        first, second = (load_backbone(str(audio), device="cpu", allow_random=True) for _ in range(2))
    assert first.digest() == second.digest()
    assert all(weight.isfinite().all() for weight in first.module.parameters())
    norm = first.module.encoder.layer_norm
    assert torch.equal(norm.weight, torch.ones(16))
    assert torch.equal(norm.bias, torch.zeros(16))
    drawn = first.module.encoder.pos_conv_embed.conv.parametrizations.weight.original1
    assert 0.01 < float(drawn.detach().std()) < 0.03


def test_one_random_weight_is_said_in_the_singular(vit, tmp_path):
    rewrite(vit, without_one_layer)
    with pytest.warns(UserWarning, match="1 weight that the features read is not in the checkpoint"):
        described = load_backbone(str(vit), device="cpu", allow_random=True).describe()
    assert caveats_text(described) == ["1 weight of the backbone is random, because its checkpoint lacks it"]


def test_a_weight_that_nothing_reads_may_be_nan(tmp_path):
    module = tf.Dinov2Model(tf.Dinov2Config(**{**VISION, "patch_size": 8}))
    module.embeddings.mask_token.data.fill_(torch.nan)
    module.save_pretrained(tmp_path / "dino")
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (tmp_path / "dino" / "preprocessor_config.json").write_text(json.dumps(settings))
    assert load_backbone(str(tmp_path / "dino"), device="cpu").width == 32
    module.embeddings.cls_token.data[0, 0, 3] = torch.nan
    module.save_pretrained(tmp_path / "dino")
    with pytest.raises(BackboneError, match=r"dino: 1 of the 32 numbers of its weight 'embeddings\.cls_token' are NaN"):
        load_backbone(str(tmp_path / "dino"), device="cpu")


def test_a_saved_fungi_is_not_opened_on_random_weights_unless_asked_again(vit, tmp_path):
    rewrite(vit, prefixed)
    recipe = Recipe(backbone=str(vit), objectives=[KL(latent=8)], dim=8, layers=0)
    pictures = noise_pictures(3)
    fungi = Fungi(recipe, device="cpu", allow_random=True)
    with pytest.warns(UserWarning, match="random"):
        expected = fungi.fit_transform(pictures)
    fungi.save(tmp_path / "fungi")
    with pytest.raises(BackboneError, match="--allow-random"):
        Fungi.load(tmp_path / "fungi", device="cpu")
    with pytest.warns(UserWarning, match="random"):
        again = Fungi.load(tmp_path / "fungi", device="cpu", allow_random=True)
    np.testing.assert_array_equal(again.transform(pictures), expected)


def test_the_command_line_refuses_random_weights_and_says_where_they_were_allowed(vit, tmp_path, run):
    rewrite(vit, prefixed)
    for label in "ab":
        (tmp_path / "images" / label).mkdir(parents=True)
        for number, picture in enumerate(noise_pictures(4, seed=ord(label))):
            picture.save(tmp_path / "images" / label / f"{number}.png")
    words = ["extract", tmp_path / "images", "--backbone", vit, "--objectives", "none", "--layers", "0"]
    status, _, err = run(*words, "--out", tmp_path / "refused")
    assert status == 1
    assert "--allow-random" in err
    assert not (tmp_path / "refused").exists()
    status, _, err = run(*words, "--out", tmp_path / "store", "--allow-random")
    assert status == 0
    assert "they are random, as was asked for" in err
    count = len(load_file(vit / "model.safetensors"))
    assert f"warning: {count} weights of the backbone are random" in run("info", tmp_path / "store")[1]
    plan = json.loads(run("info", tmp_path / "store", "--json")[1])["plan"]
    assert plan["resolved"]["backbone"]["random_weights"] == count
    _, out, _ = run("compare", tmp_path / "store", "--splits", "2", "--report", tmp_path / "report")
    assert f"note: {count} weights of the backbone are random" in out
    assert f"{count} weights of the backbone are random" in (tmp_path / "report" / "report.html").read_text()
