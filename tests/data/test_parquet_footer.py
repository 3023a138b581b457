"""pyarrow's own account of sound files is the oracle; damaged ones must end in ValueError."""

import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sporeprint.data.parquet_footer import chunks_of, groups_of

TABLE = pa.table(
    {
        "id": [f"row {number}" for number in range(5000)],
        "label": [[number, None] for number in range(5000)],
        "block": pa.array([[0.5, number] for number in range(5000)], pa.list_(pa.float32(), 2)),
    }
)


def written(**options):
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink, **options)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": False, "compression": "none"},
        {"use_dictionary": False, "compression": "zstd", "row_group_size": 700},
        {"use_dictionary": True, "compression": "snappy", "data_page_size": 1000},
        {"use_dictionary": ["id"], "data_page_version": "2.0", "compression": "none", "write_page_index": True},
    ],
)
def test_groups_columns_and_pages_are_those_of_pyarrow(options):
    data = written(**options)
    about = pq.ParquetFile(pa.BufferReader(data)).metadata
    groups = groups_of(data)
    assert [rows for rows, _ in groups] == [about.row_group(at).num_rows for at in range(about.num_row_groups)]
    for number, (_, columns) in enumerate(groups):
        for at, column in enumerate(columns):
            theirs = about.row_group(number).column(at)
            assert column.values == theirs.num_values
            assert column.compressed == (theirs.compression != "UNCOMPRESSED")
            assert column.plain == (set(theirs.encodings) <= {"PLAIN", "RLE"} and not theirs.has_dictionary_page)
            assert 0 < column.size <= theirs.total_uncompressed_size  # theirs counts the headers too


def test_damage_ends_in_a_value_error_or_in_groups():
    data, draw, refused = written(compression="zstd"), random.Random(0), 0
    for _ in range(700):
        damaged = bytearray(data)
        at = len(data) - 1 - draw.randrange(1500) if draw.random() < 0.8 else draw.randrange(len(data))
        damaged[at] = draw.randrange(256)
        try:
            groups_of(bytes(damaged[: draw.choice([len(damaged)] * 9 + [at])]))
        except ValueError:
            refused += 1
    assert 70 < refused < 700
    for short in (b"", b"PAR1", b"\xff\xff\xff\xffPAR1", b"\0\0\0\0PAR1"):
        with pytest.raises(ValueError, match="footer"):
            groups_of(short)


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"compression": "zstd", "write_statistics": False}])
def test_column_chunks_are_as_pyarrow_sees_them(tmp_path, options):
    structs = pa.array([{"bytes": b"x" * row, "path": None} for row in range(9)])
    table = pa.table({"image": structs, "label": ["a", None, "b"] * 3, "number": range(9)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4, **options)
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    with open(tmp_path / "t.parquet", "rb") as file:
        groups = chunks_of(file)
    assert len(groups) == metadata.num_row_groups == 3
    for at, chunks in enumerate(groups):
        for number, chunk in enumerate(chunks):
            column = metadata.row_group(at).column(number)
            sizes = column.num_values, column.total_uncompressed_size, column.total_compressed_size
            assert (chunk.path, chunk.values, chunk.size, chunk.stored) == (column.path_in_schema, *sizes)
            assert chunk.nulls == (column.statistics.null_count if column.statistics else None)
            shared = column.has_dictionary_page and column.physical_type == "BYTE_ARRAY"
            assert chunk.dictionary == (column.dictionary_page_offset if shared else None)


FLIPS = """
import sys
from pathlib import Path
from sporeprint.data.sources import open_source
from sporeprint.errors import SourceError
path = Path(sys.argv[1])
data = path.read_bytes()
for at in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data)):
    for bit in (0, 3, 6):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:])
        try:
            list(open_source(path, modality="text").rows())
        except SourceError:
            pass
"""


def test_no_flipped_bit_of_a_footer_ends_the_process(tmp_path):
    pq.write_table(pa.table({"text": ["one", None, "two"], "label": ["a", "b", "a"]}), tmp_path / "t.parquet")
    done = subprocess.run([sys.executable, "-c", FLIPS, tmp_path / "t.parquet"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
