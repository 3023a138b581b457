"""What is said about a command line that cannot be understood: what is wrong, the nearest right word, an example."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from sporeprint.cli.plain_text import say_lines

EXAMPLES = {
    "extract": "sporeprint extract photos/train --backbone facebook/dinov2-small --out train.store",
    "compare": "sporeprint compare train.store test.store --report report",
    "classify": "sporeprint classify train.store test.store --out predictions.csv",
    "predict": "sporeprint predict model photos/new --out predictions.csv",
    "knn": "sporeprint knn train.store test.store --k 20,auto",
    "probe": "sporeprint probe train.store test.store",
    "cluster": "sporeprint cluster train.store",
    "retrieve": "sporeprint retrieve queries.store database.store",
    "regress": "sporeprint regress train.store test.store --out predictions.csv",
    "analyse": "sporeprint analyse train.store test.store",
    "segment": "sporeprint segment train test --backbone facebook/dinov2-small --out out",
    "propagate": 'sporeprint propagate photos --on a.jpg --points "40,30,1; 9,9,0" --backbone tiny --out out',
    "demonstrations": "sporeprint demonstrations train.store test.store --train train.csv --test test.csv --out prompts.jsonl",
    "info": "sporeprint info train.store --verify",
    "backbones": "sporeprint backbones facebook/dinov2-small",
    "demo": "sporeprint demo",
}  # fmt: skip

_OTHER_WORDS = {  # what other tools, and earlier versions, call an option
    "neighbours": ("k",),
    "neighbors": ("k",),
    "n-neighbors": ("k",),
    "blocks": ("features",),
    "size": ("pca",),
    "model": ("backbone",),
    "output": ("out", "report"),
    "labels": ("label-column",),
    "label": ("label-column",),
    "column": ("sample-column", "image-column"),
    "losses": ("objectives",),
    "loss": ("objectives",),
    "limit-rows": ("limit",),
    "random-state": ("seed",),
    "num-workers": ("workers",),
    "precision": ("dtype",),
}


def explain(error: Any) -> None:
    """Say what typer could not understand, on stderr."""
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was the answer
        return
    option = str(getattr(error, "option_name", ""))
    message = error.format_message().strip().replace("Value error, ", "").rstrip(".")
    if type(error).__name__ == "NoSuchOption" and context is not None:
        message = f"no option {option}{_instead(option.lstrip('-'), context)}"
    lines = [f"error: {message[0].lower()}{message[1:]}"]
    if context is not None:
        lines.append(context.get_usage().replace("Usage: ", "usage: "))
        if example := EXAMPLES.get(context.info_name or ""):
            lines.append(f"example: {example}")
        lines.append(f"help: {context.command_path} --help")
    for line in lines:
        say_lines(" ".join(line.split()))


def _instead(word: str, context: Any) -> str:
    """The option that was meant, in words; "" where nothing is near."""
    there = _options(context.command)
    meant = [name for name in (*_OTHER_WORDS.get(word, ()), *get_close_matches(word, there)) if name in there]
    if meant:
        return f"; did you mean {' or '.join(f'--{name}' for name in dict.fromkeys(meant))}?"
    commands: Mapping[str, Any] = getattr(context.find_root().command, "commands", {})
    for name in (word, *_OTHER_WORDS.get(word, ())):
        if others := [of for of, command in commands.items() if name in _options(command)]:
            return f" here; --{name} is an option of {', '.join(others)}"
    return ""


def _options(command: Any) -> list[str]:
    """The long names of a command's options that its help shows."""
    parameters = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    return [name[2:] for parameter in parameters for name in parameter.opts if name.startswith("--")]
