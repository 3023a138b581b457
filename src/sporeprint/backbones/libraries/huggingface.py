"""Load a Hugging Face checkpoint from the hub or a folder: network, preprocessing, pooling and finish."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sporeprint.backbones.input_spec import sentence_tokens, sound
from sporeprint.backbones.inputs.inputs import Inputs
from sporeprint.backbones.inputs.preprocess import Preprocess
from sporeprint.backbones.inputs.tokens import Tokens, fitting_length
from sporeprint.backbones.libraries.checkpoint_files import (
    check_adapter,
    check_code,
    check_config,
    check_folder,
    check_weights,
    remote_code,
)
from sporeprint.backbones.libraries.library_adapters import Adapter, adapt, modality_of
from sporeprint.backbones.libraries.sentence_files import read_sentence
from sporeprint.backbones.libraries.sentence_model import Sentence
from sporeprint.errors import BackboneError, MissingExtra, SporeprintError, first_line, warn

_LARGER = 10  # times its weights: float16, or only the encoder of two parts, and they are read as float32
_SMALL = 2**30  # bytes of a network that does no harm, however large it is for its weights


@dataclass(frozen=True)
class Loaded:
    """The parts of a `Backbone`, as loaded. random: weights that the checkpoint does not hold, drawn at random."""

    module: nn.Module
    inputs: Inputs
    pooling: str = "auto"
    finish: nn.Module | None = None
    random: dict[str, Tensor] = field(default_factory=dict)
    missing: str = ""  # the same, for messages: why they are missing, and what the checkpoint holds


@dataclass(frozen=True)
class _Checkpoint:
    """A checkpoint whose files were looked at. where: what transformers' loaders take to find the network."""

    name: str
    source: str
    sentence: Sentence | None
    config: Any
    where: dict[str, str]
    trust_remote_code: bool

    @property
    def options(self) -> dict[str, Any]:
        return {**self.where, "trust_remote_code": self.trust_remote_code}


def load_huggingface(
    name: str, modality: str = "auto", head: bool = False, trust_remote_code: bool = False, whole: bool = False
) -> Loaded:
    """Load a hub id or folder. modality: as in `Recipe`. head: with its language-model head. Raises BackboneError.

    whole: as the class that its configuration names, with a classifier or projection.
    """
    import transformers

    with _loading(name):
        checkpoint = _open(name, modality, trust_remote_code)
        config = checkpoint.config
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0
        auto = transformers.AutoModelForMaskedLM if head else transformers.AutoModel
        loader = _named_class(config) if whole and not head else auto
        if Path(checkpoint.source).is_dir():
            size = check_weights(Path(checkpoint.source) / checkpoint.where.get("subfolder", ""))
            _check_size(name, loader, config, size)
        with torch.random.fork_rng(devices=[]):  # what is missing is drawn, the same at every load
            torch.manual_seed(0)
            module, report = loader.from_pretrained(
                checkpoint.source,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                weights_only=True,  # said here, it cannot be overruled by TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD
                ignore_mismatched_sizes=True,  # they are refused below, by name
                **checkpoint.options,
            )
        adapter = adapt(module, modality)
        inputs = _inputs(checkpoint, adapter)
    random = _random(module, report)
    _draw(random)
    if not whole and adapter.auto != "own" and getattr(adapter.module, "pooler", None) is not None:
        setattr(adapter.module, "pooler", None)  # noqa: B010  # not read
    sentence = checkpoint.sentence or Sentence("auto")
    missing = _missing(module, report, random)
    prefix = f"{type(module).base_model_prefix}."
    if head and any(not name.startswith(prefix) for name in random):
        missing = "it has no masked-language-model head, which some objective reads; leave that out"
    network = module if head or whole else adapter.module
    return Loaded(network, inputs, sentence.pooling, sentence.finish, random, missing)


def find_modality(name: str, modality: str = "auto", trust_remote_code: bool = False) -> str:
    """Read "image", "text" or "audio" from a checkpoint's configuration, without its weights.

    Raises BackboneError, also where the checkpoint does not take `modality`.
    """
    is_images = name == "tiny" or name.startswith("timm:")
    taken = ["image"] if is_images else _modalities(name, modality, trust_remote_code)
    if modality not in ("auto", *taken):
        raise BackboneError(f"{name!r} takes {' or '.join(taken)}, not {modality}; leave the modality out")
    return taken[0] if modality == "auto" else modality


def _modalities(name: str, modality: str, trust_remote_code: bool) -> list[str]:
    """Return what a checkpoint's towers take, first the one that "auto" means."""
    with _loading(name):
        checkpoint = _open(name, modality, trust_remote_code)
        if checkpoint.sentence is not None:
            return ["text"]
        towers = {"vision_config": "image", "audio_config": "audio", "text_config": "text"}
        taken = [towers[part] for part in towers if hasattr(checkpoint.config, part)]
        if taken and taken != ["text"]:
            return taken
        network = _network_class(checkpoint)
        network_modality = modality_of(network)
        if network_modality is None:
            raise BackboneError(
                f"{name} is a {network.__name__}, which takes {network.main_input_name}; expected a "
                "network for images, text or audio"
            )
        return [network_modality]


def _network_class(checkpoint: _Checkpoint) -> Any:
    import transformers
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    config = checkpoint.config
    if checkpoint.trust_remote_code and "AutoModel" in (getattr(config, "auto_map", None) or {}):
        return get_class_from_dynamic_module(config.auto_map["AutoModel"], checkpoint.source)
    network: Any = transformers.MODEL_MAPPING[type(config)]
    return network[0] if isinstance(network, (tuple, list)) else network


def _named_class(config: Any) -> Any:
    """Return transformers' class that the configuration was saved with; AutoModel where it names none of them."""
    import transformers

    named: Any = getattr(transformers, str((config.architectures or [""])[0]), None)
    is_network = isinstance(named, type) and issubclass(named, transformers.PreTrainedModel)
    return named if is_network and named.config_class is type(config) else transformers.AutoModel


def _open(name: str, modality: str, trust_remote_code: bool) -> _Checkpoint:
    """Look at a checkpoint's files, and read its configuration. Raises BackboneError for what must not be loaded."""
    import transformers

    source = _source(name)
    folder = Path(source) if Path(source).is_dir() else None
    if folder is not None:
        check_folder(folder)
    check_adapter(source)
    sentence = read_sentence(source) if modality in ("auto", "text") else None
    settings, subfolder = sentence or (None, "")
    if unneeded := check_code(source, ["config.json"], subfolder, trust_remote_code):
        warn(f"{name}: {unneeded[0]} names code, which is not run: transformers' own class is read")
    if folder is not None:
        check_config(folder / subfolder)
    where = {"subfolder": subfolder} if subfolder else {}
    config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, **where)
    if getattr(config, "_attn_implementation", None) not in (None, "eager", "sdpa"):
        config._attn_implementation = None  # for hardware that may not be here; transformers chooses
    return _Checkpoint(name, source, settings, config, where, trust_remote_code)


def _source(name: str) -> str:
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    folder = Path(name).expanduser()
    if is_path and not folder.is_dir():
        raise BackboneError(
            f"no folder {name!r}; expected a folder with config.json and weights, or a hub id OWNER/NAME"
        )
    return str(folder) if folder.is_dir() else name


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Keep transformers quiet, never let it ask for leave to run code, and turn what it raises into a BackboneError."""
    import transformers
    from transformers import dynamic_module_utils

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # its report of a dropped classifier reads like a failure
    bar = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    seconds = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # of its question; 0: it raises instead
    try:
        yield
    except SporeprintError:
        raise
    except Exception as error:  # whatever a configuration that nobody checked leads to
        raise _explained(name, error) from error
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = seconds
        transformers.logging.set_verbosity(verbosity)
        if bar:
            transformers.logging.enable_progress_bar()


def _explained(name: str, error: Exception) -> SporeprintError:
    """Return the error with its cause, where transformers hides it."""
    causes = list(_causes(error))
    words = " ".join(map(str, causes))
    if ("torchvision" in words or "Could not import module" in words) and (fault := torchvision_fault()):
        return MissingExtra(fault)
    if "trust_remote_code" in words:
        return remote_code(name, "transformers has no class for this network, and the checkpoint names code of its own")
    if any(isinstance(cause, pickle.UnpicklingError) for cause in causes):
        return BackboneError(
            f"{name}: a .bin file of it is a pickle of more than weights, whose code was not run, or is cut off; give "
            "a checkpoint with model.safetensors"
        )
    return BackboneError(f"transformers could not load {name!r}: {first_line(error)}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def torchvision_fault() -> str:
    """Say what is wrong with a torchvision that cannot be imported; "" where there is none, or it is whole."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError as error:
        return "" if error.name == "torchvision" else _other_torchvision(error)
    except Exception as error:  # RuntimeError: "operator torchvision::nms does not exist"
        return _other_torchvision(error)
    return ""


def _other_torchvision(error: Exception) -> str:
    return (
        f"the installed torchvision does not fit torch {torch.__version__} ({first_line(error)}); install both from "
        "one place (pip install --force-reinstall torch torchvision), or remove it: pip uninstall torchvision"
    )


def _inputs(checkpoint: _Checkpoint, adapter: Adapter) -> Inputs:
    import transformers

    source, trust = checkpoint.source, checkpoint.trust_remote_code
    if adapter.modality != "text":
        check_code(source, ["preprocessor_config.json", "processor_config.json"], trust_remote_code=trust)
    if adapter.modality == "image":
        return Preprocess.from_huggingface(_processor(checkpoint))
    if adapter.modality == "audio":
        try:
            extractor = transformers.AutoFeatureExtractor.from_pretrained(source, trust_remote_code=trust)
        except Exception as error:  # whatever settings that nobody checked lead to
            raise BackboneError(
                f"transformers could not load the feature extractor of {source!r} (preprocessor_config.json): "
                f"{first_line(error)}. Save it next to the weights: feature_extractor.save_pretrained(folder)"
            ) from error
        return sound(extractor, adapter.module)
    check_code(source, ["tokenizer_config.json"], checkpoint.where.get("subfolder", ""), trust)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **checkpoint.options)
    except Exception as error:  # the tokenizers package raises a bare Exception
        raise BackboneError(
            f"transformers could not load the tokenizer of {source!r}: {first_line(error)}. Save it next to the "
            "weights: tokenizer.save_pretrained(folder)"
        ) from error
    if checkpoint.sentence is not None:
        return sentence_tokens(tokenizer, adapter.module, checkpoint.sentence)
    return Tokens(tokenizer, fitting_length(tokenizer, adapter.module))


def _check_size(name: str, loader: Any, config: Any, size: int) -> None:
    """Raise BackboneError where a network would be far larger than its weights, which are `size` bytes."""
    try:
        with torch.device("meta"):  # shapes alone
            module = (loader.from_config if hasattr(loader, "from_config") else loader._from_config)(config)
    except Exception:  # code of the checkpoint, or a configuration that fits no network: from_pretrained says which
        return
    needed = 4 * sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))
    if needed > max(_LARGER * size, _SMALL):
        raise BackboneError(
            f"{name}: config.json makes a network of {needed:,} bytes, but its weights are {size:,} bytes in all; "
            "fetch or save it again"
        )


def _random(module: nn.Module, report: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights and buffers that were drawn at random, by name."""
    drawn = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    tensors = {**dict(module.named_buffers()), **dict(module.named_parameters(remove_duplicate=False))}
    return {name: tensors[name] for name in sorted(drawn) if name in tensors}


def _draw(random: Mapping[str, Tensor]) -> None:
    """Draw trainable weights, the same at every load: 1 for norms' weights, biases 0, the rest normal, deviation 0.02.

    transformers leaves some of them, such as a weight norm's, as whatever was in memory.
    """
    generator = torch.Generator().manual_seed(0)
    trainable = {name: tensor for name, tensor in random.items() if tensor.requires_grad}  # others are tables
    with torch.no_grad():
        for name, tensor in trainable.items():
            if tensor.dim() == 1 and name.endswith(("weight", "bias")):
                tensor.fill_(name.endswith("weight"))
            else:
                tensor.normal_(0, 0.02, generator=generator)


def _missing(module: nn.Module, report: Mapping[str, Any], random: Mapping[str, Tensor]) -> str:
    """Say what a checkpoint holds instead of the weights that were drawn at random."""
    for name, theirs, ours in sorted(report["mismatched_keys"]):
        return f"it holds {name} as {list(theirs)}, its config.json makes it {list(ours)}"
    unexpected = sorted(report["unexpected_keys"])
    for name in unexpected:
        for known in random:
            if name.endswith(f".{known}"):
                return f"it holds {name!r} instead: rename its weights, without {name.removesuffix(known)!r}"
    return f"it holds {unexpected[0]!r} and others that are not of a {type(module).__name__}" if unexpected else ""


def _processor(checkpoint: _Checkpoint) -> dict[str, Any]:
    """Return the image processor's settings; class defaults filled in where the class can be imported."""
    import transformers

    source, config = checkpoint.source, checkpoint.config
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            source, trust_remote_code=checkpoint.trust_remote_code
        ).to_dict()
    except (ImportError, RuntimeError, AttributeError):  # a processor that exists for torchvision only
        raw = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(source)[0]
        return json.loads(json.dumps(raw))
    except OSError:
        if (Path(source) / "preprocessor_config.json").exists():
            raise  # it is there, but cannot be read
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", 224)
        size = size[0] if isinstance(size, (list, tuple)) else size
        warn(
            f"{source} has no preprocessor_config.json: images are squashed to {size} x {size}, bicubic, normalised "
            "with ImageNet's mean and standard deviation"
        )
        return {"size": size, "resample": 3}
