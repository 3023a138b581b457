"""Read a checkpoint's files before any library does: refuse what could run code, and say what is not whole."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sporeprint.errors import BackboneError, first_line
from sporeprint.values import parse_json

_POINTER = b"version https://git-lfs.github.com/spec/"
_SAFE, _BIN = "model.safetensors", "pytorch_model.bin"
_INDEX = ".index.json"
_WEIGHTS = (_SAFE, _SAFE + _INDEX, _BIN, _BIN + _INDEX)  # in the order in which transformers looks
_OTHER_WEIGHTS = {
    ".gguf": "GGUF",
    ".onnx": "ONNX",
    ".h5": "TensorFlow's",
    ".msgpack": "Flax's",
    ".safetensors": "another name's",
    **dict.fromkeys((".bin", ".pt", ".pth", ".ckpt", ".pkl"), "a pickle, which could run code"),
}
# transformers would look up any name of its own here, and call it.
_CLASS_KEYS = ("tokenizer_class", "image_processor_type", "feature_extractor_type", "video_processor_type")
_CLASS = re.compile(r"(?!Auto)\w*(Tokenizer(Fast)?|Backend|FeatureExtractor|(Image|Video)Processor(Fast|Pil)?)")
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_BUILT_IN = re.compile(r"eager|sdpa|flex_attention|flash_attention_\d|grouped_mm|batched_mm")
# Numbers that the weights have as many rows, columns or tensors of.
_WIDTH = re.compile(
    r"(n|num|encoder|decoder)_(\w+_)?layers?|n_embd|d_model|(hidden|intermediate|vocab|embedding)_(size|dim)"
)
# The most that config.json may count, where transformers would make as many modules, labels or rows.
_COUNTS = {
    re.compile(r"(n|num|encoder|decoder)_(\w+_)?(layers?|blocks|stages)|depths?"): 1000,
    re.compile(r"(image|patch)_size|num_channels"): 100_000,
    re.compile(r"num_labels"): 1_000_000,
    re.compile(r"\w*(size|dim|model|embd|embeddings|positions|channels|heads|experts|bins|patches)s?"): 100_000_000,
}
_REACHING = {
    "quantization_config": "quantised weights need another package's code; give the checkpoint before quantisation",
    "fusion_config": "it replaces parts of the network; remove it",
    "kernel_config": "it replaces parts of the network; remove it",
    "checkpoint_path": "timm would unpickle that file, which could run code; remove it",
    "configuration_files": "other files would be read instead of this one; remove it",
}
_NETWORK_CLASSES = ("AutoConfig", "AutoModel")  # and AutoModelFor...
_DESIGNS = ("backbone", "architecture")  # names in timm


class Files:
    """The files of a folder or hub id."""

    def __init__(self, source: str):
        self.source = source

    def find(self, name: str, folder: str = "") -> str | None:
        """Return its path; None where it is absent, or not cached and the hub cannot be reached.

        Raises OSError, and BackboneError for a pointer of Git LFS.
        """
        from transformers.utils import cached_file

        quiet = {f"_raise_exceptions_for_{kind}": False for kind in ("missing_entries", "connection_errors")}
        path = cached_file(self.source, name, subfolder=folder, **quiet)
        if path is not None:
            _check_pointer(Path(path))
        return path

    def read(self, name: str, folder: str = "") -> Any:
        """Return the JSON in it; None where it is absent."""
        try:
            path = self.find(name, folder)
            return None if path is None else parse_json(Path(path).read_text(encoding="utf-8"))
        except BackboneError:
            raise
        except (OSError, ValueError) as error:
            raise self.broken(name, folder, error) from error

    def settings(self, name: str, folder: str = "", needed: bool = False) -> dict[str, Any]:
        """Return the object in it; {} where it is absent. Raises BackboneError."""
        content = self.read(name, folder)
        if content is None and needed:
            raise self.broken(name, folder, "it is not there, but modules.json names its folder")
        if content is not None and not isinstance(content, dict):
            raise self.broken(name, folder, f"expected an object, got a {type(content).__name__}")
        return content or {}

    def broken(self, name: str, folder: str, why: BaseException | str) -> BackboneError:
        lines = (str(why).strip() or type(why).__name__).splitlines()
        where = f"{folder}/{name}" if folder else name
        return BackboneError(f"{self.source}: {where} cannot be read: {' '.join(lines[:2])}. Fetch or save it again")


def check_code(source: str, names: Iterable[str], folder: str = "", trust_remote_code: bool = False) -> list[str]:
    """Raise BackboneError where a checkpoint's JSON files ask for code, a kernel, or another checkpoint.

    trust_remote_code: the checkpoint's own code may run; kernels and other checkpoints still not.
    Returns the files whose code is not needed, because transformers has the class itself.
    """
    files, unneeded = Files(source), []
    for name in names:
        try:
            if files.find(name, folder) is None:
                continue
        except OSError:  # no folder, no hub id, or no answer: transformers will say why
            continue
        content, where = files.settings(name, folder), f"{folder}/{name}" if folder else name
        for path, key, value in _entries(content):
            if problem := _problem(key, value) or (name == "config.json" and _excess(key, value)):
                raise BackboneError(f"{source}: {where} sets {'.'.join((*path, key))} to {_short(value)}: {problem}")
            if key == "auto_map" and (code := _code_named(value)) and not trust_remote_code:
                if path or not _has_own_class(name, content):
                    raise remote_code(source, f"{where} names code to run ({code})")
                if name != "config.json" or any(str(key).startswith(_NETWORK_CLASSES) for key in value):
                    unneeded.append(where)
    return unneeded


def remote_code(source: str, what: str) -> BackboneError:
    """Return the error for a checkpoint that cannot be read without running code that lies next to it."""
    return BackboneError(
        f"{source}: {what}; sporeprint runs no code of a checkpoint. Read it, and if you trust it, give "
        "--trust-remote-code (trust_remote_code=True)"
    )


def _entries(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Yield (path, key, value) of every entry of nested objects."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield path, key, value
            yield from _entries(value, (*path, key))
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value, path)


def _problem(key: str, value: Any) -> str:
    """Say what an entry could reach; "" for a harmless one."""
    if value is None:
        return ""
    if key in _REACHING:
        return _REACHING[key]
    if _IMPLEMENTATION.fullmatch(key):
        named = list(value.values()) if isinstance(value, Mapping) else [value]
        if not all(name is None or (isinstance(name, str) and _BUILT_IN.fullmatch(name)) for name in named):
            return "that is code from elsewhere, not one of transformers' own implementations; remove it, or write sdpa"
    if not isinstance(value, str):
        return ""
    if key in _DESIGNS and re.search(r"[/:\\]", value):
        return "that names another checkpoint; give that one, or remove it"
    if key in _CLASS_KEYS and not _CLASS.fullmatch(value) and _is_own(value):
        return "that is no tokenizer or processor; save the right one next to the weights"
    if key in ("dtype", "torch_dtype") and not isinstance(getattr(torch, value, torch.float32), torch.dtype):
        return "that is no precision; write float32"
    return ""


def _excess(key: str, value: Any) -> str:
    """Say which bound a number, or one in a list, is above; "" for none."""
    most = next((most for pattern, most in _COUNTS.items() if pattern.fullmatch(key)), math.inf)
    numbers = value if isinstance(value, list) else [value]
    if any(type(number) is int and number > most for number in numbers):
        return f"expected at most {most:,}; fetch or save it again"
    return ""


def _code_named(auto_map: Any) -> str:
    """Return the first code that is named for a class that is read; AutoProcessor is not."""
    if isinstance(auto_map, Mapping):
        auto_map = [value for key, value in auto_map.items() if key != "AutoProcessor"]
    named = auto_map[0] if isinstance(auto_map, list) and auto_map else auto_map
    return _short(named) if named else ""


def _has_own_class(file: str, content: Mapping[str, Any]) -> bool:
    """Return whether transformers has the class that a file is for."""
    import transformers

    if file == "config.json":
        return content.get("model_type") in transformers.CONFIG_MAPPING
    named = [content[key] for key in _CLASS_KEYS if content.get(key) is not None]
    return bool(named) and all(isinstance(name, str) and _is_own(name) for name in named)


def _is_own(name: str) -> bool:
    import transformers

    return bool({name, name.removesuffix("Fast")} & set(dir(transformers)))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_adapter(source: str) -> None:
    """Raise BackboneError for an adapter: peft, where it is installed, would join it to whatever network it names."""
    files = Files(source)
    try:
        if files.find("adapter_config.json") is None:
            return
    except OSError:  # no folder, no hub id, or no answer: transformers will say why
        return
    base = files.settings("adapter_config.json").get("base_model_name_or_path")
    raise _adapter(source, f"adapter_config.json) for {_short(base)}")


def _adapter(source: object, what: str) -> BackboneError:
    return BackboneError(
        f"{source} holds an adapter (LoRA, {what}, which is only a part of a network; merge it into its base model "
        "(PeftModel.merge_and_unload()), save that, and give its folder"
    )


def check_folder(folder: Path) -> None:
    """Raise BackboneError where a folder is empty, holds pointers of Git LFS instead of files, or a pipeline."""
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        raise BackboneError(f"{folder} is empty; expected config.json and {_SAFE}")
    if "model_index.json" in names:
        raise BackboneError(
            f"{folder} holds a diffusers pipeline (model_index.json); expected one network for images, text or audio"
        )
    for name in names:
        if name.endswith((".json", ".txt", ".model")):  # settings and vocabularies; `check_weights` looks at those
            _check_pointer(folder / name)


def _check_pointer(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):  # reading would wait, or never end
        raise BackboneError(f"{path} is no file (a pipe or a device); fetch the checkpoint again")
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(_POINTER)) == _POINTER
    except OSError:  # whoever reads it says why
        return
    if is_pointer:
        raise BackboneError(
            f"{path} is a Git LFS pointer, not the file itself; fetch it, in that folder, with: git lfs pull"
        )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _other_weights(folder: Path) -> str:
    """Return the name and format of weights that are not read; "" for none. Raises BackboneError for an adapter."""
    names = _names(folder)
    if adapters := [name for name in names if name.startswith("adapter_model.")]:
        raise _adapter(folder, f"{adapters[0]})")
    other = [name for name in names if Path(name).suffix in _OTHER_WEIGHTS]
    return f"{other[0]} ({_OTHER_WEIGHTS[Path(other[0]).suffix]})" if other else ""


def check_config(folder: Path) -> None:
    """Raise BackboneError where a folder has no configuration of a network of transformers."""
    names = _names(folder)
    if "config.json" not in names:
        weights = next((f"weights ({name}) without it" for name in _WEIGHTS if name in names), "")
        instead = f"it holds {weights or _other_weights(folder) or ', '.join(names[:5]) or 'nothing'}"
        raise BackboneError(
            f"{folder} has no config.json; {instead}. Expected config.json and {_SAFE}, as save_pretrained(folder) "
            "writes"
        )
    config = Files(str(folder)).settings("config.json")
    if "_class_name" in config and "model_type" not in config:
        raise BackboneError(
            f"{folder}/config.json is of a diffusers {_short(config['_class_name'])}; expected a network of "
            "transformers for images, text or audio"
        )


def check_weights(folder: Path) -> int:
    """Return the bytes of a folder's weights. Raises BackboneError where none are read here, or not all are there."""
    names = _names(folder)
    config = Files(str(folder)).settings("config.json")
    named = config.get("transformers_weights")
    found = next((name for name in ([named] if isinstance(named, str) else _WEIGHTS) if name in names), None)
    if found is None:
        other = _other_weights(folder)
        instead = f"it holds {other}" if other else "there are none"
        raise BackboneError(
            f"{folder} has config.json and no weights that are read here ({instead}); expected {_SAFE}: save them with "
            "model.save_pretrained(folder)"
        )
    shards = [folder / name for name in (_shards(folder, found) if found.endswith(_INDEX) else [found])]
    for shard in shards:
        _check_whole(shard, found)
    size = sum(shard.stat().st_size for shard in shards)
    for path, key, value in _entries(config):
        if _WIDTH.fullmatch(key) and type(value) is int and value > size:
            raise BackboneError(
                f"{folder}/config.json sets {'.'.join((*path, key))} to {_short(value)}, but its weights are {size:,} "
                "bytes in all; fetch or save it again"
            )
    return size


def _shards(folder: Path, index: str) -> list[str]:
    """Return the files that an index of weights names."""
    listed = Files(str(folder)).settings(index).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, Mapping) else []
    if not names:
        raise BackboneError(f"{folder / index} names no file of weights (weight_map); fetch or save it again")
    if outside := [name for name in names if PureWindowsPath(name).name != name]:
        raise BackboneError(f"{folder / index} names {outside[0]!r}, which leads out of the folder; fetch it again")
    return names


def _check_whole(path: Path, named_by: str) -> None:
    if not path.is_file():
        raise BackboneError(f"{path} is missing, and {named_by} names it; fetch it again")
    _check_pointer(path)
    if path.suffix != ".safetensors":
        return
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        size = f"{path.stat().st_size:,} bytes"
        raise BackboneError(
            f"{path} ({size}) is cut off or damaged: {first_line(error)}; fetch or save it again"
        ) from error
