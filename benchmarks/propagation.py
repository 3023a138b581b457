"""How well does `sporeprint propagate` carry labels along a video? By features and vote, from a mask or some 20 points.

python benchmarks/propagation.py MODEL FRAMES.parquet --ignore 11 [--size 240x320] [--references 8] [--others 12]

FRAMES are images with masks, in the order of one video. Every second frame is used; each reference is carried to the
next `others` of those. Temperatures, neighbours, layers and the number of images for whitening are the command's
defaults, except in the first row: there the 30 nearest patches of all classes vote at a temperature of 0.02. Prints
mIoU in % over the classes marked in the reference, of one confusion over all references and frames; for points, mean
and standard deviation over three draws of two pixels of each class that covers at least 0.2 % of the reference.
passes: over each image.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from machine import Others, machine_class
from numpy.typing import NDArray

from sporeprint import Combination, Fungi, Recipe
from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.load import load_backbone
from sporeprint.data.scenes.marks import UNLABELLED
from sporeprint.data.scenes.scenes import find_classes, open_scenes, read_scene
from sporeprint.evaluate.segmentation import SegmentationResult, confusion, over_runs, segmentation
from sporeprint.run.propagate_plan import FEW, Settings
from sporeprint.segment.bank import MemoryBank
from sporeprint.segment.patches import patch_histograms
from sporeprint.segment.propagate import Propagator
from sporeprint.segment.vote import upsample

Labels = NDArray[np.int32]
Carry = Callable[[NDArray[np.float32], tuple[int, int]], Labels]  # features [H_p, W_p, D] and a size to its labels

STEP = 2  # frames
DRAWS, PIXELS, LEAST = 3, 2, 0.002  # of points: draws, pixels of each class, share of the image that a class has
MASK, POINTS = Settings(), Settings(**FEW)
FEATURES = {"embedding": "plain tokens", "layers": "+ layers, whitened", "all": "+ layers + gradients, whitened"}


@dataclass(frozen=True)
class Video:
    """A video has every STEP-th frame: images, labels with UNLABELLED for void, and the positions of references."""

    images: list[Any]
    labels: list[Labels]
    classes: int
    references: list[int]
    others: int

    def points(self, reference: int, draw: int) -> Labels:
        """Return labels that are UNLABELLED except for some pixels of each class."""
        labels = self.labels[reference]
        rng = np.random.default_rng([draw, reference])
        marks = np.full(labels.shape, UNLABELLED, np.int32)
        for label in range(self.classes):
            pixels = np.flatnonzero(labels == label)
            if len(pixels) >= max(LEAST * labels.size, PIXELS):
                marks.flat[rng.choice(pixels, PIXELS, replace=False)] = label
        return marks

    def result(
        self,
        features: Sequence[NDArray[np.float32]],
        marks: Callable[[int], Labels],
        carry: Callable[[NDArray[np.float32], Labels], Carry],
    ) -> SegmentationResult:
        """Evaluate all references. marks: from a reference's number. carry: made of its features and marks."""
        confusions = []
        for at in self.references:
            marked = marks(at)
            carried = carry(features[at], marked)
            for other in range(at + 1, at + 1 + self.others):
                truth = np.where(np.isin(self.labels[other], marked), self.labels[other], UNLABELLED)
                predicted = carried(features[other], truth.shape)
                confusions.append(confusion(truth, predicted, self.classes, (UNLABELLED,)))
        return segmentation(confusions)

    def nearest(self, features: NDArray[np.float32], marks: Labels) -> Carry:
        """Carry labels by the ordinary vote: the 30 nearest patches of all classes, at a temperature of 0.02."""
        histograms = patch_histograms(marks, features.shape[:2], self.classes, (UNLABELLED,))
        marked = histograms.any(axis=-1)
        bank = MemoryBank.of(features[marked], histograms[marked])

        def carry(others: NDArray[np.float32], size: tuple[int, int]) -> Labels:
            shares = bank.predict(others.reshape(-1, others.shape[-1]))
            return upsample(shares.reshape(*others.shape[:2], -1), size)

        return carry

    def row(self, features: Sequence[NDArray[np.float32]], class_votes: bool) -> tuple[float, float, float]:
        """Return mIoU in %: of the mask, of points, and the standard deviation for points."""

        def vote(settings: Settings) -> Callable[[NDArray[np.float32], Labels], Carry]:
            def carry(reference: NDArray[np.float32], marks: Labels) -> Carry:
                propagator = Propagator.of([(reference, marks)], (UNLABELLED,), settings.k, settings.temperature)
                return lambda others, size: propagator(others, size).labels

            return carry if class_votes else self.nearest

        mask = self.result(features, self.labels.__getitem__, vote(MASK))
        draws = [
            self.result(features, lambda at, draw=draw: self.points(at, draw), vote(POINTS))  # type: ignore[misc]
            for draw in range(DRAWS)
        ]
        points = over_runs(draws)
        return 100 * mask.value, 100 * points.value, 100 * (points.spread or 0.0)


def read_video(source: str, ignore: Sequence[int], references: int, others: int) -> Video:
    scenes = open_scenes(source)
    frames = -(-len(scenes) // STEP)
    if others >= frames:
        raise SystemExit(f"{len(scenes)} rows give {frames} frames; with --others {others} give {others + 1} at least")
    classes = find_classes(scenes, ignore)
    read = [read_scene(scene, classes, ignore) for at, scene in enumerate(scenes) if at % STEP == 0]
    labels = [np.where(np.isin(mask, list(ignore)), UNLABELLED, mask).astype(np.int32) for _, mask in read]
    starts = np.unique(np.linspace(0, frames - 1 - others, references).astype(int)).tolist()
    return Video([image for image, _ in read], labels, classes, starts, others)


def extracted(
    backbone: Backbone, settings: Settings, size: tuple[int, int], images: Sequence[Any]
) -> dict[str, list[NDArray[np.float32]]]:
    """Return {key of FEATURES: features [H_p, W_p, D] of each image} from one extraction."""
    dense = replace(settings.dense(backbone.depth), size=size)
    fungi = Fungi(Recipe(dense=dense, projection="tensorsketch", seed=settings.seed), backbone=backbone)
    rows = [(f"frame {at:05d}", image) for at, image in enumerate(images)]
    fitted = fungi.patches.fit(rows)
    maps = [blocks for _, blocks in fungi.patches.blocks(rows) if blocks is not None]
    joins: dict[str, Any] = {"embedding": Combination(("embedding",))}
    joins |= {name: Settings(features=name).dense(backbone.depth).combination for name in ("layers", "all")}
    combiners = {name: join.fit(fitted) for name, join in joins.items()}
    return {name: [fungi.patches.joined(blocks, by) for blocks in maps] for name, by in combiners.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("frames")
    parser.add_argument("--ignore", type=int, nargs="*", default=[255])
    parser.add_argument("--size", default="240x320", help="height x width, in pixels, that images are resized to")
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--others", type=int, default=12)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    video = read_video(options.frames, options.ignore, options.references, options.others)
    backbone = load_backbone(options.model, modality="image")
    marked = [int((video.points(at, 0) != UNLABELLED).sum()) for at in video.references]
    print("\n".join(machine_class("cpu")))
    others = Others()
    print(
        f"{options.size}, every {STEP}nd frame: {len(video.labels)}; {len(video.references)} references, each to the "
        f"next {video.others}; {min(marked)} to {max(marked)} points\n"
        f"a vote a class: k {MASK.k}, temperature {MASK.temperature} of a mask, {POINTS.temperature} of points\n"
    )
    print("| features, vote | passes | mask | points |\n|---|---:|---:|---:|")
    for settings in (replace(MASK, shifts=1, flip=False), MASK):
        passes = settings.dense(backbone.depth).copies.passes
        by_name = extracted(backbone, settings, (height, width), video.images)
        if passes == 1:
            show(f"{FEATURES['embedding']}, 30 nearest of all classes", passes, *video.row(by_name["embedding"], False))
        for name, features in by_name.items():
            show(f"{FEATURES[name]}, a vote a class", passes, *video.row(features, True))
    print(f"\n{others}")


def show(name: str, passes: float, mask: float, points: float, spread: float) -> None:
    print(f"| {name} | {passes:g} | {mask:.1f} | {points:.1f} ± {spread:.1f} |", flush=True)


if __name__ == "__main__":
    main()
