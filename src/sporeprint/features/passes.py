"""A set of views through the backbone: cut ahead in threads, a few rows a pass, fewer of them where memory runs out."""

from __future__ import annotations

import math
import warnings
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
from sporeprint.errors import BackboneError, first_line, is_out_of_memory
from sporeprint.objectives.view_sets import ViewSet, generator

_R = TypeVar("_R")
Rows = Sequence[tuple[str, Any]]  # (id, prepared sample)
_TOKENS = 197  # of a view, that image budgets are meant for
_BYTES = 80  # of memory that a pass takes for each number of a token, about


@dataclass
class Memory:
    """What a device was found to hold: budgets are divided by `divisor`, which doubles whenever memory runs out."""

    divisor: int = 1


@dataclass(frozen=True)
class Passes:
    """How views pass a backbone. The seed, the layers, their kinds and the precision decide numbers, nothing else."""

    backbone: Backbone
    seed: int
    layers: int
    layer_kinds: tuple[str, ...]
    autocast: torch.dtype | None = None
    workers: int = 1
    memory: Memory = field(default_factory=Memory)

    def each(self, view_set: ViewSet, rows: Rows, read: Callable[[Tensor, list[Pass]], _R]) -> Iterator[_R]:
        """What `read` makes of (embeddings [n, V, E], passes) for a few rows at a time, in order, inside the passes.

        Each pass holds as many views of one row as of the next. Raises BackboneError where one view is too much for the
        memory.
        """

        def make(chunk: Rows) -> tuple[Rows, list[Batch]]:
            return chunk, self._batches(view_set, chunk)

        # A CPU has no core to spare beside the backbone: of 62 views of an image 0.39 s with views cut in turn, 0.49 s
        # with a thread that cuts meanwhile.
        workers = 0 if self.backbone.device.type == "cpu" else self.workers
        for chunk, batches in ahead(make, self.chunks(view_set, rows), workers):
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
        # Outside the handler and without tracebacks, which keep the tensors of the failed pass alive.
        failed = failed.with_traceback(None)
        failed.__cause__ = failed.__context__ = None
        self._take_less(view_set, chunk, failed)
        smaller = list(self.chunks(view_set, chunk))
        return [one for part in smaller for one in self._read(view_set, part, self._batches(view_set, part), read)]

    def _run(
        self, view_set: ViewSet, samples: int, batches: list[Batch], read: Callable[[Tensor, list[Pass]], _R]
    ) -> _R:
        layers = self.layers if view_set.name == "whole" else 0
        how = layers, self.autocast, view_set.logits, self.layer_kinds
        with ExitStack() as stack:
            passes = [stack.enter_context(self.backbone.run(batch, *how)) for batch in batches]
            parts = [one.embedding.unflatten(0, (samples, -1)) for one in passes]
            return read(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], passes)

    def _batches(self, view_set: ViewSet, chunk: Rows) -> list[Batch]:
        """Views of a size share a pass; those of a single row may take several."""
        preprocess = self.backbone.preprocess
        made = [
            view_set.augmentation(sample, preprocess, generator(self.seed, row_id, view_set.name))
            for row_id, sample in chunk
        ]
        if len(chunk) == 1:
            most = self._views_a_pass(view_set, chunk[0])
            return [
                preprocess.collate(same[at : at + most])
                for same in _by_size(made[0])
                for at in range(0, len(same), most)
            ]
        together = zip(*(_by_size(one) for one in made), strict=True)
        return [preprocess.collate([view for views in same for view in views]) for same in together]

    def _take_less(self, view_set: ViewSet, chunk: Rows, error: BaseException) -> None:
        if len(chunk) == 1 and self._views_a_pass(view_set, chunk[0]) == 1:
            raise BackboneError(
                f"one view of a row does not fit into the memory of {self.backbone.device}: {first_line(error)}; take "
                "a smaller backbone, shorter samples, or a device with more memory"
            ) from error
        while True:
            self.memory.divisor *= 2
            fitting = next(self.chunks(view_set, chunk))
            if len(fitting) < len(chunk) or len(chunk) == 1:
                break
        part = f"1/{self.memory.divisor} of the views"
        warnings.warn(f"memory ran out ({first_line(error)}); going on with passes of {part}", stacklevel=2)
        if self.backbone.device.type == "cuda":
            torch.cuda.empty_cache()

    def chunks(self, view_set: ViewSet, rows: Rows) -> Iterator[list[tuple[str, Any]]]:
        """Rows that share a pass: as many as the budget allows, at the length of the longest."""
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
        """Of a pass, in the units of `Inputs.length`."""
        budget: float = self.backbone.preprocess.budget
        tokens = self.backbone.tokens
        if self.backbone.modality == "image" and tokens is not None and tokens > _TOKENS:
            budget *= _TOKENS / tokens
        if self.backbone.device.type == "cuda":
            device = self.backbone.device
            kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for such passes
            free = torch.cuda.mem_get_info(device)[0] + kept
            budget *= max(1, free / 4 / (self.backbone.preprocess.budget * _TOKENS * self.backbone.width * _BYTES))
        if view_set.logits:
            budget /= 16  # a vocabulary's width for what is masked
        return budget / self.memory.divisor

    def _views_a_pass(self, view_set: ViewSet, row: tuple[str, Any]) -> int:
        """Of one row's views: as many as the budget allows, about the same number in each pass."""
        each = view_set.cost(self.backbone.preprocess) / view_set.views * self.backbone.preprocess.length(row[1])
        fitting = max(1, int(self._budget(view_set) / each))
        return math.ceil(view_set.views / math.ceil(view_set.views / fitting))


def _by_size(views: Any) -> list[Any]:
    """Views one after the other that are of one shape; named tensors always are."""
    if isinstance(views, Tensor) or not isinstance(views[0], Tensor):
        return [views]
    return [list(same) for _, same in groupby(views, key=lambda view: view.shape)]
