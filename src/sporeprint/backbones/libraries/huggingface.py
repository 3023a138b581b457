"""Load a Hugging Face checkpoint from the hub or a folder: network, preprocessing, pooling and finish."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from sporeprint.backbones.input_spec import sentence_tokens, sound
from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.inputs.tokens import Tokens, fitting_length
from sporeprint.backbones.libraries.library_adapters import Adapter, adapt, modality_of
from sporeprint.backbones.libraries.sentence_files import read_sentence
from sporeprint.backbones.libraries.sentence_model import Sentence
from sporeprint.errors import BackboneError, SporeprintError, first_line

_FAILURES = (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError, AttributeError, SafetensorError)


@dataclass(frozen=True)
class Loaded:
    """The parts of a `Backbone`, as loaded."""

    module: nn.Module
    inputs: Inputs
    pooling: str = "auto"
    finish: nn.Module | None = None


def load_huggingface(name: str, modality: str = "auto", head: bool = False) -> Loaded:
    """Load a hub id or folder. modality: as in `Recipe`. head: with its language-model head. Raises BackboneError."""
    import transformers

    source = _source(name)
    with _loading(name):
        sentence, folder = _sentence(source, modality)
        where = {"subfolder": folder} if folder else {}
        config = transformers.AutoConfig.from_pretrained(source, **where)
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0
        loader = transformers.AutoModelForMaskedLM if head else transformers.AutoModel
        module, report = loader.from_pretrained(
            source, config=config, dtype=torch.float32, output_loading_info=True, **where
        )
        adapter = adapt(module, modality)
        inputs = _inputs(source, config, adapter, sentence, where)
    if adapter.auto != "own" and getattr(adapter.module, "pooler", None) is not None:
        setattr(adapter.module, "pooler", None)  # noqa: B010  # not read, and where the checkpoint lacks it, random at every load
    _warn_missing(name, module, adapter.module, report["missing_keys"])
    network = adapter.module
    if head:
        prefix = f"{type(module).base_model_prefix}."
        if missing := [key for key in report["missing_keys"] if not key.startswith(prefix)]:
            raise BackboneError(
                f"{name} has no masked-language-model head ({missing[0]} and others are not in the checkpoint); leave "
                "out objectives that read it, or give a checkpoint for masked language modelling"
            )
        network = module
    if sentence is None:
        return Loaded(network, inputs)
    return Loaded(network, inputs, sentence.pooling, sentence.finish)


def find_modality(name: str, modality: str = "auto") -> str:
    """Read "image", "text" or "audio" from a checkpoint's configuration, without its weights.

    Raises BackboneError, also where the checkpoint does not take `modality`.
    """
    taken = ["image"] if name == "tiny" or name.startswith("timm:") else _modalities(name, modality)
    if modality not in ("auto", *taken):
        raise BackboneError(f"{name!r} takes {' or '.join(taken)}, not {modality}; leave the modality out")
    return taken[0] if modality == "auto" else modality


def _modalities(name: str, modality: str) -> list[str]:
    """Return what a checkpoint's towers take, first the one that "auto" means."""
    import transformers

    source = _source(name)
    with _loading(name):
        sentence, folder = _sentence(source, modality)
        if sentence is not None:
            return ["text"]
        config = transformers.AutoConfig.from_pretrained(source, **({"subfolder": folder} if folder else {}))
        towers = {"vision_config": "image", "audio_config": "audio", "text_config": "text"}
        taken = [towers[part] for part in towers if hasattr(config, part)]
        if taken and taken != ["text"]:
            return taken
        network: Any = transformers.MODEL_MAPPING[type(config)]
        network = network[0] if isinstance(network, (tuple, list)) else network
        network_modality = modality_of(network)
        if network_modality is None:
            raise BackboneError(
                f"{name} is a {network.__name__}, which takes {network.main_input_name}; expected a "
                "network for images, text or audio"
            )
        return [network_modality]


def _source(name: str) -> str:
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = Path(name).expanduser()
    if is_path and not folder.is_dir():
        raise BackboneError(
            f"no folder {name!r}; expected a folder with config.json and weights, or a hub id OWNER/NAME"
        )
    return str(folder) if folder.is_dir() else name


def _sentence(source: str, modality: str) -> tuple[Sentence | None, str]:
    sentence = read_sentence(source) if modality in ("auto", "text") else None
    return sentence or (None, "")


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Keep transformers quiet, and turn what it raises into a BackboneError."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # its report of a dropped classifier reads like a failure
    bar = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    except SporeprintError:
        raise
    except _FAILURES as error:
        raise BackboneError(f"transformers could not load {name!r}: {first_line(error)}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bar:
            transformers.logging.enable_progress_bar()


def _inputs(source: str, config: Any, adapter: Adapter, sentence: Sentence | None, where: dict[str, str]) -> Inputs:
    import transformers

    if adapter.modality == "image":
        return Preprocess.from_huggingface(_processor(source, config))
    if adapter.modality == "audio":
        try:
            extractor = transformers.AutoFeatureExtractor.from_pretrained(source)
        except _FAILURES as error:
            raise BackboneError(
                f"transformers could not load the feature extractor of {source!r} (preprocessor_config.json): "
                f"{first_line(error)}. Save it next to the weights: feature_extractor.save_pretrained(folder)"
            ) from error
        return sound(extractor, adapter.module)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **where)
    except Exception as error:  # the tokenizers package raises a bare Exception
        raise BackboneError(
            f"transformers could not load the tokenizer of {source!r}: {first_line(error)}. Save it next to the "
            "weights: tokenizer.save_pretrained(folder)"
        ) from error
    if sentence is not None:
        return sentence_tokens(tokenizer, adapter.module, sentence)
    return Tokens(tokenizer, fitting_length(tokenizer, adapter.module))


def _warn_missing(name: str, whole: nn.Module, part: nn.Module, missing: list[str]) -> None:
    """Warn of weights that are used but not in the checkpoint; a decoder's, say, are not used."""
    path = next((path for path, module in whole.named_modules() if module is part), "")
    ours = [key for key in missing if "pooler" not in key and (not path or key.startswith(f"{path}."))]
    if ours:
        warnings.warn(
            f"{name}: {len(ours)} weights are not in the checkpoint and were drawn at random ({ours[0]}, ...); "
            "features that depend on them differ from load to load",
            stacklevel=2,
        )


def _processor(source: str, config: Any) -> dict[str, Any]:
    """Return the image processor's settings; class defaults filled in where the class can be imported."""
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
