"""The command line; `main` runs it."""

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line, and exit: 0 done, 1 failed, 2 misuse, 130 interrupted."""
    try:
        from sporeprint.cli.process import run_process
    except KeyboardInterrupt:  # from the first moment on
        sys.exit(130)
    run_process()
