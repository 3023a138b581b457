"""The files of a sentence-transformers model, in a folder or the hub's cache."""

from __future__ import annotations

import json
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sporeprint.backbones.libraries.sentence_model import (
    Dense,
    Normalize,
    Sentence,
    check_names,
    check_order,
    check_transformer,
    refusal,
    settle,
)
from sporeprint.errors import BackboneError

_TRANSFORMER_FILES = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    name: getattr(nn, name)
    for name in ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU", "SELU", "Softplus")
}
_BROKEN = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError)


def read_sentence(source: str) -> tuple[Sentence, str] | None:
    """The settings in a folder or hub id, and the subfolder of the transformer ("" or "0_Transformer").

    None where there is no modules.json: a plain transformer, or nothing at all. Raises BackboneError where a file is
    missing or broken, or where the model does something that cannot be done exactly here.
    """
    files = _Files(str(Path(source).expanduser()) if source.startswith("~") else source)
    listing = files.modules()
    if listing is None:
        return None
    check_order(source, [kind for kind, _ in listing])
    subfolder = listing[0][1]
    settings = next((found for name in _TRANSFORMER_FILES if (found := files.settings(name, subfolder))), {})
    lengths = check_transformer(source, settings)
    whole = files.settings("config_sentence_transformers.json")
    if (kind := whole.get("model_type") or "SentenceTransformer") != "SentenceTransformer":
        raise refusal(source, f"is a {kind}; expected a SentenceTransformer")
    pooling = files.settings("config.json", listing[1][1], needed=True)
    steps = [files.step(kind.rpartition(".")[2], folder) for kind, folder in listing[2:]]
    return settle(source, whole, pooling, lengths, bool(settings.get("do_lower_case")), steps), subfolder


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
        check_names(self.source, kind, settings)
        if kind not in ("Dense", "LayerNorm"):
            return Normalize() if kind == "Normalize" else None
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
        raise refusal(source, f"has a Dense with the activation {name!r}; expected one of: {', '.join(_ACTIVATIONS)}")
    residual: nn.Module | None = None
    if settings.get("use_residual", False):
        residual = nn.Identity() if width == out else nn.Linear(width, out, bias=False)
    return Dense(nn.Linear(width, out, bias=settings.get("bias", True)), _ACTIVATIONS[last](), residual)


def _empty_norm(settings: Mapping[str, Any]) -> nn.Module:
    return nn.Sequential(OrderedDict(norm=nn.LayerNorm(settings["dimension"])))
