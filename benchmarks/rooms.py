"""What does a newcomer meet in the source tree? Rooms, loose modules, circles of imports, repeated names, lines.

    python benchmarks/rooms.py [FOLDER] [--walk]

FOLDER: a package, default src/sporeprint in this checkout. Every import counts: inside functions, and for types only.
--walk: extract one image into a store, and print the rooms that it passes, with the functions that lead into each.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

PACKAGE = Path(__file__).parents[1] / "src" / "sporeprint"


def modules_of(package: Path) -> dict[str, Path]:
    """Return {dotted name: file} of every module below the package."""
    names = {}
    for file in sorted(package.rglob("*.py")):
        parts = [package.name, *file.relative_to(package).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


@cache
def _homes(init: Path) -> dict[str, str]:
    for node in ast.parse(init.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            package = init.parent.name
            return {f"{package}.{name}": f"{package}.{home}" for name, home in ast.literal_eval(node.value).items()}
    return {}


def homes_of(modules: dict[str, Path]) -> dict[str, str]:
    """{public name: module that has it}, since `from sporeprint import Fungi` imports that module."""
    return _homes(next(file for name, file in modules.items() if "." not in name))


def imports_of(name: str, file: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a file imports anywhere."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            imported = [str(node.args[0].value)] if isinstance(node.args[0], ast.Constant) else []
        else:
            continue
        homes = homes_of(modules)
        for target in imported:
            target = homes.get(target, target)
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != name:
                yield target


def circles_of(graph: dict[str, set[str]]) -> list[list[str]]:
    """Find groups of modules that import each other, directly or not (strong components, Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(group := stack[at:]) > 1:
                groups.append(sorted(group))
            del stack[at:]

    for name in graph:
        if name not in index:
            visit(name)
    return groups


def walk() -> dict[str, str]:
    """{room: the first function of it that ran}, in order, while one image went from `extract` to its row."""
    from PIL import Image

    from sporeprint import KL, Recipe, open_source
    from sporeprint.run.extract import extract

    entered: dict[str, str] = {}

    def enter(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.count(".") > 1 and name.startswith("sporeprint."):
            entered.setdefault(name.split(".")[1], f"{name.removeprefix('sporeprint.')}.{frame.f_code.co_name}")

    recipe = Recipe(backbone="tiny", objectives=[KL()])
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        Image.new("RGB", (28, 28)).save(images / "one.png")
        extract(open_source(images), Path(folder, "warm"), recipe)  # modules that are imported at first use
        source = open_source(images)
        sys.setprofile(enter)
        try:
            extract(source, Path(folder, "store"), recipe)
        finally:
            sys.setprofile(None)
    return entered


def count(package: Path) -> None:
    """Print the figures of a package."""
    modules = modules_of(package)
    inside = {name: file for name, file in modules.items() if file != package / "__init__.py"}
    graph = {name: set(imports_of(name, file, modules)) - {package.name} for name, file in inside.items()}
    rooms = Counter(file.relative_to(package).parts[0] for file in inside.values() if file.parent != package)
    loose = [file.name for file in inside.values() if file.parent == package]
    twice = [name for name, count in Counter(file.name for file in inside.values()).items() if count > 1]
    circles = circles_of(graph)
    print(f"rooms at the top ({len(rooms)}):", ", ".join(f"{room} ({files})" for room, files in sorted(rooms.items())))
    print(f"loose modules ({len(loose)}):", ", ".join(loose))
    print(f"circles ({len(circles)}):", "; ".join(f"{len(group)} files: {', '.join(group)}" for group in circles))
    print(f"file names used twice ({len(twice) - ('__init__.py' in twice)}):", ", ".join(sorted(twice)))
    print("lines:", sum(len(file.read_text().splitlines()) for file in modules.values()), "in", len(modules), "files")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE)
    parser.add_argument("--walk", action="store_true")
    options = parser.parse_args()
    count(options.folder)
    if options.walk:
        print("the walk of one image:", *(f"{room}/: {name}" for room, name in walk().items()), sep="\n  ")
