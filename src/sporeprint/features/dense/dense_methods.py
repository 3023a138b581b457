"""These methods of a Fungi give a feature for every patch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sporeprint.errors import RowFailure
from sporeprint.features.batches import as_rows
from sporeprint.features.dense.dense_features import DenseFeatures, together
from sporeprint.features.engine import Engine
from sporeprint.features.progress import shown, silent
from sporeprint.features.recipe import Recipe

_T = TypeVar("_T", bound="DenseMethods")


class DenseMethods:
    """DenseMethods extends `Fungi`, whose engine, recipe and settings it uses."""

    batch_size: int
    workers: int
    max_failures: float
    _failures: list[RowFailure]
    progress: bool | None
    _recipe: Callable[[], Recipe]

    def fit_dense(self: _T, images: Any, ids: Sequence[str] | None = None) -> _T:
        """Draw the support among the images' patches and fit the combination of a patch's blocks; see `Recipe.dense`.

        Raises TooManyFailures, RecipeError, BackboneError.
        """
        with self._shown_patches() as patches:
            patches.fit(as_rows(images, ids, self.engine.backbone.preprocess))
        return self

    def dense(self, images: Any, ids: Sequence[str] | None = None) -> Any:
        """Return a feature for every patch: float32 [N, H, W, D], D = 2E with the paper's settings.

        Images whose grids differ (with Dense(size=None)) give a list of [H, W, D]. An image that cannot be read is NaN
        (None in such a list), with a warning, and is named in `failures`. `patches.maps` yields one image at a time.
        Raises NotFitted before `fit_dense`, TooManyFailures.
        """
        with self._shown_patches() as patches:
            rows = as_rows(images, ids, self.engine.backbone.preprocess)
            maps = [features for _, features in patches.maps(rows)]
        return together(maps, self._failures)

    @contextmanager
    def _shown_patches(self) -> Iterator[DenseFeatures]:
        """Give the patches, whose progress is shown meanwhile, and whose failures are this Fungi's afterwards."""
        patches = self.patches
        try:
            with shown(self.progress) as patches.progress:
                yield patches
        finally:
            patches.progress, self._failures = silent, patches.failures

    @property
    def fitted_dense(self) -> bool:
        """Whether `fit_dense` was called with this recipe, backbone and device."""
        projections = self.engine.projections  # made again, or the patches forgotten, where the recipe changed
        return getattr(self, "_patches_of", None) is projections and self._patches.combiner is not None

    @property
    def patches(self) -> DenseFeatures:
        """The `DenseFeatures` of this recipe, backbone and device, made once."""
        engine = self.engine
        if getattr(self, "_patches_of", None) is not engine.projections:  # which a new fit keeps
            self._patches, self._patches_of = DenseFeatures.of(self._recipe(), engine), engine.projections
        self._patches.batch_size, self._patches.workers = self.batch_size, self.workers
        self._patches.max_failures, self._patches.limits = self.max_failures, engine.limits
        return self._patches

    @property
    def engine(self) -> Engine:
        raise NotImplementedError
