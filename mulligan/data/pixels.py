"""Pictures as the rows of a table: every pixel (of each colour) is a column, named by its place.

A pixel of L levels is an integer column of step 1 whose ends are caps: black and white own what lies beyond them, so that
the cells tile the line. Two levels make a binary column. No column is left out for being constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mulligan.data.splits import row_numbers
from mulligan.data.table import Column, ImageShape, Schema, Source, Table
from mulligan.errors import DataError

MOST_COLUMNS = 16_384  # pixels times channels: 64 x 64 in colour, 128 x 128 in grey


@dataclass(frozen=True)
class Pixels:
    """Pictures before they are a table: uint8 (n, h, w, c), the number of levels, where they came from, what was done;
    ``chances`` (n, h, w, c) float32 are the brightnesses with which ``values`` were drawn, where they may be drawn anew."""

    values: np.ndarray
    levels: int
    source: Source
    notes: tuple[str, ...] = ()
    chances: np.ndarray | None = None


def picture_table(pixels: Pixels) -> Table:
    """The table of pictures: every pixel an integer column (binary where there are two levels), named by its place.

    Raises DataError for fewer than two pictures, and for more than 16 384 pixels and channels.

    >>> values = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    >>> table = picture_table(Pixels(values, 256, Source("two")))
    >>> table.names, table.schema.image.levels
    (('p00', 'p01', 'p10', 'p11'), 256)
    """
    n, height, width, channels = pixels.values.shape
    image = ImageShape(height, width, channels, pixels.levels)
    if n < 2:
        raise DataError(f"{pixels.source.name} holds {n} picture{'' if n == 1 else 's'}", do="bring at least 2")
    values = pixels.values.reshape(n, -1)
    if image.pixels > MOST_COLUMNS:
        why = f"a table of pictures has at most {MOST_COLUMNS:,} columns"
        raise DataError(f"{pixels.source.name}: {image.words}", f"{image.pixels:,} numbers each", why, "--resize 32")
    notes = list(pixels.notes)
    still = int((values == values[0]).all(axis=0).sum())
    if still:
        same = f"{still:,} of {image.pixels:,} pixels are the same in every picture"
        notes.append(f"{same}: modelled all the same, for bits per dimension count every pixel")
    duplicates = n - int(row_numbers(values).max()) - 1
    if duplicates:
        word = "picture" if duplicates == 1 else "pictures"
        notes.append(f"{duplicates:,} duplicate {word} ({100 * duplicates / n:.0f} %): kept")
    chances = None if pixels.chances is None else pixels.chances.reshape(n, -1)
    return Table(picture_schema(image), values.astype(np.float64), pixels.source, tuple(notes), chances=chances)


def picture_schema(image: ImageShape) -> Schema:
    """The columns of pictures of this shape."""
    digits = len(str(max(image.height, image.width) - 1))
    colours: tuple[str, ...] = {1: ("",), 3: ("r", "g", "b")}.get(image.channels, tuple("abcd"[: image.channels]))
    names = [
        f"p{row:0{digits}d}{column:0{digits}d}{colour}"
        for row in range(image.height)
        for column in range(image.width)
        for colour in colours
    ]
    top = float(image.levels - 1)
    if image.levels == 2:
        columns = [Column(n, "binary", "integer", 0, levels=("0", "1")) for n in names]
    else:
        ends: dict[str, Any] = {"low_cap": 0.0, "high_cap": top, "minimum": 0.0, "maximum": top}
        columns = [Column(n, "integer", "integer", 0, step=1.0, **ends) for n in names]
    return Schema(tuple(columns), image)


def conform_pictures(pixels: Pixels, schema: Schema) -> Table:
    """Other pictures under the schema of a fitted table; DataError where their shape or their levels differ."""
    image = schema.image
    if image is None:
        names = ", ".join(schema.names[:6])
        raise DataError(f"{pixels.source.name} holds pictures, and the model knows the columns {names}, ...")
    n, *shape = pixels.values.shape
    if tuple(shape) != (image.height, image.width, image.channels):
        found = " x ".join(map(str, shape))
        do = f"--resize {image.height}" if image.height == image.width else "bring pictures of that size"
        do = "--grey" if image.channels == 1 and tuple(shape[:2]) == (image.height, image.width) else do
        raise DataError(f"{pixels.source.name} holds pictures of {found}", why=f"The model knows {image.words}", do=do)
    most = int(pixels.values.max(initial=0))
    if most >= image.levels:
        do = (
            "--binarise draw, or half, as before the fit" if image.levels == 2 else f"rescale to 0 … {image.levels - 1}"
        )
        raise DataError(f"{pixels.source.name} has a pixel of {most}", why=f"The model knows {image.words}", do=do)
    return Table(schema, pixels.values.reshape(n, -1).astype(np.float64), pixels.source, pixels.notes)
