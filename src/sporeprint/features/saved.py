"""A fitted Fungi becomes bytes and back: JSON and safetensors, with checksums. Nothing read here can run code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from sporeprint.data.folders import SUFFIXES
from sporeprint.errors import DamagedStore, SporeprintError
from sporeprint.features.fitted import Fitted
from sporeprint.store.described_tensors import DescribedTensors
from sporeprint.store.schema import OBJECT, TEXT

FORMAT = 1
_FILES = DescribedTensors(
    name="fungi",
    format=FORMAT,
    shape={
        "recipe": OBJECT,
        "resolved": {"backbone": {"name": TEXT}},
        "combination?": OBJECT,
        "combiner?": OBJECT,
        "dense?": OBJECT,
    },
    give="what Fungi.save wrote, or a store",
)
JSON_NAME, TENSORS_NAME = _FILES.json_name, _FILES.tensors_name
write_folder, read_folder = _FILES.write, _FILES.reader


def pack(fitted: Fitted) -> dict[str, bytes]:
    """Give {file name: contents} of a fitted state. Raises RecipeError for an objective that JSON cannot hold."""
    return pack_parts(*fitted.parts())


def unpack(read: Callable[[str], bytes], where: str) -> Fitted:
    """This is the inverse of `pack`; `read` gives a file's contents. Raises DamagedStore for what is not as written."""
    body, tensors = unpack_parts(read, where)
    try:
        fitted = Fitted.of_parts(body, tensors)
        fitted.check_tensors(tensors)
    except SporeprintError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise DamagedStore(f"{where}/{JSON_NAME} cannot be understood ({error}); save it again") from error
    return fitted


def pack_parts(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Give {file name: contents}. The JSON carries the checksum of the tensors and its own."""
    packed = save({name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())})
    return _FILES.pack(description, packed)


def unpack_parts(read: Callable[[str], bytes], where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """This is the inverse of `pack_parts`. Raises DamagedStore."""
    return _FILES.unpack(read, where, load)


def sample_in(folder: str | Path) -> str:
    """Return the name of a sample in, or in a folder of, a folder where nothing is saved yet; "" if there is none."""
    folder, suffixes = Path(folder), {suffix for of in SUFFIXES.values() for suffix in of}
    if not folder.is_dir() or (folder / JSON_NAME).exists():
        return ""
    files = islice(chain(folder.iterdir(), folder.glob("*/*")), 1000)
    return next((path.name for path in files if path.suffix.lower() in suffixes), "")
