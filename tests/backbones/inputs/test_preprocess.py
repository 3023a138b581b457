"""`Preprocess` against the pixel values of Hugging Face's own Pillow processors; functions of the user's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.preprocess import CustomPreprocess, Preprocess
from sporeprint.backbones.libraries.tiny import TinyConfig, TinyViT
from sporeprint.errors import BackboneError

tf = pytest.importorskip("transformers")

SIZES = [(5, 7), (33, 33), (224, 301), (301, 224), (97, 41), (640, 101), (101, 640), (256, 333), (1, 9), (29, 1)]
PROCESSORS = {
    "vit": ("ViTImageProcessor", {}),
    "deit": ("DeiTImageProcessor", {}),  # 256 squashed, 224 cut
    "clip": ("CLIPImageProcessor", {}),
    "beit": ("BeitImageProcessor", {"do_center_crop": False}),
    "beit-crop": ("BeitImageProcessor", {"do_center_crop": True, "size": {"height": 256, "width": 256}}),
    "siglip": ("SiglipImageProcessor", {}),
    "dinov2": ("BitImageProcessor", {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}),
    "odd": ("BitImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}),
    "smaller-than-crop": (
        "BitImageProcessor",
        {"size": {"shortest_edge": 33}, "crop_size": {"height": 40, "width": 40}},
    ),
    "square-smaller-than-crop": (
        "DeiTImageProcessor",
        {"size": {"height": 31, "width": 31}, "crop_size": {"height": 40, "width": 40}},
    ),
    "lanczos": ("ViTImageProcessor", {"resample": 1}),
    "nearest": ("ViTImageProcessor", {"resample": 0}),
    "not-normalised": ("ViTImageProcessor", {"do_normalize": False}),
    "not-rescaled": ("ViTImageProcessor", {"do_rescale": False, "image_mean": [120] * 3, "image_std": [60] * 3}),
    "own-factor": ("ViTImageProcessor", {"rescale_factor": 1 / 127.5}),
}


def processor(name: str, options: dict[str, Any]) -> Any:
    """The Pillow one: `...Pil` in transformers 5, the plain name before."""
    return (getattr(tf, f"{name}Pil", None) or getattr(tf, name))(**options)


def picture(size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("name", "options"), PROCESSORS.values(), ids=PROCESSORS)
def test_pixels_are_those_of_hugging_faces_processor(name, options):
    theirs = processor(name, options)
    ours = Preprocess.from_huggingface(theirs.to_dict())
    for size in SIZES:
        image = picture(size)
        expected = torch.as_tensor(np.asarray(theirs(image, input_data_format="channels_last")["pixel_values"][0]))
        pixels = ours(image)
        assert pixels.shape == expected.shape == (3, ours.size, ours.size)
        assert (pixels - expected).abs().max() < 1e-6, size


def test_pixels_worked_by_hand():
    # Columns 0, 100, 200; the 1 x 1 centre of 3 x 1 is 100: (100 / 255 - 0.5) / 0.25.
    image = Image.fromarray(np.array([[[0] * 3, [100] * 3, [200] * 3]], dtype=np.uint8))
    view = Preprocess(size=1, keep_aspect=True, mean=(0.5,) * 3, std=(0.25,) * 3)(image)
    assert view.shape == (3, 1, 1)
    assert view.flatten().tolist() == pytest.approx([(100 / 255 - 0.5) / 0.25] * 3)


@pytest.mark.parametrize(
    ("round_corner", "expected"), [(False, [[1, 2], [2, 3], [1, 2, 3, 4]]), (True, [[1, 2], [2, 3], [2, 3, 4, 5]])]
)
def test_crops_corner_with_odd_margins(round_corner, expected):
    # Six columns numbered 0 to 5. Cut 2 of 4: from 1; 2 of 6: from 2; 4 of 7: down 1.5 is 1, half to even is 2.
    for (columns, size), wanted in zip([(4, 2), (6, 2), (7, 4)], expected, strict=True):
        pixels = np.broadcast_to(np.arange(columns, dtype=np.uint8)[None, :, None], (columns, columns, 3))
        preprocess = Preprocess(size, columns, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0, round_corner=round_corner)
        assert preprocess(Image.fromarray(np.ascontiguousarray(pixels)))[0, 0].tolist() == wanted


def test_very_long_image_is_cut_to_its_middle_before_it_is_resized(monkeypatch):
    resize = Image.Image.resize

    def bounded(image: Image.Image, size: tuple[int, int], *rest: Any, **options: Any) -> Image.Image:
        assert size[0] * size[1] < 5_000_000, "the whole of a long image is resized"
        return resize(image, size, *rest, **options)

    monkeypatch.setattr(Image.Image, "resize", bounded)
    pixels = np.zeros((2, 60_000, 3), dtype=np.uint8)
    pixels[:, 29_900:30_100] = 255
    view = Preprocess(size=224, resize=256, keep_aspect=True, mean=(0.0,) * 3, std=(1.0,) * 3)(Image.fromarray(pixels))
    assert view.shape == (3, 224, 224)
    assert (view == 1).all()
    upright = Preprocess(size=8, keep_aspect=True, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert (upright(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 0, 2)))) == 1).all()


@pytest.mark.parametrize("kind", ["image_processor_type", "feature_extractor_type"])
def test_older_clip_configuration_means_the_shortest_edge_by_a_plain_size(kind):
    config = {"size": 256, "crop_size": 224, "do_center_crop": True, kind: "CLIPFeatureExtractor"}
    assert (preprocess := Preprocess.from_huggingface(config)).keep_aspect
    assert (preprocess.resize, preprocess.size) == (256, 224)
    assert not Preprocess.from_huggingface(config | {kind: "DeiTFeatureExtractor"}).keep_aspect


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"size": {"height": 224, "width": 384}}, "not square"),
        ({"size": {"shortest_edge": 224}}, "not square"),
        ({"size": 256, "do_center_crop": True, "crop_size": {"height": 224, "width": 192}}, "not square"),
        (
            {"size": {"height": 256, "width": 512}, "do_center_crop": True, "crop_size": 224},
            r"resizes to .*; expected square",
        ),
        (
            {"size": {"shortest_edge": 256, "longest_edge": 900}, "do_center_crop": True, "crop_size": 224},
            "bounds the longer edge",
        ),
        ({"size": 224, "do_pad": True}, "pads"),
    ],
)
def test_configuration_that_does_not_give_squares_is_refused(config, match):
    with pytest.raises(BackboneError, match=match):
        Preprocess.from_huggingface(config)


# A user's function


def backbone(preprocess: Any) -> Backbone:
    return Backbone(TinyViT(TinyConfig(image_size=32, patch_size=8, width=16, depth=1, heads=2)), preprocess=preprocess)


def test_function_gives_the_image_size():
    assert backbone(lambda image: torch.zeros(3, 32, 32)).preprocess.size == 32
    assert backbone(lambda image: torch.zeros(1, 3, 32, 32)).preprocess.size == 32
    assert backbone(lambda image: np.zeros((3, 32, 32), dtype=np.float32)).preprocess.size == 32


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda image: torch.zeros(3, 32, 40), r"shape \(3, 32, 40\) for a 97 x 61 image; expected \[3, S, S\]"),
        (lambda image: torch.zeros(32, 32, 3), r"shape \(32, 32, 3\)"),
        (lambda image: torch.zeros(1, 32, 32), r"shape \(1, 32, 32\)"),
        (lambda image: torch.zeros(32, 32), r"shape \(32, 32\)"),
        (lambda image: torch.zeros(2, 3, 32, 32), r"shape \(2, 3, 32, 32\)"),
        (lambda image: torch.tensor(1.0), r"shape \(\)"),
        (lambda image: None, "gave a NoneType; expected a tensor"),
        (lambda image: {"pixel_values": 1}, "gave a dict; expected a tensor"),
    ],
)
def test_function_that_gives_another_shape_is_refused(function, match):
    with pytest.raises(BackboneError, match=match):
        backbone(function)


def test_function_whose_size_follows_the_image_is_refused_at_the_image_that_shows_it():
    preprocess = CustomPreprocess(lambda image: torch.zeros(3, image.width, image.width))
    with pytest.raises(BackboneError, match=r"shape \(3, 50, 50\) for a 50 x 40 image; expected \[3, 97, 97\]"):
        preprocess(Image.new("RGB", (50, 40)))


def test_missing_preprocess_says_what_to_give():
    with pytest.raises(BackboneError, match=r"no preprocess given.*preprocess=Preprocess\(size=224"):
        backbone(None)


def test_functions_boxes_are_cut_and_resized_first():
    inputs: list[Image.Image] = []

    def function(image: Image.Image) -> torch.Tensor:
        inputs.append(image)
        return torch.full((3, 32, 32), float(np.asarray(image).mean()))

    preprocess = CustomPreprocess(function)
    image = Image.new("RGB", (20, 10), (10, 10, 10))
    image.paste((200, 200, 200), (10, 0, 20, 10))
    views = preprocess.boxes(image, [(0, 0, 10, 10), (10, 0, 20, 10)])
    assert views.shape == (2, 3, 32, 32)
    assert views[:, 0, 0, 0].tolist() == [10.0, 200.0]
    assert [box.size for box in inputs[1:]] == [(32, 32), (32, 32)]


@pytest.mark.parametrize("resample", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(24, 56), (56, 24), (160, 16)])
def test_a_whole_image_at_any_size_is_as_hugging_faces_processor_makes_it(size, resample):
    height, width = size
    image = picture((61, 97))
    theirs = processor("ViTImageProcessor", {"size": {"height": height, "width": width}, "resample": resample})
    expected = theirs(image, return_tensors="np")["pixel_values"][0]
    preprocess = Preprocess(size=32, resize=40, keep_aspect=True, resample=resample, mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = preprocess.at(image, height, width)
    assert pixels.shape == (3, height, width)
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_a_function_makes_images_of_its_own_size_alone():
    preprocess = CustomPreprocess(lambda image: torch.full((3, 16, 16), float(image.width)))
    image = Image.new("RGB", (20, 10))
    assert torch.equal(preprocess.at(image, 16, 16), torch.full((3, 16, 16), 20.0))
    with pytest.raises(BackboneError, match=r"needed at 16 x 24 pixels.*makes 16 x 16; give preprocess=Preprocess"):
        preprocess.at(image, 16, 24)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("std", "image_std", [0, 0, 0]),
        ("std", "image_std", [0.5, -0.5, 0.5]),
        ("std", "image_std", [0.5, 0.5, float("inf")]),
        ("mean", "image_mean", [0.5, float("nan"), 0.5]),
        ("mean", "image_mean", [0.5, "0.5", 0.5]),
        ("scale", "rescale_factor", 0),
        ("scale", "rescale_factor", float("nan")),
    ],
)
def test_settings_that_make_no_finite_numbers_are_refused_by_name(name, setting, value):
    with pytest.raises(BackboneError, match=f"the images' {name} is .*; expected finite numbers.*: correct {setting}"):
        Preprocess.from_huggingface({"size": 32, setting: value})
    with pytest.raises(BackboneError, match=f"the images' {name} is .*or {name} in Preprocess"):
        Preprocess(size=32, **{name: tuple(value) if isinstance(value, list) else value})
