"""The command line: its commands, and how it ends. What a command does lives in run/, imported when it runs."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from typing import Any, NoReturn

import typer

from sporeprint.cli.backbones_command import backbones
from sporeprint.cli.compare_command import compare
from sporeprint.cli.demo_command import demo
from sporeprint.cli.demonstrations_command import demonstrations
from sporeprint.cli.evaluate_commands import analyse, cluster, knn, probe, regress, retrieve
from sporeprint.cli.extract_command import extract
from sporeprint.cli.info_command import info
from sporeprint.cli.plain_text import plain_streams, say_lines
from sporeprint.cli.propagate_command import propagate
from sporeprint.cli.segment_command import segment

COMMANDS = (
    extract, compare, knn, probe, cluster, retrieve, regress, analyse, segment, propagate, demonstrations, info,
    backbones, demo,
)  # fmt: skip

app = typer.Typer(
    name="sporeprint",
    help="Better features from frozen models: gradients, layers and views, joined to the embedding.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)


def main() -> Any:
    """Run the command line: 0 done, 1 failed, 2 misuse."""
    with plain_streams():
        return _run()


def _run() -> Any:
    from typer import rich_utils

    from sporeprint.errors import RecipeError, SourceError, SporeprintError

    rich_utils.COLOR_SYSTEM = None  # colours are escape sequences
    log = logging.getLogger("sporeprint")
    log.setLevel(logging.INFO)
    log.handlers = [_Stderr()]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say_lines(f"warning: {message}")
            return app()
    except (RecipeError, SourceError) as error:
        _fail(error, 2)
    except SporeprintError as error:
        _fail(error, 1)
    except Exception:  # a fault of ours: Python would show it after the streams are as they were
        traceback.print_exc()
        sys.exit(1)


class _Stderr(logging.Handler):
    """A handler that prints what the library logs, as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        say_lines(record.getMessage())


def _fail(error: Any, status: int) -> NoReturn:
    say_lines(f"error: {error}")
    sys.exit(status)
