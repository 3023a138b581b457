"""A set of views passes the backbone: cut ahead in threads, a few rows per pass, fewer after memory has run out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

import torch
from torch import Tensor

from sporeprint.backbones.backbone import Backbone, Pass
from sporeprint.backbones.inputs.inputs import Batch
from sporeprint.data.prefetch import ahead
from sporeprint.errors import BackboneError, first_line, is_out_of_memory, warn
from sporeprint.objectives.view_sets import ViewSet, generator

_R = TypeVar("_R")
Rows = Sequence[tuple[str, Any]]  # (id, prepared sample)
_TOKENS = 197  # tokens of a view that image budgets assume
_BYTES = 80  # memory that a pass takes for each number of a token, about


@dataclass
class Memory:
    """Memory divides the budgets of a device by `divisor`, which doubles whenever its memory runs out."""

    divisor: int = 1


@dataclass(frozen=True)
class Passes:
    """Passes run views through a backbone. Only seed, layers, layer kinds and precision affect the numbers."""

    backbone: Backbone
    seed: int
    layers: int
    layer_kinds: tuple[str, ...]
    autocast: torch.dtype | None = None
    workers: int = 1
    memory: Memory = field(default_factory=Memory)

    def each(self, view_set: ViewSet, rows: Rows, read: Callable[[Tensor, list[Pass]], _R]) -> Iterator[_R]:
        """Yield `read(embeddings [n, V, E], passes)` for a few rows at a time, in order, inside the passes.

        Each pass holds the same number of views of every row. Raises BackboneError where one view does not fit into
        memory.
        """

        def prepare(chunk: Rows) -> tuple[Rows, list[Batch]]:
            return chunk, self._batches(view_set, chunk)

        # On a CPU the backbone needs every core: 62 views of an image took 0.39 s with views cut in turn, and 0.49 s
        # with a thread that cuts them meanwhile.
        workers = 0 if self.backbone.device.type == "cpu" else self.workers
        for chunk, batches in ahead(prepare, self.chunks(view_set, rows), workers):
            yield from self._read(view_set, chunk, batches, read)

    def _read(
        self, view_set: ViewSet, chunk: Rows, batches: list[Batch], read: Callable[[Tensor, list[Pass]], _R]
    ) -> list[_R]:
        try:
            return [self._run(view_set, len(chunk), batches, read)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = error
        # Retry outside the handler and without tracebacks, which keep the tensors of the failed pass alive.
        failed = failed.with_traceback(None)
        failed.__cause__ = failed.__context__ = None
        self._shrink_passes(view_set, chunk, failed)
        smaller = list(self.chunks(view_set, chunk))
        return [
            result for part in smaller for result in self._read(view_set, part, self._batches(view_set, part), read)
        ]

    def _run(
        self, view_set: ViewSet, samples: int, batches: list[Batch], read: Callable[[Tensor, list[Pass]], _R]
    ) -> _R:
        layers = self.layers if view_set.name == "whole" else 0
        options = layers, self.autocast, view_set.logits, self.layer_kinds
        with ExitStack() as stack:
            passes = [stack.enter_context(self.backbone.run(batch, *options)) for batch in batches]
            parts = [run.embedding.unflatten(0, (samples, -1)) for run in passes]
            return read(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], passes)

    def _batches(self, view_set: ViewSet, chunk: Rows) -> list[Batch]:
        """Collate views of one size into a pass; the views of a single row may need several passes."""
        preprocess = self.backbone.preprocess
        views = [
            view_set.augmentation(sample, preprocess, generator(self.seed, row_id, view_set.name))
            for row_id, sample in chunk
        ]
        if len(chunk) == 1:
            most = self._views_a_pass(view_set, chunk[0])
            return [
                preprocess.collate(same[at : at + most])
                for same in _by_size(views[0])
                for at in range(0, len(same), most)
            ]
        sizes = zip(*(_by_size(row_views) for row_views in views), strict=True)
        return [preprocess.collate([view for row_views in same for view in row_views]) for same in sizes]

    def _shrink_passes(self, view_set: ViewSet, chunk: Rows, error: BaseException) -> None:
        if len(chunk) == 1 and self._views_a_pass(view_set, chunk[0]) == 1:
            raise BackboneError(
                f"one view of a row does not fit into the memory of {self.backbone.device}: {first_line(error)}; use "
                "a smaller backbone, shorter samples, or a device with more memory"
            ) from error
        while True:
            self.memory.divisor *= 2
            first = next(self.chunks(view_set, chunk))
            if len(first) < len(chunk) or len(chunk) == 1:
                break
        part = f"1/{self.memory.divisor} of the views"
        message = f"memory ran out ({first_line(error)}); continuing with passes of {part}"
        warn(message)
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()

    def chunks(self, view_set: ViewSet, rows: Rows) -> Iterator[list[tuple[str, Any]]]:
        """Group rows that share a pass: as many as the budget allows at the length of the longest."""
        preprocess, views = self.backbone.preprocess, view_set.cost(self.backbone.preprocess)
        chunk: list[tuple[str, Any]] = []
        for row in rows:
            cost = (len(chunk) + 1) * views * preprocess.length(row[1])  # the longest so far
            if chunk and (cost > self._budget(view_set) or preprocess.same(row[1]) != preprocess.same(chunk[0][1])):
                yield chunk
                chunk = []
            chunk.append(row)
        if chunk:
            yield chunk

    def _budget(self, view_set: ViewSet) -> float:
        """Return the budget of a pass in the units of `Inputs.length`."""
        budget: float = self.backbone.preprocess.budget
        tokens = self.backbone.tokens
        if self.backbone.modality == "image" and tokens is not None and tokens > _TOKENS:
            budget *= _TOKENS / tokens
        if self.backbone.device.type == "cuda":
            device = self.backbone.device
            cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch reuses it
            free = torch.cuda.mem_get_info(device)[0] + cached
            budget *= max(1, free / 4 / (self.backbone.preprocess.budget * _TOKENS * self.backbone.width * _BYTES))
        if view_set.logits:
            budget /= 16  # logits as wide as the vocabulary at every masked token
        return budget / self.memory.divisor

    def _views_a_pass(self, view_set: ViewSet, row: tuple[str, Any]) -> int:
        """Return how many of one row's views share a pass: at most the budget, about the same number in each pass."""
        cost = view_set.cost(self.backbone.preprocess) / view_set.views * self.backbone.preprocess.length(row[1])
        fitting = max(1, int(self._budget(view_set) / cost))
        return math.ceil(view_set.views / math.ceil(view_set.views / fitting))


def _by_size(views: Any) -> list[Any]:
    """Group consecutive views of one shape; named tensors are always one group."""
    if isinstance(views, Tensor) or not isinstance(views[0], Tensor):
        return [views]
    return [list(same) for _, same in groupby(views, key=lambda view: view.shape)]
