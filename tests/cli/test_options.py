"""One option has one help text and one name in every command; old names still work."""

import json
from collections import defaultdict

import pytest
import typer

from small_stores import circle, store_of
from small_streets import streets
from sporeprint.cli.app import COMMANDS, app
from sporeprint.data.sources import ListSource

CLI = typer.main.get_command(app)
NAMES = [command.__name__ for command in COMMANDS]
OLD = {"--blocks": "--features", "--size": "--pca", "--neighbours": "--k"}
JOINING = ("knn", "probe", "cluster", "retrieve", "regress", "analyse", "demonstrations")

# Options that take other words in another command, or write another thing there, and what tells them apart.
OWN = {
    "--out": "a store, a folder or a file",
    "--features": "blocks of a store, or features of patches",
    "--combination": "loo where there are classes",
    "--k": "one number, several, auto, or a whole number of labelled patches",
    "--temperature": "auto too, or with --vote softmax only",
    "--objectives": "losses of a whole input, or of patches",
    "--layers": "how many, or which",
    "--size": "height x width, or the longer side",
    "--label-column": "of a source, or instead of a store's labels",
}


def options_of(name):
    return [option for option in CLI.commands[name].params if option.opts[0].startswith("--")]


def shown_options():
    return [(name, option) for name in NAMES for option in options_of(name) if not option.hidden]


def test_an_option_has_the_same_help_in_every_command():
    helps = defaultdict(set)
    for _, option in shown_options():
        helps[option.opts[0]].add(option.help)
    assert {name for name, texts in helps.items() if len(texts) > 1} == set(OWN)


def test_every_option_and_argument_has_help():
    for name in NAMES:
        for parameter in CLI.commands[name].params:
            assert parameter.hidden or parameter.help, (name, parameter.name)


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_new_names_only(run, name):
    status, out, _ = run(name, "--help", columns=80)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    words = set(out.replace("│", " ").replace(";", " ").replace(":", " ").replace(",", " ").split())
    gone = {"--blocks", "--neighbours"} | ({"--size"} if name not in ("segment", "propagate") else set())
    assert not words & gone
    old = {option.opts[0] for option in options_of(name) if option.hidden}
    assert old == {
        **{joining: {"--blocks", "--size"} for joining in JOINING},
        "compare": {"--blocks"},
        "segment": {"--neighbours"},
        "propagate": {"--neighbours"},
    }.get(name, set())
    assert {OLD[word] for word in old} <= words


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores a and b with classes, heights-a and heights-b with numbers."""
    folder = tmp_path_factory.mktemp("stores")
    for prefix, labels in (("", ["low", "low", "high", "high"]), ("heights-", [0.0, 1.0, 10.0, 11.0])):
        for name, shift in (("a", 0.0), ("b", 1.0)):
            ids = [f"{name}{at}" for at in range(4)]
            blocks = {"embedding": circle([shift, shift + 5, shift + 90, shift + 95]), "kl": circle([1, 200, 3, 77])}
            store_of(folder / (prefix + name), ListSource(ids, labels=labels, ids=ids), blocks)
    return folder


def note(old):
    return f"--{old} is called --{OLD[f'--{old}'][2:]} now; this name goes away in a later version\n"


@pytest.mark.parametrize(
    "words",
    [
        ["knn", "a", "b"],
        ["probe", "a", "b"],
        ["cluster", "a"],
        ["retrieve", "b", "a"],
        ["regress", "heights-a", "heights-b"],
        ["analyse", "a", "b"],
    ],
)
def test_old_names_of_what_is_joined_still_work_and_say_so(run, stores, words):
    command = [words[0], *(stores / name for name in words[1:]), "--json"]
    status, out, err = run(*command, "--features", "embedding,kl", "--pca", "2")
    assert (status, err) == (0, "")
    assert run(*command, "--blocks", "embedding,kl", "--size", "2") == (0, out, note("blocks") + note("size"))


def test_compare_takes_blocks_by_its_old_name(run, stores):
    words = ["compare", stores / "a", stores / "b", "--json"]
    named = []
    for option in ("--features", "--blocks"):
        status, out, err = run(*words, option, "kl")
        assert (status, err.count(note("blocks"))) == (0, option == "--blocks")
        named.append([entry["name"] for entry in json.loads(out)["entries"]])
    assert named[0] == named[1]


def test_neighbours_is_the_old_name_of_k_in_segment(run, tmp_path):
    streets(tmp_path / "train", 2)
    words = ["segment", tmp_path / "train", tmp_path / "train", "--backbone", "tiny", "--size", "16x24", "--sheet", "0"]
    words += ["--bank", "50", "--features", "embedding", "--json", "--out"]
    status, _, err = run(*words, tmp_path / "out", "--neighbours", "3")
    assert status == 0
    assert err.startswith(note("neighbours"))
    again = run(*words, tmp_path / "out", "--k", "3")  # the same run, which is kept
    assert (again[0], "runs are in" in again[2]) == (0, True)


def test_neighbours_is_the_old_name_of_k_in_propagate(run, tmp_path):
    streets(tmp_path / "train", 2)
    words = ["propagate", tmp_path / "train" / "images", "--backbone", "tiny", "--features", "embedding", "--shifts", 1]
    words += ["--no-flip", "--sheet", 0, "--on", "s00", "--points", "3,3,1; 3,30,0", "--json", "--out"]
    status, _, err = run(*words, tmp_path / "out", "--neighbours", "3")
    assert status == 0, err
    assert err.startswith(note("neighbours"))
    kept = run(*words, tmp_path / "out", "--k", "3")
    assert (kept[0], json.loads(kept[1])["made"]) == (0, 0)


@pytest.mark.parametrize(
    ("words", "old", "new"),
    [
        (["knn", "STORE", "STORE", "--blocks", "kl", "--features", "kl"], "--blocks", "--features"),
        (["knn", "STORE", "STORE", "--size", "2", "--pca", "2"], "--size", "--pca"),
        (["compare", "STORE", "--blocks", "kl", "--features", "kl"], "--blocks", "--features"),
        (["demonstrations", "STORE", "STORE", "--train=x", "--test=x", "--size=2", "--pca=2"], "--size", "--pca"),
        (["segment", "x", "x", "--backbone", "tiny", "--k", "30", "--neighbours", "30"], "--neighbours", "--k"),
        (["propagate", "x", "--backbone=tiny", "--on=x", "--k=30", "--neighbours=30"], "--neighbours", "--k"),
    ],
)  # fmt: skip
def test_both_names_at_once_are_misuse(run, stores, tmp_path, words, old, new):
    out = [] if words[0] in ("knn", "compare") else ["--out", tmp_path / "out"]
    status, text, err = run(*(stores / "a" if word == "STORE" else word for word in words), *out)
    assert (status, text) == (2, "")
    assert err == f"error: {old} is the old name of {new}, and both were given; leave out {old}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("k", ["0", "some", "-3", ""])
def test_a_number_of_neighbours_that_is_none_names_the_option(run, tmp_path, k):
    words = ["segment", "x", "x", "--backbone", "tiny", "--out", tmp_path / "out", f"--k={k}"]
    assert run(*words) == (2, "", f"error: --k {k!r}; expected a number such as 30, or auto\n")
