"""Turn what a user gives along with a network into the `Inputs` that prepare its samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.backbones.inputs.preprocess import CustomPreprocess, Preprocess
from sporeprint.backbones.inputs.sound import Sound
from sporeprint.backbones.inputs.tokens import Tokens, fitting_length, is_tokenizer
from sporeprint.backbones.libraries import sentence_model as sentence
from sporeprint.backbones.libraries.adapter import Adapter
from sporeprint.backbones.libraries.huggingface_audio import check_sound, pads_waveforms, shortest_waveform
from sporeprint.errors import BackboneError

_ADVICE = {
    "image": "the backbone cannot know how its images are normalised. Give preprocess=Preprocess(size=224, mean=(...), "
    "std=(...)) or a function from a PIL image to [3, S, S]",
    "text": "give preprocess=tokenizer, the Hugging Face tokenizer that the network was trained with",
    "audio": "give preprocess=feature_extractor, the Hugging Face feature extractor that the network was trained with",
}


def resolve_inputs(preprocess: Any, adapter: Adapter, name: str) -> Inputs:
    """Return a tokenizer, feature extractor or function as `Inputs`. Raises BackboneError where it does not fit."""
    if preprocess is None:
        raise BackboneError(f"no preprocess given; {_ADVICE[adapter.modality]}")
    if is_tokenizer(preprocess):
        preprocess = Tokens(preprocess, fitting_length(preprocess, adapter.module))
    elif not isinstance(preprocess, Inputs) and hasattr(preprocess, "sampling_rate"):
        preprocess = sound(preprocess, adapter.module)
    elif not isinstance(preprocess, Inputs):
        if adapter.modality != "image":
            raise BackboneError(f"preprocess is a {type(preprocess).__name__}; {_ADVICE[adapter.modality]}")
        preprocess = CustomPreprocess(preprocess)
    if adapter.library != "torch" and preprocess.modality != adapter.modality:
        raise BackboneError(f"{name} takes {adapter.modality}, its preprocess makes {preprocess.modality}")
    if adapter.library == "transformers" and hasattr(preprocess, "extractor"):
        check_sound(preprocess, adapter.module)
    if isinstance(preprocess, Preprocess):
        _check_side(preprocess, adapter, name)
        return preprocess if preprocess.patch else replace(preprocess, patch=adapter.patch)
    return preprocess


def _check_side(preprocess: Preprocess, adapter: Adapter, name: str) -> None:
    """Raise BackboneError for images below the network's size: smaller views are for a recipe to choose."""
    if adapter.side is not None and preprocess.size < adapter.side:
        side = adapter.side
        raise BackboneError(
            f"{name} takes images of {side} x {side}, its preprocess makes {preprocess.size} x {preprocess.size}; give "
            f"Preprocess(size={side}, ...). The recipe chooses views of a lower resolution (views='native')"
        )


def sound(extractor: Any, module: nn.Module) -> Inputs:
    """Return a feature extractor as `Sound`, padding where the network allows it."""
    return Sound(extractor, pads=pads_waveforms(module), shortest=shortest_waveform(module))


def unpack_sentence(
    module: Any, preprocess: Any, finish: nn.Module | None
) -> tuple[nn.Module, Any, nn.Module | None, str]:
    """Return (module, preprocess, finish, pooling) of a SentenceTransformer; other modules unchanged, with "auto"."""
    if not sentence.is_sentence_transformer(module):
        return module, preprocess, finish, "auto"
    if preprocess is not None or finish is not None:
        raise BackboneError(
            "a SentenceTransformer brings its own tokenizer and finish; leave preprocess and finish out"
        )
    network, tokenizer, settings = sentence.from_object(module)
    return network, sentence_tokens(tokenizer, network, settings), settings.finish, settings.pooling


def sentence_tokens(tokenizer: Any, module: nn.Module, settings: sentence.Sentence) -> Tokens:
    """Return the tokenizer as the sentence-transformers model uses it."""
    length = fitting_length(tokenizer, module, settings.max_length)
    return Tokens(tokenizer, length, settings.prompt, settings.include_prompt, lower=settings.lower)
