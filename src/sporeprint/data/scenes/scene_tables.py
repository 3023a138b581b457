"""Read images with masks from two columns of a table."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sporeprint.data.formats import Table
from sporeprint.data.scenes.scene_files import Scene
from sporeprint.data.sources import _open_folder
from sporeprint.data.tables import TableSource, _class_names, _features, _is_encoded, is_text
from sporeprint.errors import SourceError

IMAGE_COLUMNS = ("image", "img", "pixel_values", "image_path", "file_name", "path", "image_file_name", "filename")
MASK_COLUMNS = (
    "mask",
    "label",
    "annotation",
    "segmentation_mask",
    "segmentation",
    "labels",
    "mask_path",
    "mask_file_name",
)


class TableScenes:
    """Scenes of a table: one source for the images, one for the masks, read side by side."""

    def __init__(
        self,
        table: Table,
        path: Path,
        image_column: str | None,
        mask_column: str | None,
        id_column: str | None,
        limit: int | None,
        masks: bool,
    ):
        features = _features(table.schema, path)
        image = image_column or _find(table.schema, path, "image", IMAGE_COLUMNS, {mask_column, id_column})
        self._images = TableSource(table, path, sample_column=image, label_column="", id_column=id_column, limit=limit)
        self._masks = None
        loose = [name for name in features if name not in table.schema.names]  # a list of names without a column
        if masks:
            mask = mask_column or _find(table.schema, path, "mask", MASK_COLUMNS, {image, id_column})
            self._masks = TableSource(table, path, sample_column=mask, label_column="", limit=limit)
            loose.insert(0, mask)
        self.names = next((names for name in loose if (names := _class_names(features.get(name)))), None)

    def __len__(self) -> int:
        return len(self._images)

    def scenes(self, start: int = 0) -> Iterator[Scene]:
        if self._masks is None:
            yield from (Scene(row.id, row.sample) for row in self._images.rows(start))
            return
        for row, mask in zip(self._images.rows(start), self._masks.rows(start), strict=True):
            yield Scene(row.id, row.sample, mask.sample)

    def digest(self) -> str:
        return self._images.digest() + (self._masks.digest() if self._masks else "")

    def describe(self) -> dict[str, Any]:
        table = self._images.describe()
        mask = self._masks.describe()["columns"]["sample"] if self._masks else None
        columns = {"image": table["columns"]["sample"], "mask": mask, "id": table["columns"]["id"]}
        return {key: table[key] for key in ("kind", "rows", "limit")} | {"source": table["name"], "columns": columns}


def table_below(folder: Path, split: str | None) -> tuple[Table | None, Path]:
    """Return the table in a folder, if any, and the folder or file that names it. Raises SourceError."""
    try:
        return _open_folder(folder, split)
    except SourceError as error:
        if split is None or f"'{folder}' has no split" not in str(error):
            raise
        folders = (path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        files = (path.stem for path in (*folder.glob("[!.]*.parquet"), *folder.glob("data/[!.]*.parquet")))
        raise SourceError(f"{error}; there are: {', '.join(sorted({*folders, *files})) or 'none'}") from None


def _find(schema: pa.Schema, path: Path, what: str, names: Sequence[str], taken: Container[str | None]) -> str:
    """Find the column of images or masks: encoded ones before paths, by name, or the only encoded one."""
    free = [field for field in schema if field.name not in taken]
    kinds = {field.name: field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in free}
    encoded = [name for name, kind in kinds.items() if _is_encoded(kind)]
    for there in (encoded, [name for name, kind in kinds.items() if is_text(kind)]):
        if named := [name for name in names if name in there]:
            return named[0]
    if len(encoded) == 1:
        return encoded[0]
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise SourceError(
        f"'{path}' has no column that is clearly of {what}s; its columns: {columns}; choose one ({what}_column, "
        f"--{what}-column)"
    )
