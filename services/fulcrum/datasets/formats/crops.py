"""Boxes as images: a crop is cut when its bytes are asked for."""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from PIL import Image

from fulcrum.datasets.byte_sources import FileSource
from fulcrum.datasets.hygiene.decoding import decode_image
from fulcrum.domain.errors import InvalidDataset

Unit = Literal["px", "share"]
_MARK: Final = "#box="


def crop_source(image: str, box: tuple[float, float, float, float], unit: Unit, where: str) -> str:
    """`source` of a box (left, top, width, height), in pixels or as shares of the image's sides.

    Raises InvalidDataset for a box that is not finite or has no area.
    """
    if not all(math.isfinite(v) for v in box) or box[2] <= 0 or box[3] <= 0:
        raise InvalidDataset(f"{where}: the box {list(box)} has no area")
    return f"{image}{_MARK}{','.join(f'{v:.9g}' for v in box)},{unit}"


@dataclass(frozen=True)
class CropSource:
    """Crops of files below a folder, as PNG; sources without a box are the files themselves."""

    root: Path

    def read(self, source: str) -> bytes:
        """The crop, widened to whole pixels and clipped to the upright image."""
        image, mark, text = source.rpartition(_MARK)
        if not mark:
            return FileSource(self.root).read(source)
        *numbers, unit = text.split(",")
        left, top, width, height = (float(n) for n in numbers)
        pixels = decode_image(FileSource(self.root).read(image)).pixels
        n_rows, n_columns, _ = pixels.shape
        across, down = (n_columns, n_rows) if unit == "share" else (1, 1)
        # 1e-6: the edge 0.3 * 10 = 3.0000000000000004 must not take in a fourth pixel.
        first_column, first_row = (max(0, math.floor(v + 1e-6)) for v in (left * across, top * down))
        last_column = min(n_columns, math.ceil((left + width) * across - 1e-6))
        last_row = min(n_rows, math.ceil((top + height) * down - 1e-6))
        if last_column <= first_column or last_row <= first_row:
            raise InvalidDataset(f"the box of {source!r} lies outside of the image ({n_columns} x {n_rows})")
        buffer = io.BytesIO()
        crop = Image.fromarray(pixels[first_row:last_row, first_column:last_column])
        # Stored, not compressed: the bytes are hashed, and compressors differ between versions.
        crop.save(buffer, "PNG", compress_level=0)
        return buffer.getvalue()

    def stamp(self, source: str) -> tuple[int, int]:
        """Of the file that is cut."""
        image, mark, _ = source.rpartition(_MARK)
        return FileSource(self.root).stamp(image if mark else source)
