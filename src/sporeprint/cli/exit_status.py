"""How a command ended, as the shell is told."""

DONE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130


class Interrupted(Exception):
    """Ctrl-C while a command ran. The message says what is kept."""
