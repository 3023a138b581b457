"""pyarrow's own account of sound files is the oracle; damaged ones must end in ValueError."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sporeprint.store.parquet_footer import groups_of

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
    for _ in range(2000):
        damaged = bytearray(data)
        at = len(data) - 1 - draw.randrange(1500) if draw.random() < 0.8 else draw.randrange(len(data))
        damaged[at] = draw.randrange(256)
        try:
            groups_of(bytes(damaged[: draw.choice([len(damaged)] * 9 + [at])]))
        except ValueError:
            refused += 1
    assert 200 < refused < 2000
    for short in (b"", b"PAR1", b"\xff\xff\xff\xffPAR1", b"\0\0\0\0PAR1"):
        with pytest.raises(ValueError, match="footer"):
            groups_of(short)
