"""How the process behaves: its exit status, Ctrl-C, and streams that are full or closed.

Nothing heavy is imported here: Ctrl-C is answered from the first moment on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from types import FrameType, TracebackType
from typing import Any, NoReturn

from sporeprint.cli.exit_status import DONE, FAILED, INTERRUPTED, MISUSE, Interrupted
from sporeprint.cli.plain_text import AnswerLost, plain_streams, say_lines


def run_process() -> NoReturn:
    """Run the command line, and exit: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    _open_missing()
    with Interrupts() as interrupts, plain_streams():
        status = _status(interrupts)
    sys.exit(status)


class Interrupts:
    """Ctrl-C, in a `with` block: the first raises KeyboardInterrupt, a second one ends the process at once."""

    def __init__(self) -> None:
        self.caught = False
        self.handles = False

    def __enter__(self) -> Interrupts:
        self.unraisable = sys.unraisablehook
        with contextlib.suppress(ValueError):  # not the main thread
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job ignores it
                signal.signal(signal.SIGINT, self._handle)
                sys.unraisablehook = self._raise_again
                self.handles = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.handles:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.unraisablehook = self.unraisable

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.caught:
            os._exit(INTERRUPTED)
        self.caught = True
        raise KeyboardInterrupt

    def _raise_again(self, unraisable: Any) -> None:
        """Raise an interrupt again that fell into a place where Python drops exceptions, such as a destructor.

        A moment later: here it would be dropped too.
        """
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self.caught = False
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            self.unraisable(unraisable)


def _status(interrupts: Interrupts) -> int:
    try:
        status = _run()
        sys.stdout.flush()
        return status
    except AnswerLost as error:
        return _fail(error, FAILED)
    except BaseException as error:
        if interrupts.caught or isinstance(error, (KeyboardInterrupt, Interrupted)):
            # An import that is interrupted may raise anything.
            kept = str(error) if isinstance(error, (KeyboardInterrupt, Interrupted)) else ""
            if sys.stderr.isatty():
                sys.stderr.write("\n")  # the terminal has written ^C
            say_lines(f"interrupted: {kept}" if kept else "interrupted")
            return INTERRUPTED
        return _failed(error)


def _run() -> int:
    from sporeprint.cli.app import run_app

    return run_app()


def _failed(error: BaseException) -> int:
    from sporeprint.errors import RecipeError, SourceError, SporeprintError

    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else DONE if error.code is None else FAILED
    if isinstance(error, (RecipeError, SourceError)):
        return _fail(error, MISUSE)
    if isinstance(error, SporeprintError):
        return _fail(error, FAILED)
    traceback.print_exception(error)  # a fault of ours
    return FAILED


def _fail(error: object, status: int) -> int:
    say_lines(f"error: {error}")
    return status


def _open_missing() -> None:
    """Open the standard streams that are closed to nowhere: a file that is opened later must not become one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
