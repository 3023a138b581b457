"""The command line; `main` runs it."""

from sporeprint.cli.app import app, main

__all__ = ["app", "main"]
