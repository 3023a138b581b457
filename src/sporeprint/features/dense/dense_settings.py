"""Dense settings decide the features of patches, together with the rest of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sporeprint.errors import RecipeError
from sporeprint.features.blocks import is_block_name
from sporeprint.features.combine import Combination, named
from sporeprint.features.dense.copies import Copies
from sporeprint.features.dense.token_objectives import TokenKL, TokenObjective, TokenSimCLR
from sporeprint.values import check_count, is_count, is_number, kind, short_repr

WIDEST = 2**16  # numbers of a latent; a matrix of that many rows is made before anything is read
EVERYTHING = Combination(("embedding", "layers", "gradients"), whiten="auto", exponent=0.5)
NAMES = {"kl": TokenKL, "simclr": TokenSimCLR}  # names on the command line


@kind("dense")
@dataclass(frozen=True)
class Dense:
    """Dense decides the features of every patch; the defaults are the paper's: SimCLR over tokens, joined to the token.

    objectives: losses over an image's tokens; each gives a gradient block.
    layers: numbers of blocks whose tokens are kept too: from 1, or counted from the end (-1 is the last).
    copies: shifted, flipped and scaled copies of an image that are averaged.
    size: size in pixels that images are resized to: (height, width), or one number for a square; None resizes them down
    to whole patches. combination: how the blocks of a token are joined; None joins them as the paper does, or with
    `layers` all of them, half-whitened. The recipe's `size` is the dimension after PCA.
    support: number of tokens of the fitting images among which negatives are looked up.
    fit_images: number of fitting images that give the support and fit whitening and PCA; all if there are fewer.
    Raises RecipeError.

    Examples
    --------
    >>> from PIL import Image
    >>> from sporeprint import Copies, Dense, Fungi, Recipe, TokenKL
    >>> dense = Dense(objectives=[TokenKL()], layers=[-1], size=(16, 24), copies=Copies(flip=True))
    >>> images = [Image.new("RGB", (40, 30), color) for color in ("red", "green")]
    >>> fungi = Fungi(Recipe(backbone="tiny", dense=dense, size=8)).fit_dense(images)
    >>> fungi.dense(images).shape  # 4 x 6 patches of each image
    (2, 4, 6, 8)
    """

    objectives: Sequence[Any] = field(default_factory=lambda: (TokenSimCLR(),))
    layers: Sequence[int] = ()
    copies: Copies = field(default_factory=Copies)
    size: Any = None
    combination: Any = None
    support: int = 20_000
    fit_images: int = 256

    __repr__ = short_repr

    def __post_init__(self) -> None:
        for name in ("objectives", "layers"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)):
                raise RecipeError(f"Dense {name}={value!r}; expected a list")
            object.__setattr__(self, name, tuple(value))
        for objective in self.objectives:
            if isinstance(objective, type) or not isinstance(objective, TokenObjective):
                raise RecipeError(
                    f"Dense objective {objective!r} is not a loss over tokens; expected an instance such as "
                    "TokenSimCLR() or TokenKL()"
                )
            check_count(f"latent of {objective.name!r}", objective.latent, most=WIDEST)
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names) or not all(map(is_block_name, names)):
            raise RecipeError(
                f"Dense objectives are named {', '.join(map(repr, names))}; give each a name of its own, of letters, "
                "digits, _ and -, and not that of another block or family (embedding, layers, patches-N, ...)"
            )
        if not all(is_number(number) and is_count(abs(number)) for number in self.layers):
            raise RecipeError(f"Dense layers={self.layers!r}; expected numbers of blocks, such as (6, 8, 10) or (-1,)")
        if not isinstance(self.copies, Copies):
            raise RecipeError(f"Dense copies={self.copies!r}; expected Copies(shifts=..., flip=..., scales=...)")
        object.__setattr__(self, "size", _size(self.size))
        joined = (EVERYTHING if self.layers else "paper") if self.combination is None else self.combination
        named(joined)  # raises RecipeError
        object.__setattr__(self, "combination", joined)
        for name in ("support", "fit_images"):
            check_count(f"Dense {name}", getattr(self, name))


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = (value, value) if is_count(value) else value
    good = isinstance(sides, (list, tuple)) and len(sides) == 2
    if not good or not all(map(is_count, sides)):
        raise RecipeError(f"Dense size={value!r}; expected (height, width) in pixels, one number for a square, or None")
    return (sides[0], sides[1])
