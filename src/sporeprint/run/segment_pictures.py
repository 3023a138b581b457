"""What a segmentation run shows: predicted masks as palette PNGs, and a contact sheet."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sporeprint.errors import RecipeError
from sporeprint.report.palette import MOST, RGB, palette
from sporeprint.report.sheet import SheetRow, contact_sheet
from sporeprint.run.segment_files import Folder
from sporeprint.run.segment_plan import EMBEDDING
from sporeprint.segment.training import Truth

Labels = NDArray[np.int32]
_VOID = 255


class Pictures:
    """Takes every test image with its predictions; holds those of the sheet, evenly spaced through the test images."""

    def __init__(self, folder: Folder, masks: bool, sheet: int, images: int, truth: Truth):
        if truth.classes >= MOST and (masks or sheet):
            raise RecipeError(
                f"{truth.classes} classes; masks and the sheet hold {MOST - 1}: give --sheet 0, no --masks"
            )
        self.folder, self.masks, self.truth = folder, masks, truth
        self.numbers = set(np.linspace(0, images - 1, min(sheet, images)).round().astype(int).tolist())
        self.held: list[SheetRow] = []

    def take(self, colours: Sequence[RGB] | None, names: Sequence[str]) -> None:
        """The masks' own colours, where they are of every class, else ours."""
        classes = self.truth.classes
        own = colours is not None and len(set(colours[:classes])) == classes
        self.colours = list(colours[:classes]) if colours is not None and own else palette(classes)
        self.names = list(names)

    def add(
        self, number: int, image_id: str, image: Image.Image, truth: Labels | None, predicted: Mapping[str, Labels]
    ) -> None:
        if self.masks:
            for kind, labels in predicted.items():
                self.folder.write_mask(kind, image_id, labels, self.colours)
        if number in self.numbers:
            shown = None if truth is None else np.where(np.isin(truth, self.truth.ignore), _VOID, truth)
            self.held.append(SheetRow(image_id, image.copy(), shown, predicted))

    def draw(self, values: Mapping[str, float | None], best: str | None, how: str) -> None:
        """values: mIoU of each kind on all test images, where known. best: beside the embedding; how it is known."""
        if not self.held:
            return
        kinds = [EMBEDDING, *([best] if best is not None else [])]
        rows = [SheetRow(one.id, one.image, one.truth, {k: one.predictions[k] for k in kinds}) for one in self.held]
        known = {kind: values[kind] for kind in kinds}
        notes = {kind: f"all images: mIoU {value:.1%}" for kind, value in known.items() if value is not None}
        title = f"Segmentation by retrieval; '{best}' was {how}" if how else "Segmentation by retrieval"
        sheet = contact_sheet(rows, self.colours, self.names, (_VOID,), title, notes)
        file = io.BytesIO()
        sheet.save(file, "PNG")
        self.folder.write_sheet(file.getvalue())
