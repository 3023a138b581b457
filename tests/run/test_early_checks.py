import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sporeprint.cli.extract_command import RecipeWords
from sporeprint.errors import RecipeError
from sporeprint.features.presets import PRESETS
from sporeprint.features.recipe import LAYER_KINDS as OF_A_RECIPE
from sporeprint.features.recipe import VIEWS
from sporeprint.objectives import NAMES
from sporeprint.run.early_checks import (
    LAYER_KINDS,
    OBJECTIVES,
    RECIPE_WORDS,
    check_backbone_name,
    check_prompts_file,
    check_report_folder,
    check_words,
)

OURS = {
    "report.html": '<meta name="generator" content="sporeprint">',
    "comparison.json": json.dumps({"entries": [], "settings": {}, "verdict": ""}),
}


def test_the_lists_are_those_of_the_library():
    assert (*NAMES, "none") == OBJECTIVES
    assert OF_A_RECIPE == LAYER_KINDS
    words = RecipeWords.__annotations__
    assert set(words) == set(RECIPE_WORDS)
    for name, known in (("preset", PRESETS), ("views", VIEWS)):
        assert all(f"'{value}'" in words[name] for value in known)


def test_nothing_heavy_is_imported():
    code = "import sys, sporeprint.run.early_checks; assert not {'torch', 'sklearn', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", OURS)
def test_a_report_replaces_its_own_files_only(tmp_path, name):
    check_report_folder(tmp_path / "new" / "deep")
    assert not (tmp_path / "new").exists()
    for file, text in OURS.items():
        (tmp_path / file).write_text(text)
    (tmp_path / "notes.txt").write_text("mine")
    check_report_folder(tmp_path)
    (tmp_path / name).write_text("the user's")
    with pytest.raises(RecipeError, match=re.escape(f"holds a {name} that no run of this command wrote")):
        check_report_folder(tmp_path)
    assert (tmp_path / name).read_text() == "the user's"


def test_a_report_below_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(RecipeError, match="is a file; give the name of a folder"):
            check_report_folder(folder)


def test_prompts_replace_prompts_only(tmp_path):
    file = tmp_path / "p.jsonl"
    check_prompts_file(file)
    file.write_text(json.dumps({"id": "a", "query": "q", "prompt": "p", "answer": None, "ids": []}) + "\n")
    check_prompts_file(file)
    for text in ("text,label\na,b\n", '{"text": "a"}\n', "\x00"):
        file.write_text(text)
        with pytest.raises(RecipeError, match="no run of this command wrote"):
            check_prompts_file(file)
    with pytest.raises(RecipeError, match="is a folder"):
        check_prompts_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("tinny", "did you mean tiny?"), ("Tiny", "did you mean tiny?"), ("tim:vit", "timm:vit"), ("./no", "no folder")],
)
def test_a_backbone_that_is_nearly_a_name_is_not_looked_for(name, meant):
    with pytest.raises(RecipeError, match=re.escape(meant)):
        check_backbone_name(name)


@pytest.mark.parametrize("name", ["tiny", "timm:vit_tiny", "bert-base-uncased", "facebook/dinov2-small", "gpt2"])
def test_other_names_are_left_to_the_library(name):
    check_backbone_name(name)


@pytest.mark.parametrize(
    ("command", "file", "words"),
    [
        ("extract", "notes.txt", {"source": None, "fit_from": None, "recipe": None, "backbone": "tiny"}),
        ("segment", "sheet.png", {"train": Path("train"), "test": Path("test")}),
    ],
)
def test_an_out_that_holds_something_else_is_a_wrong_option(tmp_path, command, file, words):
    (tmp_path / file).write_text("the user's")
    with pytest.raises(RecipeError, match=f"--out: .*{file}"):
        check_words(command, {**words, "out": tmp_path})
