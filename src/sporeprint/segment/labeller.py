"""A labeller: one kind of patch features with its memory bank, from training patches to label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sporeprint.errors import NotFitted, RecipeError, SampleError, StoreError, warn
from sporeprint.evaluate.segmentation import confusion, segmentation
from sporeprint.features.combine import Combiner
from sporeprint.search.base import Index
from sporeprint.search.indexes import Choice, check_choice_of_index, make_index
from sporeprint.segment.bank import BankWriter, MemoryBank
from sporeprint.segment.patches import check_patches, unit_rows
from sporeprint.segment.vote import NEIGHBOURS, TEMPERATURE, upsample, vote
from sporeprint.values import is_count, is_positive

AUTO = "auto"
GRID_NEIGHBOURS, GRID_TEMPERATURES = (NEIGHBOURS, 10, 90), (TEMPERATURE, 0.01, 0.04, 0.07, 0.1)  # defaults win ties
# Images that "auto" chooses by, patches of each, and pixels of each that what was chosen is judged by.
ASKED_IMAGES, ASKED_PATCHES, ASKED_PIXELS = 32, 64, 256

Maps = dict[str, NDArray[np.float32]]
Judged = tuple[NDArray[np.int64], NDArray[np.int64]]  # of pixels: the patch that each lies in, and its label
Asked = tuple[int, NDArray[np.float32], NDArray[np.int64]]  # of patches of one image: its number, features, labels


@dataclass(frozen=True)
class Voting:
    """Settings of a bank and of its vote.

    neighbours, temperature: numbers, or "auto" (leave-one-image-out on the training images). index: see `make_index`.
    dtype: of the bank on disk.
    """

    neighbours: int | str = NEIGHBOURS
    temperature: float | str = TEMPERATURE
    index: Choice = "exact"
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.neighbours != AUTO and not is_count(self.neighbours):
            raise RecipeError(f"neighbours={self.neighbours!r}; expected an integer of at least 1, or 'auto'")
        if self.temperature != AUTO and not is_positive(self.temperature):
            raise RecipeError(f"temperature={self.temperature!r}; expected a number above 0, such as 0.02, or 'auto'")
        check_choice_of_index(self.index)
        if self.dtype not in ("float16", "float32"):
            raise RecipeError(f"a bank's dtype is float16 or float32, not {self.dtype!r}")

    @property
    def index_name(self) -> str:
        """The index in words: its name, or that of the class or function that makes it."""
        return self.index if isinstance(self.index, str) else getattr(self.index, "__qualname__", repr(self.index))

    @property
    def auto(self) -> bool:
        return AUTO in (self.neighbours, self.temperature)


@dataclass(frozen=True)
class Chosen:
    """The neighbours and the temperature that a bank votes with.

    score: mIoU over `pixels` pixels of training images, each labelled by the other images' patches, by which kinds of
    features are compared, whatever their grids; None where nothing was chosen.
    """

    neighbours: int
    temperature: float
    score: float | None = None
    pixels: int = 0


class _Rows:
    """Rows [R, width], at most `most`, come in parts into one array that grows by half, never a copy of the whole."""

    def __init__(self, width: int, most: int) -> None:
        self.most, self.count = most, 0
        self._rows = np.empty((min(most, 1024), width), np.float32)

    def add(self, rows: NDArray[np.float32]) -> None:
        end = self.count + len(rows)
        if end > len(self._rows):
            self._resize(min(self.most, max(end, len(self._rows) * 3 // 2)))
        self._rows[self.count : end] = rows
        self.count = end

    def all(self) -> NDArray[np.float32]:
        """The array itself; call it last."""
        self._resize(self.count)
        return self._rows

    def _resize(self, count: int) -> None:
        self._rows.resize((count, self._rows.shape[1]), refcheck=False)  # nobody else has it before `all`


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
        self._kept: tuple[_Rows, _Rows] | None = None  # features and histograms of a bank in RAM
        self._owners: list[NDArray[np.int64]] = []
        self._asked: list[Asked] = []
        self._judged: list[Asked] = []
        self._numbers: dict[str, int] = {}  # of images
        if self.folder is not None:
            about = {"features": self.combiner.describe()}
            self._writer = BankWriter(
                self.folder, self.width, self.classes, self.capacity, self.voting.dtype, self.names, about
            )
        else:
            self._kept = _Rows(self.width, self.capacity), _Rows(self.classes, self.capacity)

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
        judged: Judged | None = None,
    ) -> None:
        """Add patches of one image, with blocks [H, W, D] and histograms [H, W, C], to the bank.

        positions: of these patches, in H * W. asked: patches that "auto" neighbours and temperature are chosen by.
        judged: pixels that kinds of features are compared by, whatever their grids. Raises SampleError, and then adds
        nothing.
        """
        owner = self._numbers.setdefault(image_id, len(self._numbers))
        flat = histograms.reshape(-1, self.classes)
        if len(positions):
            features, kept = self._features(maps, positions), flat[positions]
            if self._writer is not None:
                places = np.stack(np.unravel_index(positions, histograms.shape[:2]), axis=1)
                self._writer.add(features, kept, image_id, places)
            elif self._kept is not None:
                parts = check_patches(features, kept, self.width, self.classes)
                if len(self) + len(positions) > self.capacity:
                    raise SampleError(
                        f"{len(positions)} patches more would make {len(self) + len(positions)}; "
                        f"the bank takes {self.capacity}: add fewer of each image"
                    )
                for rows, part in zip(self._kept, parts, strict=True):
                    rows.add(part)
            else:
                raise StoreError("this bank is finished or abandoned; make another Labeller")
            self._owners.append(np.full(len(positions), owner))
        if asked is not None and len(asked):
            self._asked.append((owner, self._features(maps, asked), flat[asked].argmax(axis=1)))
        if judged is not None and len(judged[0]):
            self._judged.append((owner, self._features(maps, judged[0]), judged[1]))

    def close(self) -> None:
        """Finish the bank, make its index, choose settings that are "auto". Raises SampleError for an empty bank."""
        if not len(self):
            raise SampleError(
                "no training patch has a label, so the bank is empty; look at the masks, and at which values are void"
            )
        if self._writer is not None and self.folder is not None:
            self._writer.close()
            self._writer, self.bank = None, MemoryBank.open(self.folder, verify=False)  # written just now
        elif self._kept is not None:
            features, histograms = (rows.all() for rows in self._kept)
            names = None if self.names is None else tuple(self.names)
            self._kept, self.bank = None, MemoryBank(features, histograms, names)
        else:
            raise StoreError("this bank is finished or abandoned; make another Labeller")
        self._index = make_index(self.voting.index, self.bank.features, self.seed)
        self.chosen = self._choose()
        self._asked, self._judged, self._owners = [], [], [np.concatenate(self._owners)]

    def abandon(self) -> None:
        """Leave a bank on disk unfinished, and its files closed. One that is finished stays whole."""
        self._kept = None
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
        probabilities = bank.predict(features, chosen.neighbours, chosen.temperature, self._index)
        return upsample(probabilities.reshape(*grid, -1), size)

    def _features(self, maps: Maps, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        flat = {name: maps[name].reshape(-1, maps[name].shape[-1])[positions] for name in self.combiner.names}
        return self.combiner.transform(flat)

    def _choose(self) -> Chosen:
        voting = self.voting
        neighbours = GRID_NEIGHBOURS if voting.neighbours == AUTO else (int(voting.neighbours),)
        temperatures = GRID_TEMPERATURES if voting.temperature == AUTO else (float(voting.temperature),)
        grid = [Chosen(k, temperature) for k in neighbours for temperature in temperatures]
        if not voting.auto:
            return grid[0]
        if not self._asked or len(np.unique(np.concatenate(self._owners))) < 2:
            warn(
                f"'auto' needs two training images, each to be labelled by the other; {grid[0].neighbours} neighbours "
                f"and temperature {grid[0].temperature} are taken"
            )
            return grid[0]
        best = grid[int(np.argmax(self._scores(grid, self._asked)))]
        score = self._scores([best], self._judged)[0] if self._judged else None
        return replace(best, score=score, pixels=sum(len(labels) for _, _, labels in self._judged))

    def _scores(self, grid: Sequence[Chosen], asked: Sequence[Asked]) -> list[float]:
        """mIoU of each setting of the grid over patches of some images, each labelled by those of the other images."""
        truth = np.concatenate([labels for _, _, labels in asked])
        answers = np.concatenate([self._answers(grid, owner, features) for owner, features, _ in asked])  # [Q, S]
        columns = answers.T.astype(np.int64)
        return [segmentation([confusion(truth[None], column[None], self.classes)]).value for column in columns]

    def _answers(self, grid: Sequence[Chosen], owner: int, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Labels [Q, S] of patches of one image, by the patches of the others, with each of S settings."""
        assert self.bank is not None
        assert self._index is not None
        owners = np.concatenate(self._owners)
        most = max(setting.neighbours for setting in grid)
        own = owners == owner
        similarities, positions = self._index.search(unit_rows(features), most + int(own.sum()))
        order = np.argsort(own[positions], axis=1, kind="stable")  # those of other images first, nearest first
        others = int((~own).sum())
        answers = []
        for setting in grid:
            nearest = order[:, : min(setting.neighbours, others)]
            histograms = self.bank.histograms[np.take_along_axis(positions, nearest, 1)]
            shares = vote(np.take_along_axis(similarities, nearest, 1), histograms, setting.temperature)
            answers.append(shares.argmax(axis=1))
        return np.stack(answers, axis=1)
