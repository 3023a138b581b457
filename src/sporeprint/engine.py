"""From decoded rows to blocks: views, one backbone pass for each set of views, losses, gradients, projection."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sporeprint.ahead import ahead
from sporeprint.backbones.base import Backbone, Pass
from sporeprint.backbones.inputs import Batch
from sporeprint.gradients import latents_of, predictions, sample_gradients
from sporeprint.objectives.base import Objective
from sporeprint.projection import Projection, normalise, reads_factors
from sporeprint.recipe import canonical
from sporeprint.views.whole import Whole


@dataclass(frozen=True)
class ViewSet:
    """Views that are made once and pass the backbone once, and the objectives that share them."""

    name: str  # "whole", or the first objective's
    augmentation: Any
    objectives: tuple[Objective, ...]

    @property
    def views(self) -> int:
        return self.augmentation.views

    @property
    def logits(self) -> bool:
        """Whether an objective reads the checkpoint's own head."""
        return any(getattr(one, "reads", "") == "logits" for one in self.objectives)


def view_sets(objectives: Sequence[Objective]) -> list[ViewSet]:
    """The plain view first, since the embedding needs it; objectives with equal augmentations share a set."""
    shared: dict[Any, list[Objective]] = {Whole(): []}
    for objective in objectives:
        plain = objective.augmentation is None
        shared.setdefault(Whole() if plain else objective.augmentation, []).append(objective)
    return [
        ViewSet("whole" if augmentation == Whole() else members[0].name, augmentation, tuple(members))
        for augmentation, members in shared.items()
    ]


def generator(seed: int, row_id: str, name: str) -> np.random.Generator:
    """The random numbers of one row's views for one objective: the same for every batch, order, worker and platform."""
    key = hashlib.blake2b(canonical([seed, row_id, name]), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))


def make_head(seed: int, name: str, width: int, latent: int) -> nn.Linear:
    """A frozen linear head [latent, width] with PyTorch's default initialisation, U(-1/sqrt(width), 1/sqrt(width))."""
    head = nn.utils.skip_init(nn.Linear, width, latent)
    rng, bound = generator(seed, "", f"head {name}"), 1 / math.sqrt(width)
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            numbers = (rng.random(parameter.numel()) * 2 - 1) * bound
            parameter.copy_(torch.from_numpy(numbers.astype(np.float32)).view_as(parameter))
    return head.requires_grad_(False)


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
    moments: int = 1  # of the views' embeddings
    autocast: torch.dtype | None = None
    workers: int = 1
    seconds: dict[str, float] = field(default_factory=dict)  # spent on each set of views so far

    @torch.inference_mode(False)  # a caller's inference mode would give tensors that autograd refuses
    def blocks(self, rows: Sequence[tuple[str, Any]]) -> dict[str, NDArray[np.float32]]:
        """rows: [(id, prepared sample)]. Returns {block: float32 [N, D]}, every row L2-normalised."""
        heads, banks = self._on_device()
        rows, back = self._by_length(rows)
        free: dict[str, list[Tensor]] = {}  # embedding and layers, then views
        gradients: dict[str, list[Tensor]] = {name: [] for name in self.gradient_names()}
        for view_set in view_sets(self.objectives):

            def read(embeddings: Tensor, passes: list[Pass], view_set: ViewSet = view_set) -> None:
                found = embeddings.detach()
                if view_set.name == "whole":
                    for name, values in {"embedding": found[:, 0], **passes[0].layers}.items():
                        free.setdefault(name, []).append(values)
                elif view_set.views > 1:
                    units = normalise(found)
                    free.setdefault(f"{view_set.name}.views", []).append(units.mean(dim=1))
                    if self.moments > 1:
                        free.setdefault(f"{view_set.name}.spread", []).append(units.std(dim=1, correction=0))
                for objective in view_set.objectives:
                    bank = banks.get(objective.name)
                    captures, predicted = [one.captures for one in passes], predictions(passes, len(found))
                    found_gradients = sample_gradients(
                        objective, embeddings, captures, heads, self.projections, bank, predicted
                    )
                    for path, gradient in found_gradients.items():
                        gradients[self._block_name(objective, path)].append(gradient)

            with self._timed(view_set.name):
                self._each_pass(view_set, rows, read)
        with self._timed("projection"), torch.no_grad():
            made = {name: torch.cat(parts) for name, parts in free.items()}
            for name in self.gradient_names():
                path = name.partition("@")[2] or next(iter(self.backbone.targets))
                projection, gradient = self.projections[path], normalise(torch.cat(gradients.pop(name)))
                made[name] = gradient if reads_factors(projection) else projection(gradient)
            return {name: normalise(block).float().cpu().numpy()[back] for name, block in made.items()}

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
            view_set = replace(view_set, augmentation=replace(view_set.augmentation, views=views))
        head = self._on_device()[0][objective.name]
        rows, back = self._by_length(rows)
        parts = [torch.empty(0, view_set.views, objective.latent)]

        def read(embeddings: Tensor, _: list[Pass]) -> None:
            parts.append(latents_of(head, objective, embeddings.detach()).float().cpu())

        with self._timed("negatives"):
            self._each_pass(view_set, rows, read)
        return torch.cat(parts)[back]

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

    def passes(self) -> dict[str, dict[str, Any]]:
        """For each block what it is and what it costs: family, and backbone passes a row beside the embedding's own."""
        sets = view_sets(self.objectives)
        info: dict[str, dict[str, Any]] = {"embedding": {"family": "embedding", "views": "whole", "passes": 1}}
        for number in range(max(0, self.backbone.depth - self.layers) + 1, self.backbone.depth + 1):
            for kind in self.layer_kinds:
                info[f"{kind}-{number}"] = {"family": "layers", "views": "whole", "passes": 1}
        for view_set in sets[1:]:
            if view_set.views > 1:
                for part in ("views", "spread")[: self.moments]:
                    info[f"{view_set.name}.{part}"] = {
                        "family": "views",
                        "views": view_set.name,
                        "passes": view_set.views,
                    }
        for name in self.gradient_names():
            (view_set,) = (one for one in sets if name.partition("@")[0] in [o.name for o in one.objectives])
            info[name] = {"family": "gradients", "views": view_set.name, "passes": view_set.views}
        return info

    def _each_pass(
        self, view_set: ViewSet, rows: Sequence[tuple[str, Any]], read: Callable[[Tensor, list[Pass]], None]
    ) -> None:
        """A few rows at a time through the backbone; `read` gets (embeddings [n, V, E], passes) inside the passes."""
        preprocess = self.backbone.preprocess
        layers = self.layers if view_set.name == "whole" else 0

        def make(chunk: Sequence[tuple[str, Any]]) -> tuple[int, list[Batch]]:
            made = [
                view_set.augmentation(sample, preprocess, generator(self.seed, row_id, view_set.name))
                for row_id, sample in chunk
            ]
            views = [view for views in made for view in views]
            most = len(views) if len(chunk) > 1 else self._views_a_pass(view_set, chunk[0])
            return len(chunk), [preprocess.collate(views[at : at + most]) for at in range(0, len(views), most)]

        for samples, batches in ahead(make, self._chunks(view_set, rows), self.workers):
            with ExitStack() as stack:
                how = layers, self.autocast, view_set.logits, self.layer_kinds
                passes = [stack.enter_context(self.backbone.run(batch, *how)) for batch in batches]
                embeddings = torch.cat([one.embedding for one in passes]) if len(passes) > 1 else passes[0].embedding
                read(embeddings.unflatten(0, (samples, view_set.views)), passes)

    def _budget(self, view_set: ViewSet) -> int:
        budget = self.backbone.preprocess.budget
        return budget // 16 if view_set.logits else budget  # a vocabulary's width for what is masked

    def _views_a_pass(self, view_set: ViewSet, row: tuple[str, Any]) -> int:
        """Of one row's views: as many as the budget allows, about the same number in each pass."""
        fitting = max(1, self._budget(view_set) // max(1, self.backbone.preprocess.length(row[1])))
        return math.ceil(view_set.views / math.ceil(view_set.views / fitting))

    def _chunks(self, view_set: ViewSet, rows: Sequence[tuple[str, Any]]) -> Iterator[list[tuple[str, Any]]]:
        """Rows that share a pass: as many as the budget allows, at the length of the longest."""
        preprocess, budget = self.backbone.preprocess, self._budget(view_set)
        chunk: list[tuple[str, Any]] = []
        for row in rows:
            cost = (len(chunk) + 1) * view_set.views * preprocess.length(row[1])  # the longest so far
            if chunk and (cost > budget or preprocess.same(row[1]) != preprocess.same(chunk[0][1])):
                yield chunk
                chunk = []
            chunk.append(row)
        if chunk:
            yield chunk

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
