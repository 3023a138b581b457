"""The exceptions that a user can meet. Every message says what was seen, what was expected and what to do."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


class SporeprintError(Exception):
    """The base of every error that sporeprint raises on purpose."""


class RecipeError(SporeprintError, ValueError):
    """A recipe, objective or combination that cannot be carried out."""


class Removed(RecipeError):
    """A recipe names something that this version does not have any more."""


class LayerError(SporeprintError, ValueError):
    """The target layer is absent, or is not a linear layer."""


class BackboneError(SporeprintError, ValueError):
    """A network that cannot be loaded, or whose output cannot be read as an embedding."""


class SampleError(SporeprintError, ValueError):
    """One sample that cannot be read; it costs its own row only."""


class SourceError(SporeprintError, ValueError):
    """A folder or table that cannot be understood as rows."""


class StoreError(SporeprintError, RuntimeError):
    """A store that cannot be used."""


class DamagedStore(StoreError):
    """A file on disk is missing or is not what was written."""


class StoreMismatch(StoreError):
    """A store was made with another recipe, other weights or other data. plans: the store's, and this run's."""

    def __init__(self, message: str, plans: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None):
        super().__init__(message)
        self.plans = plans


class MissingExtra(SporeprintError, ImportError):
    """An optional package is needed; the message gives the install line."""


def __getattr__(name: str) -> Any:
    # scikit-learn takes seconds to import: NotFitted is made when it is first used.
    if name != "NotFitted":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sklearn.exceptions import NotFittedError

    class NotFitted(SporeprintError, RuntimeError, NotFittedError):
        """`fit` (or `--fit-from`) has to come first."""

        __qualname__ = "NotFitted"

    return globals().setdefault("NotFitted", NotFitted)


class SporeprintWarning(UserWarning):
    """Something that a user should know, and that did not stop the work."""


_LIBRARIES = ("sporeprint", "sklearn", "joblib", "torch", "contextlib", "functools", "concurrent", "threading")


def warn(message: str) -> None:
    """Warn of something at the line of the user's code, however deep in ours it is noticed."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, SporeprintWarning, stacklevel=level)


@dataclass(frozen=True)
class RowFailure:
    """One row that could not be read, and why."""

    id: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return it as plain JSON types."""
        return asdict(self)


class TooManyFailures(SporeprintError, ValueError, RuntimeError):
    """More rows failed than the run allows. `failures` names them."""

    def __init__(self, message: str, failures: Sequence[RowFailure] = ()):
        super().__init__(message)
        self.failures = list(failures)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: torch's CPU allocator and CUDA's libraries have no class for it, or renamed it."""
    words = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")  # the last: cuBLAS, cuDNN
    matched = any(sign in words for sign in signs)
    return isinstance(error, MemoryError) or matched


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
