"""The command that lists the supported backbones, or says what is found in one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from sporeprint.cli import options
from sporeprint.cli.plain_text import say

_SHORT = ("class", "modality", "targets", "pooling", "width", "image_size", "max_tokens", "sample_rate_hz", "max_seconds", "blocks", "random_weights", "trust_remote_code")  # fmt: skip

_PATTERNS = 12  # paths of linear layers that are named


def backbones(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Hugging Face id or folder, timm:NAME or tiny: load it and say what was found.")] = None,
    modality: options.Modality = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    allow_random: options.AllowRandom = False,
    everything: options.All = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """What is supported, and how the target layer is found."""
    from sporeprint.run.early_checks import check_backbone_name

    if name is not None:
        check_backbone_name(name)
    from sporeprint.cli.console import print_json
    from sporeprint.run.store_info import SUPPORTED, describe_backbone

    if name is not None:
        description = describe_backbone(name, modality, trust_remote_code=trust_remote_code, allow_random=allow_random)
        if json:
            print_json(description)
        else:
            _print_found(description, everything)
    elif json:
        print_json([dict(zip(("modality", "backbones", "embedding"), row, strict=True)) for row in SUPPORTED])
    else:
        _print_supported(SUPPORTED, everything)


def _print_supported(supported: Sequence[tuple[str, str, str]], everything: bool) -> None:
    from sporeprint.cli.print_tables import Column, print_table, say_folded

    say_folded("Frozen transformers of these libraries, by id or folder; or any nn.Module of yours, in Python.")
    say("")
    columns = [
        Column(""),
        Column("library and families", words=True),
        Column("embedding (pooling auto)", words=True, extra=True),
    ]
    rows: list[list[str]] = []
    above: str | None = None
    for kind, *cells in supported:
        rows.append(["" if kind == above else kind, *cells])
        above = kind
    print_table(columns, rows, everything=everything)
    if everything:
        say_folded(
            "The target is found by structure: the longest list of equal blocks that hold an attention; in its last "
            "block, the attention's last linear layer that makes no query, key or value. Any other layer: --targets PATH."
        )
    say_folded("What is found in one: sporeprint backbones NAME.")


def _print_found(description: Mapping[str, Any], everything: bool) -> None:
    """What was found in a backbone: what decides its features, or all of it with every linear layer on a line."""
    from sporeprint.cli.print_tables import say_folded

    found = dict(description)
    layers = found.pop("linear_layers")
    say_folded(
        f"{found['name']}: {found['modality']}, an embedding of {found['width']:,} numbers, "
        f"{found['blocks']} blocks, {len(layers)} linear layers to read gradients from."
    )
    say("")
    for key, value in found.items():
        if everything or key in _SHORT:
            say_folded(f"{key}: {_text(value)}", "  ")
    if everything:
        for layer in layers:
            say(f"linear layer: {layer}")
        return
    patterns = _patterns(layers)
    more = f", and {len(patterns) - _PATTERNS} more" if len(patterns) > _PATTERNS else ""
    say_folded(f"linear layers (--targets): {', '.join(patterns[:_PATTERNS])}{more}", "  ")
    say(f"{len(found) - sum(key in _SHORT for key in found)} more lines and every linear layer: --all")


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_text(item)}" for key, item in value.items())
    return "none" if value is None else str(value)


def _patterns(layers: Sequence[str]) -> list[str]:
    """Paths of layers that differ by the number of their block alone, as one: "blocks.0-11.attn.qkv"."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for layer in layers:
        number = re.search(r"(?<![^.])\d+(?![^.])", layer)
        before, after = (layer[: number.start()], layer[number.end() :]) if number else (layer, "")
        numbers.setdefault((before, after), []).extend([int(number[0])] if number else [])
    return [f"{before}{_range(of)}{after}" for (before, after), of in numbers.items()]


def _range(numbers: Sequence[int]) -> str:
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return "|".join(map(str, numbers))
