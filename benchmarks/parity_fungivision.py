"""Do we compute what the paper's public library computes? Same network, images, heads, projection and negatives.

    pip install sporeprint "fungivision==0.0.2" torchvision tqdm
    python benchmarks/parity_fungivision.py MODEL IMAGES [--images 16] [--negatives 8]

MODEL: a Hugging Face ViT, id or folder. IMAGES: a folder of class folders, or a table. Prints, for KL, DINO and SimCLR,
the least and the mean cosine over the images between fungivision's feature and ours, given the same views; for SimCLR
also with our own patches. Exits with 1 where KL is not above 0.9999, or SimCLR not above 0.999. Nothing is installed.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch
from contestants import Pooled
from torch import Tensor

from sporeprint import DINO, KL, Backbone, Fungi, Preprocess, Recipe, SimCLR, open_source
from sporeprint.backbones.inputs.inputs import ImageInputs
from sporeprint.backbones.load import load_backbone
from sporeprint.data.images import load_image
from sporeprint.features.batches import decoded_batches
from sporeprint.gradients.projections.projection import Dense

KL_LEAST, SIMCLR_LEAST = 0.9999, 0.999

# A torchvision whose compiled part cannot be loaded (a CUDA build with a CPU torch) still has its transforms, once its
# operators are declared; the tests do the same.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
try:
    from torchvision_schemas import define_missing_schemas

    define_missing_schemas()
    from fungivision.config import DINOConfig, KLConfig, SimCLRConfig
    from fungivision.wrapper import FUNGIWrapper
except ImportError as error:
    sys.exit(f"{error}. This script compares with another package: pip install fungivision==0.0.2 torchvision tqdm")


class Given:
    """Given is an augmentation that looks up fungivision's views of the same image."""

    def __init__(self, views: dict[bytes, Tensor], count: int):
        self.by_image, self.views, self.global_crops = views, count, 2

    def __call__(self, image, preprocess, rng) -> Tensor:
        return self.by_image[image.tobytes()]


class GivenWhole(ImageInputs):
    """GivenWhole is fungivision's view for KL, which resizes unlike the model's own preprocessing; boxes are ours."""

    def __init__(self, views: dict[bytes, Tensor], own: Preprocess):
        self.by_image, self.own, self.size = views, own, own.size

    def __call__(self, image) -> Tensor:
        return self.by_image[image.tobytes()]

    def boxes(self, image, boxes) -> Tensor:
        return self.own.boxes(image, boxes)

    def describe(self) -> dict[str, str]:
        return {"views": "fungivision's"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--images", dest="count", type=int, default=16, help="how many images to compare")
    parser.add_argument("--negatives", type=int, default=8, help="images in SimCLR's bank")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.manual_seed(0)

    rows = open_source(arguments.images, limit=arguments.count + arguments.negatives).rows()
    pictures = [load_image(row.sample) for row in rows]
    images, others = pictures[: arguments.count], pictures[arguments.count :]
    loaded = load_backbone(arguments.model, device="cpu")
    target = next(iter(loaded.targets))
    configs = [KLConfig(), DINOConfig(), SimCLRConfig(comparison_batch_size=arguments.negatives)]
    theirs = FUNGIWrapper(
        Pooled(loaded.module).eval(), f"network.{target}", torch.device("cpu"), extractor_configs=configs
    )
    theirs.setup([(image, 0) for image in others])
    views = [{image.tobytes(): extractor.transform(image) for image in images} for extractor in theirs.extractors]
    expected = {}
    for name, extractor, by_image in zip(("kl", "dino", "simclr"), theirs.extractors, views, strict=True):
        extractor.transform = lambda image, by_image=by_image: by_image[image.tobytes()]
        expected[name] = torch.cat([extractor(images=[image]) for image in images]).detach()

    kl, dino, simclr = theirs.extractors
    objectives = [
        KL(),
        DINO(augmentation=Given(views[1], 12)),
        SimCLR(augmentation=Given(views[2], 49), temper_negatives=False),
        SimCLR(name="simclr-own-patches", temper_negatives=False),
    ]
    backbone = Backbone(loaded.module, preprocess=loaded.preprocess)
    backbone.preprocess = GivenWhole(views[0], loaded.preprocess)
    ours = Fungi(Recipe(objectives=objectives, dtype="float32"), backbone=backbone)
    ours.heads["kl"], ours.heads["dino"] = kl.projection_head, dino.projection_head
    ours.heads["dino_teacher"] = dino.teacher_projection
    for name in ("simclr", "simclr-own-patches"):
        ours.heads[name], ours.negatives[name] = simclr.projection_head, simclr.comparison_batch
    ours.projection = Dense(kl.projection)
    named = [(str(at), image) for at, image in enumerate(images)]
    (batch,) = decoded_batches(backbone.preprocess, named, len(images), 1)
    blocks = ours.compute(*batch)[1]

    least = {}
    print(f"{'objective':24}{'least cosine':>14}{'mean cosine':>14}   ({len(images)} images, {arguments.model})")
    for name in ("kl", "dino", "simclr", "simclr-own-patches"):
        reference = expected[name.removesuffix("-own-patches")]
        cosines = torch.nn.functional.cosine_similarity(reference.double(), torch.tensor(blocks[name]).double(), eps=0)
        least[name] = cosines.min().item()
        print(f"{name:24}{cosines.min():14.7f}{cosines.mean():14.7f}")
    failed = least["kl"] <= KL_LEAST or least["simclr"] <= SIMCLR_LEAST
    print("parity: " + ("NOT reached" if failed else f"reached (KL > {KL_LEAST}, SimCLR > {SIMCLR_LEAST})"))
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
