"""`load_backbone` on folders as Hugging Face saves them, and on folders that are not what they should be."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from small import VISION
from sporeprint.backbones.libraries.huggingface import find_modality
from sporeprint.backbones.load import load_backbone
from sporeprint.errors import BackboneError, RecipeError
from sporeprint.features.contracts import check_backbone
from sporeprint.features.fungi import Fungi
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import DINO, KL, SimCLR
from sporeprint.objectives.views.image import Crops, Patches

tf = pytest.importorskip("transformers")

TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
DINOV2 = {key: value for key, value in VISION.items() if key != "intermediate_size"}


def processor(name: str, **options: Any) -> Any:
    """The Pillow one: `...Pil` in transformers 5, the plain name before."""
    return (getattr(tf, f"{name}Pil", None) or getattr(tf, name))(**options)


def stirred(build: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def vit_processor() -> Any:
    return processor("ViTImageProcessor", size={"height": 32, "width": 32})


def bit_processor() -> Any:
    size, crop = {"shortest_edge": 37}, {"height": 32, "width": 32}
    return processor("BitImageProcessor", size=size, crop_size=crop)


FOLDERS = {
    "vit": (lambda: tf.ViTModel(tf.ViTConfig(**VISION)), vit_processor),
    "vit-classifier": (lambda: tf.ViTForImageClassification(tf.ViTConfig(**VISION)), vit_processor),
    "deit": (
        lambda: tf.DeiTModel(tf.DeiTConfig(**VISION), add_pooling_layer=False),
        lambda: processor(
            "DeiTImageProcessor", size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32}
        ),
    ),
    "dinov2": (lambda: tf.Dinov2Model(tf.Dinov2Config(**DINOV2)), bit_processor),
    "clip": (
        lambda: tf.CLIPModel(tf.CLIPConfig(text_config=TEXT, vision_config=VISION)),
        lambda: processor("CLIPImageProcessor", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    ),
    "siglip": (
        lambda: tf.SiglipModel(tf.SiglipConfig(text_config=TEXT, vision_config=VISION)),
        lambda: processor("SiglipImageProcessor", size={"height": 32, "width": 32}),
    ),
    "mae": (lambda: tf.ViTMAEForPreTraining(tf.ViTMAEConfig(**VISION)), vit_processor),
    "beit": (
        lambda: tf.BeitForImageClassification(tf.BeitConfig(**VISION)),
        lambda: processor("BeitImageProcessor", size={"height": 32, "width": 32}),
    ),
}


def save(folder: Path, family: str = "dinov2", with_processor: bool = True) -> tuple[Any, Any]:
    build, make = FOLDERS[family]
    module, images = stirred(build), make()
    module.save_pretrained(folder)
    if with_processor:
        images.save_pretrained(folder)
    return module, images


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def author_embedding(family: str, module: Any, pixels: torch.Tensor) -> torch.Tensor:
    """As the model's own API gives it on the processor's own pixel values."""
    with torch.no_grad():
        if family in ("clip", "siglip"):
            return module.vision_model(pixel_values=pixels).pooler_output
        if family == "mae":
            module.config.mask_ratio = 0.0
            return module.vit(pixel_values=pixels).last_hidden_state[:, 0]
        if family == "beit":
            return module.beit(pixel_values=pixels).pooler_output
        return module.base_model(pixel_values=pixels).last_hidden_state[:, 0]


@pytest.mark.parametrize("family", FOLDERS)
def test_folder_gives_the_authors_embedding_of_the_processors_pixels(family, tmp_path, pictures):
    module, images = save(tmp_path / "model", family)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone = load_backbone(str(tmp_path / "model"), device="cpu")
    check_backbone(backbone)
    assert backbone.name == "model"
    pixels = torch.as_tensor(np.stack(images(pictures)["pixel_values"]))
    actual = torch.stack([backbone.preprocess(picture) for picture in pictures])
    assert (actual - pixels).abs().max() < 1e-6
    with backbone.run(actual) as one_pass:
        embedding = one_pass.embedding.detach()
    expected = author_embedding(family, module, pixels)
    assert (embedding - expected).norm() < 1e-5 * expected.norm()


def test_recipe_of_a_folder_gives_the_cls_token_and_the_same_blocks_once_saved_and_loaded(tmp_path, pictures):
    module, images = save(tmp_path / "model")
    recipe = Recipe(backbone=str(tmp_path / "model"), objectives=[KL()], dim=16, layers=2)
    fungi = Fungi(recipe, device="cpu").fit(pictures)
    blocks = fungi.blocks(pictures)
    with torch.no_grad():
        tokens = module(pixel_values=torch.as_tensor(np.stack(images(pictures)["pixel_values"]))).last_hidden_state
    expected = torch.nn.functional.normalize(tokens[:, 0], dim=1).numpy()
    assert (blocks["embedding"] * expected).sum(axis=1).min() > 0.99999
    assert set(blocks) == {"embedding", "cls-1", "cls-2", "patches-1", "patches-2", "kl"}
    fungi.save(tmp_path / "fungi")
    again = Fungi.load(tmp_path / "fungi", device="cpu").blocks(pictures)
    assert all(np.array_equal(again[name], values) for name, values in blocks.items())


def test_pooler_that_is_not_read_is_dropped_so_that_the_weights_digest_is_the_same_at_every_load(tmp_path):
    save(tmp_path, "deit")  # saved without a pooler, which transformers would draw at random
    first, second = (load_backbone(str(tmp_path), device="cpu") for _ in range(2))
    assert first.digest() == second.digest()


def test_backbone_can_be_loaded_inside_inference_mode(tmp_path):
    save(tmp_path)
    for name in ("tiny", str(tmp_path)):
        with torch.inference_mode():
            backbone = load_backbone(name, device="cpu")
        check_backbone(backbone)


def test_fungi_works_inside_inference_mode(tmp_path, pictures):
    save(tmp_path)
    objectives = [KL(), DINO(augmentation=Crops(1, 2)), SimCLR(augmentation=Patches(2), negatives=4)]
    recipe = Recipe(backbone=str(tmp_path), objectives=objectives, dim=16)
    expected = Fungi(recipe, device="cpu").fit_transform(pictures)
    with torch.inference_mode():
        fungi = Fungi(recipe, device="cpu")
        features = fungi.fit_transform(pictures)
        fungi.save(tmp_path / "fungi")
        again = Fungi.load(tmp_path / "fungi", device="cpu").transform(pictures)
    assert np.array_equal(features, expected)
    assert np.array_equal(again, expected)


def test_folder_without_a_processor_says_what_is_assumed(tmp_path):
    save(tmp_path, "vit", with_processor=False)
    with pytest.warns(
        UserWarning, match=r"no preprocessor_config.json: images are squashed to 32 x 32, bicubic.*ImageNet"
    ):
        backbone = load_backbone(str(tmp_path), device="cpu")
    grey = backbone.preprocess(Image.new("RGB", (50, 40), (124, 116, 104)))  # ImageNet's mean, in whole levels
    assert grey.shape == (3, 32, 32)
    assert grey.abs().max() < 0.02


def test_missing_weights_are_refused_and_where_allowed_warned_of(tmp_path):
    save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    gone = [name for name in weights if name.endswith("layer.1.attention.output.dense.weight") or ".1.mlp.fc1." in name]
    assert gone
    save_file({k: v for k, v in weights.items() if k not in gone}, tmp_path / "model.safetensors", {"format": "pt"})
    missing = f"{len(gone)} weights that the features read are not in the checkpoint"
    with pytest.raises(BackboneError, match=missing):
        load_backbone(str(tmp_path), device="cpu")
    with pytest.warns(UserWarning, match=f"{missing}.*they are random, as was asked for"):
        load_backbone(str(tmp_path), device="cpu", allow_random=True)


def test_non_square_processor_is_refused_with_what_to_do(tmp_path):
    save(tmp_path, "vit")
    edit(tmp_path / "preprocessor_config.json", size={"height": 32, "width": 48})
    with pytest.raises(BackboneError, match=r"^the image processor makes inputs of .* not square.*set size"):
        load_backbone(str(tmp_path), device="cpu")


def test_image_size_that_the_model_does_not_take_is_one_clear_error(tmp_path):
    save(tmp_path, "vit")
    edit(tmp_path / "preprocessor_config.json", size={"height": 64, "width": 64})
    with pytest.raises(BackboneError, match="fails on one 64 x 64 image"):
        load_backbone(str(tmp_path), device="cpu")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c"])
def test_folder_that_does_not_exist(tmp_path, name):
    with pytest.raises(
        BackboneError, match=r"no folder .*; expected a folder with config.json and weights, or a hub id"
    ):
        load_backbone(str(tmp_path / name), device="cpu")


def test_folder_without_a_model(tmp_path):
    with pytest.raises(BackboneError, match=r"is empty; expected config.json and model.safetensors"):
        load_backbone(str(tmp_path), device="cpu")


def test_text_model_without_its_tokenizer_is_refused_rather_than_fed_unknown_words(tmp_path):
    tf.BertModel(tf.BertConfig(**{key: TEXT[key] for key in list(TEXT)[:6]})).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"special tokens and no word: .*no tokenizer files; save the tokenizer"):
        load_backbone(str(tmp_path), device="cpu")
    with pytest.raises(BackboneError, match=r"^BertModel takes input_ids, not image; "):
        load_backbone(str(tmp_path), device="cpu", modality="image")


@pytest.mark.parametrize("kind", ["T5EncoderModel", "GPT2Model", "MPNetModel", "LlamaModel"])
def test_every_kind_of_text_model_without_its_tokenizer_is_one_clear_error(tmp_path, kind):
    small = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    small |= {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 8}
    config = getattr(tf, kind).config_class(**{**TEXT, **small})
    getattr(tf, kind)(config).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=r"no word: .* save the tokenizer|load the tokenizer .*save_pretrained"):
        load_backbone(str(tmp_path), device="cpu")


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_vision_folder_is_refused_for_another_modality(tmp_path, modality):
    tf.ViTModel(tf.ViTConfig(**VISION)).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=f"ViTModel takes pixel_values, not {modality}"):
        load_backbone(str(tmp_path), device="cpu", modality=modality)
    with pytest.raises(BackboneError, match=f"'tiny' takes images, not {modality}"):
        load_backbone("tiny", device="cpu", modality=modality)


def test_modality_is_read_from_the_configuration_alone(tmp_path):
    bert = {key: TEXT[key] for key in list(TEXT)[:6]}
    for name, config in (("bert", tf.BertConfig(**bert)), ("vit", tf.ViTConfig()), ("whisper", tf.WhisperConfig())):
        config.save_pretrained(tmp_path / name)
    tf.CLIPConfig().save_pretrained(tmp_path / "clip")
    modalities = {name: find_modality(str(tmp_path / name)) for name in ("bert", "vit", "whisper", "clip")}
    assert modalities == {"bert": "text", "vit": "image", "whisper": "audio", "clip": "image"}
    assert find_modality(str(tmp_path / "clip"), "text") == "text"
    assert find_modality("tiny") == find_modality("timm:any") == "image"


def test_siglip2_naflex_is_refused_by_name(tmp_path):
    vision = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": 16}
    tf.Siglip2Model(tf.Siglip2Config(text_config=TEXT, vision_config=vision)).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="NaFlex"):
        load_backbone(str(tmp_path), device="cpu")


def test_unknown_model_type(tmp_path):
    save(tmp_path, "vit")
    edit(tmp_path / "config.json", model_type="mushroom")
    with pytest.raises(BackboneError, match=r"transformers could not load .*mushroom"):
        load_backbone(str(tmp_path), device="cpu")


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def other_width(folder: Path) -> None:
    edit(folder / "config.json", hidden_size=48)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def broken_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text("[1, 2")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, r"model\.safetensors \(1,000 bytes\) is cut off or damaged"),
        (other_width, r"it holds .* as \[.*32.*\], its config\.json makes it \[.*48.*\]"),
        (no_weights, "has config.json and no weights"),
        (broken_config, "config.json cannot be read"),
        (broken_processor, "preprocessor_config.json cannot be read"),
    ],
)
def test_damaged_folder_is_one_error_that_names_it(tmp_path, damage, message):
    save(tmp_path, "vit")
    damage(tmp_path)
    with pytest.raises(BackboneError, match=message) as caught:
        load_backbone(str(tmp_path), device="cpu")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loading_leaves_transformers_logging_as_it_was(tmp_path):
    save(tmp_path, "vit")
    tf.logging.set_verbosity_info()
    try:
        load_backbone(str(tmp_path), device="cpu")
        assert tf.logging.get_verbosity() == tf.logging.INFO
        assert tf.logging.is_progress_bar_enabled()
    finally:
        tf.logging.set_verbosity_warning()


@pytest.mark.real
def test_real_deit_is_read_as_its_card_says(shared):
    backbone = load_backbone(str(shared / "models" / "deit-tiny"), device="cpu")
    check_backbone(backbone)
    assert (backbone.width, backbone.depth, backbone.preprocess.size) == (192, 12, 224)


@pytest.mark.parametrize(("name", "meant"), [("tinny", "tiny"), ("Tiny", "tiny"), ("tim:vit", "timm:vit")])
def test_a_name_that_is_nearly_one_of_ours_is_not_looked_for(name, meant):
    with pytest.raises(RecipeError, match=f"^{name}: .*did you mean {meant}"):
        load_backbone(name)
