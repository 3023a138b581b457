"""Small images with masks, in folders and tables, for several rooms."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

LABELS = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)  # of an image 3 wide and 2 high
COLOURS = {"sky": [10, 20, 30], "road": [40, 50, 60], "car": [70, 80, 90]}


def picture(number=0, size=(3, 2), **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, (number, 5, 7)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mask(labels=LABELS):
    return encoded(Image.fromarray(np.asarray(labels, dtype=np.uint8)))


def painted(labels=LABELS, mode="RGB"):
    return encoded(Image.fromarray(np.array([*COLOURS.values()], dtype=np.uint8)[labels]).convert(mode))


def indexed(values):
    image = Image.fromarray(values, "P")
    image.putpalette([9, 8, 7, 6, 5, 4, 3, 2, 1])
    return image


def fill(folder, **files):
    """`images="a.png sub/b.png"` makes pictures numbered from 0, other folders hold masks."""
    for below, names in files.items():
        for number, name in enumerate(names.split()):
            path = folder / below.replace("__", "/") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number) if "images" in below.lower() else mask(LABELS * 0 + number))
    return folder


def struct(data):
    return {"bytes": data, "path": None}


def table(path, rows=5, features=None, row_group_size=2, **columns):
    columns = {
        "image": [struct(picture(row)) for row in range(rows)],
        "mask": [struct(mask(LABELS * 0 + row)) for row in range(rows)],
        **columns,
    }
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path
