"""The engine turns decoded rows into blocks: views, a backbone pass per set of views, losses, gradients, projection."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sporeprint.backbones.backbone import Backbone, Pass
from sporeprint.data.limits import Limits
from sporeprint.features.free_memory import give_back
from sporeprint.features.passes import Memory, Passes
from sporeprint.features.sample_gradients import latents_of, predictions, sample_gradients
from sporeprint.gradients.projections.projection import Projection, normalise, reads_factors
from sporeprint.gradients.switches import own_settings
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.view_sets import ViewSet, generator, view_sets

TOGETHER_BYTES = 64 * 2**20  # gradients that are projected in one call


def make_head(seed: int, name: str, width: int, latent: int) -> nn.Linear:
    """Make a frozen linear head [latent, width] with PyTorch's default initialisation, U(-1, 1) / sqrt(width)."""
    head = nn.utils.skip_init(nn.Linear, width, latent)
    rng, bound = generator(seed, "", f"head {name}"), 1 / math.sqrt(width)
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            numbers = (rng.random(parameter.numel()) * 2 - 1) * bound
            parameter.copy_(torch.from_numpy(numbers.astype(np.float32)).view_as(parameter))
    return head.requires_grad_(False)


def below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors under "name/", with that prefix removed."""
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def heads_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group {"kl/weight": ..., "kl/bias": ...} as {"kl": {"weight": ..., "bias": ...}}."""
    names = dict.fromkeys(key.rpartition("/")[0] for key in tensors)
    return {name: below(tensors, name) for name in names}


@dataclass
class Engine:
    """An engine holds everything that a row's blocks depend on, and computes them."""

    backbone: Backbone
    objectives: tuple[Objective, ...]
    heads: dict[str, nn.Linear]
    negatives: dict[str, Tensor]
    projections: dict[str, Projection]
    layers: int
    layer_kinds: tuple[str, ...]
    seed: int
    autocast: torch.dtype | None = None
    own_head: str | None = None  # digest of the checkpoint's own head, where an objective reads it
    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    seconds: dict[str, float] = field(default_factory=dict)  # spent on each set of views so far
    memory: Memory = field(default_factory=Memory)

    @own_settings()
    def blocks(self, rows: Sequence[tuple[str, Any]]) -> dict[str, NDArray[np.float32]]:
        """Return {block: float32 [N, D]}, every row L2-normalised, of rows [(id, prepared sample)]."""
        heads, banks = self._on_device()
        rows, back = self._sort_by_length(rows)
        passes = self.passing()
        parts: dict[str, list[Tensor]] = {}
        for view_set in view_sets(self.objectives):
            with self._timed(view_set.name):
                for chunk in passes.each(view_set, rows, partial(self._read, view_set, heads, banks)):
                    for name, values in chunk.items():
                        parts.setdefault(name, []).append(values)
        with self._timed("projection"), torch.no_grad():
            gradients = {name: normalise(torch.cat(parts.pop(name))) for name in self.gradient_names()}
            blocks = {name: torch.cat(values) for name, values in parts.items()} | self._project(gradients)
            arrays = {name: normalise(block).float().cpu().numpy()[back] for name, block in blocks.items()}
        give_back()
        return arrays

    def _project(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return {block: [N, D]} of {block: [N, P]}; blocks whose projection reads the factors pass through.

        Objectives are projected together where rows are few: a packed matrix is unpacked for each call.
        """
        waiting: dict[str, list[str]] = {}
        blocks = dict(gradients)
        for name in gradients:
            path = name.partition("@")[2] or next(iter(self.backbone.targets))
            if not reads_factors(self.projections[path]):
                waiting.setdefault(path, []).append(name)
        for path, names in waiting.items():
            rows, width = gradients[names[0]].shape
            together = max(1, TOGETHER_BYTES // (4 * rows * width))
            for start in range(0, len(names), together):
                batch = names[start : start + together]
                projected = self.projections[path](torch.cat([blocks[name] for name in batch]))
                blocks.update(zip(batch, projected.split(rows), strict=True))
        return blocks

    def _read(
        self,
        view_set: ViewSet,
        heads: Mapping[str, nn.Linear],
        banks: Mapping[str, Tensor],
        embeddings: Tensor,
        passes: list[Pass],
    ) -> dict[str, Tensor]:
        """Return the blocks [n, D] of the rows in these passes; gradients of factors alone are projected."""
        vectors, blocks = embeddings.detach(), {}
        if view_set.name == "whole":
            blocks = {"embedding": vectors[:, 0], **passes[0].layers}
        elif view_set.views > 1:
            blocks[f"{view_set.name}.views"] = normalise(vectors).mean(dim=1)
        captures, predicted = [part.captures for part in passes], predictions(passes, len(vectors))
        for objective in view_set.objectives:
            bank = banks.get(objective.name)
            gradients = sample_gradients(objective, embeddings, captures, heads, self.projections, bank, predicted)
            for path, gradient in gradients.items():
                blocks[self._block_name(objective, path)] = gradient
        return blocks

    def _block_name(self, objective: Objective, path: str) -> str:
        return objective.name if len(self.backbone.targets) == 1 else f"{objective.name}@{path}"

    def gradient_names(self) -> list[str]:
        """Return the names of the gradient blocks, in the order of the objectives and targets."""
        return [self._block_name(objective, path) for objective in self.objectives for path in self.backbone.targets]

    @own_settings()
    def encode(self, objective: Objective, rows: Sequence[tuple[str, Any]]) -> Tensor:
        """Return the latents [rows, V, L], on the CPU, of the views of these rows, for a bank of negatives.

        V: the objective's `negative_views`, the first of its views; all its views where it does not set them.
        """
        (view_set,) = (each for each in view_sets(self.objectives) if objective in each.objectives)
        if (views := getattr(objective, "negative_views", None)) is not None and views < view_set.views:
            view_set = view_set.first(views)
        head = self._on_device()[0][objective.name]
        rows, back = self._sort_by_length(rows)
        empty = torch.empty(0, view_set.views, objective.latent)

        def read(embeddings: Tensor, _: list[Pass]) -> Tensor:
            return latents_of(head, objective, embeddings.detach()).float().cpu()

        with self._timed("negatives"):
            latents = torch.cat([empty, *self.passing().each(view_set, rows, read)])[back]
        give_back()
        return latents

    def _sort_by_length(self, rows: Sequence[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], list[int]]:
        """Return the rows, shortest first to pad little, and the position that each given row has among them."""
        lengths = [self.backbone.preprocess.length(sample) for _, sample in rows]
        order = sorted(range(len(rows)), key=lambda at: (lengths[at], self.backbone.preprocess.same(rows[at][1])))
        return [rows[at] for at in order], [int(at) for at in np.argsort(order)]

    def _on_device(self) -> tuple[dict[str, nn.Linear], dict[str, Tensor]]:
        """Copy heads and negatives to the backbone's device, once a batch; the user may replace the originals."""
        device = self.backbone.device
        heads = {
            name: head if head.weight.device == device else copy.deepcopy(head).to(device)
            for name, head in self.heads.items()
        }
        return heads, {name: bank.to(device) for name, bank in self.negatives.items()}

    def block_info(self) -> dict[str, dict[str, Any]]:
        """Return the family, set of views and passes a row of each block, the embedding's own pass not counted again.

        A view of fewer tokens counts as that fraction of a pass.
        """
        sets = view_sets(self.objectives)
        cost = {view_set.name: round(view_set.cost(self.backbone.preprocess), 1) for view_set in sets}
        passes = {name: int(number) if number == int(number) else number for name, number in cost.items()}
        info: dict[str, dict[str, Any]] = {"embedding": {"family": "embedding", "views": "whole", "passes": 1}}
        for number in range(max(0, self.backbone.depth - self.layers) + 1, self.backbone.depth + 1):
            for kind in self.layer_kinds:
                if kind == "attention" and number not in self.backbone.attentions:
                    continue
                info[f"{kind}-{number}"] = {"family": "layers", "views": "whole", "passes": 1}
        for view_set in sets[1:]:
            if view_set.views > 1:
                info[f"{view_set.name}.views"] = {
                    "family": "views",
                    "views": view_set.name,
                    "passes": passes[view_set.name],
                }
        for name in self.gradient_names():
            (view_set,) = (each for each in sets if name.partition("@")[0] in [o.name for o in each.objectives])
            info[name] = {"family": "gradients", "views": view_set.name, "passes": passes[view_set.name]}
        return info

    def passing(self) -> Passes:
        """Return the passes of views through the backbone, by its attributes and weights as they are now."""
        self.backbone.refresh()
        return Passes(self.backbone, self.seed, self.layers, self.layer_kinds, self.autocast, self.workers, self.memory)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
        # Another thread may copy it meanwhile.
        self.seconds = {**self.seconds, name: self.seconds.get(name, 0.0) + time.perf_counter() - started}
