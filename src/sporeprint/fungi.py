"""Fungi: a scikit-learn transformer from samples to features of a frozen backbone."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor, nn

from sporeprint import saved
from sporeprint.backbones.base import Backbone
from sporeprint.backbones.load import load_backbone
from sporeprint.combine import Combiner, named
from sporeprint.engine import Engine, make_head
from sporeprint.errors import NotFitted, RecipeError, RowFailure, SampleError, StoreMismatch
from sporeprint.projection import PROJECTIONS, Dense, Projection
from sporeprint.reading import Decoded, decoded_batches, refuse_too_many
from sporeprint.recipe import Recipe, canonical, from_json, to_json

Blocks = dict[str, NDArray[np.float32]]
DECIDES_FEATURES = ("weights", "targets", "pooling", "preprocess", "prefix_tokens")  # of what a backbone describes
Progress = Callable[[str, int, int], None]  # what, done, in all


class Fungi(TransformerMixin, BaseEstimator):
    """Features of a frozen backbone: embedding, layers, views and projected gradients, combined.

    recipe: what is computed. backbone: a `Backbone` of your own, in the place of `recipe.backbone`.
    device: where a loaded backbone runs (default CUDA where there is one). batch_size: rows decoded and projected
    together. workers: threads that decode and cut views. None of these three decides a number.
    max_failures: fraction of unreadable rows that a call accepts (one row always is, unless it is 0).

    `heads`, `negatives` and `projection` may be replaced before `blocks` is called. `failures` names the rows that the
    last call could not read; their features are NaN.
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        backbone: Backbone | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        workers: int = 1,
        max_failures: float = 0.01,
    ):
        self.recipe = recipe
        self.backbone = backbone
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self.max_failures = max_failures

    # Fitting and transforming

    def fit(self, X: Any, y: Any = None, ids: Sequence[str] | None = None) -> Fungi:
        """Draw the negatives from X, compute its blocks, fit the combination. y is never looked at.

        X: PIL images, paths, arrays [H, W, 3] or encoded bytes. ids: one string a row, which seeds its views; by
        default a digest of its pixels. Raises TooManyFailures, RecipeError.
        """
        self.fit_blocks(X, ids)
        return self

    def transform(self, X: Any, ids: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Features [N, size], in X's order. Raises NotFitted before `fit`."""
        if not self.__sklearn_is_fitted__():
            raise NotFitted(
                "transform before fit (with this recipe and backbone): call fit(training_samples) first, or Fungi.load "
                "a fitted one"
            )
        return self.combiner.transform(self.blocks(X, ids))

    def fit_transform(self, X: Any, y: Any = None, ids: Sequence[str] | None = None) -> NDArray[np.float32]:
        """`fit` and `transform` of the same rows, with every block computed once."""
        blocks = self.fit_blocks(X, ids)
        return self.combiner.transform(blocks)

    def fit_blocks(self, X: Any, ids: Sequence[str] | None = None) -> Blocks:
        """`fit`, giving the blocks of X that it had to compute."""
        rows = _rows(X, ids)
        self.draw_negatives(rows)
        blocks = self._blocks(rows)
        recipe = self._recipe()
        self.combiner: Combiner = named(recipe.combination, recipe.size).fit(_readable(blocks))
        return blocks

    def blocks(self, samples: Any, ids: Sequence[str] | None = None) -> Blocks:
        """{"embedding": [N, E], "cls-12": ..., "dino.views": ..., "kl": [N, D], ...}, in the order of the samples.

        A row that cannot be read is NaN in every block, warned of, and named in `failures`.
        Raises NotFitted where an objective needs negatives and has none; TooManyFailures.
        """
        return self._blocks(_rows(samples, ids))

    @torch.inference_mode(False)
    def draw_negatives(
        self, rows: Iterable[tuple[str, Any]], progress: Progress = lambda what, done, total: None
    ) -> None:
        """Draw and encode each objective's bank of negatives from rows (id, sample): the least by seeded digest.

        The draw depends on the ids alone, not on the order of the rows. progress: called with ("negatives", done, all).
        """
        wanting = [objective for objective in self.engine.objectives if objective.negatives]
        if not wanting:
            return
        most = max(objective.negatives for objective in wanting)
        seed = self._recipe().seed

        def key(row: tuple[str, Any]) -> bytes:
            return hashlib.blake2b(canonical([seed, "negatives", row[0]]), digest_size=16).digest()

        named_rows = _name_rows(rows, self.batch_size, self.workers)
        drawn = {row[0]: row for row in heapq.nsmallest(most + most // 10 + 16, named_rows, key=key)}
        banks: dict[str, list[Tensor]] = {objective.name: [] for objective in wanting}
        all_of_them = min(most, len(drawn))
        progress("negatives", 0, all_of_them)
        for batch in decoded_batches(drawn.values(), self.batch_size, self.workers):
            for objective in wanting:
                bank = banks[objective.name]
                rest = [row for row in batch if not isinstance(row[1], SampleError)]
                while rest and len(bank) < objective.negatives:
                    missing = objective.negatives - len(bank)
                    some, rest = rest[:missing], rest[missing:]
                    latents = self.engine.encode(objective, some).unflatten(0, (len(some), -1))
                    # A row that overflows the backbone would make every other row's loss NaN: the next one is taken.
                    bank += [one for one in latents if one.isfinite().all()]
            progress("negatives", max(map(len, banks.values())), all_of_them)
            if all(len(banks[objective.name]) == objective.negatives for objective in wanting):
                break
        for objective in wanting:
            self.negatives[objective.name] = torch.cat([torch.empty(0, objective.latent), *banks[objective.name]])

    def compute(
        self, batch: Sequence[Decoded], names: Sequence[str] | None = None
    ) -> tuple[list[int], Blocks, list[RowFailure]]:
        """Positions of the rows that have features, their blocks, and the others by name and reason.

        names: of the rows, for people; default their ids.
        Raises NotFitted where an objective needs negatives and has none.
        """
        self._check_negatives()
        images = {i: image for i, (_, image) in enumerate(batch) if not isinstance(image, SampleError)}
        reasons = {i: str(image) for i, (_, image) in enumerate(batch) if isinstance(image, SampleError)}
        blocks = self.engine.blocks([(batch[i][0], image) for i, image in images.items()]) if images else {}
        kept = list(images)
        for name, values in blocks.items():
            for at in np.flatnonzero(~np.isfinite(values).all(axis=1)):
                reasons.setdefault(kept[at], f"block {name!r} is not finite: the backbone overflows on this input")
        good = [at for at, position in enumerate(kept) if position not in reasons]
        if len(good) < len(kept):
            blocks = {name: values[good] for name, values in blocks.items()}
        shown = [row[0] for row in batch] if names is None else names
        failures = [RowFailure(shown[i], reason) for i, reason in sorted(reasons.items())]
        return [kept[at] for at in good], blocks, failures

    # State that may be replaced

    @property
    def heads(self) -> dict[str, nn.Linear]:
        """The frozen random heads by name: "kl", "dino", "dino_teacher", "simclr"."""
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
        """What was resolved, as JSON: backbone, precision, device, widths."""
        backbone = self.network
        return {
            "backbone": backbone.describe(),
            "dtype": resolve_dtype(self._recipe().dtype, backbone)[0],
            "device": backbone.device.type,
            "dim": self.projection.dim,
            "projection": type(self.projection).__name__,
        }

    def block_info(self) -> dict[str, dict[str, Any]]:
        """For each possible block: its family, its set of views, and how many passes that set takes."""
        return self.engine.passes()

    # Saving

    def save(self, folder: str | Path) -> None:
        """Write JSON and safetensors; `Fungi.load` in another process gives the same features."""
        saved.write_folder(folder, self.pack())

    def pack(self) -> dict[str, bytes]:
        """The files that `save` writes."""
        tensors: dict[str, Tensor] = {f"negatives/{name}": bank for name, bank in self.negatives.items()}
        for name, head in self.heads.items():
            tensors |= {f"heads/{name}/{part}": value for part, value in head.state_dict().items()}
        for path, projection in self.projections.items():
            if not isinstance(projection, PROJECTIONS[self._recipe().projection]):
                tensors[f"projections/{path}"] = projection.matrix()
        description = {"recipe": self._recipe().to_json(), "resolved": self.describe()}
        if hasattr(self, "combiner"):
            tensors |= {f"combiner/{key}": torch.from_numpy(value) for key, value in self.combiner.arrays().items()}
            description["combination"] = to_json(self.combiner.combination)
            description["combiner"] = self.combiner.describe()
        return saved.pack(description, tensors)

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone | None = None, **parameters: Any) -> Fungi:
        """What `save` wrote. `backbone` is needed where it was a network of your own; `parameters` go to `Fungi`.

        Raises DamagedStore where a file is not what was written, StoreMismatch where the weights are not the same.
        """
        return cls.unpack(saved.read_folder(folder), str(folder), backbone, **parameters)

    @classmethod
    def unpack(
        cls, read: Callable[[str], bytes], where: str, backbone: Backbone | None = None, **parameters: Any
    ) -> Fungi:
        """The inverse of `pack`; `read` gives a file's contents, `where` names it in messages."""
        recipe = Recipe.from_json(saved.unpack(read, where)[0]["recipe"])
        fungi = cls(recipe, backbone=backbone, **parameters)
        fungi.restore(read, where)
        return fungi

    @torch.inference_mode(False)
    def restore(self, read: Callable[[str], bytes], where: str) -> None:
        """Take over the heads, negatives, projections and combination of a packed Fungi with the same weights."""
        body, tensors = saved.unpack(read, where)
        was, now = body["resolved"]["backbone"], json.loads(canonical(self.network.describe()))
        for part in DECIDES_FEATURES:
            if was.get(part) != now[part]:
                raise StoreMismatch(
                    f"{where} was made with backbone {was['name']!r}, whose {part}: {was.get(part)}; {now['name']!r} "
                    f"here has {now[part]}. Features would not be comparable: use the same backbone, or fit again"
                )
        for name in self.heads:
            weight, bias = tensors[f"heads/{name}/weight"], tensors.get(f"heads/{name}/bias")
            head = nn.utils.skip_init(nn.Linear, *weight.shape[::-1], bias=bias is not None, dtype=weight.dtype)
            head.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
            self.heads[name] = head.requires_grad_(False)
        for key, value in tensors.items():
            group, _, name = key.partition("/")
            if group == "negatives":
                self.negatives[name] = value
            elif group == "projections":
                self.projections[name] = Dense(value)
        if "combiner" in body:
            arrays = {k.removeprefix("combiner/"): v.numpy() for k, v in tensors.items() if k.startswith("combiner/")}
            self.combiner = Combiner.restore(from_json(body["combination"]), body["combiner"], arrays)

    # Inside

    def _check_negatives(self) -> None:
        for objective in self.engine.objectives:
            if objective.negatives and objective.name not in self.negatives:
                raise NotFitted(
                    f"objective {objective.name!r} needs negatives from a fitting set: call fit(training_samples) "
                    f"first, or set fungi.negatives[{objective.name!r}] = latents [M, {objective.latent}]"
                )

    def _blocks(self, rows: Sequence[tuple[str, Any]]) -> Blocks:
        self.failures: list[RowFailure] = []
        positions: list[int] = []
        parts: list[Blocks] = []
        seen = 0
        for batch in decoded_batches(rows, self.batch_size, self.workers):
            names = [rows[at][0] or f"row {at}" for at in range(seen, seen + len(batch))]
            kept, blocks, failures = self.compute(batch, names)
            self.failures += failures
            refuse_too_many(self.failures, self.max_failures, len(rows))
            positions += [seen + at for at in kept]
            seen += len(batch)
            if kept:
                parts.append(blocks)
        if not parts:
            raise SampleError(
                f"none of {len(rows)} rows has features; expected at least one readable sample{_shown(self.failures)}"
            )
        made = {}
        for name in parts[0]:
            values = np.concatenate([part[name] for part in parts])
            made[name] = np.full((len(rows), values.shape[1]), np.nan, dtype=np.float32)
            made[name][positions] = values
        if self.failures:
            warnings.warn(f"{len(self.failures)} of {len(rows)} rows are NaN{_shown(self.failures)}", stacklevel=3)
        return made

    @property
    def engine(self) -> Engine:
        """Backbone, heads, negatives and projections, made once for a recipe."""
        recipe = self._recipe()
        if getattr(self, "_made_for", None) != (recipe, self.backbone):
            self._engine = _make_engine(recipe, self.backbone, self.device, self.workers)
            self._made_for = (recipe, self.backbone)
        return self._engine

    def _recipe(self) -> Recipe:
        if not isinstance(self.recipe, Recipe):
            raise RecipeError(f"recipe is a {type(self.recipe).__name__}; expected Recipe(backbone=..., ...)")
        return self.recipe

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "combiner") and self._made_for == (self.recipe, self.backbone)


@torch.inference_mode(False)  # a caller's inference mode would give tensors that autograd refuses
def _make_engine(recipe: Recipe, backbone: Backbone | None, device: Any, workers: int) -> Engine:
    if backbone is None:
        if recipe.backbone is None:
            raise RecipeError(
                "no backbone: name one, Recipe(backbone='facebook/dinov2-small'), or give a network of your own, "
                "Fungi(recipe, backbone=Backbone(module, ...))"
            )
        backbone = load_backbone(recipe.backbone, recipe.targets, recipe.pooling, device)
    elif recipe.targets is not None and list(backbone.targets) != list(recipe.targets):
        raise RecipeError(
            f"the recipe reads {', '.join(recipe.targets)}, the backbone given reads {', '.join(backbone.targets)}; "
            "name targets in one place"
        )
    objectives = tuple(recipe.objectives or ())
    dim = recipe.dim or backbone.width
    latents = {name: objective.latent for objective in objectives for name in objective.head_names()}
    make = PROJECTIONS[recipe.projection]
    return Engine(
        backbone=backbone,
        objectives=objectives,
        heads={name: make_head(recipe.seed, name, backbone.width, latent) for name, latent in latents.items()},
        negatives={},
        projections={path: make(dim, math.prod(t.shape), recipe.seed) for path, t in backbone.targets.items()},
        layers=recipe.layers,
        seed=recipe.seed,
        autocast=resolve_dtype(recipe.dtype, backbone)[1],
        workers=workers,
    )


def resolve_dtype(dtype: str, backbone: Backbone) -> tuple[str, torch.dtype | None]:
    """The precision that a recipe's dtype comes to, and the autocast that makes it.

    "auto" is the weights' own precision: float32 for every backbone that sporeprint loads. Raises RecipeError.
    """
    own = str(backbone.dtype).removeprefix("torch.")
    if dtype == "bfloat16":
        return "bfloat16", torch.bfloat16
    if dtype == "float32" and own not in ("float32", "float64"):
        raise RecipeError(
            f"dtype='float32', but the backbone's weights are {own}; convert it first (module.float()) or use 'auto'"
        )
    return own, None


def _rows(samples: Any, ids: Sequence[str] | None) -> list[tuple[str, Any]]:
    """(id, sample) pairs; without ids "" stands for the digest of the pixels."""
    if isinstance(samples, (str, bytes, Path)) or not hasattr(samples, "__iter__"):
        raise SampleError(f"samples is a {type(samples).__name__}; expected a list of samples (for one, give [sample])")
    samples = list(samples)
    if ids is None:
        return [("", sample) for sample in samples]
    ids = [str(one) for one in ids]
    if len(ids) != len(samples):
        raise SampleError(f"{len(ids)} ids for {len(samples)} samples; expected one id a sample")
    return list(zip(ids, samples, strict=True))


def _name_rows(rows: Iterable[tuple[str, Any]], batch_size: int, workers: int) -> Iterator[tuple[str, Any]]:
    """Rows with their ids filled in from their pixels, where they have none; unreadable ones are left out."""
    unnamed = []
    for row in rows:
        if row[0]:
            yield row
        else:
            unnamed.append(row[1])
    start = 0
    for batch in decoded_batches((("", sample) for sample in unnamed), batch_size, workers):
        for (row_id, image), sample in zip(batch, unnamed[start:], strict=False):
            if not isinstance(image, SampleError):
                yield row_id, sample
        start += len(batch)


def _shown(failures: Sequence[RowFailure]) -> str:
    named = "; ".join(f"{failure.id}: {failure.reason}" for failure in failures[:3])
    return f": {named}" if named else ""


def _readable(blocks: Blocks) -> Blocks:
    readable = np.isfinite(blocks["embedding"]).all(axis=1)
    return {name: values[readable] for name, values in blocks.items()}
