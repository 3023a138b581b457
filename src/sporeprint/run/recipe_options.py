"""Make a recipe from the command line's options."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sporeprint.backbones.libraries.huggingface import find_modality
from sporeprint.data.encodings import read_utf8
from sporeprint.errors import RecipeError
from sporeprint.features import saved
from sporeprint.features.from_store import read_state
from sporeprint.features.recipe import Recipe
from sporeprint.objectives import NAMES, settle
from sporeprint.run.early_checks import check_recipe_words
from sporeprint.store.reader import Store
from sporeprint.values import parse_json


def make_recipe(
    file: Path | None,
    bare: bool,
    negatives: int | None = None,
    preset: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Recipe | None:
    """Make a recipe from a file or options; None where neither is given and `bare` is false (the fit brings its own).

    Raises RecipeError for both at once, for unknown objectives, for negatives that nothing uses, where no backbone is
    named, and for a preset next to an option that it decides.
    """
    given = {key: value for key, value in {"preset": preset, **options}.items() if value is not None}
    check_recipe_words(file, bare, {**given, **({} if negatives is None else {"negatives": negatives})})
    if file is not None:
        return read_recipe(file)
    if not bare:
        return None
    for name in ("targets", "layer_kinds"):
        if name in given:
            given[name] = [word.strip() for word in given[name].split(",")]
    if given.pop("preset", None) is not None:
        return Recipe.preset(str(preset), **given)
    if "objectives" in given:
        given["objectives"] = _objectives(given["objectives"], negatives)
    return Recipe(**given)


def _objectives(words: str, negatives: int | None) -> list[Any]:
    """Make the objectives that are named, with this number of negatives. Raises RecipeError."""
    names = [name.strip() for name in words.split(",")]
    if unknown := [name for name in names if name not in NAMES and names != ["none"]]:
        raise RecipeError(f"no objective {unknown[0]!r}; known: {', '.join(NAMES)}, or none")
    chosen = [] if names == ["none"] else [NAMES[name]() for name in names]
    if negatives is None:
        return chosen
    if not any(objective.negatives != 0 for objective in chosen):
        raise RecipeError(f"--negatives {negatives}, but none of --objectives {words} uses any; leave it out")
    return [replace(objective, negatives=negatives) if objective.negatives != 0 else objective for objective in chosen]


def source_modality(
    recipe: Recipe | None, fit_from: Path | None, backbone: str | None, trust_remote_code: bool = False
) -> str:
    """Return the kind of a source's rows, by the backbone that will take them: "image", "text" or "audio".

    Raises RecipeError for objectives that are not for it, before any weight is loaded; BackboneError.
    """
    if fit_from is not None:
        body, _ = saved.unpack_parts(read_state(fit_from), str(fit_from))
        return str(body["resolved"]["backbone"].get("modality", "image"))
    assert recipe is not None
    name = backbone or recipe.backbone
    if name is None:
        raise RecipeError(
            'the recipe names no backbone; write "backbone" into it: a Hugging Face id or folder, timm:NAME, or tiny'
        )
    modality = find_modality(name, recipe.modality, trust_remote_code)
    settle(recipe.objectives, modality)
    return modality


def fitted_columns(fit_from: Path | None) -> dict[str, str | None]:
    """Return the columns of the table that a store was made from; {} where it was made from anything else."""
    if fit_from is None or (fit_from / saved.JSON_NAME).exists():
        return {}
    source = Store.open(fit_from).plan["source"]
    return {} if source["kind"] in ("folder", "list") else dict(source.get("columns", {}))  # a folder's are not names


def read_recipe(file: Path) -> Recipe:
    """Read a recipe from JSON as `Recipe.to_json` gives it; fields that are left out take their defaults."""
    try:
        data = parse_json(read_utf8(file))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{file} holds a {type(data).__name__}; expected an object with: {_field_names()}")
    return Recipe.from_json(data)


def _field_names() -> str:
    return ", ".join(field.name for field in fields(Recipe))
