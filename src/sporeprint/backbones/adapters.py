"""How the networks of each library are called. They are recognised, never imported."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.errors import BackboneError

# Vision towers whose authors use the pooled output; the others' is an untrained or repeated CLS.
_OWN_POOLED = {"clip", "clip_vision_model", "siglip", "siglip_vision_model"}


@dataclass(frozen=True)
class Adapter:
    """One network as sporeprint calls it.

    module: the part that is read. call: images [N, 3, S, S] to tokens [N, T, E], pooled [N, E], a pair
    (tokens, pooled) or a Hugging Face output. auto: what pooling="auto" means: "cls", "mean", or "own" (the pooled
    output, where there is one). prefix: number of tokens before the patches, None where it has to be found.
    No field is a closure: a fitted Fungi can be pickled and copied.
    """

    module: nn.Module
    call: Callable[[Tensor], Any]
    auto: str = "own"
    prefix: int | None = None
    library: str = "torch"

    def outputs(self, images: Tensor, name: str) -> tuple[Tensor | None, Tensor | None]:
        """(tokens, pooled) of a pass; `name` is the backbone's, for messages. Raises BackboneError."""
        output = self.call(images)
        if isinstance(output, Tensor):
            return (output, None) if output.dim() == 3 else (None, output)
        if isinstance(output, tuple) and len(output) == 2:
            if self.library == "torch" and not _is_pair(*output):
                raise BackboneError(
                    f"{name} returned a pair, {_shape(output[0])} and {_shape(output[1])}; expected tokens [N, T, E] "
                    "and their pooled embedding [N, E]. Wrap the module so that it returns the embedding alone"
                )
            return output
        tokens, pooled = getattr(output, "last_hidden_state", None), getattr(output, "pooler_output", None)
        if tokens is None and pooled is None:
            raise BackboneError(
                f"{name} returned a {type(output).__name__}; expected a tensor [N, E] or [N, T, E], or a Hugging "
                "Face output with last_hidden_state or pooler_output"
            )
        return tokens, pooled


def adapt(module: nn.Module) -> Adapter:
    """Recognise the library by the class; any other `nn.Module` is simply called."""
    libraries = {type_.__module__.partition(".")[0] for type_ in type(module).__mro__}
    if "transformers" in libraries:
        return _huggingface(module)
    if "timm" in libraries and hasattr(module, "forward_head"):
        return _timm(module)
    if "torchvision" in libraries and hasattr(module, "class_token"):
        return _torchvision(module)
    return Adapter(module, module)


def _is_pair(tokens: Any, pooled: Any) -> bool:
    """Not (embedding, logits), nor (tokens, logits)."""
    if not (isinstance(tokens, Tensor) and isinstance(pooled, Tensor)):
        return False
    return tokens.dim() == 3 and pooled.dim() == 2 and tokens.shape[::2] == pooled.shape


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _huggingface(module: Any) -> Adapter:
    for part in (getattr(module, "vision_model", None), getattr(module, "base_model", None)):
        if part is not None and _takes_images(part):  # DINOv3's base_model is its encoder, which takes tokens
            module = part
            break
    config = module.config
    if config.model_type == "siglip2_vision_model":
        raise BackboneError(
            "SigLIP 2 NaFlex takes patches of any aspect, not square images, and is not supported; the fixed-size "
            "SigLIP 2 checkpoints (model type siglip) are"
        )
    if not _takes_images(module):
        taken = getattr(module, "main_input_name", "something else")
        raise BackboneError(f"{type(module).__name__} takes {taken}, not images (pixel_values); give a vision model")
    if config.model_type == "vit_mae":
        if module.config.mask_ratio:
            raise BackboneError(
                f"this MAE encoder drops {module.config.mask_ratio:.0%} of the patches at random; load it with none "
                "dropped: `from_pretrained(..., mask_ratio=0.0)`"
            )
        return Adapter(module, partial(_call_mae, module), auto="cls", prefix=1, library="transformers")
    auto = "own" if config.model_type in _OWN_POOLED else "cls"
    if getattr(config, "use_mean_pooling", False):  # BEiT and data2vec-vision: their pooler norms the patches' mean
        auto = "own" if getattr(module, "pooler", None) is not None else "mean"
    return Adapter(module, partial(_call_huggingface, module), auto=auto, library="transformers")


def _call_huggingface(module: nn.Module, images: Tensor) -> Any:
    return module(pixel_values=images)


def _takes_images(module: nn.Module) -> bool:
    return "pixel_values" in inspect.signature(module.forward).parameters


def _call_mae(module: Any, images: Tensor) -> Any:
    # The noise orders the patches; ours keeps them in place and draws nothing from the global generator.
    count = module.embeddings.num_patches if hasattr(module.embeddings, "num_patches") else _patches(module, images)
    noise = torch.arange(count, device=images.device, dtype=torch.float32).repeat(len(images), 1)
    return module(pixel_values=images, noise=noise)


def _patches(module: Any, images: Tensor) -> int:
    return (images.shape[-1] // module.config.patch_size) ** 2


def _timm(module: Any) -> Adapter:
    return Adapter(
        module, partial(_call_timm, module), prefix=getattr(module, "num_prefix_tokens", None), library="timm"
    )


def _call_timm(module: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    tokens = module.forward_features(images)
    return tokens, module.forward_head(tokens, pre_logits=True)


def _torchvision(module: Any) -> Adapter:
    return Adapter(module, partial(_call_torchvision, module), auto="cls", prefix=1, library="torchvision")


def _call_torchvision(module: Any, images: Tensor) -> Tensor:
    patches = module._process_input(images)
    return module.encoder(torch.cat([module.class_token.expand(len(images), -1, -1), patches], dim=1))
