"""How the networks of each library are called. They are recognised, never imported."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones import smaller
from sporeprint.backbones.inputs import Batch, for_network
from sporeprint.backbones.subset import keeping
from sporeprint.backbones.tiny import TinyViT
from sporeprint.errors import BackboneError

# Towers whose authors use the pooled output; the others' is an untrained or repeated CLS.
_OWN_POOLED = {"clip", "clip_vision_model", "siglip", "siglip_vision_model", "clip_text_model", "clap_text_model"}

_MODALITY = {"pixel_values": "image", "input_ids": "text", "input_values": "audio", "input_features": "audio"}
_TOWERS = {
    "image": ["vision_model"],
    "text": ["text_model"],
    "audio": ["audio_model"],
    "auto": ["vision_model", "audio_model"],
}


def _all(batch: Batch) -> None:
    """No token is padding."""


@dataclass(frozen=True)
class Adapter:
    """One network as sporeprint calls it.

    module: the part that is read. call: a batch to tokens [N, T, E], pooled [N, E], a pair (tokens, pooled) or a
    Hugging Face output. auto: what pooling="auto" means: "cls", "mean", or "own" (the pooled output, where there is
    one), "found": CLS, mean or last token, by what the network turns out to be. prefix: number of tokens before the
    patches, None where it has to be found. real: a batch to the tokens [N, T] that are no padding, None where all are.
    target: path of the layer to read, where the rule does not find it. head: the whole of a masked language model,
    whose output has logits. patch: side of its patches in pixels, where it takes other sizes too; side: of the
    images that it was made for, where its own preprocess must make no smaller ones. No field is a closure: a fitted
    Fungi can be pickled and copied.
    """

    module: nn.Module
    call: Callable[[Batch], Any]
    auto: str = "own"
    prefix: int | None = None
    library: str = "torch"
    modality: str = "image"
    real: Callable[[Any], Tensor | None] = _all
    target: str | None = None
    head: nn.Module | None = None
    patch: int | None = None
    side: int | None = None

    def predict(self, batch: Batch, name: str) -> tuple[tuple[Tensor | None, Tensor | None], Tensor, Tensor]:
        """What `outputs` gives, and of the same pass the head's logits [N, M, C] and their labels [N, M].

        M: the masked tokens of the view that has most of them; the others' last labels are -100. A vocabulary's width
        for every token would be too much. Raises BackboneError.
        """
        if self.head is None:
            raise BackboneError(
                f"{name} has no masked-language-model head; load a checkpoint that has one, or leave the objective out"
            )
        assert isinstance(batch, dict)
        hidden = batch["labels"] >= 0
        at = (~hidden).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(hidden.sum(dim=1).max())]
        kept: list[Any] = []
        mine = threading.get_ident()

        def narrow(_: nn.Module, __: Any, output: Any) -> Any:
            if threading.get_ident() != mine:  # the owner of the network may run it too
                return output
            kept.append(output)
            return type(output)(**{**output, "last_hidden_state": _gather(output["last_hidden_state"], at)})

        handle = self.module.register_forward_hook(narrow)
        try:
            logits = _call_text(self.head, _accepted(self.module), for_network(batch)).logits
        finally:
            handle.remove()
        return self._read(kept[0], name), logits, batch["labels"].gather(1, at)

    def outputs(self, batch: Batch, name: str) -> tuple[Tensor | None, Tensor | None]:
        """(tokens, pooled) of a pass; `name` is the backbone's, for messages. Raises BackboneError."""
        if isinstance(batch, Mapping) and "kept" in batch:
            with keeping(self.module, batch["kept"], int(batch["patches"][0])):
                return self._read(self.call(batch["pixel_values"]), name)
        return self._read(self.call(for_network(batch)), name)

    def _read(self, output: Any, name: str) -> tuple[Tensor | None, Tensor | None]:
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


def adapt(module: nn.Module, modality: str = "auto") -> Adapter:
    """Recognise the library by the class; any other `nn.Module` is simply called.

    modality: which tower of a network of two, "auto" for the one that sees or hears. Raises BackboneError.
    """
    libraries = {type_.__module__.partition(".")[0] for type_ in type(module).__mro__}
    if "transformers" in libraries:
        return _huggingface(module, modality)
    if "timm" in libraries and hasattr(module, "forward_head"):
        return _timm(module)
    if "torchvision" in libraries and hasattr(module, "class_token"):
        return _torchvision(module)
    patch, side = (module.patch, module.side) if isinstance(module, TinyViT) else (None, None)
    return Adapter(module, partial(_call_plain, module), real=attention_of, patch=patch, side=side)


def attention_of(batch: Batch) -> Tensor | None:
    """The tokens that the tokenizer made, less those that are not pooled: [N, T], true where they count."""
    if not isinstance(batch, Mapping) or "attention_mask" not in batch:
        return None
    return batch.get("pooled", batch["attention_mask"]).bool()


def _call_plain(module: nn.Module, batch: Batch) -> Any:
    return module(**batch) if isinstance(batch, Mapping) else module(batch)


def _is_pair(tokens: Any, pooled: Any) -> bool:
    """Not (embedding, logits), nor (tokens, logits)."""
    if not (isinstance(tokens, Tensor) and isinstance(pooled, Tensor)):
        return False
    return tokens.dim() == 3 and pooled.dim() == 2 and tokens.shape[::2] == pooled.shape


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _huggingface(module: Any, modality: str) -> Adapter:
    head = module if type(module).__name__.endswith("ForMaskedLM") else None
    towers = [getattr(module, name, None) for name in _TOWERS[modality]]
    for part in (*towers, getattr(module, "base_model", None)):
        # DINOv3's base_model is its encoder, which takes tokens
        if part is not None and modality in ("auto", modality_of(part)) and modality_of(part) is not None:
            module = part
            break
    # The checkpoint of a T5 encoder says that it has no decoder, and is loaded with one all the same.
    two = getattr(module.config, "is_encoder_decoder", False) or "decoder_input_ids" in _arguments(module)
    if two and hasattr(module, "get_encoder"):
        module = module.get_encoder()
    taken = modality_of(module)
    if taken is None or modality not in ("auto", taken):
        seen = getattr(module, "main_input_name", "something else")
        wanted = f"not {modality}" if modality != "auto" else f"not one of: {', '.join(_MODALITY)}"
        raise BackboneError(
            f"{type(module).__name__} takes {seen}, {wanted}; give a vision model, a text encoder or an audio encoder"
        )
    if taken == "text":
        return _text(module, head)
    if taken == "audio":
        from sporeprint.backbones.hearing import adapt_audio

        return adapt_audio(module)
    return _vision(module)


def modality_of(module: nn.Module | type[nn.Module]) -> str | None:
    """What a Hugging Face network takes, by the names of its forward's arguments."""
    names = _arguments(module)
    return next((modality for name, modality in _MODALITY.items() if name in names), None)


def _arguments(module: nn.Module | type[nn.Module]) -> Collection[str]:
    return inspect.signature(module.forward).parameters


def _text(module: Any, head: nn.Module | None) -> Adapter:
    kind = module.config.model_type
    if kind.startswith("siglip"):
        raise BackboneError("SigLIP's text tower wants every text padded to 64 tokens, which is not supported")
    auto = "own" if kind in _OWN_POOLED else "found"
    call = partial(_call_text, module, _accepted(module))
    return Adapter(module, call, auto, 0, "transformers", "text", attention_of, head=head)


def _gather(tokens: Tensor, at: Tensor) -> Tensor:
    """[N, T, E] at [N, M] to [N, M, E]."""
    return tokens.gather(1, at.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def _accepted(module: nn.Module) -> frozenset[str]:
    return frozenset({"input_ids", "attention_mask", "token_type_ids"} & set(_arguments(module)))


def _call_text(module: nn.Module, accepted: frozenset[str], batch: Batch) -> Any:
    assert isinstance(batch, Mapping)
    return module(**{name: tensor for name, tensor in batch.items() if name in accepted})


def _vision(module: Any) -> Adapter:
    config = module.config
    if config.model_type == "siglip2_vision_model":
        raise BackboneError(
            "SigLIP 2 NaFlex takes patches of any aspect, not square images, and is not supported; the fixed-size "
            "SigLIP 2 checkpoints (model type siglip) are"
        )
    patch, side = smaller.huggingface_patch(module), smaller.huggingface_side(module)
    if config.model_type == "vit_mae":
        if module.config.mask_ratio:
            raise BackboneError(
                f"this MAE encoder drops {module.config.mask_ratio:.0%} of the patches at random; load it with none "
                "dropped: `from_pretrained(..., mask_ratio=0.0)`"
            )
        return Adapter(module, partial(_call_mae, module), "cls", 1, "transformers", patch=patch, side=side)
    auto = "own" if config.model_type in _OWN_POOLED else "cls"
    if getattr(config, "use_mean_pooling", False):  # BEiT and data2vec-vision: their pooler norms the patches' mean
        auto = "own" if getattr(module, "pooler", None) is not None else "mean"
    return Adapter(module, partial(_call_huggingface, module), auto, library="transformers", patch=patch, side=side)


def _call_huggingface(module: nn.Module, images: Tensor) -> Any:
    return module(pixel_values=images, **smaller.interpolating(module, images))


def _call_mae(module: Any, images: Tensor) -> Any:
    # The noise orders the patches; ours keeps them in place and draws nothing from the global generator.
    height, width = (side // module.config.patch_size for side in images.shape[-2:])
    noise = torch.arange(height * width, device=images.device, dtype=torch.float32).repeat(len(images), 1)
    return module(pixel_values=images, noise=noise, **smaller.interpolating(module, images))


def _timm(module: Any) -> Adapter:
    prefix, patch, side = (
        getattr(module, "num_prefix_tokens", None),
        smaller.timm_patch(module),
        smaller.timm_side(module),
    )
    return Adapter(module, partial(_call_timm, module), prefix=prefix, library="timm", patch=patch, side=side)


def _call_timm(module: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    tokens = smaller.flexible(module, images).forward_features(images)
    return tokens, module.forward_head(tokens, pre_logits=True)


def _torchvision(module: Any) -> Adapter:
    return Adapter(module, partial(_call_torchvision, module), auto="cls", prefix=1, library="torchvision")


def _call_torchvision(module: Any, images: Tensor) -> Tensor:
    patches = module._process_input(images)
    return module.encoder(torch.cat([module.class_token.expand(len(images), -1, -1), patches], dim=1))
