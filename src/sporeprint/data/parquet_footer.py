"""What a Parquet file says of its pages is read before one is decoded: a small file can hold columns of gigabytes.

pyarrow's own view of a column ends the process where the footer is broken, and says nothing of its pages. The footer is
Thrift's compact protocol; field numbers are those of parquet.thrift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

_LONGEST, _LONGEST_TABLE = 2**24, 2**28  # bytes of the footer of a file of ours, and of a table
_DEEPEST = 16  # structs and lists within each other; the format has fewer
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # types of pages
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8  # encodings
_BYTES = (6, 7)  # types of values: BYTE_ARRAY, FIXED_LEN_BYTE_ARRAY


@dataclass(frozen=True)
class Column:
    """A column of a group of rows. size: bytes of its pages, once they are decompressed. values: of its pages.

    plain: neither compressed by a dictionary nor in any other way than PLAIN. compressed: by a codec.
    """

    values: int
    size: int
    plain: bool
    compressed: bool


@dataclass(frozen=True)
class Chunk:
    """A column chunk as the footer has it. path: "image.bytes". size: bytes once decompressed; stored: as they lie.

    dictionary: where the page of its shared values begins, None where it has none. nulls: None where it is not said.
    """

    path: str
    values: int
    size: int
    stored: int
    dictionary: int | None
    nulls: int | None


def chunks_of(file: BinaryIO) -> list[list[Chunk]]:
    """The column chunks of each group of rows; only the footer is read. Raises ValueError for a broken one."""
    file.seek(0, 2)
    whole = file.tell()
    file.seek(max(0, whole - 8))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or length > min(whole - 8, _LONGEST_TABLE):
        raise ValueError("it has no footer")
    file.seek(whole - 8 - length)
    try:
        footer, _ = _struct(file.read(length), 0, 0)
        return [[_chunk(chunk[3]) for chunk in group[1]] for group in footer.get(4, [])]
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its footer is broken ({error})") from None


def _chunk(about: dict[int, Any]) -> Chunk:
    shared = about[1] in _BYTES and not {_PLAIN_DICTIONARY, _RLE_DICTIONARY}.isdisjoint(about[2])
    path = b".".join(about[3]).decode(errors="backslashreplace")
    if min(about[5], about[6], about[7]) < 0:
        raise ValueError(f"column {path!r} has a negative size")
    dictionary = (about.get(11) or about[9]) if shared else None
    return Chunk(path, about[5], about[6], about[7], dictionary, about.get(12, {}).get(3))


def groups_of(data: bytes) -> list[tuple[int, list[Column]]]:
    """The rows and columns of each group of rows. Raises ValueError for what is no Parquet file of such pages."""
    try:
        length = int.from_bytes(data[-8:-4], "little")
        if data[-4:] != b"PAR1" or length > min(len(data) - 8, _LONGEST):
            raise ValueError("it has no footer")
        footer, _ = _struct(data[len(data) - 8 - length : -8], 0, 0)
        return [(group[3], [_column(data, chunk) for chunk in group[1]]) for group in footer.get(4, [])]
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its footer is broken ({error})") from None


def _column(data: bytes, chunk: dict[int, Any]) -> Column:
    """A column chunk, whose pages are walked: their headers hold the sizes that a reader makes room for."""
    about = chunk[3]
    start = at = min(about[9], about.get(11) or about[9])
    if 1 in chunk or not 4 <= start <= len(data) or about[5] < 0:
        raise ValueError("a column lies elsewhere")
    values = size = 0
    plain = 11 not in about and set(about[2]) <= {_PLAIN, _RLE}
    while values < about[5]:
        page, at = _struct(data, at, 0)
        header: Any = page.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}[page[1]])
        if min(page[2], page[3], header[1]) < 0 or (page[1] != _DICTIONARY and not header[1]):
            raise ValueError("a page has no values")
        plain = plain and page[1] != _DICTIONARY and header[4 if page[1] == _DATA_V2 else 2] == _PLAIN
        values += header[1] if page[1] != _DICTIONARY else 0
        size += page[2]
        at += page[3]
    if at > len(data) or at - start != about[7] or values != about[5]:
        raise ValueError("a column is not as long as its pages")
    return Column(values, size, plain, compressed=about[4] != 0)


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by number, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        fields[number], at = (head & 15 == 1, at) if head & 15 in (1, 2) else _value(data, at, head & 15, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if depth > _DEEPEST:
        raise ValueError("its footer is nested too deep")
    if kind in (1, 2, 3):  # truths in a list, and a byte
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        return bytes(data[at : at + length]), at + length
    if kind in (9, 10):
        head = data[at]
        count, at = (head >> 4, at + 1) if head >> 4 < 15 else _varint(data, at + 1)
        if count > len(data):
            raise ValueError("a list is longer than the file")
        items = []
        for _ in range(count):
            item, at = _value(data, at, head & 15, depth + 1)
            items.append(item)
        return items, at
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise ValueError(f"its footer holds a value of type {kind}")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("a number in its footer does not end")
