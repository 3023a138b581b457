"""The command line, run in this process."""

import sys

import pytest

from sporeprint.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line; gives (exit status, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sporeprint", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run
