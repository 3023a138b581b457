"""Audio networks of every family, tiny and with seeded random weights, each with a feature extractor of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sporeprint.backbones.backbone import Backbone

tf = pytest.importorskip("transformers")

SIZE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
WAVE = SIZE | {  # a frame for every 80 samples
    "conv_dim": (8, 8),
    "conv_kernel": (10, 8),
    "conv_stride": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 5,
}
LAYER = {"feat_extract_norm": "layer", "conv_bias": True}
STABLE = LAYER | {"do_stable_layer_norm": True}
AST = SIZE | {"max_length": 64, "num_mel_bins": 16, "patch_size": 8, "time_stride": 4, "frequency_stride": 4}
WHISPER = {  # 2 s: 200 frames, 100 tokens
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 8,
    "max_source_positions": 100,
    "vocab_size": 10,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
CLAP_TEXT = SIZE | {"vocab_size": 300, "max_position_embeddings": 40, "projection_dim": 6}


def clap_config(fused: bool) -> dict[str, Any]:
    fusion = {"enable_fusion": True, "fusion_type": "aff_2d"} if fused else {}
    return {
        "spec_size": 64,
        "num_mel_bins": 16,
        "window_size": 4,
        "depths": [1, 2],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "projection_dim": 6,
        "aff_block_r": 2,
        **fusion,
    }


def wave_extractor(**options: Any) -> Any:
    return tf.Wav2Vec2FeatureExtractor(return_attention_mask=True, **options)


def ast_extractor(**options: Any) -> Any:
    return tf.ASTFeatureExtractor(**({"num_mel_bins": 16, "max_length": 64} | options))


def whisper_extractor(**options: Any) -> Any:
    return tf.WhisperFeatureExtractor(**({"feature_size": 8, "chunk_length": 2} | options))


def clap_extractor(truncation: str = "rand_trunc", **options: Any) -> Any:
    return tf.ClapFeatureExtractor(**({"feature_size": 16, "max_length_s": 2, "truncation": truncation} | options))


def fused_extractor() -> Any:
    return clap_extractor("fusion")


def mean_of_all(module: Any, view: dict[str, Tensor]) -> Tensor:
    return module(view["input_values"]).last_hidden_state.mean(dim=1)


def mean_of_real(module: Any, view: dict[str, Tensor]) -> Tensor:
    tokens = -(-int(view["frames"]) // 2)
    return module(view["input_features"]).last_hidden_state[:, :tokens].mean(dim=1)


def ast_pooled(module: Any, view: dict[str, Tensor]) -> Tensor:
    return module(view["input_values"]).pooler_output


def clap_pooled(module: Any, view: dict[str, Tensor]) -> Tensor:
    return module(view["input_features"], is_longer=view["is_longer"]).pooler_output


@dataclass(frozen=True)
class Family:
    """build: the module as a user has it. extractor: its own. targets, parts: paths of the layer and of the part that
    is read; the first that exists counts. embed: what "auto" means, of one view [1, ...], unpadded."""

    build: Callable[[], nn.Module]
    extractor: Callable[[], Any]
    targets: tuple[str, ...]
    pooling: str
    embed: Callable[[Any, dict[str, Tensor]], Tensor]
    parts: tuple[str, ...] = ("",)
    pads: bool = True

    def module(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = self.build()
            for parameter in module.parameters():  # zeros and ones would hide a bias or a norm that is left out
                nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else parameter.data.add_(
                    0.2 * torch.randn(parameter.shape)
                )
        return module.to(dtype).eval()

    def backbone(self, dtype: torch.dtype = torch.float32, **options: Any) -> Backbone:
        return Backbone(self.module(dtype), preprocess=self.extractor(), **options)

    def part(self, module: nn.Module) -> nn.Module:
        return module.get_submodule(first_there(self.parts, module))


def first_there(paths: tuple[str, ...], module: nn.Module) -> str:
    there = {path for path, _ in module.named_modules()}
    return next(path for path in paths if path in there)


def _wave(build: Callable[[], nn.Module], part: str = "", target: str = "out_proj", pads: bool = False) -> Family:
    where = (f"encoder.layers.1.attention.{target}",)
    return Family(build, wave_extractor, where, "mean", mean_of_all, (part,), pads)


def _whisper(build: Callable[[], nn.Module], part: str = "") -> Family:
    target = ("layers.1.self_attn.out_proj",)
    return Family(build, whisper_extractor, target, "mean", mean_of_real, (part,))


def _clap(build: Callable[[], nn.Module], part: str = "", fused: bool = False) -> Family:
    target = ("audio_encoder.layers.1.blocks.1.attention.output.dense",)
    return Family(build, fused_extractor if fused else clap_extractor, target, "own", clap_pooled, (part,))


def _clap_model(fused: bool) -> nn.Module:
    return tf.ClapModel(tf.ClapConfig(text_config=CLAP_TEXT, audio_config=clap_config(fused), projection_dim=6))


def wav2vec2(**options: Any) -> nn.Module:
    return tf.Wav2Vec2Model(tf.Wav2Vec2Config(**WAVE, **options))


def hubert(**options: Any) -> nn.Module:
    return tf.HubertModel(tf.HubertConfig(**WAVE, **options))


def wavlm(**options: Any) -> nn.Module:
    return tf.WavLMModel(tf.WavLMConfig(**WAVE, num_buckets=8, max_bucket_distance=20, **options))


def data2vec() -> nn.Module:
    positions = {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
    return tf.Data2VecAudioModel(tf.Data2VecAudioConfig(**(WAVE | positions)))


FAMILIES = {
    "ast": Family(
        lambda: tf.ASTModel(tf.ASTConfig(**AST)),
        ast_extractor,
        ("layers.1.attention.o_proj", "encoder.layer.1.attention.output.dense"),
        "own",
        ast_pooled,
    ),
    "ast-classifier": Family(
        lambda: tf.ASTForAudioClassification(tf.ASTConfig(**AST)),
        ast_extractor,
        ("layers.1.attention.o_proj", "encoder.layer.1.attention.output.dense"),
        "own",
        ast_pooled,
        ("audio_spectrogram_transformer",),
    ),
    "wav2vec2-group": _wave(wav2vec2),
    "wav2vec2-layer": _wave(lambda: wav2vec2(**LAYER), pads=True),
    "wav2vec2-stable": _wave(lambda: wav2vec2(**STABLE), pads=True),
    "wav2vec2-adapter": _wave(lambda: wav2vec2(**STABLE, add_adapter=True, num_adapter_layers=1)),
    "wav2vec2-ctc": _wave(lambda: tf.Wav2Vec2ForCTC(tf.Wav2Vec2Config(**WAVE, **STABLE)), "wav2vec2", pads=True),
    "hubert-group": _wave(hubert),
    "hubert-layer": _wave(lambda: hubert(**LAYER), pads=True),
    "hubert-stable": _wave(lambda: hubert(**STABLE), pads=True),
    "hubert-batch-norm": _wave(lambda: hubert(**LAYER, conv_pos_batch_norm=True)),
    "wavlm-group": _wave(wavlm),
    "wavlm-layer": _wave(lambda: wavlm(**LAYER), pads=True),
    "wavlm-stable": _wave(lambda: wavlm(**STABLE), pads=True),
    "unispeech-stable": _wave(lambda: tf.UniSpeechModel(tf.UniSpeechConfig(**WAVE, **STABLE)), pads=True),
    "unispeech-sat-layer": _wave(lambda: tf.UniSpeechSatModel(tf.UniSpeechSatConfig(**WAVE, **LAYER)), pads=True),
    "data2vec": _wave(data2vec),
    "whisper": _whisper(lambda: tf.WhisperModel(tf.WhisperConfig(**WHISPER)), "encoder"),
    "whisper-generation": _whisper(
        lambda: tf.WhisperForConditionalGeneration(tf.WhisperConfig(**WHISPER)), "model.encoder"
    ),
    "whisper-encoder": _whisper(lambda: tf.WhisperModel(tf.WhisperConfig(**WHISPER)).get_encoder()),
    "clap": _clap(lambda: _clap_model(False), "audio_model"),
    "clap-fused": _clap(lambda: _clap_model(True), "audio_model", fused=True),
    "clap-audio": _clap(lambda: tf.ClapAudioModel(tf.ClapAudioConfig(**clap_config(False)))),
    "clap-projection": _clap(
        lambda: tf.ClapAudioModelWithProjection(tf.ClapAudioConfig(**clap_config(True))), "audio_model", fused=True
    ),
}


def tones(seconds: tuple[float, ...] = (0.12, 0.07, 0.031, 0.12), rate_hz: int = 16_000) -> list[np.ndarray]:
    """Different clips of noise and a tone, float32 [n], of the given seconds."""
    rng = np.random.default_rng(0)
    clips = []
    for at, length in enumerate(seconds):
        time = np.arange(round(length * rate_hz)) / rate_hz
        clips.append(
            (0.3 * np.sin(2 * np.pi * (300 + 170 * at) * time) + 0.1 * rng.standard_normal(len(time))).astype(
                np.float32
            )
        )
    return clips
