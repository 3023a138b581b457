"""From the name in a recipe to a backbone: `tiny`, `timm:NAME`, or a Hugging Face id or folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sporeprint.backbones.adapters import adapt
from sporeprint.backbones.base import Backbone
from sporeprint.backbones.preprocess import Preprocess
from sporeprint.errors import BackboneError, MissingExtra, RecipeError


def load_backbone(
    name: str, targets: Sequence[str] | None = None, pooling: str = "auto", device: str | torch.device | None = None
) -> Backbone:
    """Load frozen float32 weights.

    name: "tiny" (shipped), "timm:NAME" (pretrained; needs the timm extra), or a Hugging Face id or folder.
    device: default CUDA where there is one, else the CPU. Raises BackboneError, LayerError, MissingExtra;
    RecipeError for a device that is not there.
    """
    with torch.inference_mode(False):  # tensors made inside it could never be differentiated through
        return _load(name, targets, pooling, device)


def _load(name: str, targets: Sequence[str] | None, pooling: str, device: str | torch.device | None) -> Backbone:
    if name == "tiny":
        module, preprocess = _tiny()
    elif name.startswith("timm:"):
        module, preprocess = _timm(name.removeprefix("timm:"))
    else:
        module, preprocess = _huggingface(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        module = module.float().eval().to(device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device {str(device)!r} cannot be used: {_first_line(error)}; try cpu") from error
    # What a store records must not depend on where the folder lies.
    shown = Path(name).resolve().name if Path(name).exists() else name
    return Backbone(module, target=targets, preprocess=preprocess, pooling=pooling, name=shown)


def _tiny() -> tuple[Any, Preprocess]:
    from sporeprint.backbones.tiny import load_tiny

    module, config = load_tiny()
    return module, Preprocess(size=config.image_size, mean=(config.mean,) * 3, std=(config.std,) * 3)


def _timm(name: str) -> tuple[Any, Preprocess]:
    try:
        import timm
    except ImportError as error:
        raise MissingExtra(f"backbone 'timm:{name}' needs timm; pip install 'sporeprint[timm]'") from error
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        raise MissingExtra(
            f"timm cannot be imported: {_first_line(error)}; "
            f"install the torchvision that fits torch {torch.__version__}"
        ) from error
    try:
        module = timm.create_model(name, pretrained=True, num_classes=0)
    except (RuntimeError, ValueError, OSError) as error:
        raise BackboneError(f"timm could not load {name!r}: {_first_line(error)}") from error
    return module, timm_preprocess(module)


def timm_preprocess(module: Any) -> Preprocess:
    """The evaluation transform of a timm model as a `Preprocess`. Raises BackboneError where it is not square."""
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


def _huggingface(name: str) -> tuple[Any, Preprocess]:
    import transformers

    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = Path(name).expanduser()
    if is_path and not folder.is_dir():
        raise BackboneError(
            f"no folder {name!r}; expected a folder with config.json and weights, or a hub id OWNER/NAME"
        )
    source = str(folder) if folder.is_dir() else name
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # its report of a dropped classifier reads like a failure
    bar = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0
        module, report = transformers.AutoModel.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True
        )
        adapter = adapt(module)
        preprocess = Preprocess.from_huggingface(_processor(source, config))
    except BackboneError:
        raise
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise BackboneError(f"transformers could not load {name!r}: {_first_line(error)}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bar:
            transformers.logging.enable_progress_bar()
    if adapter.auto != "own" and getattr(adapter.module, "pooler", None) is not None:
        setattr(adapter.module, "pooler", None)  # noqa: B010  # not read, and where the checkpoint lacks it, random at every load
    if missing := [key for key in report["missing_keys"] if "pooler" not in key]:
        warnings.warn(
            f"{name}: {len(missing)} weights are not in the checkpoint and were drawn at random ({missing[0]}, ...); "
            "features that depend on them differ from load to load",
            stacklevel=2,
        )
    return adapter.module, preprocess


def _processor(source: str, config: Any) -> dict[str, Any]:
    """The image processor's settings; class defaults filled in where the class can be imported."""
    import transformers

    try:
        return transformers.AutoImageProcessor.from_pretrained(source).to_dict()
    except (ImportError, RuntimeError, AttributeError):  # a processor that exists for torchvision only
        raw = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(source)[0]
        return json.loads(json.dumps(raw))
    except OSError:
        if (Path(source) / "preprocessor_config.json").exists():
            raise  # it is there, but cannot be read
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", 224)
        size = size[0] if isinstance(size, (list, tuple)) else size
        warnings.warn(
            f"{source} has no preprocessor_config.json: images are squashed to {size} x {size}, bicubic, normalised "
            "with ImageNet's mean and standard deviation",
            stacklevel=2,
        )
        return {"size": size, "resample": 3}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
