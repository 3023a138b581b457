"""Segmentation by retrieval for library users: fit on a few images with masks, predict label maps of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sporeprint.data.columns import as_list
from sporeprint.data.scenes.scenes import Scene, find_classes
from sporeprint.errors import NotFitted, RecipeError, RowFailure, SampleError
from sporeprint.features.batches import as_rows, known_modality
from sporeprint.features.combine import named
from sporeprint.features.dense.dense_features import DenseFeatures
from sporeprint.features.dense.support import least
from sporeprint.features.failures import Failures
from sporeprint.features.fungi import Fungi
from sporeprint.search.indexes import Choice
from sporeprint.segment.bank import refuse_finished, remove_bank
from sporeprint.segment.labeller import Chosen, Labeller, Voting
from sporeprint.segment.patches import void_labels
from sporeprint.segment.training import Group, Sampling, Truth, batched, fill, read_ahead, survey
from sporeprint.segment.vote import NEIGHBOURS, TEMPERATURE
from sporeprint.values import check_count


class Segmenter:
    """A segmenter labels images by the most similar patches of training images (Hummingbird); nothing is trained.

    fungi: makes the features, as its recipe's `dense` says; its batch_size, workers and max_failures are used.
    classes: C; labels are 0 to C - 1; by default one more than the greatest label. ignore: labels that are void.
    bank: patches that are kept, of all training images together. neighbours, temperature: of the vote, or "auto":
    chosen on the training images, each labelled by the others; then see `chosen`. index: "exact", "ivf", "hnsw", ...,
    or one of your own (see `make_index`). sampling: "balanced" (patches of rare classes first) or "uniform". epochs:
    above 1, crops of the training images too. folder: where the bank is written, and read without RAM; default RAM. A
    second `fit` replaces the bank that the first wrote; any other bank in the folder is refused before an image is
    read. Raises RecipeError.

    Examples
    --------
    >>> import numpy as np
    >>> from sporeprint import Dense, Fungi, Recipe, Segmenter
    >>> mask = np.repeat([[0] * 16 + [1] * 16], 32, axis=0)  # the left half is 0, the right half 1
    >>> images = [np.stack([200 * mask + shade] * 3, axis=-1).astype(np.uint8) for shade in (0, 20, 40)]
    >>> fungi = Fungi(Recipe(backbone="tiny", dense=Dense(size=32)))
    >>> segmenter = Segmenter(fungi, neighbours=3).fit(images[:2], [mask, mask])
    >>> (label_map,) = segmenter.predict(images[2:])
    >>> label_map.shape, label_map.dtype, bool((label_map == mask).mean() > 0.8)
    ((32, 32), dtype('int32'), True)
    """

    def __init__(
        self,
        fungi: Fungi,
        classes: int | None = None,
        ignore: int | Sequence[int] = (255,),
        bank: int = 102_400,
        neighbours: int | str = NEIGHBOURS,
        temperature: float | str = TEMPERATURE,
        index: Choice = "exact",
        sampling: str = "balanced",
        epochs: int = 1,
        folder: str | Path | None = None,
    ):
        if not isinstance(fungi, Fungi):
            raise RecipeError(f"fungi is a {type(fungi).__name__}; expected Fungi(Recipe(backbone=..., dense=...))")
        if classes is not None:
            check_count("classes", classes)
        self.fungi, self.classes, self.ignore = fungi, classes, void_labels(ignore)
        self.voting = Voting(neighbours, temperature, index)
        seed = fungi._recipe().seed
        self.sampling = Sampling(bank, sampling, epochs, seed)
        self.folder = None if folder is None else Path(folder)
        self.failures: list[RowFailure] = []
        self._group: Group | None = None
        self._written: bytes | None = None  # the manifest of the bank in `folder`

    def fit(self, images: Any, masks: Any, ids: Sequence[str] | None = None) -> Segmenter:
        """Fit features on images with masks, and fill the bank.

        images: as `Fungi` takes them. masks: one each: arrays of whole numbers [height, width], paths, encoded
        bytes or PIL images, of the image's size. ids: one string each, default their numbers.

        Features are fitted on these images for this segmenter alone. `failures` names images or masks that cannot be
        read. Where it fails, what was fitted before stays, unless its bank in `folder` had to make room: then nothing
        is fitted. Raises TooManyFailures, SampleError, RecipeError; StoreError for a folder that cannot be used.
        """
        if self.folder is not None and not self._own_bank(self.folder):
            refuse_finished(self.folder)
        inputs = self.fungi.network.preprocess
        images, masks = as_list(images, modality=known_modality(inputs)), as_list(masks, "masks")
        if len(images) != len(masks):
            raise SampleError(f"{len(images)} images, {len(masks)} masks; expected one mask an image")
        names = [str(number) for number in range(len(images))] if ids is None else as_list(ids, "ids")
        if len(set(names)) < len(names):
            raise SampleError("two images have one id; expected an id of its own for each")
        rows = as_rows(images, names, inputs)
        scenes = [Scene(row_id, image, mask) for (row_id, image), mask in zip(rows, masks, strict=True)]
        classes = self.classes or find_classes(scenes, self.ignore, self.fungi._limits())
        truth, seed = Truth(classes, self.ignore), self.sampling.seed
        size, workers, most = self.fungi.batch_size, self.fungi.workers, self.fungi.max_failures
        # Its own features: another segmenter, or fit_dense, would fit those of the Fungi again.
        settings = {"batch_size": size, "workers": workers, "max_failures": most, "limits": self.fungi._limits()}
        patches = DenseFeatures.of(self.fungi._recipe(), self.fungi.engine, **settings)
        surveyed = survey(scenes, patches, truth, (most, len(scenes)))
        drawn = least(seed, surveyed.counts, len(surveyed.counts))
        fitting = set(drawn[: patches.engine.settings.fit_images])
        combination = named(patches.engine.settings.combination, patches.recipe.size)
        blocks = patches.fit([("", scene.image) for scene in scenes if scene.id in fitting])
        if self.folder is not None and self._own_bank(self.folder):
            self._group = self._written = None  # nothing may map the files that go
            remove_bank(self.folder)
        labeller = Labeller(
            combination.fit(blocks), classes, self.sampling.patches, self.voting, self.folder, seed=seed
        )
        try:
            group = Group(patches, {"features": labeller})
            failed = fill([group], scenes, drawn, truth, surveyed.counts, self.sampling, size, workers)
            failures = Failures(most, len(scenes), surveyed.failures)
            self.failures = failures.rows
            failures.extend(failed)
        except BaseException:  # whoever keeps it keeps the labeller too, whose files would stay locked
            labeller.abandon()
            labeller.bank = None
            if self.folder is not None:
                remove_bank(self.folder)
            raise
        if self.folder is not None:
            self._written = (self.folder / "manifest.json").read_bytes()
        self._group = group
        return self

    @property
    def chosen(self) -> Chosen:
        """The neighbours and temperature in use, and the score that they were chosen by. Raises NotFitted."""
        chosen = self._labeller().chosen
        assert chosen is not None
        return chosen

    def predict(self, images: Any) -> list[NDArray[np.int32] | None]:
        """A label map [height, width] for each image, of its own size; None for one that cannot be read.

        Such images are named in `failures`. Raises NotFitted before `fit`, TooManyFailures.
        """
        labeller, group = self._labeller(), self._group
        assert group is not None
        rows = as_rows(images, None, self.fungi.network.preprocess)
        failures = Failures(self.fungi.max_failures, len(rows))
        self.failures = failures.rows
        scenes = [Scene(str(number), image) for number, (_, image) in enumerate(rows)]
        label_maps: list[NDArray[np.int32] | None] = []
        for batch in batched(read_ahead(scenes, None, self.fungi.workers, self.fungi._limits()), self.fungi.batch_size):
            good = [read[0] for _, read in batch if not isinstance(read, SampleError)]
            maps = iter(group.maps(good, [group.content(image) for image in good]))
            for scene, read in batch:
                try:
                    if isinstance(read, SampleError):
                        raise read
                    if isinstance(blocks := next(maps), SampleError):
                        raise blocks
                    label_maps.append(labeller.labels(blocks, (read[0].height, read[0].width)))
                except SampleError as error:
                    label_maps.append(None)
                    failures.add(scene.id, error)
        return label_maps

    def _own_bank(self, folder: Path) -> bool:
        """Whether the bank in the folder is that of the last `fit`, which a second one may replace."""
        path = folder / "manifest.json"
        return self._written is not None and path.exists() and path.read_bytes() == self._written

    def _labeller(self) -> Labeller:
        if self._group is None:
            raise NotFitted("predict before fit: call fit(images, masks) first")
        return self._group.labellers["features"]
