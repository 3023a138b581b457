"""The house stays one that a newcomer can guess: no circles, nothing loose, no name for two things, a short walk."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import rooms

MODULES = rooms.modules_of(rooms.PACKAGE)


def test_no_modules_import_each_other():
    graph = {name: set(rooms.imports_of(name, file, MODULES)) - {"sporeprint"} for name, file in MODULES.items()}
    assert rooms.circles_of({name: others for name, others in graph.items() if name != "sporeprint"}) == []


def test_circles_are_seen():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}
    assert rooms.circles_of(graph) == [["a", "b", "c"]]


def test_only_errors_and_values_lie_in_the_root():
    loose = {file.name for file in MODULES.values() if file.parent == rooms.PACKAGE}
    assert loose == {"__init__.py", "__main__.py", "errors.py", "values.py"}


def test_no_file_name_stands_twice():
    names = Counter(file.name for file in MODULES.values() if file.name != "__init__.py")
    assert [name for name, times in names.items() if times > 1] == []


def test_one_image_passes_seven_rooms():
    code = "import rooms; print(*rooms.walk())"  # a process of its own, without another test's log handlers
    folder = Path(rooms.__file__).parent
    walk = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert set(walk.stdout.split()) == {"run", "data", "features", "objectives", "backbones", "gradients", "store"}
