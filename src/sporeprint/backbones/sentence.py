"""How a sentence-transformers model makes an embedding: read from its files or its object; the package is not needed.

Facts are those of sentence-transformers 2.0 to 6.2. What cannot be done exactly is refused.
"""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sporeprint.errors import BackboneError

_ORDER = "expected Transformer, Pooling, then any of Dense, LayerNorm, Normalize, Dropout, all of sentence_transformers"
_FINISHING = ("Dense", "LayerNorm", "Normalize", "Dropout")
_TRANSFORMER_FILES = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
# How the weights are held, not what they compute; other loading options could change the network.
_HARMLESS = {
    *("trust_remote_code", "torch_dtype", "dtype", "attn_implementation", "device_map", "low_cpu_mem_usage"),
    *("use_safetensors", "use_cache", "add_pooling_layer", "use_fast", "padding_side", "model_max_length"),
}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    name: getattr(nn, name)
    for name in ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU", "SELU", "Softplus")
}
_BROKEN = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError)
_UNLIMITED = 10**9  # a tokenizer without a limit says 1e30


@dataclass(frozen=True)
class Sentence:
    """How a sentence-transformers model makes an embedding of a text."""

    pooling: str  # "cls", "mean" or "last"
    prompt: str = ""  # put before every text
    include_prompt: bool = True  # False: the prompt's tokens are left out of mean pooling
    max_length: int | None = None  # tokens, special ones counted; None: the tokenizer's and the network's own limit
    lower: bool = False  # prompt and text are lower-cased first (do_lower_case)
    finish: nn.Module | None = None  # pooled [N, E] -> embedding [N, E']: Dense, L2 normalisation, ... in their order


def read_sentence(source: str) -> tuple[Sentence, str] | None:
    """The settings in a folder or hub id, and the subfolder of the transformer ("" or "0_Transformer").

    None where there is no modules.json: a plain transformer, or nothing at all. Raises BackboneError where a file is
    missing or broken, or where the model does something that cannot be done exactly here.
    """
    files = _Files(str(Path(source).expanduser()) if source.startswith("~") else source)
    listing = files.modules()
    if listing is None:
        return None
    _check_order(source, [kind for kind, _ in listing])
    subfolder = listing[0][1]
    settings = next((found for name in _TRANSFORMER_FILES if (found := files.settings(name, subfolder))), {})
    lengths = _check_transformer(source, settings)
    whole = files.settings("config_sentence_transformers.json")
    if (kind := whole.get("model_type") or "SentenceTransformer") != "SentenceTransformer":
        raise _refusal(source, f"is a {kind}; expected a SentenceTransformer")
    pooling = files.settings("config.json", listing[1][1], needed=True)
    steps = [files.step(kind.rpartition(".")[2], folder) for kind, folder in listing[2:]]
    return _settle(source, whole, pooling, lengths, bool(settings.get("do_lower_case")), steps), subfolder


def is_sentence_transformer(value: Any) -> bool:
    """Whether `value` is a SentenceTransformer object, told by the names of its classes."""
    return any(
        kind.__name__ == "SentenceTransformer" and kind.__module__.partition(".")[0] == "sentence_transformers"
        for kind in type(value).__mro__
    )


def from_object(model: Any) -> tuple[nn.Module, Any, Sentence]:
    """(transformer module, tokenizer, settings) of a SentenceTransformer object.

    Module and tokenizer are the object's own; `finish` is a copy. Raises BackboneError as `read_sentence` does.
    """
    if not is_sentence_transformer(model):
        raise BackboneError(f"got a {type(model).__name__}; expected a SentenceTransformer object")
    source, parts = "this SentenceTransformer", list(model)
    _check_order(source, [f"{type(part).__module__}.{type(part).__name__}" for part in parts])
    first = parts[0]
    ways = ("transformer_task", "modality_config", "module_output_name", "processing_kwargs")
    _check_transformer(source, {name: getattr(first, name, None) for name in ways})
    module = getattr(first, "auto_model", None) or getattr(first, "model", None)
    tokenizer = getattr(first, "tokenizer", None)
    if not isinstance(module, nn.Module) or tokenizer is None:
        seen = f"{type(module).__name__} and tokenizer {type(tokenizer).__name__}"
        raise _refusal(source, f"holds a {seen}; expected a torch module (backend='torch') and a text tokenizer")
    whole = {name: getattr(model, name, None) for name in ("prompts", "default_prompt_name", "truncate_dim")}
    pooling = {name: getattr(parts[1], name) for name in (*_OLD_MODES, "pooling_mode") if name in vars(parts[1])}
    pooling["include_prompt"] = getattr(parts[1], "include_prompt", True)
    lower = bool(getattr(first, "do_lower_case", False))
    steps = [_step_of(source, part) for part in parts[2:]]
    length = getattr(first, "max_seq_length", None)
    length = length if isinstance(length, int) and length < _UNLIMITED else None
    return module, tokenizer, _settle(source, whole, pooling, length, lower, steps)


def prompt_length(tokenizer: Any, prompt: str, max_length: int | None = None) -> int:
    """Number of leading tokens that belong to the prompt, as sentence-transformers counts them: the prompt tokenized
    by itself, its special tokens too, less one where the last token is special.

    prompt: lower-cased already where `Sentence.lower`. max_length: `Sentence.max_length`; None: the tokenizer's own.
    """
    if not prompt:
        return 0
    tokens = tokenizer([prompt], truncation="longest_first", max_length=max_length)["input_ids"][0]
    return len(tokens) - (len(tokens) > 0 and tokens[-1] in tokenizer.all_special_ids)


def _check_order(source: str, kinds: Sequence[str]) -> None:
    ours = [kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind for kind in kinds]
    if ours[:2] != ["Transformer", "Pooling"] or any(kind not in _FINISHING for kind in ours[2:]):
        raise _refusal(source, f"has the modules {', '.join(ours) or '(none)'}; {_ORDER}")


def _check_transformer(source: str, settings: Mapping[str, Any]) -> int | None:
    """The maximum length that is set, in tokens. Raises BackboneError where more than plain text goes in and out."""
    task, output = settings.get("transformer_task"), settings.get("module_output_name")
    if task not in (None, "feature-extraction") or output not in (None, "token_embeddings"):
        raise _refusal(source, f"has transformer_task={task!r}, module_output_name={output!r}; expected token features")
    ways = _mapping(source, settings, "modality_config")
    way = ways.get("text", {})
    last = way.get("method_output_name", "last_hidden_state") if isinstance(way, Mapping) else None
    if ways and ("message" in ways or last not in ("last_hidden_state", ["last_hidden_state"], ("last_hidden_state",))):
        raise _refusal(source, f"reads texts by {dict(ways)}; expected plain text and its last_hidden_state")
    if any(_mapping(source, settings, "processing_kwargs").values()):
        raise _refusal(source, f"has processing_kwargs={settings['processing_kwargs']}; expected none")
    options: dict[str, Any] = {}
    for name in ("model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs"):
        options |= _mapping(source, settings, name)
    if strange := sorted(set(options) - _HARMLESS):
        raise _refusal(source, f"loads its transformer with the options {', '.join(strange)}, which are not read here")
    length = options.get("model_max_length", settings.get("max_seq_length"))  # the option wins there too
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise BackboneError(f"{source}: max_seq_length is {length!r}; expected a number of tokens, 1 or more")
    return None if length is None or length >= _UNLIMITED else length


def _settle(
    source: str, whole: Mapping[str, Any], pooling: dict[str, Any], length: int | None, lower: bool, steps: list[Any]
) -> Sentence:
    mode = _mode(source, pooling)
    prompts, name = _mapping(source, whole, "prompts"), whole.get("default_prompt_name")
    known = {"query": "", "document": ""} | {key: text or "" for key, text in prompts.items()}
    if name is not None and not isinstance(known.get(str(name)), str):
        raise BackboneError(f"{source}: default_prompt_name is {name!r}; expected one of: {', '.join(known)}")
    prompt = "" if name is None else known[str(name)]
    include = bool(pooling.get("include_prompt", True))
    if mode == "cls" and prompt and not include:  # 5.x takes the first token, 6.x the first after the prompt
        raise _refusal(source, "leaves its prompt out of CLS pooling, which releases of sentence-transformers do apart")
    steps = [step for step in steps if step is not None]
    if (cut := whole.get("truncate_dim")) is not None:
        if not isinstance(cut, int) or isinstance(cut, bool) or cut < 1:
            raise BackboneError(f"{source}: truncate_dim is {cut!r}; expected a number of dimensions, 1 or more")
        steps.append(_Cut(cut))
    finish = nn.Sequential(*steps).eval().requires_grad_(False) if steps else None
    return Sentence(mode, prompt, include, length, lower, finish)


def _mode(source: str, pooling: Mapping[str, Any]) -> str:
    modes = pooling.get("pooling_mode", [mode for key, mode in _OLD_MODES.items() if pooling.get(key)] or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, (list, tuple)) or len(modes) != 1 or str(modes[0]) not in _POOLINGS:
        seen = " + ".join(map(str, modes)) if isinstance(modes, (list, tuple)) else repr(modes)
        raise _refusal(source, f"pools by {seen}; expected one of: {', '.join(_POOLINGS)}")
    return _POOLINGS[str(modes[0])]


class _Dense(nn.Module):
    """Names are those of sentence-transformers' state dict."""

    def __init__(self, linear: nn.Module, activation_function: nn.Module, residual: nn.Module | None):
        super().__init__()
        self.linear, self.activation_function, self.residual = linear, activation_function, residual

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation_function(self.linear(x))
        return out if self.residual is None else out + self.residual(x)


class _Normalize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


class _Cut(nn.Module):
    """The first `dim` numbers (truncate_dim), not normalised again."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.dim]


def _step_of(source: str, part: Any) -> nn.Module | None:
    kind = type(part).__name__
    names = {name: getattr(part, name, None) for name in ("module_input_name", "module_output_name")}
    _check_names(source, kind, names)
    if kind == "Dense":
        if not isinstance(part.activation_function, nn.Module):
            raise _refusal(source, f"has a Dense with {part.activation_function!r}; expected an nn.Module")
        residual: nn.Module | None = None
        if getattr(part, "use_residual", False):
            residual = getattr(part, "residual", None) or nn.Identity()
        return copy.deepcopy(_Dense(part.linear, part.activation_function, residual))
    if kind == "LayerNorm":
        return copy.deepcopy(part.norm)
    return _Normalize() if kind == "Normalize" else None


def _check_names(source: str, kind: str, settings: Mapping[str, Any]) -> None:
    for name in ("module_input_name", "module_output_name"):
        if settings.get(name) not in (None, "sentence_embedding"):
            raise _refusal(source, f"has a {kind} with {name}={settings[name]!r}; expected 'sentence_embedding'")


class _Files:
    """The files of a folder or hub id."""

    def __init__(self, source: str):
        self.source = source

    def find(self, name: str, folder: str = "") -> str | None:
        """Where it lies; None where it is not there, or is not cached and the hub cannot be asked. Raises OSError."""
        from transformers.utils import cached_file

        quiet = {f"_raise_exceptions_for_{kind}": False for kind in ("missing_entries", "connection_errors")}
        return cached_file(self.source, name, subfolder=folder, **quiet)

    def read(self, name: str, folder: str = "") -> Any:
        """The JSON in it; None where it is not there."""
        try:
            found = self.find(name, folder)
            return None if found is None else json.loads(Path(found).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self.broken(name, folder, error) from error

    def settings(self, name: str, folder: str = "", needed: bool = False) -> dict[str, Any]:
        found = self.read(name, folder)
        if found is None and needed:
            raise self.broken(name, folder, "it is not there, but modules.json names its folder")
        if found is not None and not isinstance(found, dict):
            raise self.broken(name, folder, f"expected an object, found a {type(found).__name__}")
        return found or {}

    def modules(self) -> list[tuple[str, str]] | None:
        """(type, folder) of each module; None where there is no modules.json."""
        try:
            there = self.find("modules.json")
        except OSError:  # no folder, no hub id, or no answer: whoever loads the transformer says so
            there = None
        if there is None:
            self._say_unasked()
            return None
        listing = self.read("modules.json")
        try:
            found = [(part["type"], part["path"]) for part in listing]
            if not all(isinstance(text, str) for pair in found for text in pair):
                raise TypeError("a type or path is no string")
        except (TypeError, KeyError) as error:
            raise self.broken(
                "modules.json", "", f"expected a list of modules with type and path; {error!r}"
            ) from error
        for _, folder in found:
            if PureWindowsPath(folder).anchor or ".." in PureWindowsPath(folder).parts:
                raise self.broken("modules.json", "", f"the path {folder!r} leads out of the model's folder")
        return found

    def step(self, kind: str, folder: str) -> nn.Module | None:
        """A finishing module with its weights; None for one without effect."""
        settings = self.settings("config.json", folder, needed=kind in ("Dense", "LayerNorm"))
        _check_names(self.source, kind, settings)
        if kind not in ("Dense", "LayerNorm"):
            return _Normalize() if kind == "Normalize" else None
        try:
            with torch.device("meta"):  # no memory for sizes that are not true, and no random number drawn
                empty = _empty_dense(self.source, settings) if kind == "Dense" else _empty_norm(settings)
            empty.load_state_dict(self._weights(folder), assign=True)
        except BackboneError:
            raise
        except _BROKEN as error:
            raise self.broken("weights", folder, error) from error
        return empty.float()

    def _weights(self, folder: str) -> dict[str, Tensor]:
        if (found := self.find("model.safetensors", folder)) is not None:
            return load_file(found)
        if (found := self.find("pytorch_model.bin", folder)) is not None:
            return torch.load(found, map_location="cpu", weights_only=True)
        raise OSError("there is no model.safetensors and no pytorch_model.bin")

    def broken(self, name: str, folder: str, why: BaseException | str) -> BackboneError:
        said = (str(why).strip() or type(why).__name__).splitlines()
        where = f"{folder}/{name}" if folder else name
        return BackboneError(f"{self.source}: {where} cannot be read: {' '.join(said[:2])}. Fetch or save it again")

    def _say_unasked(self) -> None:
        from huggingface_hub import try_to_load_from_cache

        if Path(self.source).is_dir():
            return
        try:
            config, modules = (try_to_load_from_cache(self.source, name) for name in ("config.json", "modules.json"))
        except ValueError:  # no hub id at all
            return
        if isinstance(config, str) and modules is None:
            warnings.warn(
                f"{self.source}: modules.json is not cached and the hub gave no answer; taken as a plain transformer, "
                "which it may not be",
                stacklevel=2,
            )


def _empty_dense(source: str, settings: Mapping[str, Any]) -> nn.Module:
    width, out = settings["in_features"], settings["out_features"]
    name = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    last = str(name).rpartition(".")[2]
    if not str(name).startswith("torch.nn.") or last not in _ACTIVATIONS:
        raise _refusal(source, f"has a Dense with the activation {name!r}; expected one of: {', '.join(_ACTIVATIONS)}")
    residual: nn.Module | None = None
    if settings.get("use_residual", False):
        residual = nn.Identity() if width == out else nn.Linear(width, out, bias=False)
    return _Dense(nn.Linear(width, out, bias=settings.get("bias", True)), _ACTIVATIONS[last](), residual)


def _empty_norm(settings: Mapping[str, Any]) -> nn.Module:
    return nn.Sequential(OrderedDict(norm=nn.LayerNorm(settings["dimension"])))


def _mapping(source: str, settings: Mapping[str, Any], name: str) -> Mapping[Any, Any]:
    value = settings.get(name) or {}
    if not isinstance(value, Mapping):
        raise BackboneError(f"{source}: {name} is {value!r}; expected an object of names and values")
    return value


def _refusal(source: str, seen: str) -> BackboneError:
    return BackboneError(
        f"{source} {seen}. Take the bare transformer with Recipe(pooling='mean'), or another sentence model"
    )
