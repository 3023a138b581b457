"""Which part of dense features helps segmentation by retrieval: layers, targets, losses, the public code's mistakes?

python benchmarks/dense_variants.py MODEL TRAIN.parquet VAL.parquet --ignore 11 [--size 240x320] [--train-images 90]

The neighbours' temperature is chosen for every row of the table by leaving out whole training images (30 neighbours, a
bank of 20,000 patches, drawn evenly); the images of VAL are for looking: final figures come from `sporeprint segment`
on images that nothing was chosen on. mIoU in %: `alone`, the block; `+ token`, joined to the last token, raw, as the
paper has it; `white`, alone, whitened in half; `+ layers`, joined to the whitened layers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from machine import machine_class
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from sporeprint import Combination, Copies, Dense, Fungi, Recipe, TokenKL, TokenSimCLR
from sporeprint.data.scenes.scenes import open_scenes, read_scene
from sporeprint.evaluate.segmentation import confusion, segmentation
from sporeprint.features.dense import dense_features
from sporeprint.features.dense.support import Support
from sporeprint.search.exact import ExactIndex
from sporeprint.segment.patches import patch_histograms
from sporeprint.segment.vote import upsample, vote
from sporeprint.values import kind


@kind("public-token-simclr")
@dataclass(frozen=True)
class PublicSimCLR(TokenSimCLR):
    """TokenSimCLR with mistakes of the paper's public code for segmentation, each by its name.

    temper_negatives=False: the logsumexp stays at T = 1. scrambled: the numbers of the tokens that were looked up are
    mixed up, as the public `reshape` does. unit_negatives: those tokens reach the head L2-normalised, while the image's
    own tokens do not. own_image: an image whose tokens were fitted on finds itself, so that training images have other
    features than test images.
    """

    temper_negatives: bool = True
    scrambled: bool = False
    unit_negatives: bool = False
    own_image: bool = False

    def loss(self, latents: Tensor, negatives: Tensor | None = None) -> Tensor:
        if self.temper_negatives:
            return super().loss(latents, negatives)
        latents = normalize(latents, dim=-1)
        itself = torch.eye(len(latents), dtype=torch.bool, device=latents.device)
        similarities = latents @ latents.T  # [P, P]
        positives = similarities.masked_fill(itself, 0).sum(dim=1) / (len(latents) - 1) / self.temperature
        everything = similarities.masked_fill(itself, -torch.inf)
        if negatives is not None and len(negatives):
            everything = torch.cat([everything, latents @ normalize(negatives.to(latents), dim=-1).T], dim=1)
        return torch.logsumexp(everything, dim=1) - positives


class PublicSupport(Support):
    """A support that gives a PublicSimCLR its mistaken negatives."""

    def negatives(self, objective: TokenSimCLR, tokens: Tensor, owner: int, rng: np.random.Generator) -> Tensor:
        alone = bool((self.owners == self.owners[0]).all())
        if not isinstance(objective, PublicSimCLR) or (alone and not objective.own_image):
            return super().negatives(objective, tokens, owner, rng)
        positions = self.nearest(tokens, objective.neighbours, None if objective.own_image else owner)  # [P, K]
        found = self.tokens[positions]  # [P, K, E]
        if objective.unit_negatives:
            found = normalize(found, dim=-1)
        if objective.scrambled:
            count, neighbours, width = found.shape
            found = found.reshape(count, width, neighbours).transpose(1, 2)
        kept = torch.from_numpy(rng.random(positions.numel()) < objective.kept).to(found.device)
        return found.flatten(0, 1)[kept]


BANK, NEIGHBOURS = 20_000, 30
TEMPERATURES = (0.005, 0.01, 0.02, 0.04, 0.07)
LOSSES: dict[str, Any] = {
    "SimCLR": TokenSimCLR(),
    "KL": TokenKL(),
    "SimCLR, no negatives": TokenSimCLR(neighbours=0),
    "SimCLR, T = 0.2": TokenSimCLR(temperature=0.2),
    "SimCLR, 8 negatives a token": TokenSimCLR(neighbours=8, kept=1.0),
    "public: logsumexp at T = 1": PublicSimCLR(temper_negatives=False),
    "public: unit negatives": PublicSimCLR(unit_negatives=True),
    "public: scrambled negatives": PublicSimCLR(scrambled=True),
    "public: finds itself": PublicSimCLR(own_image=True),
    "public: all four": PublicSimCLR(temper_negatives=False, unit_negatives=True, scrambled=True, own_image=True),
}


def spaced(scenes: Any, count: int) -> list[Any]:
    kept = set(np.linspace(0, len(scenes) - 1, min(count, len(scenes))).astype(int).tolist())
    return [scene for at, scene in enumerate(scenes) if at in kept]


class Study:
    """Blocks of training and validation images, once; then any number of combinations."""

    def __init__(self, recipe: Recipe, train: Sequence[Any], others: Sequence[Any], classes: int, ignore: Any):
        self.classes, self.ignore = classes, ignore
        self.labels = [labels for _, labels in others]
        fungi = Fungi(recipe)
        rows = [(f"train {at}", image) for at, (image, _) in enumerate(train)]
        self.fitted = fungi.patches.fit(rows)
        maps = [blocks for _, blocks in fungi.patches.blocks(rows) if blocks is not None]
        self.grid = maps[0]["embedding"].shape[:2]
        histograms = np.concatenate([self._histograms(labels) for _, labels in train])
        labelled = np.flatnonzero(histograms.sum(axis=1) > 0)
        self.drawn = np.sort(np.random.default_rng(0).permutation(labelled)[:BANK])
        self.histograms, self.owners = histograms[self.drawn], self.drawn // int(np.prod(self.grid))
        self.bank = {name: self._flat(maps, name)[self.drawn] for name in maps[0]}
        tests = fungi.patches.blocks([(f"val {at}", image) for at, (image, _) in enumerate(others)])
        test_maps = [blocks for _, blocks in tests if blocks is not None]
        self.tests = {name: self._flat(test_maps, name) for name in test_maps[0]}

    def miou(self, names: Sequence[str], whiten: bool) -> float:
        combination = Combination(tuple(names), *(("auto", None, 0.5) if whiten else ()))
        combiner = combination.fit(self.fitted)
        bank, tests = (_unit(combiner.transform(blocks)) for blocks in (self.bank, self.tests))
        index = ExactIndex(bank)
        temperature = self._temperature(index, bank)
        similarities, positions = index.search(tests, NEIGHBOURS)
        shares = vote(similarities, self.histograms[positions], temperature)
        planes = shares.reshape(len(self.labels), *self.grid, self.classes)
        pairs = zip(self.labels, planes, strict=True)
        tallies = [confusion(labels, upsample(p, labels.shape), self.classes, self.ignore) for labels, p in pairs]
        return 100 * segmentation(tallies).value

    def _temperature(self, index: ExactIndex, bank: NDArray[np.float32]) -> float:
        """The best temperature for patches of the bank itself, their own images left out."""
        queries = np.random.default_rng(1).permutation(len(bank))[:1500]
        most = int(np.bincount(self.owners).max()) + NEIGHBOURS
        similarities, positions = index.search(bank[queries], min(most, len(bank)))
        foreign = self.owners[positions] != self.owners[queries][:, None]
        order = np.argsort(~foreign, axis=1, kind="stable")[:, :NEIGHBOURS]
        similarities, positions = (np.take_along_axis(array, order, axis=1) for array in (similarities, positions))
        truth = self.histograms[queries].argmax(axis=1)

        def score(temperature: float) -> float:
            guess = vote(similarities, self.histograms[positions], temperature).argmax(axis=1)
            return segmentation([confusion(truth[None], guess[None].astype(np.int32), self.classes, ())]).value

        return max(TEMPERATURES, key=score)

    def _histograms(self, labels: NDArray[np.int32]) -> NDArray[np.float32]:
        return patch_histograms(labels, self.grid, self.classes, self.ignore).reshape(-1, self.classes)

    @staticmethod
    def _flat(maps: Sequence[Any], name: str) -> NDArray[np.float32]:
        return np.concatenate([blocks[name].reshape(-1, blocks[name].shape[-1]) for blocks in maps])


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)


def show(name: str, *figures: float | None) -> None:
    print(
        f"| {name} | " + " | ".join("" if figure is None else f"{figure:.1f}" for figure in figures) + " |", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("train")
    parser.add_argument("val")
    parser.add_argument("--ignore", type=int, nargs="*", default=[255])
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--size", default="240x320")
    parser.add_argument("--train-images", type=int, default=90)
    parser.add_argument("--val-images", type=int, default=40)
    parser.add_argument("--layers", default="4,6,8,10")
    parser.add_argument("--targets", nargs="*", default=[], help="besides the paper's: paths of linear layers")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--shifts", type=int, default=1)
    parser.add_argument("--flip", action="store_true")
    options = parser.parse_args()
    dense_features.Support = PublicSupport  # type: ignore[misc]  # for every Fungi of this script
    height, width = map(int, options.size.split("x"))
    train, others = (
        [read_scene(scene, options.classes, options.ignore) for scene in spaced(open_scenes(source), count)]
        for source, count in ((options.train, options.train_images), (options.val, options.val_images))
    )
    layers = tuple(map(int, options.layers.split(",")))
    print("\n".join(machine_class("cpu")))
    print(f"{options.size}, {len(train)} and {len(others)} images, dim {options.dim}, copies {options.shifts}, "
          f"{'flipped too' if options.flip else 'not flipped'}\n")  # fmt: skip

    def study(losses: Sequence[Any], targets: Sequence[str] | None) -> Study:
        dense = Dense(losses, layers, Copies(options.shifts, options.flip), (height, width))
        recipe = Recipe(options.model, targets=targets, projection="tensorsketch", dim=options.dim, dense=dense)
        return Study(recipe, train, others, options.classes, options.ignore)

    plain = study((), None)
    print("| features | raw | white |\n|---|---|---|")
    for name in plain.bank:
        show(name, plain.miou([name], False), plain.miou([name], True))
    together = ["embedding", *(name for name in plain.bank if name != "embedding")]
    show("all of these", plain.miou(together, False), plain.miou(together, True))
    print("\n| gradient | alone | + token | white | + layers |\n|---|---|---|---|---|")
    names = [f"loss-{at}" for at in range(len(LOSSES))]
    losses = [replace(loss, name=name) for loss, name in zip(LOSSES.values(), names, strict=True)]
    all_losses = study(losses, None)
    for shown, name in zip(LOSSES, names, strict=True):
        gradients(all_losses, shown, [name], together)
    gradients(all_losses, "SimCLR and KL", names[:2], together)
    for target in options.targets:
        of_target = study([TokenSimCLR(), TokenKL()], [target])
        gradients(of_target, f"SimCLR, {target}", ["simclr"], together)
        gradients(of_target, f"KL, {target}", ["kl"], together)


def gradients(study: Study, shown: str, names: Sequence[str], layers: Sequence[str]) -> None:
    show(
        shown,
        study.miou(names, False),
        study.miou(["embedding", *names], False),
        study.miou(names, True),
        study.miou([*layers, *names], True),
    )


if __name__ == "__main__":
    main()
