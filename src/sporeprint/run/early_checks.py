"""Mistakes in a command line that are named at once: before torch is imported, and before any work.

Nothing here imports torch. What is written is checked too: nothing that is not ours is replaced.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sporeprint.backbones.names import check_near_name
from sporeprint.errors import RecipeError, SourceError, StoreError
from sporeprint.predictors.pipeline_folder import check_folder
from sporeprint.run.output_folder import (
    LOG,
    RESULT,
    is_of_propagate,
    is_of_segment,
    refuse_among_images,
    refuse_foreign,
)
from sporeprint.run.plan_differences import open_alike
from sporeprint.run.predictions_file import check_suffix, is_predictions
from sporeprint.run.store_pair import block_list, check_block_names
from sporeprint.store.plan import refuse_no_store
from sporeprint.store.reader import Store
from sporeprint.store.shards import manifest_path, plan_path

Words = Mapping[str, Any]
REPORT = ("report.html", "comparison.json")
OBJECTIVES = ("kl", "dino", "simclr", "mlm", "none")
LAYER_KINDS = ("cls", "last", "mean", "max", "attention")
DECIDED = ("objectives", "views", "negatives")  # by a preset
_READ = ("source", "template", "recipe", "ground_truth", "fit_from")
_REPORT_MARKS = (b'<meta name="generator" content="sporeprint">', b"<title>sporeprint compare</title>")  # new and old
_PROMPT_KEYS = {"id", "query", "prompt", "answer"}


def check_words(command: str, words: Words) -> None:
    """Check what was typed. words: values by parameter. Raises RecipeError, SourceError, StoreError."""
    if command == "extract":
        given = {name: words[name] for name in RECIPE_WORDS if words.get(name) is not None}
        if words["fit_from"] is not None:
            given.pop("backbone", None)
        check_recipe_words(words["recipe"], words["fit_from"] is None, given)
    _check_files(command, words)
    _check_lists(words)
    if words.get("backbone") is not None:
        check_backbone_name(words["backbone"])
    _check_stores(words)
    if (share := words.get("abstain")) is not None and not 0 < share < 1:
        raise RecipeError(
            f"--abstain {share:g}; expected the share of sets that may lack the true label: above 0 and "
            "below 1, such as 0.05"
        )
    if isinstance(words.get("k"), str) and command in ("knn", "regress", "analyse", "retrieve"):
        for word in words["k"].split(",") if command in ("knn", "retrieve") else [words["k"]]:
            count_of(word, auto=command != "retrieve")
    try:
        _CHECK_OUTPUT.get(command, lambda _: None)(words)
    except StoreError as error:  # here it is the option that is wrong
        raise RecipeError(f"--out: {error}") from None


RECIPE_WORDS = (
    "backbone", "objectives", "preset", "modality", "targets", "pooling", "projection", "dim", "layers", "layer_kinds",
    "views", "negatives", "dtype", "seed",
)  # fmt: skip


def check_recipe_words(file: Path | None, bare: bool, given: Words) -> None:
    """Raises RecipeError for options of a recipe that exclude one another. bare: no fit brings a recipe."""
    flags = [f"--{name.replace('_', '-')}" for name in given]
    if file is not None and given:
        raise RecipeError(f"--recipe and {flags[0]} were both given; use one of them")
    if file is None and not bare and given:
        raise RecipeError(f"--fit-from brings its own recipe; leave out {flags[0]}")
    if file is None and bare and "backbone" not in given:
        raise RecipeError(
            "no --backbone; give a Hugging Face id or folder, timm:NAME, or tiny (see sporeprint backbones)"
        )
    if "preset" in given and (decided := [name for name in DECIDED if name in given]):
        raise RecipeError(f"--preset {given['preset']} decides on --{decided[0]}; leave one of them out")
    for name in ("views", "negatives"):
        if name in given and not {"preset", "objectives"} & given.keys():
            raise RecipeError(
                f"--{name} {given[name]}, but the default makes no views and uses no negatives; name what does, such "
                "as --objectives kl,dino,simclr, or leave it out"
            )


def check_backbone_name(name: str) -> None:
    """Raises RecipeError for a folder that is not there, and for a name that is nearly "tiny" or "timm:"."""
    if Path(name).expanduser().exists():
        return
    if name.startswith(("/", "./", "../", "~")):
        raise RecipeError(
            f"--backbone: no folder {name!r}; expected a folder with config.json and weights, or a hub id OWNER/NAME"
        )
    check_near_name(name, "--backbone ")


def count_of(word: str, flag: str = "--k", auto: bool = True) -> Any:
    """A positive integer, or "auto" where it may be. Raises RecipeError."""
    word = word.strip()
    if auto and word == "auto":
        return "auto"
    if not word.isdecimal() or int(word) < 1:
        more = " or auto" if auto else ""
        raise RecipeError(f"{flag} {word!r}; expected positive integers{more}, comma-separated")
    return int(word)


def check_report_folder(folder: Path) -> None:
    """Raises RecipeError unless a report can be written into `folder`: an earlier one is replaced, nothing else."""
    if plan_path(folder).exists() or manifest_path(folder).exists():
        raise RecipeError(f"--report '{folder}' is a store, which nothing else is written into; name another folder")
    _check_writable(folder, "--report")
    for name in REPORT:
        if os.path.lexists(folder / name) and not _is_report(folder / name):
            raise RecipeError(
                f"--report '{folder}' holds a {name} that no run of this command wrote, and its own would replace it; "
                "name another folder"
            )


def check_prompts_file(file: Path) -> None:
    """Raises RecipeError unless prompts can be written to `file`: earlier ones are replaced, nothing else."""
    if file.is_dir():
        raise RecipeError(f"--out '{file}' is a folder; give the name of a file, such as {file / 'prompts.jsonl'}")
    _check_writable(file.parent, "--out")
    if os.path.lexists(file) and not _is_prompts(file):
        raise RecipeError(f"--out '{file}' is a file that no run of this command wrote; give another name")


def check_predictions_file(file: Path) -> None:
    """Raises RecipeError unless predictions can be written to `file`: earlier ones are replaced, nothing else."""
    check_suffix(file)
    if file.is_dir():
        raise RecipeError(f"--out '{file}' is a folder; give the name of a file, such as {file / 'predictions.csv'}")
    _check_writable(file.parent, "--out")
    if os.path.lexists(file) and not is_predictions(file):
        raise RecipeError(f"--out '{file}' is a file that no run of this command wrote; give another name")


def _check_files(command: str, words: Words) -> None:
    for name in _READ:
        path = words.get(name)
        if not isinstance(path, Path) or path.exists() or (name == "source" and command not in ("extract", "predict")):
            continue
        if name == "source":
            raise SourceError(
                f"there is no '{path}'; give a folder of files, a table, or a folder that `datasets` saved"
            )
        raise SourceError(f"--{name.replace('_', '-')}: there is no '{path}'")
    for name in ("mask", "scribbles"):
        for path in words.get(name) or ():
            if not path.exists():
                raise SourceError(f"--{name}: there is no '{path}'")


def _check_lists(words: Words) -> None:
    known: dict[str, tuple[str, ...]] = {"layer_kinds": LAYER_KINDS}
    if "preset" in words:
        known["objectives"] = OBJECTIVES
    for name, expected in known.items():
        for word in [] if words.get(name) is None else [word.strip() for word in words[name].split(",")]:
            if word not in expected:
                near = get_close_matches(word, expected, n=1)
                meant = f"; did you mean {near[0]}?" if near else ""
                flag = name.replace("_", "-")
                raise RecipeError(f"--{flag} {word!r}; known: {', '.join(expected)}{meant}")


def _check_stores(words: Words) -> None:
    first, second = (
        next((words[name] for name in names if words.get(name) is not None), None)
        for names in (("train_store", "store", "database_store"), ("test_store", "query_store"))
    )
    given = [store for store in (first, second) if store is not None]
    if not given:
        return
    store = Store.open(given[0]) if len(given) == 1 else open_alike(*given)[0]
    if words.get("features") is not None:
        check_block_names(block_list(words["features"]), store.block_names, str(store.folder))


def _check_store_folder(words: Words) -> None:
    refuse_no_store(words["out"])
    _check_writable(words["out"], "--out")


def _check_segment_folder(words: Words) -> None:
    refuse_among_images(words["out"], "segmented", TRAIN=words["train"], TEST=words["test"])
    refuse_foreign(words["out"], RESULT, is_of_segment)
    _check_writable(words["out"], "--out")


def _check_propagate_folder(words: Words) -> None:
    refuse_among_images(words["out"], "masks", IMAGES=words["images"])
    refuse_foreign(words["out"], LOG, is_of_propagate)
    _check_writable(words["out"], "--out")


def _check_classify_outputs(words: Words) -> None:
    if words["out"] is not None:
        check_predictions_file(words["out"])
    if words["save"] is not None:
        try:
            check_folder(words["save"])
        except StoreError as error:
            raise RecipeError(f"--save: {error}") from None
        _check_writable(words["save"], "--save")


_CHECK_OUTPUT: dict[str, Callable[[Words], None]] = {
    "extract": _check_store_folder,
    "compare": lambda words: None if words["report"] is None else check_report_folder(words["report"]),
    "segment": _check_segment_folder,
    "propagate": _check_propagate_folder,
    "classify": _check_classify_outputs,
    "regress": lambda words: None if words["out"] is None else check_predictions_file(words["out"]),
    "predict": lambda words: check_predictions_file(words["out"]),
    "demonstrations": lambda words: check_prompts_file(words["out"]),
}


def _check_writable(folder: Path, flag: str) -> None:
    """Raises RecipeError unless files can be made in `folder`, or in what is there of the folders above it."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise RecipeError(f"{flag} '{folder}': '{there}' is a file; give the name of a folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise RecipeError(
            f"{flag} '{folder}' cannot be written: {error.strerror} ('{there}'); give another folder"
        ) from None


def _is_report(file: Path) -> bool:
    try:
        if file.name.endswith(".html"):
            return any(mark in file.read_bytes() for mark in _REPORT_MARKS)
        return json.loads(file.read_bytes()).keys() >= {"entries", "settings", "verdict"}
    except (OSError, ValueError, AttributeError):
        return False


def _is_prompts(file: Path) -> bool:
    try:
        with open(file, encoding="utf-8") as lines:
            first = lines.readline()
        return not first or json.loads(first).keys() >= _PROMPT_KEYS
    except (OSError, ValueError, AttributeError):
        return False
