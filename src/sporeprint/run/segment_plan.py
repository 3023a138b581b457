"""The plan of `segment`: kinds of features, runs, and the recipe of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from sporeprint.backbones.backbone import Backbone
from sporeprint.data.limits import Limits
from sporeprint.data.scenes.scenes import Scenes, find_classes
from sporeprint.errors import BackboneError, RecipeError, SourceError
from sporeprint.evaluate.choice.candidates import EMBEDDING, PAPER, patch_table
from sporeprint.features.combine import Combination
from sporeprint.features.dense.copies import Copies
from sporeprint.features.dense.dense_settings import NAMES, Dense
from sporeprint.features.recipe import Recipe
from sporeprint.run.dense_options import middle_layers
from sporeprint.segment.labeller import Voting
from sporeprint.segment.training import Sampling
from sporeprint.values import to_json

LAYERS = "layers"
COPIES = "copies: "
TABLE = {candidate.name: candidate for candidate in patch_table()}
WITHOUT_GRADIENTS = {PAPER: EMBEDDING, f"{LAYERS} + gradients": LAYERS}  # the same features without gradients
WITH_GRADIENTS = tuple(WITHOUT_GRADIENTS)
VOID_NAMES = ("void", "unlabelled", "unlabeled", "ignore", "ignored", "unknown", "undefined")


@dataclass(frozen=True)
class Kind:
    """A kind of features, which is a row of the table. copies: also of shifted, flipped and scaled copies."""

    name: str
    combination: Combination
    gradients: bool
    copies: bool


@dataclass(frozen=True)
class Run:
    """One run draws a fraction of the training images, by a seed."""

    fraction: Fraction
    seed: int

    def __str__(self) -> str:
        return f"{self.images}, seed {self.seed}"

    @property
    def images(self) -> str:
        return "all training images" if self.fraction == 1 else f"{self.fraction} of the training images"

    @property
    def key(self) -> str:
        return f"{self.fraction}, {self.seed}"

    @property
    def slug(self) -> str:
        return f"{self.fraction.numerator}-{self.fraction.denominator}-seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A plan is everything that decides the numbers, apart from data and weights.

    layers: None for `middle_layers`. features: names of kinds; None for all. pca: size of features that are joined, not
    of the embedding alone; None for no PCA. ignore, classes: of the masks; None where they are to be found.
    """

    size: tuple[int, int] | None = None
    objectives: tuple[str, ...] = ("simclr",)
    layers: tuple[int, ...] | None = None
    copies: Copies = field(default_factory=Copies)
    features: tuple[str, ...] | None = None
    voting: Voting = field(default_factory=Voting)
    sampling: Sampling = field(default_factory=Sampling)
    projection: str = "tensorsketch"
    dim: int | None = None
    pca: int | None = None
    fractions: tuple[Fraction, ...] = (Fraction(1),)
    seeds: int = 1
    seed: int = 0
    ignore: tuple[int, ...] | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.objectives if name not in NAMES]:
            raise RecipeError(f"no objective {unknown[0]!r} over tokens; known: {', '.join(NAMES)}, or none")
        if len(set(self.objectives)) < len(self.objectives):
            raise RecipeError(f"objectives {','.join(self.objectives)}; one is there twice: leave it out")
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise RecipeError(f"fractions {', '.join(map(str, self.fractions))}; expected numbers above 0, up to 1")
        if len(set(self.fractions)) < len(self.fractions):
            raise RecipeError(f"fractions {', '.join(map(str, self.fractions))}; one is there twice")
        self.kinds()

    def kinds(self) -> list[Kind]:
        """The rows of the table; the plain embedding, which others are compared with, is the first."""
        kinds = [
            Kind(prefix + name, self._reduced(candidate.combination), name in WITH_GRADIENTS, bool(prefix))
            for prefix in ("", *([COPIES] if self.copies != Copies() else []))
            for name, candidate in TABLE.items()
            if self.objectives or name not in WITH_GRADIENTS
        ]
        if self.features is None:
            return kinds
        known = {_bare(kind.name): kind for kind in kinds}
        unknown = [name for name in self.features if _bare(name) not in known]
        if unknown:
            names = ", ".join(kind.name for kind in kinds)
            raise RecipeError(f"no features {unknown[0]!r}; there are: {names}{self._missing(unknown[0])}")
        wanted = {_bare(EMBEDDING), *map(_bare, self.features)}
        return [kind for name, kind in known.items() if name in wanted]

    def _reduced(self, joined: Combination) -> Combination:
        """Reduce a combination by PCA; the embedding, which others are compared with, stays as the network gives it."""
        return joined if joined == TABLE[EMBEDDING].combination else replace(joined, size=self.pca)

    def _missing(self, name: str) -> str:
        if _bare(name).startswith(_bare(COPIES)) and self.copies == Copies():
            return "; for copies, say which: --shifts 2, --flip or --scales 1,1.5"
        if _bare(name) in map(_bare, WITH_GRADIENTS):
            return "; gradients need --objectives"
        return ""

    def runs(self) -> list[Run]:
        return [Run(fraction, self.seed + number) for fraction in self.fractions for number in range(self.seeds)]

    def dense(self, backbone: Backbone, copies: bool) -> Dense:
        """Settings of the blocks for the kinds with, or without, copies."""
        kinds = [kind for kind in self.kinds() if kind.copies == copies]
        return Dense(
            objectives=[NAMES[name]() for name in self.objectives] if any(kind.gradients for kind in kinds) else (),
            layers=self.layers_of(backbone) if any(LAYERS in kind.name for kind in kinds) else (),
            copies=self.copies if copies else Copies(),
            size=self.size,
        )

    def layers_of(self, backbone: Backbone) -> tuple[int, ...]:
        """Numbers of the blocks whose tokens are kept."""
        if self.layers is not None:
            return self.layers
        if not backbone.depth:
            raise RecipeError(f"no list of blocks was found in {backbone.name}; leave layers out: --features paper")
        return middle_layers(backbone.depth)

    def recipe(self, backbone: Backbone, seed: int, copies: bool, dtype: str) -> Recipe:
        return Recipe(
            objectives=(),
            projection=self.projection,
            dim=self.dim,
            dtype=dtype,
            seed=seed,
            dense=self.dense(backbone, copies),
        )

    def check(self, backbone: Backbone) -> None:
        """Raise RecipeError for blocks that the backbone does not have, and for a size that it cannot take."""
        depth = backbone.depth
        if wrong := [layer for layer in self.layers or () if not 1 <= abs(layer) <= depth]:
            raise RecipeError(f"--layers: block {wrong[0]}, but {backbone.name} has {depth}: 1 to {depth}, -1 the last")
        if self.size is None:
            return
        try:
            backbone.grid_shape(*self.size)
        except BackboneError as error:
            raise RecipeError(f"--size {self.size[0]}x{self.size[1]}: {error}") from None

    def classes_of(
        self, scenes: Scenes, ignore: tuple[int, ...], names: Sequence[str] | None, limits: Limits = Limits()
    ) -> int:
        """The number of classes C that masks hold or that have a name: test images may have classes of no mask here.

        Raises SourceError, also where the greatest label has no name, but others have one.
        """
        if self.classes is not None:
            return self.classes
        named = [label for label, name in enumerate(names or ()) if label not in ignore and name]
        greatest = find_classes(scenes, ignore, limits) - 1
        if named and greatest not in named:
            void = ",".join(map(str, (*(self.ignore or ()), greatest)))
            raise SourceError(
                f"the masks of TRAIN hold the value {greatest}, but value {greatest} has no name: name it, or give "
                f"--ignore {void} if it is void, or --classes {greatest + 1} if it is a class without a name"
            )
        return max(greatest, *named) + 1 if named else greatest + 1

    def ignored(self, names: Sequence[str] | None) -> tuple[int, ...]:
        """The labels that are void. Raises RecipeError where a name says so, and no option says what to do with it."""
        if self.ignore is not None:
            return self.ignore
        void = [label for label, name in enumerate(names or ()) if name.strip().lower() in VOID_NAMES]
        if void and names:
            raise RecipeError(
                f"class {void[0]} of the masks is called {names[void[0]]!r}: is it to be left out (--ignore "
                f"{','.join(map(str, void))}), or is it a class like others (--ignore none)?"
            )
        return (255,)

    def passes(self, kind: Kind) -> str:
        """The passes over an image; a backward pass goes through the end of the network only."""
        passes = self.copies.passes if kind.copies else 1
        backward = f" + {passes * len(self.objectives):g} backward" if kind.gradients else ""
        return f"{passes:g}{backward}"

    def to_json(self) -> dict[str, Any]:
        """The plan without its runs, which decide no number."""
        return {
            "size": to_json(self.size),
            "objectives": [to_json(NAMES[name]()) for name in self.objectives],
            "copies": to_json(self.copies),
            "kinds": {kind.name: to_json(kind.combination) for kind in self.kinds()},
            "neighbours": self.voting.neighbours,
            "temperature": self.voting.temperature,
            "index": self.voting.index_name,
            "bank": self.sampling.patches,
            "bank_dtype": self.voting.dtype,
            "sampling": self.sampling.balance,
            "epochs": self.sampling.epochs,
            "projection": self.projection,
            "dim": self.dim,
        }


def _bare(name: str) -> str:
    """A name without blanks: `layers+gradients` will do."""
    return "".join(name.split())
