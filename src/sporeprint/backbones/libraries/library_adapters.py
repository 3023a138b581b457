"""Adapters for the networks of each library, which are recognised, never imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.inputs.inputs import Batch
from sporeprint.backbones.libraries import image_sizes
from sporeprint.backbones.libraries.adapter import (
    Adapter,
    accepted_arguments,
    attention_of,
    call_text,
    forward_arguments,
)
from sporeprint.backbones.libraries.huggingface_audio import adapt_audio
from sporeprint.backbones.libraries.tiny import TinyViT
from sporeprint.errors import BackboneError

# Towers whose authors use the pooled output; elsewhere it is an untrained or repeated CLS.
_OWN_POOLED = {"clip", "clip_vision_model", "siglip", "siglip_vision_model", "clip_text_model", "clap_text_model"}

# By class and the name of the one child: they give what it gives.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
    "PeftModel": "base_model",
    "BaseTuner": "model",
}
_MODALITY = {"pixel_values": "image", "input_ids": "text", "input_values": "audio", "input_features": "audio"}
_TOWERS = {
    "image": ["vision_model"],
    "text": ["text_model"],
    "audio": ["audio_model"],
    "auto": ["vision_model", "audio_model"],
}


def unwrap(module: nn.Module) -> tuple[nn.Module, str]:
    """Return (network, its path and a dot) inside wrappers that only pass their input on, such as DataParallel."""
    path = ""
    while (child := _inner_name(module)) is not None:
        module, path = module.get_submodule(child), f"{path}{child}."
    return module, path


def _inner_name(module: nn.Module) -> str | None:
    children = [name for name, _ in module.named_children()]
    names = {type_.__name__ for type_ in type(module).__mro__}
    if type(module) is nn.Sequential and len(children) == 1 and any(module[0].children()):
        return children[0]
    return next((child for wrapper, child in _WRAPPERS.items() if wrapper in names and child in children), None)


def check_plain(module: nn.Module, name: str) -> None:
    """Raise BackboneError for a network that runs as a compiled whole, so that no layer in it can be read."""
    if isinstance(module, torch.jit.ScriptModule):
        raise BackboneError(f"{name} is TorchScript, whose layers cannot be read; give the nn.Module it was made from")
    for path, part in module.named_modules():
        if type(part).__name__ == "OptimizedModule":
            raise BackboneError(
                f"{name}: {path or 'the network'} is compiled, so its layers cannot be read; give it as it was before "
                "torch.compile"
            )


def adapt(module: nn.Module, modality: str = "auto") -> Adapter:
    """Recognise the library by the class; any other `nn.Module` is simply called.

    modality: which tower of a network with two; "auto": the one for images or sound. Raises BackboneError.
    """
    libraries = _libraries(module)
    renamed = "transformers" in libraries and _renames(module)
    if "transformers" in libraries and not renamed:
        return _huggingface(module, modality)
    if "timm" in libraries and hasattr(module, "forward_head"):
        return _timm(module)
    if "torchvision" in libraries and hasattr(module, "class_token"):
        return _torchvision(module)
    patch, side = (module.patch, module.side) if isinstance(module, TinyViT) else (None, None)
    adapter = Adapter(module, partial(_call_plain, module), real=attention_of, patch=patch, side=side)
    if renamed:
        return _around(adapter, [module], modality)
    paths = [path for path, part in module.named_modules() if path and "transformers" in _libraries(part)]
    outer = [path for path in paths if not any(path.startswith(f"{other}.") for other in paths)]
    return _around(adapter, [module.get_submodule(path) for path in outer], modality) if outer else adapter


def _renames(module: Any) -> bool:
    """Return whether a user's subclass takes the network's input by another name, so that it can only be called."""
    return modality_of(module) is None and not type(module).__module__.startswith("transformers.")


def _libraries(module: nn.Module) -> set[str]:
    return {type_.__module__.partition(".")[0] for type_ in type(module).__mro__}


def _around(adapter: Adapter, networks: Sequence[Any], modality: str) -> Adapter:
    """Return the adapter of a user's own module around Hugging Face networks, read as a bare one would be."""
    for network in networks:
        _check_mae(network)
    try:
        (inner,) = (_huggingface(network, modality) for network in networks)
    except (BackboneError, ValueError):  # several, or one that only the user's module can call
        return replace(adapter, pooler=False)
    real = inner.real if inner.modality == "audio" else adapter.real
    return replace(adapter, pooler=inner.auto == "own", mean=inner.auto == "mean", real=real)


def _call_plain(module: nn.Module, batch: Batch) -> Any:
    return module(**batch) if isinstance(batch, Mapping) else module(batch)


def _huggingface(module: Any, modality: str) -> Adapter:
    head = module if type(module).__name__.endswith("ForMaskedLM") else None
    towers = [getattr(module, name, None) for name in _TOWERS[modality]]
    for part in (*towers, getattr(module, "base_model", None)):
        # DINOv3's base_model is its encoder, which takes tokens
        if part is not None and modality in ("auto", modality_of(part)) and modality_of(part) is not None:
            module = part
            break
    # The checkpoint of a T5 encoder declares no decoder, and yet is loaded with one.
    two = getattr(module.config, "is_encoder_decoder", False) or "decoder_input_ids" in forward_arguments(module)
    if two and hasattr(module, "get_encoder"):
        module = module.get_encoder()
    taken = modality_of(module) or _MODALITY.get(getattr(module, "main_input_name", ""))
    if taken is None or modality not in ("auto", taken):
        argument = getattr(module, "main_input_name", "something else")
        wanted = f"not {modality}" if modality != "auto" else f"not one of: {', '.join(_MODALITY)}"
        raise BackboneError(
            f"{type(module).__name__} takes {argument}, {wanted}; give a vision model, text encoder or audio encoder"
        )
    if taken == "text":
        return _text(module, head)
    if taken == "audio":
        return adapt_audio(module)
    return _vision(module)


def modality_of(module: nn.Module | type[nn.Module]) -> str | None:
    """Return the modality of a Hugging Face network, by the names of its forward's arguments."""
    names = forward_arguments(module)
    return next((modality for name, modality in _MODALITY.items() if name in names), None)


def _text(module: Any, head: nn.Module | None) -> Adapter:
    kind = module.config.model_type
    if kind.startswith("siglip"):
        raise BackboneError("SigLIP's text tower needs every text padded to 64 tokens, which is not supported")
    auto = "own" if kind in _OWN_POOLED else "found"
    call = partial(call_text, module, accepted_arguments(module))
    return Adapter(module, call, auto, 0, "transformers", "text", attention_of, head=head)


def _vision(module: Any) -> Adapter:
    config = module.config
    if config.model_type == "siglip2_vision_model":
        raise BackboneError(
            "SigLIP 2 NaFlex takes patches of any aspect, not square images, and is not supported; the fixed-size "
            "SigLIP 2 checkpoints (model type siglip) are"
        )
    patch, side = image_sizes.huggingface_patch(module), image_sizes.huggingface_side(module)
    if config.model_type == "vit_mae":
        _check_mae(module)
        return Adapter(module, partial(_call_mae, module), "cls", 1, "transformers", patch=patch, side=side)
    auto = "own" if config.model_type in _OWN_POOLED else "cls"
    if getattr(config, "use_mean_pooling", False):  # BEiT and data2vec-vision: their pooler norms the patches' mean
        auto = "own" if getattr(module, "pooler", None) is not None else "mean"
    return Adapter(module, partial(_call_huggingface, module), auto, library="transformers", patch=patch, side=side)


def _check_mae(module: Any) -> None:
    ratio = getattr(module.config, "mask_ratio", 0) if module.config.model_type == "vit_mae" else 0
    if ratio:
        raise BackboneError(
            f"this MAE encoder drops {ratio:.0%} of the patches at random; load it with none dropped: "
            "`from_pretrained(..., mask_ratio=0.0)`"
        )


def _call_huggingface(module: nn.Module, images: Tensor) -> Any:
    return module(pixel_values=images, **image_sizes.interpolation_argument(module, images))


def _call_mae(module: Any, images: Tensor) -> Any:
    # The noise orders the patches; ours keeps them in place and draws nothing from the global generator.
    height, width = (side // module.config.patch_size for side in images.shape[-2:])
    noise = torch.arange(height * width, device=images.device, dtype=torch.float32).repeat(len(images), 1)
    return module(pixel_values=images, noise=noise, **image_sizes.interpolation_argument(module, images))


def _timm(module: Any) -> Adapter:
    prefix, patch, side = (
        getattr(module, "num_prefix_tokens", None),
        image_sizes.timm_patch(module),
        image_sizes.timm_side(module),
    )
    return Adapter(module, partial(_call_timm, module), prefix=prefix, library="timm", patch=patch, side=side)


def _call_timm(module: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    tokens = image_sizes.flexible(module, images).forward_features(images)
    return tokens, module.forward_head(tokens, pre_logits=True)


def _torchvision(module: Any) -> Adapter:
    return Adapter(module, partial(_call_torchvision, module), auto="cls", prefix=1, library="torchvision")


def _call_torchvision(module: Any, images: Tensor) -> Tensor:
    patches = module._process_input(images)
    return module.encoder(torch.cat([module.class_token.expand(len(images), -1, -1), patches], dim=1))
