"""Docstrings keep their word: examples run and show what they print, and the errors that they name exist."""

from __future__ import annotations

import ast
import builtins
import doctest
import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import sporeprint
from sporeprint import errors
from sporeprint.evaluate.result import Result

PACKAGE = Path(sporeprint.__file__).parent
SOURCES = {file: file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py"))}
OWN_ERRORS = re.findall(r"^class (\w+)\(Exception\)", "\n".join(SOURCES.values()), re.MULTILINE)  # never leave us
ERRORS = {*vars(errors), errors.NotFitted.__name__, *vars(builtins), *OWN_ERRORS}  # NotFitted is made at first use
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
FUNCTIONS = [name for name in sporeprint.__all__ if inspect.isfunction(getattr(sporeprint, name))]
CLASSES = [getattr(sporeprint, name) for name in sporeprint.__all__ if name not in FUNCTIONS]
FIGURES = {field.name for field in fields(Result)}


def docstrings(word):
    """Every docstring with the word in it: {place: (docstring, file, line)}."""
    found = {}
    for file, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)) if word in text else ():
            docstring = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
            if docstring and word in docstring:
                place = f"{file.relative_to(PACKAGE).as_posix()}::{getattr(node, 'name', '')}"
                found[place, node.body[0].lineno] = docstring, file, node.body[0].lineno - 1
    return found


EXAMPLES = docstrings(">>> ")


def named_errors(docstring):
    for sentence in re.findall(r"\b[Rr]aises?\s([^.]*)", docstring):
        yield from re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", sentence)


def members(of):
    """The public methods and properties of ours that a class has."""
    for member in dir(of):
        thing = inspect.getattr_static(of, member)
        thing = getattr(thing, "fget", getattr(thing, "__func__", thing))
        if not member.startswith("_") and getattr(thing, "__module__", "").startswith("sporeprint."):
            yield member


def results():
    """The classes of what the public functions return."""
    hints = [get_type_hints(inspect.unwrap(getattr(sporeprint, name)))["return"] for name in FUNCTIONS]
    classes = [of for hint in hints for of in get_args(hint) or [hint]]
    return [of for of in classes if of.__module__.startswith("sporeprint.")]


@pytest.mark.filterwarnings("error::sporeprint.errors.SporeprintWarning")
@pytest.mark.parametrize(("docstring", "file", "line"), EXAMPLES.values(), ids=[place for place, _ in EXAMPLES])
def test_the_example_prints_what_it_shows(docstring, file, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestParser().get_doctest(docstring, {"__name__": "example"}, file.name, str(file), line)
    printed: list[str] = []
    assert not doctest.DocTestRunner().run(example, out=printed.append).failed, "".join(printed)


@pytest.mark.parametrize("name", sporeprint.__all__)
def test_every_public_name_shows_an_example_of_its_use(name):
    examples = doctest.DocTestParser().get_examples(getattr(sporeprint, name).__doc__)
    lines = "".join(example.source for example in examples)
    assert re.search(rf"^(?!from|import).*\b{name}\b", lines, re.MULTILINE), f"{name} is not used in its docstring"
    assert re.search(rf"^from sporeprint import .*\b{name}\b", lines, re.MULTILINE), f"{name} is not imported there"


@pytest.mark.parametrize("of", [*CLASSES, *results()])
def test_every_public_method_and_property_says_what_it_does(of):
    assert [member for member in members(of) if not inspect.getdoc(getattr(of, member))] == []


@pytest.mark.parametrize("of", results())
def test_a_result_shows_its_fields_and_methods_alone_and_explains_them(of):
    assert {name for name in dir(of) if not name.startswith("_")} <= {*of.__annotations__, *members(of), *FIGURES}
    assert [field for field in of.__annotations__ if not re.search(rf"\b{field}\b", of.__doc__)] == []


def test_the_errors_that_docstrings_name_exist():
    named = {place: set(named_errors(docstring)) for place, (docstring, *_) in docstrings("aise").items()}
    assert len(named) > 100
    assert {place: names - ERRORS for place, names in named.items() if names - ERRORS} == {}


def test_a_misspelt_error_is_seen():
    assert [*named_errors("Sorts. Raises SampelError for NaN; raises\nStoreError. TorchScript is no error.")] == [
        "SampelError",
        "StoreError",
    ]
