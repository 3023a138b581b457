"""A library's message names Python arguments; where it reaches the command line, it names the options."""

from __future__ import annotations

import re
from collections.abc import Mapping


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """The message with `sample_column`, `split='x'` and `(split)` as options: --sample-column, --split 'x', (--split).

    flags: the options of the command, by argument. What is quoted, part of a path, or named as an option already stays.
    """
    for name, flag in flags.items():
        if re.search(rf"{re.escape(flag)}(?![\w-])", message):
            continue
        message = re.sub(rf"(?<![\w'\"/.\\-]){name}=(?=\S)", f"{flag} ", message)
        message = message.replace(f"({name})", f"({flag})")
        if "_" in name:
            message = re.sub(rf"(?<![\w'\"/.\\-]){name}(?![\w'\"/\\-]|\.\w)", flag, message)
    return message
