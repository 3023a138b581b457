"""The dense engine turns images into maps of blocks: copies, a pass per size, losses, a gradient per token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.grid import GridPass, patch_factors
from sporeprint.errors import BackboneError, LayerError, NotFitted, SampleError, first_line, is_out_of_memory, warn
from sporeprint.features.dense.copies import Copies, Copy, add_copy
from sporeprint.features.dense.dense_settings import Dense
from sporeprint.features.dense.support import Support, owner_of
from sporeprint.features.dense.token_gradients import project_tokens
from sporeprint.features.dense.token_objectives import TokenObjective
from sporeprint.features.passes import Memory
from sporeprint.features.sample_gradients import latents_of
from sporeprint.gradients.projections.projection import Projection, normalise
from sporeprint.gradients.switches import own_settings
from sporeprint.objectives.view_sets import generator

Maps = dict[str, NDArray[np.float32]]  # {block: [H, W, D]} of one image
Rows = Sequence[tuple[str, Image.Image]]
Job = tuple[int, int, Copy]  # position of the row, number of the copy, the copy

TOKENS_A_PASS = {"cpu": 1024, "cuda": 16_384}  # patches that pass the backbone together
# Most patches of a copy. SimCLR compares all pairs: 4,096, a 1,024 x 1,024 image in patches of 16, take 690 MiB.
MOST_PATCHES, MOST_WITHOUT_GRADIENTS = 4096, 16_384
_PLAIN = Copies()


@dataclass
class DenseEngine:
    """A dense engine holds all that an image's maps depend on. heads: {objective: head}. projections: {target: ...}."""

    backbone: Backbone
    settings: Dense
    heads: Mapping[str, nn.Linear]
    projections: Mapping[str, Projection]
    seed: int
    autocast: torch.dtype | None = None
    support: Support | None = None
    memory: Memory = field(default_factory=Memory)

    def layers(self) -> list[int]:
        """Return the numbers of the blocks whose tokens are kept. Raises BackboneError for a missing block."""
        depth = self.backbone.depth
        numbers = [number if number > 0 else depth + 1 + number for number in self.settings.layers]
        if wrong := [given for given, at in zip(self.settings.layers, numbers, strict=True) if not 1 <= at <= depth]:
            raise BackboneError(
                f"layer {wrong[0]}, but {self.backbone.name} has blocks 1 to {depth}; name one of those"
            )
        return sorted(set(numbers))

    def block_names(self) -> list[str]:
        """Return the names of the blocks, in the order of `maps`."""
        several = len(self.projections) > 1
        gradients = [
            f"{objective.name}@{path}" if several else objective.name
            for objective in self.settings.objectives
            for path in self.projections
        ]
        return ["embedding", *(f"patches-{number}" for number in self.layers()), *gradients]

    def size_of(self, image: Image.Image) -> tuple[int, int]:
        """Return height and width in pixels that an image is resized to. Raises SampleError for one too large."""
        patch = self.backbone.patch
        if self.settings.size is not None:
            return self.settings.size
        if patch is None:
            side = int(self.backbone.preprocess.limits()["image_size"])
            return side, side
        height, width = (max(patch, side // patch * patch) for side in (image.height, image.width))
        if (patches := self.most_patches(height, width)) > self.limit:
            raise SampleError(
                f"the image is {image.width} x {image.height} pixels, {patches:,} patches (of its largest copy); at "
                f"most {self.limit:,}: say what images are to be resized to, Dense(size=(height, width)), --size"
            )
        return height, width

    @property
    def limit(self) -> int:
        """Most patches that a copy may have."""
        return MOST_PATCHES if self.settings.objectives else MOST_WITHOUT_GRADIENTS

    def most_patches(self, height: int, width: int) -> int:
        """Return the number of patches of the largest copy of an image at height x width pixels."""
        stride = self._stride()
        copies = self.settings.copies.of(height, width, stride)
        return max(copy.height // stride * (copy.width // stride) for copy in copies)

    def grid_of(self, image: Image.Image) -> tuple[int, int]:
        """Return rows and columns of an image's maps."""
        return self.settings.copies.grid(*self.size_of(image), self._stride())

    @own_settings()
    def maps(self, rows: Rows) -> list[Maps]:
        """Compute every block of every image, on one grid per image, each feature L2-normalised.

        Raises NotFitted where an objective needs a support and has none.
        """
        if self.support is None and (needy := [loss.name for loss in self.settings.objectives if loss.neighbours]):
            raise NotFitted(
                f"dense objective {needy[0]!r} looks up negatives among the patches of fitting images: call "
                "fit_dense(training_images) first"
            )
        copies = [self.settings.copies.of(*self.size_of(image), self._stride()) for _, image in rows]
        grids = [self.grid_of(image) for _, image in rows]
        totals: list[dict[str, Tensor]] = [{} for _ in rows]
        for jobs, blocks in self._passes(rows, copies):
            for at, (row, _, copy) in enumerate(jobs):
                for name, values in blocks.items():
                    totals[row][name] = add_copy(totals[row].get(name), copy, values[at], grids[row])
        names = self.block_names()
        return [{name: normalise(total[name]).numpy() for name in names} for total in totals]

    def owner_of(self, image: Image.Image) -> int:
        """Return the number that marks an image's own tokens in the support."""
        return owner_of(self.backbone.preprocess.digest(image))

    @own_settings()
    def plain(self, rows: Rows) -> list[Tensor]:
        """Return the last tokens [P, E] of each image itself, not normalised."""
        copies = [_PLAIN.of(*self.size_of(image), self._stride()) for _, image in rows]
        tokens: list[Tensor] = [torch.empty(0)] * len(rows)
        for jobs, blocks in self._passes(rows, copies, plain=True):
            for at, (row, _, _) in enumerate(jobs):
                tokens[row] = blocks["embedding"][at].flatten(0, 1)
        return tokens

    def _stride(self) -> int:
        """Return the pixels from one patch to the next."""
        if self.backbone.patch is not None:
            return self.backbone.patch
        size = int(self.backbone.preprocess.limits()["image_size"])
        patches = (self.backbone.tokens or 1) - self.backbone.prefix
        return max(1, size // max(1, round(max(1, patches) ** 0.5)))

    def _passes(
        self, rows: Rows, copies: Sequence[Sequence[Copy]], plain: bool = False
    ) -> Iterator[tuple[list[Job], dict[str, Tensor]]]:
        """Yield the jobs that shared a pass, and their blocks {block: [n, h, w, D]} on the CPU."""
        self.backbone.refresh()
        waiting = [(row, number, copy) for row, of_row in enumerate(copies) for number, copy in enumerate(of_row)]
        while waiting:
            height, width = waiting[0][2].height, waiting[0][2].width
            most = self._images_a_pass(height, width)
            same = [job for job in waiting if (job[2].height, job[2].width) == (height, width)][:most]
            try:
                blocks = self._one_pass(rows, same, plain)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink_passes(len(same), height, width, first_line(error))
                continue
            yield same, blocks
            done = set(map(id, same))
            waiting = [job for job in waiting if id(job) not in done]

    def _images_a_pass(self, height: int, width: int) -> int:
        """Return how many images of height x width pixels share a pass."""
        patches = max(1, height * width // self._stride() ** 2)
        budget = TOKENS_A_PASS.get(self.backbone.device.type, TOKENS_A_PASS["cpu"])
        return max(1, budget // self.memory.divisor // patches)

    def _shrink_passes(self, images: int, height: int, width: int, cause: str) -> None:
        if images == 1:
            raise BackboneError(
                f"an image of {height} x {width} pixels does not fit into memory of {self.backbone.device}: {cause}; "
                "take smaller images (Dense(size=...), --size), a smaller backbone, or a device with more memory"
            )
        while self._images_a_pass(height, width) >= images:
            self.memory.divisor *= 2
        message = f"memory ran out ({cause}); continuing with fewer images per pass"
        warn(message)
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()

    def _one_pass(self, rows: Rows, jobs: Sequence[Job], plain: bool) -> dict[str, Tensor]:
        prepared: dict[tuple[int, int, int], Tensor] = {}
        images = []
        for row, _, copy in jobs:
            key = (row, copy.height, copy.width)
            if key not in prepared:
                prepared[key] = self.backbone.preprocess.at(rows[row][1], copy.height, copy.width)  # type: ignore[attr-defined]
            images.append(copy(prepared[key]))
        numbers = [] if plain else self.layers()
        count = self.backbone.depth + 1 - numbers[0] if numbers else 0
        with self.backbone.grid(torch.stack(images), count, self.autocast) as grid:
            blocks = {"embedding": grid.tokens.detach()}
            blocks |= {f"patches-{number}": grid.layers[f"patches-{number}"] for number in numbers}
            for objective in () if plain else self.settings.objectives:
                blocks |= self._gradients(objective, grid, [(*rows[row], number) for row, number, _ in jobs])
        return {name: values.float().cpu() for name, values in blocks.items()}

    def _gradients(
        self, objective: TokenObjective, grid: GridPass, images: Sequence[tuple[str, Image.Image, int]]
    ) -> dict[str, Tensor]:
        """Return gradient blocks {block: [n, h, w, D]}. images: (id, image, number of the copy)."""
        total = grid.tokens.new_zeros((), dtype=torch.float64)
        for tokens, image in zip(grid.tokens.flatten(1, 2), images, strict=True):
            negatives = self._negatives(objective, tokens.detach(), *image)
            latents = latents_of(self.heads[objective.name], objective, tokens)  # type: ignore[arg-type]
            total = total + objective.loss(latents, negatives).double().sum()
        outputs = [capture.outputs for capture in grid.captures.values()]
        gradients = torch.autograd.grad(total, outputs, retain_graph=True, allow_unused=True)
        several, blocks = len(grid.captures) > 1, {}
        for (path, capture), sensitivities in zip(grid.captures.items(), gradients, strict=True):
            if sensitivities is None:
                raise LayerError(
                    f"the loss of {objective.name!r} over tokens does not depend on layer {path!r}; choose another"
                )
            saw, felt = (patch_factors(part, self.backbone.prefix) for part in (capture.inputs, sensitivities))
            projected = [
                project_tokens(self.projections[path], *factors, capture.bias)
                for factors in zip(saw, felt, strict=True)
            ]
            name = f"{objective.name}@{path}" if several else objective.name
            blocks[name] = torch.stack(projected).unflatten(1, grid.tokens.shape[1:3])
        return blocks

    def _negatives(
        self, objective: TokenObjective, tokens: Tensor, row_id: str, image: Image.Image, number: int
    ) -> Tensor | None:
        if not objective.neighbours or self.support is None:
            return None
        rng = generator(self.seed, row_id, f"dense {objective.name} {number}")
        with torch.no_grad():
            nearest = self.support.negatives(objective, tokens, self.owner_of(image), rng)  # type: ignore[arg-type]
            return latents_of(self.heads[objective.name], objective, nearest.to(tokens))  # type: ignore[arg-type]
