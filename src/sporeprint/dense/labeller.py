"""One kind of patch features with its memory bank: training patches in, label maps out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.combine import Combiner
from sporeprint.dense.bank import NEIGHBOURS, TEMPERATURE, BankWriter, MemoryBank
from sporeprint.dense.patches import unit_rows
from sporeprint.dense.upsample import upsample
from sporeprint.dense.vote import vote
from sporeprint.errors import NotFitted, RecipeError, SampleError
from sporeprint.evaluate.segmentation import confusion, segmentation
from sporeprint.index.base import INDEXES, Index, make_index

AUTO = "auto"
GRID_NEIGHBOURS, GRID_TEMPERATURES = (NEIGHBOURS, 10, 90), (TEMPERATURE, 0.01, 0.04, 0.07, 0.1)  # defaults win ties
ASKED_IMAGES, ASKED_PATCHES = 32, 64  # images that "auto" chooses by, and patches of each

Maps = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Voting:
    """How a bank is kept and asked. neighbours, temperature: numbers, or "auto" (leave-one-image-out on the training
    images). index: see `make_index`. dtype: of the bank on disk."""

    neighbours: int | str = NEIGHBOURS
    temperature: float | str = TEMPERATURE
    index: str = "exact"
    dtype: str = "float16"

    def __post_init__(self) -> None:
        good = isinstance(self.neighbours, int) and not isinstance(self.neighbours, bool) and self.neighbours >= 1
        if self.neighbours != AUTO and not good:
            raise RecipeError(f"neighbours={self.neighbours!r}; expected an integer of at least 1, or 'auto'")
        good = isinstance(self.temperature, (int, float)) and 0 < self.temperature < float("inf")
        if self.temperature != AUTO and not good:
            raise RecipeError(f"temperature={self.temperature!r}; expected a number above 0, such as 0.02, or 'auto'")
        if self.index not in INDEXES:
            raise RecipeError(f"no index is called {self.index!r}; there are {', '.join(INDEXES)}")
        if self.dtype not in ("float16", "float32"):
            raise RecipeError(f"a bank's dtype is float16 or float32, not {self.dtype!r}")

    @property
    def auto(self) -> bool:
        return AUTO in (self.neighbours, self.temperature)


@dataclass(frozen=True)
class Chosen:
    """What a bank is asked with. score: mIoU over patches of training images, each asked of the other images; None
    where nothing was chosen. patches: so many were asked about."""

    neighbours: int
    temperature: float
    score: float | None = None
    patches: int = 0


@dataclass
class Labeller:
    """`add` training images, `close`, then `labels` of others.

    combiner: makes features of an image's blocks. capacity: the most patches of the bank. folder: where the bank is
    written, to be read from there without RAM; None keeps it in RAM. seed: of the index.
    """

    combiner: Combiner
    classes: int
    capacity: int
    voting: Voting = field(default_factory=Voting)
    folder: Path | None = None
    names: Sequence[str] | None = None
    seed: int = 0
    bank: MemoryBank | None = None
    chosen: Chosen | None = None

    def __post_init__(self) -> None:
        self._index: Index | None = None
        self._writer: BankWriter | None = None
        self._kept: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []  # of a bank in RAM
        self._owners: list[NDArray[np.int64]] = []
        self._asked: list[tuple[int, NDArray[np.float32], NDArray[np.int64]]] = []  # owner, features, labels
        self._numbers: dict[str, int] = {}  # of images
        if self.folder is not None:
            about = {"features": self.combiner.describe()}
            self._writer = BankWriter(
                self.folder, self.width, self.classes, self.capacity, self.voting.dtype, self.names, about
            )

    @property
    def width(self) -> int:
        """Numbers in a feature."""
        return self.combiner.width

    def __len__(self) -> int:
        return sum(map(len, self._owners))

    def add(
        self,
        maps: Maps,
        histograms: NDArray[np.float32],
        image_id: str,
        positions: NDArray[np.int64],
        asked: NDArray[np.int64] | None = None,
    ) -> None:
        """Patches of one image: its blocks [H, W, D], histograms [H, W, C]; positions, in H * W, are put into the bank.

        asked: patches that "auto" neighbours and temperature are chosen by. Raises SampleError.
        """
        owner = self._numbers.setdefault(image_id, len(self._numbers))
        flat = histograms.reshape(-1, self.classes)
        if len(positions):
            features, kept = self._features(maps, positions), flat[positions]
            if self._writer is not None:
                places = np.stack(np.unravel_index(positions, histograms.shape[:2]), axis=1)
                self._writer.add(features, kept, image_id, places)
            else:
                self._kept.append((features, kept))
            self._owners.append(np.full(len(positions), owner))
        if asked is not None and len(asked):
            self._asked.append((owner, self._features(maps, asked), flat[asked].argmax(axis=1)))

    def close(self) -> None:
        """Finish the bank, make its index, choose what is "auto". Raises SampleError for an empty bank."""
        if not len(self):
            raise SampleError(
                "no training patch has a label, so the bank is empty; look at the masks, and at which values are void"
            )
        if self._writer is not None and self.folder is not None:
            self._writer.close()
            self._writer, self.bank = None, MemoryBank.open(self.folder)
        else:
            features, histograms = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
            self._kept = []
            self.bank = MemoryBank.of(features, histograms, self.names)
        self._index = make_index(self.voting.index, self.bank.features, self.seed)
        self.chosen = self._choose()
        self._asked, self._owners = [], [np.concatenate(self._owners)]

    def abandon(self) -> None:
        """Leave a bank on disk unfinished, and its files closed."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    def labels(self, maps: Maps, size: tuple[int, int]) -> NDArray[np.int32]:
        """Labels int32 [height, width] of an image with the blocks `maps`, at `size` pixels. Raises SampleError."""
        bank, chosen = self.bank, self.chosen
        if bank is None or chosen is None:
            raise NotFitted("labels before the bank is finished: add training images, then close()")
        grid = next(iter(maps.values())).shape[:2]
        features = self._features(maps, np.arange(grid[0] * grid[1]))
        found = bank.predict(features, chosen.neighbours, chosen.temperature, self._index)
        return upsample(found.reshape(*grid, -1), size)

    def _features(self, maps: Maps, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        flat = {name: maps[name].reshape(-1, maps[name].shape[-1])[positions] for name in self.combiner.names}
        return self.combiner.transform(flat)

    def _choose(self) -> Chosen:
        voting = self.voting
        neighbours = GRID_NEIGHBOURS if voting.neighbours == AUTO else (int(voting.neighbours),)
        temperatures = GRID_TEMPERATURES if voting.temperature == AUTO else (float(voting.temperature),)
        grid = [Chosen(k, temperature) for k in neighbours for temperature in temperatures]
        if not voting.auto or not self._asked or len(np.unique(np.concatenate(self._owners))) < 2:
            return grid[0]
        truth = np.concatenate([labels for _, _, labels in self._asked])
        said = np.concatenate([self._asked_with(grid, *asked) for asked in self._asked])  # [Q, ways]
        scores = [
            segmentation([confusion(truth[None], one[None], self.classes)]).value for one in said.T.astype(np.int64)
        ]
        best = int(np.argmax(scores))
        return replace(grid[best], score=scores[best], patches=len(truth))

    def _asked_with(
        self, grid: Sequence[Chosen], owner: int, features: NDArray[np.float32], labels: NDArray[Any]
    ) -> NDArray[np.int64]:
        """Labels [Q, ways] of patches of one image, by the patches of the others."""
        assert self.bank is not None
        assert self._index is not None
        owners = np.concatenate(self._owners)
        most = max(one.neighbours for one in grid)
        own = owners == owner
        similarities, positions = self._index.search(unit_rows(features), most + int(own.sum()))
        order = np.argsort(own[positions], axis=1, kind="stable")  # those of other images first, nearest first
        others = int((~own).sum())
        said = []
        for one in grid:
            nearest = order[:, : min(one.neighbours, others)]
            found = np.take_along_axis(similarities, nearest, 1)
            histograms = self.bank.histograms[np.take_along_axis(positions, nearest, 1)]
            said.append(vote(found, histograms, one.temperature).argmax(axis=1))
        return np.stack(said, axis=1)
