"""The contestants of the speed scripts are sporeprint, fungivision 0.0.2, and the bare passes that both need.

Each gets its own copy of the same network, decoded images, and as many negatives, which are random numbers here: their
values do not affect the time, and drawing them (3,136 passes) is not measured. fungivision and torchvision are imported
only where they are asked for.
"""

from __future__ import annotations

import copy
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from machine import settle
from PIL import Image
from torch import Tensor, nn

# A torchvision whose compiled part does not fit this torch still has its transforms, and transformers imports it where
# it is installed; the tests declare its operators in the same way.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from torchvision_schemas import define_missing_schemas

define_missing_schemas()

VIEWS = {"kl": 1, "dino": 12, "simclr": 49}
MIXES = {**{name: (name,) for name in VIEWS}, "all": tuple(VIEWS)}
SHAPES = {"tiny": (192, 3, 12), "small": (384, 6, 12), "base": (768, 12, 12), "large": (1024, 16, 24)}
LATENT, SIDE = 96, 224
PRECISIONS = ("float32", "bfloat16 autocast", "bfloat16 weights")

Images = list[Image.Image]
Call = Callable[[Images], Any]


def network(name: str) -> nn.Module:
    """Make a float32 ViT on the CPU. name: Hugging Face id or folder, or one of SHAPES (224 / 16, random weights)."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if name not in SHAPES:
        return transformers.AutoModel.from_pretrained(name).float().eval()
    width, heads, depth = SHAPES[name]
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=width, num_attention_heads=heads, num_hidden_layers=depth, intermediate_size=4 * width
    )
    return transformers.ViTModel(config, add_pooling_layer=False).eval()


def shown(name: str) -> str:
    """Return a network's name without its folder."""
    return f"ViT-{name.capitalize()}/16, random weights" if name in SHAPES else Path(name).name


def pictures(count: int, source: str | None = None, size: tuple[int, int] = (500, 375)) -> Images:
    """Return decoded RGB images of a source, repeated where it has fewer; without a source, synthetic images."""
    if source is not None:
        from sporeprint import open_source
        from sporeprint.data.images import load_image

        images = [load_image(row.sample) for row in open_source(source, limit=count).rows()]
        return [images[at % len(images)] for at in range(count)]
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC) for pixels in small]


def passes(module: nn.Module, call: Callable[[], Any]) -> int:
    """Count the views that a call sends through the network, at its patch embedding, in its second call."""
    counted = 0
    call()  # the very first call may try the network's parts

    def count(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal counted
        counted += len(args[0])

    handle = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d)).register_forward_pre_hook(count)
    try:
        call()
    finally:
        handle.remove()
    return counted


# sporeprint


def sporeprint(module: nn.Module, dtype: str, batch: int, negatives: int, workers: int | None = None) -> dict[str, Any]:
    """Make {mix: Fungi}, ready for `blocks`, with one backbone, which may be on a GPU."""
    from sporeprint import DINO, KL, Backbone, Fungi, Preprocess, Recipe, SimCLR

    preprocess = Preprocess(size=SIDE, resize=256, resample=int(Image.Resampling.BILINEAR))  # fungivision's for KL
    backbone = Backbone(module, preprocess=preprocess, pooling="cls")
    objectives = {"kl": KL(), "dino": DINO(), "simclr": SimCLR(negatives=negatives)}
    fungis = {}
    for mix, names in MIXES.items():
        recipe = Recipe(objectives=[objectives[name] for name in names], dtype=dtype)
        options = {} if workers is None else {"workers": workers}
        fungis[mix] = Fungi(recipe, backbone=backbone, batch_size=batch, **options)
        if "simclr" in names:
            fungis[mix].negatives["simclr"] = torch.randn(negatives * VIEWS["simclr"], LATENT)
    return fungis


# fungivision


class Pooled(nn.Module):
    """A pooled network maps images to [N, E], as fungivision expects."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(pixel_values=images).last_hidden_state[:, 0]


class Fungivision:
    """Fungivision wraps a network with all three objectives; `call` computes those of a mix.

    half: its `use_fp16`, which its README advises on a GPU. On a CPU it changes the precision of no pass.
    """

    def __init__(self, module: nn.Module, target: str, device: str, half: bool, negatives: int):
        warnings.filterwarnings("ignore", category=FutureWarning)  # from its hooks and its autocast
        for package in ("fungivision", "torchvision"):
            warnings.filterwarnings("ignore", module=package)
        try:
            from fungivision.config import DINOConfig, KLConfig, SimCLRConfig
            from fungivision.wrapper import FUNGIWrapper
        except ImportError as error:
            sys.exit(f"{error}: pip install fungivision==0.0.2 torchvision tqdm, or measure without it (--no-rival)")

        self.wrapper = FUNGIWrapper(
            Pooled(module).eval(),
            f"network.{target}",
            torch.device(device),
            use_fp16=half,
            extractor_configs=[KLConfig(), DINOConfig(), SimCLRConfig(comparison_batch_size=negatives)],
        )
        self.extractors = dict(zip(VIEWS, self.wrapper.extractors, strict=True))
        bank = torch.randn(negatives * VIEWS["simclr"], LATENT)
        self.extractors["simclr"].comparison_batch = bank.to(device)

    def call(self, mix: str) -> Call:
        def features(images: Images) -> Tensor:
            self.wrapper.extractors = [self.extractors[name] for name in MIXES[mix]]
            return self.wrapper(images).cpu().float()

        return features


# Bare passes


class Bare:
    """Bare runs the network alone on views that are already cut and on the device: floors A and B."""

    def __init__(self, module: nn.Module, device: str):
        self.device = device
        plain = module.to(device)
        half = copy.deepcopy(plain).bfloat16()
        self.networks = dict(zip(PRECISIONS, (plain, plain, half), strict=True))
        self.tried: dict[tuple[str, int], float] = {}

    def views(self, count: int, precision: str) -> Tensor:
        """Make random views [count, 3, S, S]: their content does not affect the time."""
        views = torch.randn(count, 3, SIDE, SIDE, device=self.device)
        return views.bfloat16() if precision == "bfloat16 weights" else views

    def run(self, views: Tensor, precision: str, chunk: int) -> None:
        """Pass views [N, 3, S, S], about `chunk` of them at a time."""
        half = precision == "bfloat16 autocast"
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=half):
            for part in views.tensor_split(math.ceil(len(views) / chunk)):
                self.networks[precision](pixel_values=part)

    def fastest(self, chunks: Iterable[int], precisions: Sequence[str] = PRECISIONS) -> tuple[str, int]:
        """Return the precision and views per pass with the least seconds per view; each is tried three times, once."""
        options = [(precision, chunk) for precision in precisions for chunk in chunks]
        for precision, chunk in options:
            if (precision, chunk) not in self.tried:
                self.tried[precision, chunk] = min(self._time(self.views(chunk, precision), precision)) / chunk
        return min(options, key=self.tried.__getitem__)

    def _time(self, views: Tensor, precision: str) -> Iterator[float]:
        for attempt in range(4):
            settle(self.device)
            start = time.perf_counter()
            self.run(views, precision, len(views))
            settle(self.device)
            if attempt:  # the first attempt chooses kernels
                yield time.perf_counter() - start


# From JPEG files


def write_jpegs(images: Images, folder: Path) -> list[str]:
    """Write images as JPEG files; return their paths, in order."""
    paths = [folder / f"{number:06}.jpg" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path, quality=90)
    return [str(path) for path in paths]


class Files(torch.utils.data.Dataset[tuple[Image.Image, int]]):
    """Files gives (image, label) without transforms, as fungivision's README asks."""

    def __init__(self, paths: Sequence[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, at: int) -> tuple[Image.Image, int]:
        return Image.open(self.paths[at]).convert("RGB"), 0


def _collate(batch: list[tuple[Image.Image, int]]) -> Images:
    return [image for image, _ in batch]


def from_files(call: Call, paths: Sequence[str], batch: int, workers: int) -> Tensor:
    """Run fungivision over files, with the loader of its README."""
    loader: Any = torch.utils.data.DataLoader(Files(paths), batch, num_workers=workers, collate_fn=_collate)
    return torch.cat([call(images) for images in loader])
