"""The command line; `main` runs it."""

from sporeprint.cli.process import main

__all__ = ["main"]
