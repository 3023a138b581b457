"""Fungi turns samples into features of a frozen backbone, as a scikit-learn transformer."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.own_head import frozen_linear
from sporeprint.backbones.precision import as_fitted, dtype_name
from sporeprint.data.limits import Limits
from sporeprint.errors import BackboneError, RecipeError, RowFailure, StoreError, warn
from sporeprint.features import saved
from sporeprint.features.batches import Decoded, as_rows, decoded_batches
from sporeprint.features.combine import Combiner, named
from sporeprint.features.compute import compute
from sporeprint.features.dense.dense_methods import DenseMethods
from sporeprint.features.engine import Engine
from sporeprint.features.engine_setup import make_engine
from sporeprint.features.estimator import Estimator
from sporeprint.features.failures import Failures
from sporeprint.features.fitted import Fitted
from sporeprint.features.from_store import check_network, combination_of, is_store, stored_rows
from sporeprint.features.gathered import Blocks, Gathered, readable
from sporeprint.features.negatives import draw_negatives
from sporeprint.features.progress import Progress, shown
from sporeprint.features.recipe import Recipe, deciding
from sporeprint.gradients.projections.projection import PROJECTIONS, Dense, Projection
from sporeprint.gradients.switches import own_settings


class Fungi(DenseMethods, Estimator):
    """Fungi computes features of a frozen backbone: embedding, layers, views and projected gradients, combined.

    recipe: what is computed; `Fungi("tiny")` is `Fungi(Recipe(backbone="tiny"))`.
    backbone: your own `Backbone` or SentenceTransformer, instead of `recipe.backbone`.
    device: where a loaded backbone runs (default CUDA where there is one). batch_size: rows decoded and projected
    together. workers: threads that decode, and that cut views for a GPU (on a CPU views are cut in turn with the
    backbone's passes). None of these three decides a number.
    max_failures: fraction of unreadable rows that a call accepts (one row always is, unless it is 0).
    limits: the largest sample that is decoded, `Limits(max_pixels=..., max_seconds=...)`; a larger one is unreadable.
    progress: show rows done, their rate and the time left on stderr; by default on a terminal and in a notebook, where
    there is something to wait for.
    trust_remote_code, allow_random: as in `load_backbone`; never taken from what was saved.

    `heads`, `negatives` and `projection` may be replaced before `blocks` is called. `failures` names the rows that the
    last call could not read; their features are NaN. `truncated` names those that were too long for the backbone, which
    saw their beginning only.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import KL, Fungi, Recipe
    >>> images = np.random.default_rng(0).integers(0, 256, (10, 40, 30, 3), dtype=np.uint8)
    >>> fungi = Fungi(Recipe(backbone="tiny", objectives=[KL()], size=4))
    >>> fungi.fit_transform(images[:8]).shape, fungi.transform(images[8:]).shape
    ((8, 4), (2, 4))
    >>> {name: block.shape for name, block in fungi.blocks(images[8:]).items() if name in ("embedding", "kl")}
    {'embedding': (2, 128), 'kl': (2, 128)}
    """

    def __init__(
        self,
        recipe: Recipe | str | None = None,
        backbone: Any = None,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        workers: int = 1,
        max_failures: float = 0.01,
        limits: Limits | None = None,
        trust_remote_code: bool = False,
        allow_random: bool = False,
        progress: bool | None = None,
    ):
        self.recipe = recipe
        self.backbone = backbone
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self.max_failures = max_failures
        self.limits = limits
        self.trust_remote_code = trust_remote_code
        self.allow_random = allow_random
        self.progress = progress

    # Fitting and transforming

    def fit(self, X: Any, y: Any = None, ids: Sequence[str] | None = None) -> Fungi:
        """Draw the negatives from X, compute its blocks, fit the combination. y is never looked at.

        X: a list of samples, as the backbone's modality has them. Images: PIL images, paths, arrays [H, W, 3], encoded
        bytes. Texts: strings; a `pathlib.Path` is a text file. Sound: paths, encoded bytes, {"array", "sampling_rate"},
        (waveform, rate), or waveforms [n] at the backbone's own rate. ids: one string a row, which seeds its views; by
        default a digest of its content. Raises TooManyFailures, RecipeError.
        """
        self.fit_blocks(X, ids)
        return self

    def transform(self, X: Any, ids: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Compute features [N, size], in X's order. Raises NotFitted before `fit`."""
        self.check_fitted("transform")
        state = vars(self).copy()  # another thread may fit meanwhile
        return state["_combiner"].transform(
            self._blocks(as_rows(X, ids, state["_engine"].backbone.preprocess), state["_engine"])
        )

    def fit_transform(self, X: Any, y: Any = None, ids: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Fit and transform the same rows, with every block computed once."""
        blocks, combiner = self._fit(X, ids)
        return combiner.transform(blocks)

    def fit_blocks(self, X: Any, ids: Sequence[str] | None = None) -> Blocks:
        """Fit, and return the blocks of X that it had to compute. Where it fails, what was fitted before stays."""
        return self._fit(X, ids)[0]

    def _fit(self, X: Any, ids: Sequence[str] | None) -> tuple[Blocks, Combiner]:
        engine, recipe = self.engine, self._recipe()
        rows = as_rows(X, ids, engine.backbone.preprocess)
        with shown(self.progress) as progress:
            drawn = draw_negatives(engine, rows, self.batch_size, progress)
        fitted = replace(engine, negatives={**engine.negatives, **drawn})
        blocks = self._blocks(rows, fitted)
        combiner = named(recipe.combination, recipe.size).fit(readable(blocks))
        self.__dict__.update(_engine=fitted, _combiner=combiner)  # at once: another thread may transform, or copy this
        if combiner.rows == 1 and combiner.whiteners:
            warn(
                "fitted on one row, whose whitened blocks are 0; fit on more rows, or join them without whitening: "
                "Recipe(combination='paper')"
            )
        return blocks, combiner

    def recombine(self, blocks: Blocks, combination: Any, size: int | None = None) -> Fungi:
        """Join the blocks in another way from now on, fitted on what `fit_blocks` gave; nothing is computed again.

        combination: a name, a `Combination`, or what `select(blocks, labels)` returns. Raises RecipeError.
        """
        combination = getattr(combination, "combination", combination)
        engine, recipe = self.engine, replace(self._recipe(), combination=combination, size=size)
        self._combiner = named(combination, size).fit(readable(blocks))
        self.recipe, self._engine, self._made_for = recipe, engine, (recipe, self.backbone, self.device)
        return self

    def blocks(self, samples: Any, ids: Sequence[str] | None = None) -> Blocks:
        """Compute {"embedding": [N, E], "cls-12": ..., "dino.views": ..., "kl": [N, D], ...}, in the samples' order.

        A row that cannot be read is NaN in every block, warned of, and named in `failures`.
        Raises NotFitted where an objective needs negatives and has none; TooManyFailures.
        """
        engine = self.engine
        return self._blocks(as_rows(samples, ids, engine.backbone.preprocess), engine)

    def draw_negatives(self, rows: Iterable[tuple[str, Any]], progress: Progress | None = None) -> None:
        """Draw and encode each objective's bank of negatives from rows (id, sample), whatever their order.

        progress: called with ("negatives", done, all), instead of the line that this Fungi shows.
        """
        engine = self.engine
        with shown(self.progress) as line:
            drawn = draw_negatives(engine, rows, self.batch_size, progress or line)
        engine.negatives = {**engine.negatives, **drawn}

    def compute(
        self, batch: Sequence[Decoded], names: Sequence[str] | None = None, engine: Engine | None = None
    ) -> tuple[list[int], Blocks, list[RowFailure]]:
        """Compute a batch as `sporeprint.features.compute.compute` does. engine: default this one's."""
        return compute(engine or self.engine, batch, names)

    # What the last calls left

    @property
    def combiner(self) -> Combiner:
        """The fitted combination. Raises AttributeError before `fit`."""
        return self._combiner

    @property
    def failures(self) -> list[RowFailure]:
        """The rows that the last call could not read. Raises AttributeError before any."""
        return self._failures

    @property
    def truncated(self) -> list[str]:
        """Names of the rows that the last call cut at the backbone's limits. Raises AttributeError before any."""
        return self._truncated

    # State that may be replaced

    @property
    def heads(self) -> dict[str, nn.Linear]:
        """The frozen heads by name: "kl", "dino", "dino_teacher", "simclr"; random ones, or the checkpoint's own."""
        return self.engine.heads

    @property
    def negatives(self) -> dict[str, Tensor]:
        """Banks of unnormalised latents [M, L] by objective, drawn by `fit`."""
        return self.engine.negatives

    @property
    def projections(self) -> dict[str, Projection]:
        """The projection of each target, by the target's path."""
        return self.engine.projections

    @property
    def projection(self) -> Projection:
        """The projection of the (first) target; `projection.matrix()` is [D, O * (I + 1)]. Can be set."""
        return next(iter(self.projections.values()))

    @projection.setter
    def projection(self, projection: Projection) -> None:
        self.projections[next(iter(self.projections))] = projection

    @property
    def network(self) -> Backbone:
        """The backbone, loaded at first use."""
        return self.engine.backbone

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far on each set of views, on negatives and on projection."""
        return self.engine.seconds

    def describe(self) -> dict[str, Any]:
        """Return what was resolved, as JSON: backbone, precision, device, widths."""
        backbone, own = self.network, self.engine.own_head
        return {
            "backbone": backbone.describe() | ({} if own is None else {"own_head": own}),
            "dtype": dtype_name(backbone.dtype, self.engine.autocast),
            "device": backbone.device.type,
            "dim": self.projection.dim,
            "projection": type(self.projection).__name__,
        }

    def block_info(self) -> dict[str, dict[str, Any]]:
        """Return for each possible block its family, its set of views, and how many passes that set takes."""
        return self.engine.block_info()

    # Saving

    def save(self, folder: str | Path) -> None:
        """Write JSON and safetensors; `Fungi.load` in another process gives the same features.

        An older one in `folder` stays whole until this one is. Raises StoreError where it cannot be written, and for a
        store, which has its own.
        """
        if is_store(folder):
            raise StoreError(f"'{folder}' is a store, which nothing else is written into; name another folder")
        among = saved.sample_in(folder)
        saved.write_folder(folder, self.pack())
        if among:
            message = (
                f"saved into '{folder}', which holds samples ({among}, ...); a folder of its own is easier to keep"
            )
            warn(message)

    @own_settings()
    def pack(self) -> dict[str, bytes]:
        """Return the files that `save` writes."""
        return saved.pack(self.fitted)

    @classmethod
    def load(cls, folder: str | Path, backbone: Any = None, combination: Any = None, **parameters: Any) -> Fungi:
        """Load what `save` wrote, or what a store was made with, its combination fitted on the store's rows.

        backbone: your own network, where it was one; or an id or folder, where the weights are elsewhere now.
        combination: for a store, instead of its recipe's, whose size stays: a name or a `Combination`; the path of a
        comparison.json, for what `sporeprint compare` chose; or `select`, which chooses by the store's labels.
        parameters: of `Fungi`. Raises DamagedStore where a file is not what was written, StoreMismatch where the
        weights are not the same, RecipeError, StoreError.
        """
        store = stored_rows(folder)
        read = saved.read_folder(folder) if store is None else store.read_state
        fungi = cls.unpack(read, str(folder), backbone, **parameters)
        if store is not None and combination is not None:
            return fungi.recombine(store.blocks(), combination_of(combination, store), fungi._recipe().size)
        if combination is not None:
            raise RecipeError(
                f"'{folder}' holds no rows to fit a combination on, as a store does; load it, then "
                "recombine(fungi.blocks(training_samples), combination)"
            )
        if store is not None and not hasattr(fungi, "combiner"):
            recipe = fungi._recipe()
            fungi._combiner = named(recipe.combination, recipe.size).fit(readable(store.blocks()))
        return fungi

    @classmethod
    @own_settings()
    def unpack(cls, read: Callable[[str], bytes], where: str, backbone: Any = None, **parameters: Any) -> Fungi:
        """Undo `pack`; `read` gives a file's contents, `where` names it in messages. backbone: as of `load`."""
        fitted = saved.unpack(read, where)
        if backbone is None:
            check_network(fitted.recipe, fitted.resolved, where, "give it as backbone=Backbone(module, ...)")
        recipe, moved = fitted.recipe, isinstance(backbone, (str, os.PathLike))
        recipe = replace(recipe, backbone=os.fspath(backbone)) if moved else recipe
        fungi = cls(recipe, backbone=None if moved else backbone, **parameters)
        try:
            fungi.take(fitted, where)
        except BackboneError as error:
            if backbone is not None:
                raise
            raise BackboneError(f"{error} ({where} names it so; if it is elsewhere now, give backbone=)") from error
        return fungi

    @own_settings()
    def restore(self, read: Callable[[str], bytes], where: str) -> None:
        """Take the heads, negatives, projections and combination of a packed Fungi with the same weights.

        Raises DamagedStore, StoreMismatch.
        """
        self.take(saved.unpack(read, where), where)

    @property
    def fitted(self) -> Fitted:
        """Recipe, heads, negatives, replaced projections and combination, as a value."""
        recipe = self._recipe()
        drawn_by = recipe.dim or self.network.width, recipe.seed
        replaced = {
            path: projection.matrix()
            for path, projection in self.projections.items()
            if not isinstance(projection, PROJECTIONS[recipe.projection])
            or (projection.dim, getattr(projection, "seed", None)) != drawn_by
        }
        return Fitted(
            recipe=recipe,
            resolved=self.describe(),
            heads={name: head.state_dict() for name, head in self.heads.items()},
            negatives=dict(self.negatives),
            projections=replaced,
            combiner=getattr(self, "combiner", None),
            dense=self.patches.fitted if self.fitted_dense else None,
        )

    @own_settings()
    def take(self, fitted: Fitted, where: str = "the fitted state") -> None:
        """Go on from the `fitted` state of a Fungi of the same recipe. Raises StoreMismatch for another backbone."""
        fitted.check_backbone(self.describe()["backbone"], where)
        targets = {path: math.prod(target.shape) for path, target in self.network.targets.items()}
        fitted.check_shapes(self.heads, self.network.width, targets, where)
        network, dtype = self.network, self._recipe().dtype
        self.engine.autocast = as_fitted(dtype, fitted.resolved.get("dtype", dtype), network.dtype, network.device)
        for name in self.heads:
            self.heads[name] = frozen_linear(**fitted.heads[name])
        self.negatives.update(fitted.negatives)
        self.projections.update({path: Dense(matrix) for path, matrix in fitted.projections.items()})
        if fitted.combiner is not None:
            self._combiner = fitted.combiner
        if fitted.dense is not None:
            self.patches.take(fitted.dense)

    # Inside

    def __getstate__(self) -> dict[str, Any]:
        return vars(self).copy()  # of one moment, whatever another thread does

    def _blocks(self, rows: Sequence[tuple[str, Any]], engine: Engine) -> Blocks:
        engine.workers, engine.limits = self.workers, self._limits()
        with own_settings(), shown(self.progress) as progress:
            inputs, failures = engine.backbone.preprocess, Failures(self.max_failures, len(rows))
            gathered = Gathered(inputs, failures)  # another thread's call may replace the attributes meanwhile
            self._failures, self._truncated = failures.rows, gathered.truncated
            progress("rows", 0, len(rows))
            for batch in decoded_batches(inputs, rows, self.batch_size, self.workers, limits=engine.limits):
                gathered.add(batch, *self.compute(*batch, engine=engine))
                progress("rows", gathered.seen, len(rows))
            blocks = gathered.blocks()
        gathered.warn()
        return blocks

    @property
    def engine(self) -> Engine:
        """Backbone, heads, negatives and projections, made once for the blocks of a recipe, backbone and device."""
        made_for, limits = (self._recipe(), self.backbone, self.device), self._limits()
        before = getattr(self, "_made_for", None)
        if before != made_for:
            for fitted in ("_combiner", "_patches_of"):
                self.__dict__.pop(fitted, None)
            if before is None or deciding(*before) != deciding(*made_for):
                self._engine = make_engine(*made_for, self.workers, self.trust_remote_code, self.allow_random)
            self._made_for = made_for
        self._engine.workers, self._engine.limits = self.workers, limits
        return self._engine

    def __sklearn_is_fitted__(self) -> bool:
        with suppress(RecipeError):
            return hasattr(self, "combiner") and self._made_for == (self._recipe(), self.backbone, self.device)
        return False
