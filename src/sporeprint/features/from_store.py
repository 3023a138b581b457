"""A store holds what a Fungi was fitted with, and the rows on which a combination is fitted."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sporeprint.errors import RecipeError, StoreError
from sporeprint.features import saved
from sporeprint.features.combine import Combination
from sporeprint.features.recipe import Recipe
from sporeprint.store.reader import Store
from sporeprint.store.shards import manifest_path, plan_path
from sporeprint.values import from_json, parse_json


def read_state(folder: str | Path) -> Callable[[str], bytes]:
    """Return a reader of the fitted state in a store, or in a folder that `Fungi.save` wrote."""
    if (Path(folder) / saved.JSON_NAME).exists():
        return saved.read_folder(folder)
    return Store.open(folder).read_state


def stored_rows(folder: str | Path) -> Store | None:
    """Return the store in a folder; None where `Fungi.save` wrote it, or nobody did."""
    return Store.open(folder) if is_store(folder) and not (Path(folder) / saved.JSON_NAME).exists() else None


def is_store(folder: str | Path) -> bool:
    """Return whether a folder is a store, whole or not."""
    return plan_path(Path(folder)).exists() or manifest_path(Path(folder)).exists()


def check_network(recipe: Recipe, resolved: Mapping[str, Any], where: str, give: str) -> None:
    """Raise RecipeError where the network was the user's own, which no file holds. give: how it is given."""
    if recipe.backbone is None:
        name = resolved["backbone"]["name"]
        raise RecipeError(f"{where} was fitted on a network of your own ({name}), which is not stored: {give}")


def combination_of(choice: Any, store: Store) -> Any:
    """Return what `recombine` takes for the combination that `Fungi.load` was asked for. Raises RecipeError."""
    if callable(choice) and not isinstance(choice, type):
        if store.labels is None:
            raise RecipeError(f"'{store.folder}' has no labels to choose by; give combination='decorrelated', or none")
        choice = choice(store.blocks(), store.labels)
    if isinstance(choice, os.PathLike) or (isinstance(choice, str) and choice.endswith(".json")):
        return _compared(Path(choice))
    if choice == "loo":
        raise RecipeError("combination='loo': give combination=select, of `from sporeprint import select`")
    return choice


def _compared(path: Path) -> Combination:
    """Return the combination that a comparison, written by `compare --report` or `--json`, recommends."""
    try:
        comparison = parse_json(path.read_bytes())
        (entry,) = (entry for entry in comparison["entries"] if entry["name"] == comparison["chosen"])
        return from_json(entry["combination"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"'{path}' cannot be read as a comparison ({error}); expected comparison.json, which `sporeprint compare "
            "--report FOLDER` writes"
        ) from None
