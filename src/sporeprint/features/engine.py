"""From decoded rows to blocks: views, one backbone pass for each set of views, losses, gradients, projection."""

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
from sporeprint.features.passes import Memory, Passes
from sporeprint.features.sample_gradients import latents_of, predictions, sample_gradients
from sporeprint.gradients.projections.projection import Projection, normalise, reads_factors
from sporeprint.objectives.objective import Objective
from sporeprint.objectives.view_sets import ViewSet, generator, view_sets

TOGETHER_BYTES = 64 * 2**20  # of gradients that are projected in one call


def make_head(seed: int, name: str, width: int, latent: int) -> nn.Linear:
    """A frozen linear head [latent, width] with PyTorch's default initialisation, U(-1/sqrt(width), 1/sqrt(width))."""
    head = nn.utils.skip_init(nn.Linear, width, latent)
    rng, bound = generator(seed, "", f"head {name}"), 1 / math.sqrt(width)
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            numbers = (rng.random(parameter.numel()) * 2 - 1) * bound
            parameter.copy_(torch.from_numpy(numbers.astype(np.float32)).view_as(parameter))
    return head.requires_grad_(False)


def below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under "name/", without that part of their names."""
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def heads_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{"kl/weight": ..., "kl/bias": ...} as {"kl": {"weight": ..., "bias": ...}}."""
    names = dict.fromkeys(key.rpartition("/")[0] for key in tensors)
    return {name: below(tensors, name) for name in names}


@dataclass
class Engine:
    """Everything that a row's blocks depend on, and the pass that computes them."""

    backbone: Backbone
    objectives: tuple[Objective, ...]
    heads: dict[str, nn.Linear]
    negatives: dict[str, Tensor]
    projections: dict[str, Projection]
    layers: int
    layer_kinds: tuple[str, ...]
    seed: int
    autocast: torch.dtype | None = None
    workers: int = 1
    seconds: dict[str, float] = field(default_factory=dict)  # spent on each set of views so far
    memory: Memory = field(default_factory=Memory)

    @torch.inference_mode(False)  # a caller's inference mode would give tensors that autograd refuses
    def blocks(self, rows: Sequence[tuple[str, Any]]) -> dict[str, NDArray[np.float32]]:
        """rows: [(id, prepared sample)]. Returns {block: float32 [N, D]}, every row L2-normalised."""
        heads, banks = self._on_device()
        rows, back = self._by_length(rows)
        passes = self.passing()
        found: dict[str, list[Tensor]] = {}
        for view_set in view_sets(self.objectives):
            with self._timed(view_set.name):
                for part in passes.each(view_set, rows, partial(self._read, view_set, heads, banks)):
                    for name, values in part.items():
                        found.setdefault(name, []).append(values)
        with self._timed("projection"), torch.no_grad():
            gradients = {name: normalise(torch.cat(found.pop(name))) for name in self.gradient_names()}
            made = {name: torch.cat(parts) for name, parts in found.items()} | self._projected(gradients)
            return {name: normalise(block).float().cpu().numpy()[back] for name, block in made.items()}

    def _projected(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{block: [N, D]} of {block: [N, P]}, or of what its projection made of the factors already.

        Few rows of several objectives are projected together: a packed matrix is unpacked for each call.
        """
        waiting: dict[str, list[str]] = {}
        made = dict(gradients)
        for name in gradients:
            path = name.partition("@")[2] or next(iter(self.backbone.targets))
            if not reads_factors(self.projections[path]):
                waiting.setdefault(path, []).append(name)
        for path, names in waiting.items():
            rows, width = gradients[names[0]].shape
            together = max(1, TOGETHER_BYTES // (4 * rows * width))
            for start in range(0, len(names), together):
                some = names[start : start + together]
                projected = self.projections[path](torch.cat([made[name] for name in some]))
                made.update(zip(some, projected.split(rows), strict=True))
        return made

    def _read(
        self,
        view_set: ViewSet,
        heads: Mapping[str, nn.Linear],
        banks: Mapping[str, Tensor],
        embeddings: Tensor,
        passes: list[Pass],
    ) -> dict[str, Tensor]:
        """Blocks of the rows in these passes, [n, D]: embedding and layers or views; gradients before projection."""
        found, made = embeddings.detach(), {}
        if view_set.name == "whole":
            made = {"embedding": found[:, 0], **passes[0].layers}
        elif view_set.views > 1:
            made[f"{view_set.name}.views"] = normalise(found).mean(dim=1)
        captures, predicted = [one.captures for one in passes], predictions(passes, len(found))
        for objective in view_set.objectives:
            bank = banks.get(objective.name)
            gradients = sample_gradients(objective, embeddings, captures, heads, self.projections, bank, predicted)
            for path, gradient in gradients.items():
                made[self._block_name(objective, path)] = gradient
        return made

    def _block_name(self, objective: Objective, path: str) -> str:
        return objective.name if len(self.backbone.targets) == 1 else f"{objective.name}@{path}"

    def gradient_names(self) -> list[str]:
        """Names of the gradient blocks, in the order of the objectives and targets."""
        return [self._block_name(objective, path) for objective in self.objectives for path in self.backbone.targets]

    @torch.inference_mode(False)
    def encode(self, objective: Objective, rows: Sequence[tuple[str, Any]]) -> Tensor:
        """Latents of the views of these rows, for a bank of negatives: [rows, V, L], on the CPU.

        V: `negative_views` of the objective where it sets them, which are the first of its views.
        """
        (view_set,) = (one for one in view_sets(self.objectives) if objective in one.objectives)
        if (views := getattr(objective, "negative_views", None)) is not None and views < view_set.views:
            view_set = view_set.first(views)
        head = self._on_device()[0][objective.name]
        rows, back = self._by_length(rows)
        none = torch.empty(0, view_set.views, objective.latent)

        def read(embeddings: Tensor, _: list[Pass]) -> Tensor:
            return latents_of(head, objective, embeddings.detach()).float().cpu()

        with self._timed("negatives"):
            return torch.cat([none, *self.passing().each(view_set, rows, read)])[back]

    def _by_length(self, rows: Sequence[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], list[int]]:
        """The rows, shorter ones first, so that little is padded; and where each of the given ones went."""
        lengths = [self.backbone.preprocess.length(sample) for _, sample in rows]
        order = sorted(range(len(rows)), key=lambda at: (lengths[at], self.backbone.preprocess.same(rows[at][1])))
        return [rows[at] for at in order], [int(at) for at in np.argsort(order)]

    def _on_device(self) -> tuple[dict[str, nn.Linear], dict[str, Tensor]]:
        """Heads and negatives where the backbone is, moved once a batch; the originals stay, for the user to change."""
        device = self.backbone.device
        heads = {
            name: head if head.weight.device == device else copy.deepcopy(head).to(device)
            for name, head in self.heads.items()
        }
        return heads, {name: bank.to(device) for name, bank in self.negatives.items()}

    def block_info(self) -> dict[str, dict[str, Any]]:
        """For each block what it is and what it costs: family, and passes a row beside the embedding's own.

        A view of fewer tokens counts as that part of a pass.
        """
        sets = view_sets(self.objectives)
        cost = {one.name: round(one.cost(self.backbone.preprocess), 1) for one in sets}
        passes = {name: int(number) if number == int(number) else number for name, number in cost.items()}
        info: dict[str, dict[str, Any]] = {"embedding": {"family": "embedding", "views": "whole", "passes": 1}}
        for number in range(max(0, self.backbone.depth - self.layers) + 1, self.backbone.depth + 1):
            for kind in self.layer_kinds:
                info[f"{kind}-{number}"] = {"family": "layers", "views": "whole", "passes": 1}
        for view_set in sets[1:]:
            if view_set.views > 1:
                info[f"{view_set.name}.views"] = {
                    "family": "views",
                    "views": view_set.name,
                    "passes": passes[view_set.name],
                }
        for name in self.gradient_names():
            (view_set,) = (one for one in sets if name.partition("@")[0] in [o.name for o in one.objectives])
            info[name] = {"family": "gradients", "views": view_set.name, "passes": passes[view_set.name]}
        return info

    def passing(self) -> Passes:
        """How views pass the backbone, by the attributes and the weights as they are now."""
        self.backbone.refresh()
        return Passes(self.backbone, self.seed, self.layers, self.layer_kinds, self.autocast, self.workers, self.memory)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
