"""An objective defines the views it needs, its head, and one loss per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from sporeprint.errors import RecipeError

_O = TypeVar("_O", bound="Objective")


@dataclass(frozen=True)
class Objective:
    """The base of the objectives: subclass it as a frozen dataclass and define `loss`.

    name: that of block and head. latent: width of the head's output. augmentation: makes the views; None for the
    modality's plain view. Sample i's loss must not read sample j.

    by_modality: {"image": {field: value}, ...}, what replaces None in the fields on images, text or audio; left empty
    by an objective that is the same on all of them. An objective that has it is for the modalities in it alone.
    by_views: {"native": {"image": {field: value}}}, what differs from that with a recipe's other `views`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from sporeprint import Fungi, Objective, Recipe, check_objective
    >>> from sporeprint.values import kind
    >>> @kind("peak")
    ... @dataclass(frozen=True)
    ... class Peak(Objective):
    ...     name: str = "peak"
    ...
    ...     def loss(self, latents):
    ...         return latents.logsumexp(dim=-1).mean(dim=-1)
    >>> check_objective(Peak())  # raises AssertionError where a promise is broken
    >>> Recipe(backbone="tiny", objectives=[Peak()]).objectives[0].latent
    768
    """

    normalize: ClassVar[bool] = True  # L2-normalise the embedding before the head
    extra_heads: ClassVar[tuple[str, ...]] = ()  # further heads, without gradient, given to `loss` by these names
    by_modality: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    by_views: ClassVar[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    reads: ClassVar[str] = "latents"  # what `loss` takes: a random head's, or the "logits" of the checkpoint's own
    negatives: Any = 0  # samples of the fitting set whose latents `loss` takes as `negatives` [M, L]

    name: str = ""
    latent: Any = 768
    augmentation: Any = None

    @property
    def views(self) -> int:
        """The number of views of one sample. Raises RecipeError while that depends on the modality."""
        if self.augmentation is None and any("augmentation" in fields for fields in self.by_modality.values()):
            raise RecipeError(
                f"how many views {self.name!r} has depends on the modality; choose one first: "
                f"objective.for_modality({next(iter(self.by_modality))!r})"
            )
        return 1 if self.augmentation is None else self.augmentation.views

    def for_modality(self: _O, modality: str, views: str = "paper") -> _O:
        """Return the objective with every field that is None set for "image", "text" or "audio".

        views: a recipe's; "native" is the same as "paper" where `by_views` leaves it out, as for text and sound.
        Raises RecipeError where the objective has no views for the modality.
        """
        if not self.by_modality:
            return self
        if modality not in self.by_modality:
            raise RecipeError(
                f"objective {self.name!r} is for {', '.join(self.by_modality)}; the backbone takes {modality}: leave "
                "it out"
            )
        fields = {**self.by_modality[modality], **self.by_views.get(views, {}).get(modality, {})}
        return replace(self, **{name: value for name, value in fields.items() if getattr(self, name) is None})

    def loss(self, latents: Tensor, *args: Any, **extras: Any) -> Tensor:
        """Return [N]: one loss for each sample, neither their mean nor their sum.

        latents: [N, V, L]. extras: what `extra_heads` and `negatives` ask for.
        """
        raise NotImplementedError

    def head_names(self) -> list[str]:
        """Return the names in `Fungi.heads`: the head's, then those of `extra_heads`."""
        return [self.name, *(f"{self.name}_{extra}" for extra in self.extra_heads)]
