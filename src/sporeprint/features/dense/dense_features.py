"""Dense features of a Fungi: fitted on some images, then a map of features for every image."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sporeprint.errors import NotFitted, RecipeError, RowFailure, SampleError
from sporeprint.features.batches import Batch, decoded_batches, name_rows, separate
from sporeprint.features.blocks import Blocks
from sporeprint.features.combine import Combiner, named
from sporeprint.features.dense.dense_engine import DenseEngine, Maps
from sporeprint.features.dense.dense_settings import Dense
from sporeprint.features.dense.support import Support, least
from sporeprint.features.engine import Engine, below, heads_of, make_head
from sporeprint.features.failures import Failures, first_reasons
from sporeprint.features.recipe import Recipe
from sporeprint.features.unit import unit
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
        """(description as JSON, tensors by name); `of_parts` takes them back."""
        tensors = {f"heads/{name}/{part}": value for name, head in self.heads.items() for part, value in head.items()}
        if self.support is not None:
            tensors |= {"support/tokens": self.support.tokens, "support/owners": self.support.owners}
        if self.combiner is None:
            return {}, tensors
        tensors |= {f"combiner/{name}": torch.from_numpy(value) for name, value in self.combiner.arrays().items()}
        return {"combination": to_json(self.combiner.combination), "fitted": self.combiner.describe()}, tensors

    @classmethod
    def of_parts(cls, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FittedDense:
        """The state whose `parts` these are."""
        support = combiner = None
        if "support/tokens" in tensors:
            support = Support(tensors["support/tokens"], tensors["support/owners"])
        if description:
            arrays = {name: value.numpy() for name, value in below(tensors, "combiner").items()}
            combiner = Combiner.restore(from_json(description["combination"]), description["fitted"], arrays)
        return cls(heads_of(below(tensors, "heads")), support, combiner)


@dataclass
class DenseFeatures:
    """`fit`, then `maps`. failures: rows of the last call that could not be read, with the reason."""

    recipe: Recipe
    engine: DenseEngine
    width: int  # E of a token, which a pooled embedding may differ from
    combiner: Combiner | None = None
    batch_size: int = 8
    workers: int = 1
    max_failures: float = 0.01
    failures: list[RowFailure] = field(default_factory=list)

    @classmethod
    @torch.inference_mode(False)  # a caller's inference mode would give tensors that autograd refuses
    def of(cls, recipe: Recipe, engine: Engine, **settings: Any) -> DenseFeatures:
        """Of a recipe and the engine that was made of it.

        Raises RecipeError for a backbone that is not of images, BackboneError for a size that it cannot take.
        """
        if engine.backbone.modality != "image":
            raise RecipeError(f"dense features are of images; {engine.backbone.name} takes {engine.backbone.modality}")
        dense = recipe.dense or Dense()
        width = _token_width(engine.backbone)
        heads = {one.name: make_head(recipe.seed, f"dense {one.name}", width, one.latent) for one in dense.objectives}
        made = DenseEngine(engine.backbone, dense, heads, engine.projections, recipe.seed, engine.autocast)
        made.layers()  # raises BackboneError
        if dense.size is not None:
            engine.backbone.grid_shape(*dense.size)
            if (patches := made.most_patches(*dense.size)) > made.limit:
                raise RecipeError(
                    f"Dense(size={dense.size}) makes {patches:,} patches of the largest copy; at most {made.limit:,}: "
                    "take a smaller size, or smaller scales of its copies"
                )
        return cls(recipe, made, width, **settings)

    @torch.inference_mode(False)
    def fit(self, rows: Sequence[tuple[str, Any]]) -> Blocks:
        """Draw the support, fit the combination; gives the blocks of the tokens that it was fitted on, [R, D] each.

        rows: (id, image); an image without an id has its content's digest. Which images and tokens are drawn depends on
        the ids and the seed alone. What was fitted before stays where it fails.
        Raises TooManyFailures, SampleError for an id given twice and where no image can be read.
        """
        before = self.engine.support
        try:
            blocks = self._fitted(rows)
            self.combiner = named(self.engine.settings.combination, self.recipe.size).fit(blocks)
        except BaseException:
            self.engine.support = before
            raise
        return blocks

    def maps(self, rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, NDArray[np.float32] | None]]:
        """(id, features [H, W, D]) of each image in order, None for one that cannot be read. Raises TooManyFailures."""
        for row_id, blocks in self.blocks(rows):
            yield row_id, None if blocks is None else self.joined(blocks)

    def blocks(self, rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Maps | None]]:
        """(id, {block: [H, W, D]}) of each image in order; otherwise as `maps`."""
        self.check()
        self.failures = []
        yield from self._each(rows)

    def joined(self, blocks: Maps, combiner: Combiner | None = None) -> NDArray[np.float32]:
        """Features [H, W, D] of an image's blocks, L2-normalised (but for those of a PCA)."""
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
        """Go on from what features of the same recipe and backbone were fitted to."""
        for name, head in self.engine.heads.items():
            head.load_state_dict(fitted.heads[name])
        self.engine.support, self.combiner = fitted.support, fitted.combiner

    def check(self) -> None:
        """Raises NotFitted where `fit` has to come first. Plain joined blocks need nothing that is fitted."""
        settings = self.engine.settings
        combination = named(settings.combination, self.recipe.size)
        wanting = any(one.neighbours for one in settings.objectives) and self.engine.support is None
        if self.combiner is None and not wanting and combination.whiten is None and combination.size is None:
            self.combiner = combination.fit({name: np.ones((1, width), np.float32) for name, width in self._widths()})
        if self.combiner is None or wanting:
            raise NotFitted("dense features before fit_dense: call fit_dense(training_images) first")

    def _widths(self) -> list[tuple[str, int]]:
        """Of each block."""
        engine = self.engine
        names = engine.block_names()
        plain = len(names) - len(engine.settings.objectives) * len(engine.projections)
        dims = [projection.dim for _ in engine.settings.objectives for projection in engine.projections.values()]
        return list(zip(names, [self.width] * plain + dims, strict=True))

    def _fitted(self, rows: Sequence[tuple[str, Any]]) -> Blocks:
        self.failures = []
        settings, images = self.engine.settings, self._named(rows)
        chosen = [(row_id, images[row_id]) for row_id in least(self.recipe.seed, images, settings.fit_images)]
        if not chosen:
            raise SampleError(f"none of {len(rows)} images can be read; dense features need at least one to fit on")
        each = -(-settings.support // len(chosen))
        if wanting := [one.name for one in settings.objectives if one.neighbours]:
            self.engine.support = self._support(chosen, each)
            if len(self.engine.support.owners.unique()) == 1:
                warnings.warn(
                    f"fitted on one image alone: {wanting[0]!r} has no negatives, which come from other images; give "
                    "more images, with or without labels",
                    stacklevel=4,
                )
        drawn = [self._drawn(row_id, maps, each) for row_id, maps in self._each(chosen) if maps is not None]
        if not drawn:
            raise SampleError(f"none of {len(chosen)} images can be read ({self.failures[0].reason})")
        return {name: np.concatenate([one[name] for one in drawn]) for name in drawn[0]}

    def _named(self, rows: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """Images by id, or by the digest of their content; of those without an id the unreadable ones are failures."""
        given = [row_id for row_id, _ in rows if row_id]
        if len(set(given)) < len(given):
            twice = next(one for one in given if given.count(one) > 1)
            raise SampleError(f"id {twice!r} is given to two images; expected an id of its own for each, or no ids")
        inputs = self.engine.backbone.preprocess
        return dict(name_rows(inputs, rows, self.batch_size, self.workers, self._failures_of(rows)))

    def _each(self, rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Maps | None]]:
        failures = self._failures_of(rows)
        for batch in self._batches(rows):
            readable, reasons = separate(batch.rows)
            computed = self._made(list(readable.values()))
            for at, (row_id, _) in enumerate(batch.rows):
                name = row_id or batch.names[at]
                maps = next(computed) if at in readable else None
                if maps is not None and not all(np.isfinite(values).all() for values in maps.values()):
                    maps, reasons[at] = None, "features are not finite: the backbone overflows on this image"
                if maps is None:
                    failures.add(name, reasons[at])
                yield name, maps

    def _failures_of(self, rows: Sequence[tuple[str, Any]]) -> Failures:
        """A counter that goes on from `self.failures`, where what it counts is seen."""
        failures = Failures(self.max_failures, len(rows), self.failures)
        self.failures = failures.rows
        return failures

    def _batches(self, rows: Sequence[tuple[str, Any]]) -> Iterator[Batch]:
        """Batches of rows, in which an image of a size that cannot be taken counts as unreadable."""
        for batch in decoded_batches(self.engine.backbone.preprocess, rows, self.batch_size, self.workers):
            yield Batch([(row_id, self._sized(sample)) for row_id, sample in batch.rows], batch.names)

    def _made(self, images: Sequence[tuple[str, Image.Image]]) -> Iterator[Maps]:
        """The maps of each, of some images at a time."""
        width = sum(one for _, one in self._widths())
        most = max([1, *(math.prod(self.engine.grid_of(image)) for _, image in images)])
        step = max(1, TOGETHER // (most * width))
        for at in range(0, len(images), step):
            yield from self.engine.maps(images[at : at + step])

    def _sized(self, sample: Any) -> Any:
        """The sample, or why it cannot be taken."""
        if isinstance(sample, SampleError):
            return sample
        try:
            self.engine.size_of(sample)
        except SampleError as error:
            return error
        return sample

    def _support(self, chosen: Sequence[tuple[str, Any]], each: int) -> Support:
        tokens, owners = [], []
        for batch in self._batches(chosen):
            good = list(separate(batch.rows)[0].values())
            for (row_id, image), found in zip(good, self.engine.plain(good), strict=True):
                if found.isfinite().all():
                    picked = self._pick(row_id, len(found), each)
                    tokens.append(found[picked])
                    owners.append(torch.full((len(picked),), self.engine.owner_of(image)))
        if not tokens:
            raise SampleError(f"none of {len(chosen)} images has finite features; expected at least one")
        return Support(torch.cat(tokens), torch.cat(owners))

    def _drawn(self, row_id: str, maps: Maps, each: int) -> Blocks:
        flat = {name: values.reshape(-1, values.shape[-1]) for name, values in maps.items()}
        picked = self._pick(row_id, len(flat["embedding"]), each)
        return {name: values[picked] for name, values in flat.items()}

    def _pick(self, row_id: str, tokens: int, each: int) -> NDArray[np.int64]:
        """Which tokens of an image are fitted on, by its id."""
        rng = generator(self.recipe.seed, row_id, "dense tokens")
        return np.sort(rng.permutation(tokens)[:each])


def together(maps: Sequence[NDArray[np.float32] | None], failures: Sequence[RowFailure]) -> Any:
    """[N, H, W, D] where all grids are equal, NaN for None; else a list. Warns of failures. Raises SampleError."""
    if failures:
        reasons = first_reasons(failures, 3)
        warnings.warn(f"{len(failures)} of {len(maps)} images have no features: {reasons}", stacklevel=3)
    found = [one for one in maps if one is not None]
    if not found:
        raise SampleError(f"none of {len(maps)} images has features; expected at least one readable image")
    if len({one.shape for one in found}) > 1:
        return list(maps)
    nothing = np.full_like(found[0], np.nan)
    return np.stack([nothing if one is None else one for one in maps])


def _token_width(backbone: Any) -> int:
    """E of the tokens that a grid has."""
    size = int(backbone.preprocess.limits()["image_size"])
    size -= size % (backbone.patch or 1)
    with backbone.grid(backbone.preprocess.at(Image.new("RGB", (size, size)), size, size).unsqueeze(0)) as one:
        return int(one.tokens.shape[-1])
