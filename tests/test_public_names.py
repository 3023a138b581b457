"""What the package shows of itself: its public names, and nothing that happens to be loaded."""

from __future__ import annotations

import pydoc
import re
import subprocess
import sys

import sporeprint

USES = (
    "",
    "import sporeprint.cli, sporeprint.report.page",
    "sporeprint.KL().loss",
    "[getattr(sporeprint, name) for name in sporeprint.__all__]",
)


def test_dir_shows_the_public_names_alone_whatever_was_loaded():
    code = "import sporeprint\n" + "".join(f"{use}\nprint(*dir(sporeprint))\n" for use in USES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(USES)
    for line, use in zip(lines, USES, strict=True):
        shown = {name for name in line.split() if not re.fullmatch(r"__\w+__", name)}
        assert shown == set(sporeprint.__all__), use
        assert "__version__" in line.split(), use


def test_a_star_import_brings_the_public_names_alone():
    names: dict = {}
    exec("from sporeprint import *", names)
    assert set(names) - {"__builtins__"} == set(sporeprint.__all__)


def test_help_shows_every_public_name_and_no_address():
    shown = pydoc.render_doc(sporeprint, renderer=pydoc.plaintext)
    assert [name for name in sporeprint.__all__ if name not in shown] == []
    assert re.findall(r".* at 0x.*", shown) == []
