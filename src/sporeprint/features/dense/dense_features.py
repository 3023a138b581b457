"""Fit dense features of a Fungi on some images, then map every image to features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sporeprint.data.limits import Limits
from sporeprint.errors import DamagedStore, NotFitted, RecipeError, RowFailure, SampleError, warn
from sporeprint.features.batches import Batch, decoded_batches, name_rows, separate
from sporeprint.features.blocks import Blocks
from sporeprint.features.combine import Combiner, named
from sporeprint.features.dense.dense_engine import DenseEngine, Maps
from sporeprint.features.dense.dense_settings import Dense
from sporeprint.features.dense.support import Support, least
from sporeprint.features.engine import Engine, below, heads_of, make_head
from sporeprint.features.failures import Failures, first_reasons
from sporeprint.features.progress import Progress, silent
from sporeprint.features.recipe import Recipe
from sporeprint.features.unit import unit
from sporeprint.gradients.switches import own_settings
from sporeprint.objectives.view_sets import generator
from sporeprint.values import from_json, to_json

TOGETHER = 2**24  # numbers of maps that exist at a time: 64 MiB


@dataclass(frozen=True)
class FittedDense:
    """The fitted state of dense features. heads: {objective: {"weight": [L, E], "bias": [L]}}."""

    heads: Mapping[str, Mapping[str, Tensor]]
    support: Support | None = None
    combiner: Combiner | None = None

    def parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return (description as JSON, tensors by name); `of_parts` takes them back."""
        tensors = {f"heads/{name}/{part}": value for name, head in self.heads.items() for part, value in head.items()}
        if self.support is not None:
            tensors |= {"support/tokens": self.support.tokens, "support/owners": self.support.owners}
        if self.combiner is None:
            return {}, tensors
        tensors |= {f"combiner/{name}": torch.from_numpy(value) for name, value in self.combiner.arrays().items()}
        return {"combination": to_json(self.combiner.combination), "fitted": self.combiner.describe()}, tensors

    @classmethod
    def of_parts(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FittedDense:
        """Rebuild the state whose `parts` these are."""
        support = combiner = None
        if "support/tokens" in tensors:
            support = Support(tensors["support/tokens"], tensors["support/owners"])
        if description:
            arrays = {name: value.numpy() for name, value in below(tensors, "combiner").items()}
            combiner = Combiner.restore(from_json(description["combination"]), description["fitted"], arrays)
        return cls(heads_of(below(tensors, "heads")), support, combiner)


@dataclass
class DenseFeatures:
    """Features of patches: `fit`, then `maps`. failures: unreadable rows of the last call, with the reason."""

    recipe: Recipe
    engine: DenseEngine
    width: int  # E of a token, which a pooled embedding may differ from
    combiner: Combiner | None = None
    batch_size: int = 8
    workers: int = 1
    max_failures: float = 0.01
    limits: Limits = field(default_factory=Limits)
    failures: list[RowFailure] = field(default_factory=list)
    progress: Progress = silent  # called with ("images", done, all)

    @classmethod
    @own_settings()
    def of(cls, recipe: Recipe, engine: Engine, **settings: Any) -> DenseFeatures:
        """Make dense features of a recipe and the engine that was made from it.

        Raises RecipeError for a backbone that does not take images, BackboneError for a size that it cannot take.
        """
        if engine.backbone.modality != "image":
            raise RecipeError(f"dense features are of images; {engine.backbone.name} takes {engine.backbone.modality}")
        dense = recipe.dense or Dense()
        width = _token_width(engine.backbone)
        heads = {o.name: make_head(recipe.seed, f"dense {o.name}", width, o.latent) for o in dense.objectives}
        mapper = DenseEngine(engine.backbone, dense, heads, engine.projections, recipe.seed, engine.autocast)
        mapper.layers()  # raises BackboneError
        if dense.size is not None:
            engine.backbone.grid_shape(*dense.size)
            if (patches := mapper.most_patches(*dense.size)) > mapper.limit:
                raise RecipeError(
                    f"Dense(size={dense.size}) makes {patches:,} patches of the largest copy; at most "
                    f"{mapper.limit:,}: take a smaller size, or smaller scales of its copies"
                )
        return cls(recipe, mapper, width, **settings)

    @own_settings()
    def fit(self, rows: Sequence[tuple[str, Any]]) -> Blocks:
        """Draw the support, fit the combination; return the blocks of the tokens that it was fitted on, [R, D] each.

        rows: (id, image); an image without an id has its content's digest. Which images and tokens are drawn depends on
        the ids and the seed alone. Where it fails, what was fitted before stays.
        Raises TooManyFailures, SampleError for an id given twice and where no image can be read.
        """
        before = self.engine.support
        try:
            blocks = self._fit_blocks(rows)
            self.combiner = named(self.engine.settings.combination, self.recipe.size).fit(blocks)
        except BaseException:
            self.engine.support = before
            raise
        return blocks

    def maps(self, rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, NDArray[np.float32] | None]]:
        """Yield (id, features [H, W, D]) of each image in order, None for unreadable ones. Raises TooManyFailures."""
        for row_id, blocks in self.blocks(rows):
            yield row_id, None if blocks is None else self.joined(blocks)

    def blocks(self, rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Maps | None]]:
        """Yield (id, {block: [H, W, D]}) of each image in order; otherwise as `maps`."""
        self.check()
        self.failures = []
        yield from self._each_map(rows)

    def joined(self, blocks: Maps, combiner: Combiner | None = None) -> NDArray[np.float32]:
        """Join an image's blocks to features [H, W, D], L2-normalised unless there is a PCA."""
        combiner = combiner or self.combiner
        if combiner is None:
            raise NotFitted("dense features before fit_dense: call fit_dense(training_images) first")
        shape = next(iter(blocks.values())).shape[:2]
        flat = {name: values.reshape(-1, values.shape[-1]) for name, values in blocks.items()}
        joined = combiner.transform(flat)
        if combiner.pca is None:
            joined = unit(joined)
        return joined.reshape(*shape, -1)

    @property
    def fitted(self) -> FittedDense:
        """What was fitted, as a value."""
        heads = {name: head.state_dict() for name, head in self.engine.heads.items()}
        return FittedDense(heads, self.engine.support, self.combiner)

    def take(self, fitted: FittedDense) -> None:
        """Go on from what features of the same recipe and backbone were fitted to. Raises DamagedStore for others."""
        support = fitted.support
        try:
            for name, head in self.engine.heads.items():
                head.load_state_dict(fitted.heads[name])
            if support is not None and (
                support.tokens.shape != (len(support.owners), self.width)
                or not support.tokens.is_floating_point()
                or support.owners.dtype != torch.int64
                or support.owners.dim() != 1
            ):
                raise ValueError(f"its support has the shape {list(support.tokens.shape)}")
        except (KeyError, RuntimeError, ValueError) as error:
            raise DamagedStore(
                f"dense features were fitted with other heads or tokens ({error}); fit them again"
            ) from None
        self.engine.support, self.combiner = fitted.support, fitted.combiner

    def check(self) -> None:
        """Raise NotFitted where `fit` has to come first. Plain joined blocks need nothing that is fitted."""
        settings = self.engine.settings
        combination = named(settings.combination, self.recipe.size)
        wanting = any(objective.neighbours for objective in settings.objectives) and self.engine.support is None
        if self.combiner is None and not wanting and combination.whiten is None and combination.size is None:
            self.combiner = combination.fit({name: np.ones((1, width), np.float32) for name, width in self._widths()})
        if self.combiner is None or wanting:
            raise NotFitted("dense features before fit_dense: call fit_dense(training_images) first")

    def _widths(self) -> list[tuple[str, int]]:
        """Return the name and width of each block."""
        engine = self.engine
        names = engine.block_names()
        plain = len(names) - len(engine.settings.objectives) * len(engine.projections)
        dims = [projection.dim for _ in engine.settings.objectives for projection in engine.projections.values()]
        return list(zip(names, [self.width] * plain + dims, strict=True))

    def _fit_blocks(self, rows: Sequence[tuple[str, Any]]) -> Blocks:
        self.failures = []
        settings, images = self.engine.settings, self._name_images(rows)
        chosen = [(row_id, images[row_id]) for row_id in least(self.recipe.seed, images, settings.fit_images)]
        if not chosen:
            raise SampleError(f"none of {len(rows)} images can be read; dense features need at least one to fit on")
        each = -(-settings.support // len(chosen))
        if wanting := [objective.name for objective in settings.objectives if objective.neighbours]:
            self.engine.support = self._draw_support(chosen, each)
            if len(self.engine.support.owners.unique()) == 1:
                warn(
                    f"fitted on one image alone: {wanting[0]!r} has no negatives, which come from other images; give "
                    "more images, with or without labels"
                )
        drawn = [self._draw_tokens(row_id, maps, each) for row_id, maps in self._each_map(chosen) if maps is not None]
        if not drawn:
            raise SampleError(f"none of {len(chosen)} images can be read ({self.failures[0].reason})")
        return {name: np.concatenate([blocks[name] for blocks in drawn]) for name in drawn[0]}

    def _name_images(self, rows: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """Return images by id, or by the digest of their content; unreadable ones without an id are failures."""
        given = [row_id for row_id, _ in rows if row_id]
        if len(set(given)) < len(given):
            twice = next(row_id for row_id in given if given.count(row_id) > 1)
            raise SampleError(f"id {twice!r} is given to two images; expected an id of its own for each, or no ids")
        inputs = self.engine.backbone.preprocess
        named_rows = name_rows(inputs, rows, self.batch_size, self.workers, self._failures_of(rows), self.limits)
        return dict(named_rows)

    def _each_map(self, rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Maps | None]]:
        failures, done = self._failures_of(rows), 0
        self.progress("images", 0, len(rows))
        for batch in self._batches(rows):
            readable, reasons = separate(batch.rows)
            computed = self._compute(list(readable.values()))
            for at, (row_id, _) in enumerate(batch.rows):
                name = row_id or batch.names[at]
                maps = next(computed) if at in readable else None
                if maps is not None and not all(np.isfinite(values).all() for values in maps.values()):
                    maps, reasons[at] = None, "features are not finite: the backbone overflows on this image"
                if maps is None:
                    failures.add(name, reasons[at])
                yield name, maps
                done += 1
                self.progress("images", done, len(rows))

    def _failures_of(self, rows: Sequence[tuple[str, Any]]) -> Failures:
        """Return a counter that goes on from `self.failures`, and adds to it."""
        failures = Failures(self.max_failures, len(rows), self.failures)
        self.failures = failures.rows
        return failures

    def _batches(self, rows: Sequence[tuple[str, Any]]) -> Iterator[Batch]:
        """Yield batches of rows, in which an image of a size that cannot be taken counts as unreadable."""
        inputs = self.engine.backbone.preprocess
        for batch in decoded_batches(inputs, rows, self.batch_size, self.workers, limits=self.limits):
            yield Batch([(row_id, self._sample_or_error(sample)) for row_id, sample in batch.rows], batch.names)

    def _compute(self, images: Sequence[tuple[str, Image.Image]]) -> Iterator[Maps]:
        """Yield the maps of each image, computed for a few at a time."""
        width = sum(width for _, width in self._widths())
        most = max([1, *(math.prod(self.engine.grid_of(image)) for _, image in images)])
        step = max(1, TOGETHER // (most * width))
        for at in range(0, len(images), step):
            yield from self.engine.maps(images[at : at + step])

    def _sample_or_error(self, sample: Any) -> Any:
        """Return the sample, or why it cannot be taken."""
        if isinstance(sample, SampleError):
            return sample
        try:
            self.engine.size_of(sample)
        except SampleError as error:
            return error
        return sample

    def _draw_support(self, chosen: Sequence[tuple[str, Any]], each: int) -> Support:
        tokens, owners = [], []
        for batch in self._batches(chosen):
            good = list(separate(batch.rows)[0].values())
            for (row_id, image), vectors in zip(good, self.engine.plain(good), strict=True):
                if vectors.isfinite().all():
                    picked = self._pick_tokens(row_id, len(vectors), each)
                    tokens.append(vectors[picked])
                    owners.append(torch.full((len(picked),), self.engine.owner_of(image)))
        if not tokens:
            raise SampleError(f"none of {len(chosen)} images has finite features; expected at least one")
        return Support(torch.cat(tokens), torch.cat(owners))

    def _draw_tokens(self, row_id: str, maps: Maps, each: int) -> Blocks:
        flat = {name: values.reshape(-1, values.shape[-1]) for name, values in maps.items()}
        picked = self._pick_tokens(row_id, len(flat["embedding"]), each)
        return {name: values[picked] for name, values in flat.items()}

    def _pick_tokens(self, row_id: str, tokens: int, each: int) -> NDArray[np.int64]:
        """Pick the tokens of an image that are fitted on, by its id."""
        rng = generator(self.recipe.seed, row_id, "dense tokens")
        return np.sort(rng.permutation(tokens)[:each])


def together(maps: Sequence[NDArray[np.float32] | None], failures: Sequence[RowFailure]) -> Any:
    """Stack maps to [N, H, W, D], NaN for None; unequal grids stay a list. Warns of failures. Raises SampleError."""
    if failures:
        reasons = first_reasons(failures, 3)
        message = f"{len(failures)} of {len(maps)} images have no features: {reasons}"
        warn(message)
    present = [features for features in maps if features is not None]
    if not present:
        raise SampleError(f"none of {len(maps)} images has features; expected at least one readable image")
    if len({features.shape for features in present}) > 1:
        return list(maps)
    nothing = np.full_like(present[0], np.nan)
    return np.stack([nothing if features is None else features for features in maps])


def _token_width(backbone: Any) -> int:
    """Return the width E of the tokens that a grid has."""
    size = int(backbone.preprocess.limits()["image_size"])
    size -= size % (backbone.patch or 1)
    with backbone.grid(backbone.preprocess.at(Image.new("RGB", (size, size)), size, size).unsqueeze(0)) as grid:
        return int(grid.tokens.shape[-1])
