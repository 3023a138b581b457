"""A recipe is everything that determines the numbers: a frozen value with a JSON form and a fingerprint."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from typing import Any, ClassVar

from sporeprint.backbones.pooling import POOLINGS
from sporeprint.errors import RecipeError
from sporeprint.features import presets
from sporeprint.features.blocks import LAYER_PREFIXES, TAKEN, is_block_name
from sporeprint.features.combine import named
from sporeprint.features.dense.dense_settings import WIDEST, Dense
from sporeprint.gradients.projections.projection import check_projection_name
from sporeprint.values import (
    LATER,
    canonical,
    check_choice,
    check_count,
    fields_json,
    from_json,
    is_count,
    make,
    short_repr,
)

DTYPES = ("auto", "float32", "bfloat16")
LAYER_KINDS = ("cls", "last", "mean", "max", "attention")
VIEWS = ("paper", "native")
MODALITIES = ("auto", "image", "text", "audio")
MOST_VIEWS = 2**12  # of a row
DECIDED_LATER = ("size", "combination", "dense")  # fields that never change the blocks of whole images


@dataclass(frozen=True)
class Recipe:
    """A recipe names the backbone, the blocks of each family, and how they are joined.

    backbone: Hugging Face id or folder, `timm:NAME`, or `"tiny"` (shipped); None where a `Backbone` is given.
    objectives: each gives a gradient block. By default KL alone, which takes no pass of its own: the preset "free".
    None takes the paper's: KL, SimCLR, and for images DINO.
    modality: "auto" is what the checkpoint takes (images or audio where it has two towers); "text" is its text tower.
    targets: paths of the linear layers to read; by default the output projection of the last attention.
    pooling: how tokens become an embedding: "auto" (what the checkpoint's authors use), "cls", "mean", "last".
    projection: name of the random projection. dim: width of a gradient block, by default the embedding's.
    layers: how many of the last blocks give their pooled tokens too (free; 0 for none). Six gave 83.7 on Flowers102
    where four gave 80.2, and as much on TREC (docs/combining.md).
    layer_kinds: how those are pooled, of "cls", "last", "mean" and "max"; None: mean, CLS or last where there is one,
    and for texts the maximum too (88.4 on TREC, 86.6 without). "attention", which is in no default, is what the heads
    of an attention gave before its output projection, pooled as the embedding, where that projection is a target: the
    last one is by default. It gains most on CLIP with few labels (docs/when-gradients-pay.md).
    views: resolution of image views, for objectives without an augmentation of their own: "paper" enlarges every patch
    and crop to the backbone's input; "native" keeps patches and local crops at half its side, for networks that can
    interpolate their position embeddings. Text and sound have no resolution: there it changes nothing.
    size: features after PCA; None keeps all.
    combination: how blocks are joined. None decides by the objectives: where none are given, as the presets do
    (embedding, layers and gradients, whitened); where they are, "paper", the embedding and the gradients of just these.
    dtype: "auto" (bfloat16 where the device multiplies it in hardware), "float32" or "bfloat16".
    seed: for heads, projection, views and negatives.
    dense: a `Dense`, which decides features of patches and nothing else; None for the paper's. Raises RecipeError.

    Examples
    --------
    >>> from sporeprint import KL, DINO, Recipe
    >>> recipe = Recipe(backbone="tiny", objectives=[KL(), DINO()], size=256)
    >>> [objective.name for objective in recipe.objectives]
    ['kl', 'dino']
    >>> Recipe.from_json(recipe.to_json()) == recipe
    True
    >>> Recipe(backbone="tiny", size=0)
    Traceback (most recent call last):
    sporeprint.errors.RecipeError: size=0; expected an integer of at least 1
    """

    removed: ClassVar[dict[str, tuple[Any, str]]] = {
        "view_moments": (
            1,
            "the spread of a row's views said 30 to 40 points less than their mean, and nothing next to it "
            "(docs/combining.md); use 1, which is what is left",
        )
    }

    backbone: str | None = None
    objectives: Sequence[Any] | None = presets.FREE
    targets: Sequence[str] | None = None
    pooling: str = "auto"
    projection: str = "rademacher"
    dim: int | None = None
    layers: int = 6
    layer_kinds: Sequence[str] | None = None
    views: str = "paper"
    size: int | None = None
    combination: Any = None
    dtype: str = "auto"
    seed: int = 0
    modality: str = "auto"
    dense: Dense | None = field(default=None, metadata=LATER)

    def __repr__(self) -> str:
        if self.combination == "paper":  # which objectives bring where they are named
            return short_repr(self, objectives=MISSING, combination="paper")
        joined = presets.JOINED if self.objectives == presets.FREE else None
        return short_repr(self, combination=joined)

    def __post_init__(self) -> None:
        if self.combination is None:
            default = self.objectives is presets.FREE
            object.__setattr__(self, "combination", presets.JOINED if default else "paper")
        for name in ("targets", "layer_kinds"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
        for name, what in (
            ("objectives", "a list of objectives, such as [KL()]"),
            ("targets", "a list of paths of linear layers"),
            ("layer_kinds", f"a list of: {', '.join(LAYER_KINDS)}"),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (list, tuple)):
                raise RecipeError(f"{name} is a {type(value).__name__}; expected {what}")
            if value is not None and value is not presets.FREE:
                object.__setattr__(self, name, tuple(value))
        self._check()

    def _check(self) -> None:
        if self.backbone is not None and not isinstance(self.backbone, str):
            raise RecipeError(
                f"backbone is a {type(self.backbone).__name__}; a recipe names its backbone (id or folder). "
                "Give a network of your own to Fungi: Fungi(recipe, backbone=Backbone(module, ...))"
            )
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("dtype", self.dtype, DTYPES)
        check_choice("modality", self.modality, MODALITIES)
        if self.dense is not None and not isinstance(self.dense, Dense):
            raise RecipeError(f"dense={self.dense!r}; expected Dense(...), or None")
        check_projection_name(self.projection)
        named(self.combination)  # raises RecipeError
        for pooling in self.layer_kinds or ():
            check_choice("layer_kinds", pooling, LAYER_KINDS)
        check_choice("views", self.views, VIEWS)
        if self.views != "paper" and self.objectives is presets.FREE:
            raise RecipeError(
                f"views={self.views!r}, but the default objective makes no views; name what does, e.g. "
                "objectives=[KL(), DINO(), SimCLR()], or leave views out"
            )
        for name, least in (("dim", 1), ("size", 1), ("layers", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name in ("dim", "size"):
                continue
            check_count(name, value, least, most=WIDEST if name == "dim" else math.inf)
        if self.targets is not None and not self.targets:
            raise RecipeError("targets is empty; leave it out to read the paper's layer, or name at least one layer")
        if not all(isinstance(path, str) for path in self.targets or ()):
            raise RecipeError(
                f"targets={self.targets!r}; expected paths of linear layers, such as 'blocks.11.attn.proj'"
            )
        names = []
        for objective in self.objectives or ():
            if isinstance(objective, type) or not hasattr(objective, "loss"):
                raise RecipeError(f"objective {objective!r} has no `loss`; give an instance such as KL()")
            _check_objective(objective)
            if not is_block_name(objective.name):
                raise RecipeError(
                    f"objective name {objective.name!r}; expected letters, digits, _ and -, and not the name of "
                    f"another block or family ({', '.join(TAKEN)}, {', '.join(f'{kind}-N' for kind in LAYER_PREFIXES)})"
                )
            names.append(objective.name)
        if repeated := {name for name in names if names.count(name) > 1}:
            raise RecipeError(
                f"two objectives are named {repeated.pop()!r}; give one of them another name, e.g. KL(name='kl-15')"
            )

    @classmethod
    def preset(cls, name: str, backbone: str | None = None, modality: str = "auto", **overrides: Any) -> Recipe:
        """Return a recipe on the frontier of accuracy against cost: "paper", "balanced", "fast" or "free".

        backbone: gives the modality; without a backbone, give `modality`, except for "paper" and "free", which are the
        same for all.
        overrides: other fields, except objectives and views, which the preset sets. Raises RecipeError, BackboneError.

        Examples
        --------
        >>> from sporeprint import Recipe
        >>> [objective.name for objective in Recipe.preset("free", modality="image").objectives]
        ['kl']
        """
        fields = presets.fields_of(name, backbone, modality, overrides)
        return make(cls, fields)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as plain JSON types, for `Recipe.from_json`."""
        return fields_json(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Rebuild the recipe that `to_json` wrote. Raises RecipeError for unknown kinds and fields."""
        return make(cls, {key: from_json(value) for key, value in data.items() if key != "kind"})

    def fingerprint(self) -> str:
        """Return 16 hex digits of SHA-256 over the canonical JSON: the same for equal recipes on every machine."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()[:16]

    def blocks_json(self) -> dict[str, Any]:
        """Return the part of the JSON that decides the blocks, without DECIDED_LATER."""
        return {key: value for key, value in self.to_json().items() if key not in DECIDED_LATER}


def as_recipe(value: Any) -> Recipe:
    """Return a recipe as it is; the default one of a backbone's id or folder, and of None. Raises RecipeError."""
    if value is None or isinstance(value, Recipe):
        return value or Recipe()
    if isinstance(value, (str, os.PathLike)):
        return Recipe(backbone=os.fspath(value))
    raise RecipeError(
        f"recipe is a {type(value).__name__}; expected Recipe(backbone=..., ...), or a backbone's id or folder. Give a "
        "network of your own as backbone=: Fungi(Recipe(), backbone=Backbone(module, ...))"
    )


def deciding(recipe: Recipe, *others: Any) -> tuple[Any, ...]:
    """Return what decides blocks: without the fields of the recipe that are decided later."""
    later: dict[str, Any] = dict.fromkeys(DECIDED_LATER) | {"combination": "paper"}  # None depends on the objectives
    return replace(recipe, **later), *others


def _check_objective(objective: Any) -> None:
    """Check what every objective has; an objective checks its own fields itself."""
    for name, default, least in (
        ("latent", None, 0 if getattr(objective, "reads", "") == "logits" else 1),
        ("negatives", 0, 0),
    ):
        value = getattr(objective, name, default)
        if value is None and any(name in fields for fields in getattr(objective, "by_modality", {}).values()):
            continue  # the modality decides
        if not is_count(value, least) or (name == "latent" and value > WIDEST):  # type: ignore[operator]
            limit = f" and at most {WIDEST}" if name == "latent" else ""
            raise RecipeError(f"{name}={value!r} of {objective!r}; expected an integer of at least {least}{limit}")
    if not isinstance(getattr(objective, "name", None), str):
        raise RecipeError(f"{objective!r} has no name; expected a string, the name of its block")
    augmentation = getattr(objective, "augmentation", None)
    if augmentation is not None and not (callable(augmentation) and hasattr(augmentation, "views")):
        raise RecipeError(
            f"augmentation={augmentation!r} of {objective.name!r}; expected an augmentation such as Crops(), or None"
        )
    if augmentation is not None:
        check_count(f"views of {objective.name!r}", augmentation.views, most=MOST_VIEWS)
