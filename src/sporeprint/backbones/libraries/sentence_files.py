"""Read the files of a sentence-transformers model, in a folder or the hub's cache."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sporeprint.backbones.libraries.checkpoint_files import Files
from sporeprint.backbones.libraries.sentence_model import (
    Dense,
    Normalize,
    Sentence,
    check_names,
    check_order,
    check_transformer,
    refusal,
    sentence_from_settings,
)
from sporeprint.errors import BackboneError, warn

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
    """Read the settings in a folder or hub id, and the subfolder of the transformer ("" or "0_Transformer").

    None where there is no modules.json: a plain transformer, or nothing at all. Raises BackboneError where a file is
    missing or broken, or where the model does something that cannot be done exactly here.
    """
    files = _Files(str(Path(source).expanduser()) if source.startswith("~") else source)
    listing = files.modules()
    if listing is None:
        return None
    check_order(source, [kind for kind, _ in listing])
    subfolder = listing[0][1]
    settings = next((content for name in _TRANSFORMER_FILES if (content := files.settings(name, subfolder))), {})
    lengths = check_transformer(source, settings)
    whole = files.settings("config_sentence_transformers.json")
    if (kind := whole.get("model_type") or "SentenceTransformer") != "SentenceTransformer":
        raise refusal(source, f"is a {kind}; expected a SentenceTransformer")
    pooling = files.settings("config.json", listing[1][1], needed=True)
    steps = [files.step(kind.rpartition(".")[2], folder) for kind, folder in listing[2:]]
    lower = bool(settings.get("do_lower_case"))
    return sentence_from_settings(source, whole, pooling, lengths, lower, steps), subfolder


class _Files(Files):
    """The files of a sentence-transformers model."""

    def modules(self) -> list[tuple[str, str]] | None:
        """Return (type, folder) of each module; None where there is no modules.json."""
        try:
            path = self.find("modules.json")
        except OSError:  # no folder, no hub id, or no answer: loading the transformer will raise
            path = None
        if path is None:
            self._warn_uncached()
            return None
        listing = self.read("modules.json")
        try:
            modules = [(part["type"], part["path"]) for part in listing]
            if not all(isinstance(text, str) for pair in modules for text in pair):
                raise TypeError("a type or path is not a string")
        except (TypeError, KeyError) as error:
            raise self.broken(
                "modules.json", "", f"expected a list of modules with type and path; {error!r}"
            ) from error
        for _, folder in modules:
            if PureWindowsPath(folder).anchor or ".." in PureWindowsPath(folder).parts:
                raise self.broken("modules.json", "", f"the path {folder!r} leads out of the model's folder")
        return modules

    def step(self, kind: str, folder: str) -> nn.Module | None:
        """Return a finishing module with its weights; None for one without effect."""
        settings = self.settings("config.json", folder, needed=kind in ("Dense", "LayerNorm"))
        check_names(self.source, kind, settings)
        if kind not in ("Dense", "LayerNorm"):
            return Normalize() if kind == "Normalize" else None
        try:
            with torch.device("meta"):  # wrong sizes take no memory, and no random number is drawn
                empty = _empty_dense(self.source, settings) if kind == "Dense" else _empty_norm(settings)
            empty.load_state_dict(self._weights(folder), assign=True)
        except BackboneError:
            raise
        except _BROKEN as error:
            raise self.broken("weights", folder, error) from error
        return empty.float()

    def _weights(self, folder: str) -> dict[str, Tensor]:
        if (path := self.find("model.safetensors", folder)) is not None:
            return load_file(path)
        if (path := self.find("pytorch_model.bin", folder)) is not None:
            return torch.load(path, map_location="cpu", weights_only=True)
        raise OSError("there is no model.safetensors and no pytorch_model.bin")

    def _warn_uncached(self) -> None:
        from huggingface_hub import try_to_load_from_cache

        if Path(self.source).is_dir():
            return
        try:
            config, modules = (try_to_load_from_cache(self.source, name) for name in ("config.json", "modules.json"))
        except ValueError:  # no hub id at all
            return
        if isinstance(config, str) and modules is None:
            warn(
                f"{self.source}: modules.json is not cached and the hub gave no answer; taken as a plain transformer, "
                "which it may not be"
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
