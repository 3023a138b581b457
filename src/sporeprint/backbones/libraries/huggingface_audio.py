"""Adapters for Hugging Face's audio networks, with which of their tokens are sound and not padding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sporeprint.backbones.libraries.adapter import Adapter
from sporeprint.errors import BackboneError

# Padding is made zero before the only convolution over positions, and never attended to.
_ZEROED = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")


def adapt_audio(module: Any) -> Adapter:
    """Adapt Whisper's encoder, AST, CLAP's audio tower, and networks on waveforms such as wav2vec 2.0.

    Raises BackboneError for others.
    """
    kind = module.config.model_type
    adapter = partial(Adapter, module, library="transformers", modality="audio")
    if kind == "whisper":
        return adapter(call=partial(_call_whisper, module), auto="mean", prefix=0, real=whisper_tokens)
    if kind == "audio-spectrogram-transformer":  # its own pooling: the mean of CLS and distillation token, normed
        return adapter(call=partial(_call, module), auto="own", prefix=2, real=partial(ast_tokens, module))
    if kind in ("clap", "clap_audio_model"):
        # Its blocks lie in stages of windows; the last of them closes the network.
        depth = len(module.audio_encoder.layers)
        last = len(module.audio_encoder.layers[-1].blocks) - 1
        target = f"audio_encoder.layers.{depth - 1}.blocks.{last}.attention.output.dense"
        return adapter(call=partial(_call_clap, module), auto="own", prefix=0, target=target)
    if hasattr(module, "_get_feat_extract_output_lengths") and hasattr(module, "feature_extractor"):
        return adapter(call=partial(_call, module), auto="mean", prefix=0, real=partial(wave_tokens, module))
    raise BackboneError(
        f"{type(module).__name__} ({kind}) is not known; expected Whisper, AST, CLAP, wav2vec 2.0, HuBERT, WavLM or "
        "data2vec-audio. Wrap it in an nn.Module that returns the embedding, and give that to Backbone"
    )


def check_sound(inputs: Any, module: Any) -> None:
    """Raise BackboneError where a feature extractor does not fit the network, or pads waveforms that it must not pad.

    inputs: `Sound`. module: one that `adapt_audio` knows.
    """
    extractor = inputs.extractor
    config, extractor_name, name = module.config, type(extractor).__name__, type(module).__name__
    expected = _EXTRACTORS.get(config.model_type, "Wav2Vec2FeatureExtractor")
    advice = "give the one that the network was trained with (its preprocessor_config.json)"
    if extractor_name != expected:
        raise BackboneError(f"{name} takes the input of {expected}, not of {extractor_name}: {advice}")
    if inputs.waveform and inputs.pads and not pads_waveforms(module):
        raise BackboneError(f"{name} does not ignore a batch's padding, or its mask; give Sound(extractor, pads=False)")
    if (shapes_of := _SHAPES.get(extractor_name)) is None:
        return
    output, expected_input = shapes_of(extractor, config)
    if output != expected_input:
        both = (output, expected_input)
        produced, required = (", ".join(f"{key} {value}" for key, value in shapes.items()) for shapes in both)
        raise BackboneError(f"the feature extractor makes {produced}; {name} takes {required}: {advice}")


def _whisper_shapes(extractor: Any, config: Any) -> tuple[dict[str, int], dict[str, int]]:
    return (
        {"mel bins": extractor.feature_size, "frames": extractor.nb_max_frames},
        {"mel bins": config.num_mel_bins, "frames": 2 * config.max_source_positions},
    )


def _ast_shapes(extractor: Any, config: Any) -> tuple[dict[str, int], dict[str, int]]:
    return (
        {"mel bins": extractor.num_mel_bins, "frames": extractor.max_length},
        {"mel bins": config.num_mel_bins, "frames": config.max_length},
    )


def _clap_shapes(extractor: Any, config: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Compare CLAP's shapes: shorter clips are stretched, and a network that fuses also takes one spectrogram."""
    frames, copies = extractor.nb_max_samples // extractor.hop_length + 1, 4 if extractor.truncation == "fusion" else 1
    most, fuses = config.spec_size * (config.spec_size // config.num_mel_bins), bool(config.enable_fusion)
    return (
        {"mel bins": extractor.feature_size, "frames": frames, "copies": copies},
        {"mel bins": config.num_mel_bins, "frames": min(frames, most), "copies": copies if fuses else 1},
    )


_EXTRACTORS = {
    "whisper": "WhisperFeatureExtractor",
    "audio-spectrogram-transformer": "ASTFeatureExtractor",
    "clap": "ClapFeatureExtractor",
    "clap_audio_model": "ClapFeatureExtractor",
}
_SHAPES = {
    "WhisperFeatureExtractor": _whisper_shapes,
    "ASTFeatureExtractor": _ast_shapes,
    "ClapFeatureExtractor": _clap_shapes,
}


def pads_waveforms(module: Any) -> bool:
    """Return whether a network on waveforms gives a padded and masked one exactly the frames that it has alone.

    Not with group normalisation, which goes over time; nor where a convolution over positions reads what another layer
    made of padding: data2vec-audio has several in a row, some HuBERTs a batch normalisation before it, and wav2vec 2.0
    may have an adapter after the blocks.
    """
    config = getattr(module, "config", None)  # a user's own module has none, and gets no mask
    exact = getattr(config, "model_type", None) in _ZEROED and getattr(config, "feat_extract_norm", None) == "layer"
    return exact and not any(getattr(config, name, False) for name in ("conv_pos_batch_norm", "add_adapter"))


def shortest_waveform(module: Any) -> int:
    """Return the samples of which a network's convolutions make one frame; 0 for networks on spectrograms."""
    config = getattr(module, "config", None)
    kernels, strides = (tuple(getattr(config, name, ())) for name in ("conv_kernel", "conv_stride"))
    samples = 1
    for kernel, stride in zip(kernels[::-1], strides[::-1], strict=True):
        samples = (samples - 1) * stride + kernel
    return samples if strides else 0


def whisper_tokens(batch: Mapping[str, Tensor]) -> Tensor:
    """Return [N, T], true for sound: two spectrogram frames make a token; the rest of the 30 s is padding."""
    tokens = batch["input_features"].shape[-1] // 2
    return torch.arange(tokens, device=batch["frames"].device) < (batch["frames"][:, None] + 1) // 2


def ast_tokens(module: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return [N, T], true for patches that begin in the sound; those of one frequency are next to each other."""
    config = module.config
    steps = (config.max_length - config.patch_size) // config.time_stride + 1
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    starts = torch.arange(steps, device=batch["frames"].device) * config.time_stride
    real = starts < batch["frames"][:, None]  # [N, steps]
    return torch.cat([real.new_zeros(len(real), 2), real.repeat(1, bands)], dim=1)


def wave_tokens(module: Any, batch: Mapping[str, Tensor]) -> Tensor | None:
    """Return [N, T], true for frames made of a waveform's own samples; None where nothing is padded."""
    if "attention_mask" not in batch:
        return None
    lengths = module._get_feat_extract_output_lengths(batch["attention_mask"].sum(dim=1))
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]


def _call(module: Any, batch: Mapping[str, Tensor]) -> Any:
    return module(**batch)


def _call_whisper(module: Any, batch: Mapping[str, Tensor]) -> Any:
    return module(batch["input_features"])


def _call_clap(module: Any, batch: Mapping[str, Tensor]) -> Any:
    return None, module(**batch).pooler_output
