"""The command that lists the supported backbones, or says what is found in one."""

from __future__ import annotations

from typing import Annotated

import typer

from sporeprint.cli import options
from sporeprint.cli.plain_text import say


def backbones(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Hugging Face id or folder, timm:NAME or tiny: load it and say what was found.")] = None,
    modality: options.Modality = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    allow_random: options.AllowRandom = False,
    json: options.Json = False,
) -> None:  # fmt: skip
    """What is supported, and how the target layer is found."""
    from sporeprint.run.early_checks import check_backbone_name

    if name is not None:
        check_backbone_name(name)
    from sporeprint.cli.console import print_json, print_table
    from sporeprint.run.store_info import SUPPORTED, describe_backbone

    if name is not None:
        description = describe_backbone(name, modality, trust_remote_code=trust_remote_code, allow_random=allow_random)
        if json:
            print_json(description)
            return
        for key, value in description.items():
            say(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
        return
    if json:
        print_json([dict(zip(("modality", "backbones", "embedding"), row, strict=True)) for row in SUPPORTED])
        return
    print_table(
        "Backbones", ["", "library and families", "embedding (pooling auto)"], SUPPORTED, numbers=False, group=True
    )
    say(
        "The target is found by structure: the longest list of equal blocks that hold an attention; in its last block, "
        "the attention's last linear layer that makes no query, key or value. Any other layer: --targets PATH. "
        "`sporeprint backbones NAME` says what is found in a checkpoint."
    )
