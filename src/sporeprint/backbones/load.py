"""Load a backbone by the name in a recipe: `tiny`, `timm:NAME`, or a Hugging Face id or folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sporeprint.backbones.backbone import Backbone
from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.names import check_near_name
from sporeprint.backbones.own_head import own_layer
from sporeprint.errors import BackboneError, MissingExtra, RecipeError, first_line, warn


def load_backbone(
    name: str,
    targets: Sequence[str] | None = None,
    pooling: str = "auto",
    device: str | torch.device | None = None,
    modality: str = "auto",
    head: bool = False,
    trust_remote_code: bool = False,
    allow_random: bool = False,
    whole: bool = False,
) -> Backbone:
    """Load a backbone with frozen float32 weights.

    name: "tiny" (shipped), "timm:NAME" (pretrained; needs the timm extra), or a Hugging Face id or folder, also of a
    sentence-transformers model. device: default CUDA where there is one, else the CPU. modality: as in `Recipe`.
    head: with the checkpoint's masked-language-model head, for objectives that read its logits.
    whole: with every layer that the checkpoint was trained with, so that `own_head` finds its classifier or projection.
    trust_remote_code: run code that lies in the checkpoint; never without it, whatever the checkpoint says.
    allow_random: go on where the checkpoint lacks weights that the features read, which are then drawn at random.
    Raises BackboneError, LayerError, MissingExtra; RecipeError for a device that is not there, or a nearly right name.

    Examples
    --------
    >>> from sporeprint.backbones.load import load_backbone
    >>> backbone = load_backbone("tiny")
    >>> backbone.modality, backbone.width, backbone.patch
    ('image', 128, 4)
    """
    # Autograd cannot pass through tensors made in inference mode. The caller's random numbers are not used up.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        return _load(name, targets, pooling, device, modality, head, trust_remote_code, allow_random, whole)


def _load(
    name: str,
    targets: Sequence[str] | None,
    pooling: str,
    device: str | torch.device | None,
    modality: str,
    head: bool,
    trust_remote_code: bool,
    allow_random: bool,
    whole: bool,
) -> Backbone:
    check_near_name(name)
    module: Any
    preprocess: Inputs
    finish: Any = None
    random: dict[str, Tensor] = {}
    missing = ""
    if name == "tiny" or name.startswith("timm:"):
        if modality not in ("auto", "image") or head:
            raise BackboneError(f"{name!r} takes images, not {'texts with masked words' if head else modality}")
        module, preprocess = _tiny() if name == "tiny" else _timm(name.removeprefix("timm:"), trust_remote_code, whole)
    else:
        from sporeprint.backbones.libraries.huggingface import load_huggingface

        loaded = load_huggingface(name, modality, head, trust_remote_code, whole)
        module, preprocess, finish = loaded.module, loaded.inputs, loaded.finish
        pooling = loaded.pooling if pooling == "auto" else pooling
        random, missing = loaded.random, loaded.missing
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        module = module.float().eval().to(device)
        finish = None if finish is None else finish.to(device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device {str(device)!r} cannot be used: {first_line(error)}; try cpu") from error
    backbone = Backbone(
        module, target=targets, preprocess=preprocess, pooling=pooling, name=name, finish=finish, modality=modality
    )
    read = backbone.find_read(random)
    if whole and random:
        own = own_layer(backbone)
        read += [name for name, tensor in random.items() if tensor is own.weight or tensor is own.bias]
    if read:
        _refuse_random(name, read, missing, allow_random)
        backbone.caveats["random_weights"] = len(read)
    if trust_remote_code:
        backbone.caveats["trust_remote_code"] = True
    if Path(name).expanduser().exists():  # what a store records must not depend on where the folder lies
        backbone.name = Path(name).expanduser().resolve().name
    return backbone


def _refuse_random(name: str, read: Sequence[str], missing: str, allow_random: bool) -> None:
    count = f"{len(read)} weights that the features read are" if len(read) > 1 else "1 weight that the features read is"
    what = f"{name}: {count} not in the checkpoint ({', '.join(read[:3])}"
    what += f"{', ...' if len(read) > 3 else ''}){f'; {missing}' if missing else ''}"
    if not allow_random:
        raise BackboneError(
            f"{what}. Give the whole checkpoint; to go on with random weights, --allow-random (allow_random=True)"
        )
    warn(f"{what}; they are random, as was asked for")


def _tiny() -> tuple[Any, Preprocess]:
    from sporeprint.backbones.libraries.tiny import load_tiny

    module, config = load_tiny()
    return module, Preprocess(size=config.image_size, mean=(config.mean,) * 3, std=(config.std,) * 3)


def _timm(name: str, trust_remote_code: bool, whole: bool) -> tuple[Any, Preprocess]:
    if ":" in name and not trust_remote_code:  # timm unpickles what it finds there
        raise BackboneError(
            f"'timm:{name}' names a place, whose files could run code; expected a name of timm.list_models(). If you "
            "trust it, give --trust-remote-code (trust_remote_code=True)"
        )
    try:
        import timm
    except ImportError as error:
        raise MissingExtra(f"backbone 'timm:{name}' needs timm; pip install 'sporeprint[timm]'") from error
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        raise MissingExtra(
            f"timm cannot be imported: {first_line(error)}; install the torchvision that fits torch {torch.__version__}"
        ) from error
    try:
        module = timm.create_model(name, pretrained=True, **({} if whole else {"num_classes": 0}))
    except (RuntimeError, ValueError, OSError) as error:
        raise BackboneError(f"timm could not load {name!r}: {first_line(error)}") from error
    return module, timm_preprocess(module)


def timm_preprocess(module: Any) -> Preprocess:
    """Return a timm model's evaluation transform as a `Preprocess`. Raises BackboneError where it is not square."""
    import timm

    config = timm.data.resolve_model_data_config(module)
    _, height, width = config["input_size"]
    if height != width:
        raise BackboneError(f"this timm model takes {height} x {width} images; sporeprint needs square ones")
    mode, interpolation = config["crop_mode"] or "center", config["interpolation"]
    filters = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
    if mode not in ("center", "squash") or interpolation not in filters:
        raise BackboneError(
            f"this timm model's images are cut with crop_mode={mode!r} and resized with {interpolation!r}; expected "
            f"center or squash, and one of: {', '.join(filters)}. Build Backbone(module, preprocess=...) instead"
        )
    return Preprocess(
        size=height,
        resize=int(height / config["crop_pct"]),
        keep_aspect=mode == "center",
        resample=filters[interpolation],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        round_corner=True,
    )
