"""The command line: its commands. What a command does lives in run/, imported when it runs."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import sporeprint
from sporeprint.cli.backbones_command import backbones
from sporeprint.cli.compare_command import compare
from sporeprint.cli.demo_command import demo
from sporeprint.cli.demonstrations_command import demonstrations
from sporeprint.cli.evaluate_commands import analyse, cluster, knn, probe, regress, retrieve
from sporeprint.cli.exit_status import DONE, INTERRUPTED, MISUSE, Interrupted
from sporeprint.cli.extract_command import extract
from sporeprint.cli.flag_names import in_flags
from sporeprint.cli.info_command import info
from sporeprint.cli.misuse import EXAMPLES, explain
from sporeprint.cli.option_pairs import PairedCommand
from sporeprint.cli.plain_text import say, say_lines
from sporeprint.cli.propagate_command import propagate
from sporeprint.cli.segment_command import segment
from sporeprint.errors import SporeprintError

COMMANDS = (
    extract, compare, knn, probe, cluster, retrieve, regress, analyse, segment, propagate, demonstrations, info,
    backbones, demo,
)  # fmt: skip


class Group(TyperGroup):
    """The commands. An interrupt keeps what it says, which typer would drop; errors name options."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(*interrupt.args) from None
        except SporeprintError as error:
            error.args = (in_flags(str(error), self._flags(ctx.invoked_subcommand)),)
            raise

    def _flags(self, command: str) -> dict[str, str]:
        """The options of a command by their Python names. A pair of sources has a split each."""
        options = [part for part in self.commands[command].params if part.opts[0].startswith("--")]
        flags = {part.name or "": part.opts[0] for part in options}
        if "split" not in flags and (splits := [flag for flag in flags.values() if flag.endswith("-split")]):
            flags["split"] = " or ".join(splits)
        return flags


app = typer.Typer(
    name="sporeprint",
    cls=Group,
    help="Better features from frozen models: gradients, layers and views, joined to the embedding.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    kind = PairedCommand if command is compare else TyperCommand
    app.command(cls=kind, epilog=f"Example: {EXAMPLES[command.__name__]}")(command)


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"sporeprint {sporeprint.__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is, and exit."),
    ] = False,
) -> None:
    """Better features from frozen models: gradients, layers and views, joined to the embedding."""


def run_app() -> int:
    """Run the command that was typed; returns its exit status. Raises what the command raises, and Interrupted."""
    from typer import rich_utils

    rich_utils.COLOR_SYSTEM = None  # colours are escape sequences
    if "_SPOREPRINT_COMPLETE" in os.environ:
        os.environ["COLUMNS"] = "1000"  # a shell takes every line for a word: help must not be folded
    log = logging.getLogger("sporeprint")
    log.setLevel(logging.INFO)
    log.handlers = [_Stderr()]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn_once(set())
            status = app(standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):  # what marks a misuse: typer's own classes are not public
            raise
        explain(error)
        return MISUSE
    if status == INTERRUPTED:
        raise Interrupted
    return status if isinstance(status, int) else DONE


def _warn_once(said: set[str]) -> Any:
    """What prints a warning as a plain line, and each one once."""

    def warn(message: Any, *_: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            say_lines(f"warning: {message}")

    return warn


class _Stderr(logging.Handler):
    """A handler that prints what the library logs, as plain lines."""

    def emit(self, record: logging.LogRecord) -> None:
        say_lines(record.getMessage())
