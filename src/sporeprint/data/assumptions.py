"""What was assumed of values that do not say it themselves: one sentence a run, never a guess a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sporeprint.data.images import FOURTH_BAND, SIXTEEN_BITS

_TWELVE_BITS = 4095


@dataclass
class Assumptions:
    """Collects what was assumed of the samples of a run. greatest: value among all images of 16 bits; -1 for none."""

    greatest: int = -1
    four_bands: bool = False

    def add(self, sample: Any) -> None:
        """Add a decoded sample, of whatever modality."""
        info = getattr(sample, "info", {})
        self.greatest = max(self.greatest, info.get(SIXTEEN_BITS, -1))
        self.four_bands |= FOURTH_BAND in info

    def sentences(self) -> list[str]:
        """Return what people should know, a sentence each."""
        said = []
        if 0 <= self.greatest <= _TWELVE_BITS:
            said.append(
                "16-bit images were read as values from 0 to 65535, but none of those read now passes "
                f"{self.greatest}: they are almost black; if they hold 12 bits or fewer, scale them, or give floats in "
                "[0, 1]"
            )
        if self.four_bands:
            said.append(
                "arrays of four bands were read as RGBA, and laid on white by the fourth; if it is not transparency, "
                "give three bands"
            )
        return said
