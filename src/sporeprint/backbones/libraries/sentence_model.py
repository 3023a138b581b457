"""Find how a sentence-transformers model makes an embedding, from its settings; the package is not needed.

This follows sentence-transformers 2.0 to 6.2. What cannot be done exactly is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sporeprint.errors import BackboneError
from sporeprint.values import is_count

_ORDER = "expected Transformer, Pooling, then any of Dense, LayerNorm, Normalize, Dropout, all of sentence_transformers"
_FINISHING = ("Dense", "LayerNorm", "Normalize", "Dropout")
_OLD_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
# Options on how weights are held, not on what they compute; other loading options could change the network.
_HARMLESS = {
    *("trust_remote_code", "torch_dtype", "dtype", "attn_implementation", "device_map", "low_cpu_mem_usage"),
    *("use_safetensors", "use_cache", "add_pooling_layer", "use_fast", "padding_side", "model_max_length"),
}
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


def is_sentence_transformer(value: Any) -> bool:
    """Return whether `value` is a SentenceTransformer object, by the names of its classes."""
    return any(
        kind.__name__ == "SentenceTransformer" and kind.__module__.partition(".")[0] == "sentence_transformers"
        for kind in type(value).__mro__
    )


def from_object(model: Any) -> tuple[nn.Module, Any, Sentence]:
    """Return (transformer module, tokenizer, settings) of a SentenceTransformer object.

    Module and tokenizer are the object's own; `finish` is a copy. Raises BackboneError as `read_sentence` does.
    """
    if not is_sentence_transformer(model):
        raise BackboneError(f"got a {type(model).__name__}; expected a SentenceTransformer object")
    source, parts = "this SentenceTransformer", list(model)
    check_order(source, [f"{type(part).__module__}.{type(part).__name__}" for part in parts])
    first = parts[0]
    ways = ("transformer_task", "modality_config", "module_output_name", "processing_kwargs")
    check_transformer(source, {name: getattr(first, name, None) for name in ways})
    module = getattr(first, "auto_model", None) or getattr(first, "model", None)
    tokenizer = getattr(first, "tokenizer", None)
    if not isinstance(module, nn.Module) or tokenizer is None:
        types = f"{type(module).__name__} and tokenizer {type(tokenizer).__name__}"
        raise refusal(source, f"holds a {types}; expected a torch module (backend='torch') and a text tokenizer")
    whole = {name: getattr(model, name, None) for name in ("prompts", "default_prompt_name", "truncate_dim")}
    pooling = {name: getattr(parts[1], name) for name in (*_OLD_MODES, "pooling_mode") if name in vars(parts[1])}
    pooling["include_prompt"] = getattr(parts[1], "include_prompt", True)
    lower = bool(getattr(first, "do_lower_case", False))
    steps = [_step_of(source, part) for part in parts[2:]]
    length = getattr(first, "max_seq_length", None)
    length = length if isinstance(length, int) and length < _UNLIMITED else None
    return module, tokenizer, sentence_from_settings(source, whole, pooling, length, lower, steps)


def prompt_length(tokenizer: Any, prompt: str, max_length: int | None = None) -> int:
    """Count the leading tokens that belong to the prompt, as sentence-transformers does.

    They are the prompt tokenized by itself, with its special tokens, less one where the last token is special.
    prompt: lower-cased already where `Sentence.lower`. max_length: `Sentence.max_length`; None: the tokenizer's own.
    """
    if not prompt:
        return 0
    tokens = tokenizer([prompt], truncation="longest_first", max_length=max_length)["input_ids"][0]
    return len(tokens) - (len(tokens) > 0 and tokens[-1] in tokenizer.all_special_ids)


def check_order(source: str, kinds: Sequence[str]) -> None:
    """Raise BackboneError for an order of modules that is not supported. kinds: full names of their types."""
    ours = [kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind for kind in kinds]
    if ours[:2] != ["Transformer", "Pooling"] or any(kind not in _FINISHING for kind in ours[2:]):
        raise refusal(source, f"has the modules {', '.join(ours) or '(none)'}; {_ORDER}")


def check_transformer(source: str, settings: Mapping[str, Any]) -> int | None:
    """Return the maximum length set, in tokens. Raises BackboneError for anything but plain text to its tokens."""
    task, output = settings.get("transformer_task"), settings.get("module_output_name")
    if task not in (None, "feature-extraction") or output not in (None, "token_embeddings"):
        raise refusal(source, f"has transformer_task={task!r}, module_output_name={output!r}; expected token features")
    ways = _mapping(source, settings, "modality_config")
    way = ways.get("text", {})
    last = way.get("method_output_name", "last_hidden_state") if isinstance(way, Mapping) else None
    if ways and ("message" in ways or last not in ("last_hidden_state", ["last_hidden_state"], ("last_hidden_state",))):
        raise refusal(source, f"reads texts by {dict(ways)}; expected plain text and its last_hidden_state")
    if any(_mapping(source, settings, "processing_kwargs").values()):
        raise refusal(source, f"has processing_kwargs={settings['processing_kwargs']}; expected none")
    options: dict[str, Any] = {}
    for name in ("model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs"):
        options |= _mapping(source, settings, name)
    if strange := sorted(set(options) - _HARMLESS):
        raise refusal(source, f"loads its transformer with the options {', '.join(strange)}, which are not read here")
    length = options.get("model_max_length", settings.get("max_seq_length"))  # the option wins there too
    if length is not None and not is_count(length):
        raise BackboneError(f"{source}: max_seq_length is {length!r}; expected a number of tokens, 1 or more")
    return None if length is None or length >= _UNLIMITED else length


def sentence_from_settings(
    source: str, whole: Mapping[str, Any], pooling: dict[str, Any], length: int | None, lower: bool, steps: list[Any]
) -> Sentence:
    """Combine settings to a `Sentence`. Raises BackboneError.

    whole, pooling: of the model and of its pooling. steps: after the pooling, None for one without effect.
    """
    mode = _mode(source, pooling)
    prompts, name = _mapping(source, whole, "prompts"), whole.get("default_prompt_name")
    known = {"query": "", "document": ""} | {key: text or "" for key, text in prompts.items()}
    if name is not None and not isinstance(known.get(str(name)), str):
        raise BackboneError(f"{source}: default_prompt_name is {name!r}; expected one of: {', '.join(known)}")
    prompt = "" if name is None else known[str(name)]
    include = bool(pooling.get("include_prompt", True))
    if mode == "cls" and prompt and not include:  # 5.x takes the first token, 6.x the first after the prompt
        raise refusal(source, "leaves its prompt out of CLS pooling; releases of sentence-transformers differ in that")
    steps = [step for step in steps if step is not None]
    if (cut := whole.get("truncate_dim")) is not None:
        if not is_count(cut):
            raise BackboneError(f"{source}: truncate_dim is {cut!r}; expected a number of dimensions, 1 or more")
        steps.append(_Cut(cut))
    finish = nn.Sequential(*steps).eval().requires_grad_(False) if steps else None
    return Sentence(mode, prompt, include, length, lower, finish)


def _mode(source: str, pooling: Mapping[str, Any]) -> str:
    modes = pooling.get("pooling_mode", [mode for key, mode in _OLD_MODES.items() if pooling.get(key)] or "mean")
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, (list, tuple)) or len(modes) != 1 or str(modes[0]) not in _POOLINGS:
        shown = " + ".join(map(str, modes)) if isinstance(modes, (list, tuple)) else repr(modes)
        raise refusal(source, f"pools by {shown}; expected one of: {', '.join(_POOLINGS)}")
    return _POOLINGS[str(modes[0])]


class Dense(nn.Module):
    """A linear layer, its activation, and the input added where there is a `residual`.

    The names are those of sentence-transformers' state dict.
    """

    def __init__(self, linear: nn.Module, activation_function: nn.Module, residual: nn.Module | None):
        super().__init__()
        self.linear, self.activation_function, self.residual = linear, activation_function, residual

    def forward(self, x: Tensor) -> Tensor:
        out = self.activation_function(self.linear(x))
        return out if self.residual is None else out + self.residual(x)


class Normalize(nn.Module):
    """Scales embeddings to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


class _Cut(nn.Module):
    """Keeps the first `dim` numbers (truncate_dim), not normalised again."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.dim]


def _step_of(source: str, part: Any) -> nn.Module | None:
    kind = type(part).__name__
    names = {name: getattr(part, name, None) for name in ("module_input_name", "module_output_name")}
    check_names(source, kind, names)
    if kind == "Dense":
        if not isinstance(part.activation_function, nn.Module):
            raise refusal(source, f"has a Dense with {part.activation_function!r}; expected an nn.Module")
        residual: nn.Module | None = None
        if getattr(part, "use_residual", False):
            residual = getattr(part, "residual", None) or nn.Identity()
        return copy.deepcopy(Dense(part.linear, part.activation_function, residual))
    if kind == "LayerNorm":
        return copy.deepcopy(part.norm)
    return Normalize() if kind == "Normalize" else None


def check_names(source: str, kind: str, settings: Mapping[str, Any]) -> None:
    """Raise BackboneError where a module reads or writes anything but the embedding."""
    for name in ("module_input_name", "module_output_name"):
        if settings.get(name) not in (None, "sentence_embedding"):
            raise refusal(source, f"has a {kind} with {name}={settings[name]!r}; expected 'sentence_embedding'")


def _mapping(source: str, settings: Mapping[str, Any], name: str) -> Mapping[Any, Any]:
    value = settings.get(name) or {}
    if not isinstance(value, Mapping):
        raise BackboneError(f"{source}: {name} is {value!r}; expected an object of names and values")
    return value


def refusal(source: str, problem: str) -> BackboneError:
    """Return the error for what cannot be done exactly, with a way out."""
    return BackboneError(
        f"{source} {problem}. Take the bare transformer with Recipe(pooling='mean'), or another sentence model"
    )
