"""Pictures become a table whose columns are pixels: idx(.gz) files, folders of PNG and JPEG, npy, npz, arrays in memory.

Definition. A picture is x ∈ {0 … L−1}^(H x W x C), row by row, and a row of the table. Every pixel is an integer column of
step 1 and is modelled, also one that never changes, so that bits per dimension, −log₂ p(x)/(H W C), count all of them.
Dequantisation is uniform: level v owns [v − ½, v + ½) (Theis, van den Oord and Bethge 2016); black and white own what lies
beyond them too, so the cells tile the line. Pillow reads folders and resizes; it is needed for nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mulligan.data.folders_of_pictures import pictures_in, read_folder, resized
from mulligan.data.pixels import Pixels
from mulligan.data.table import ReadOptions, Source
from mulligan.errors import DataError, SetupError, UsageError

FULL = 256
GZIP, NUMPY, ZIP = b"\x1f\x8b", b"\x93NUMPY", b"PK\x03\x04"
MOST_SQUEEZED = 1100  # times that gzip can make a file smaller, a little more than the format allows
TABLES = (".csv", ".tsv", ".parquet", ".npy", ".npz")
_APPLY = ("format", "rows", "seed", "resize", "grey", "binarise", "levels")
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow


def are_pictures(source: Any) -> bool:
    """Whether a path or an array is read as pictures: an idx file, a folder with PNG or JPEG files in it, an array (or an
    npy or npz file of one) of three or four dimensions.

    >>> are_pictures(np.zeros((5, 8, 8), np.uint8)), are_pictures(np.zeros((5, 64)))
    (True, False)
    """
    if isinstance(source, np.ndarray):
        return source.ndim in (3, 4) and not source.dtype.names
    if not isinstance(source, str | Path):
        return False
    path = Path(source)
    try:
        if path.is_dir():  # pictures beside a table of their labels are meant; a plot or two beside tables are not
            tables = sum(1 for entry in path.iterdir() if entry.suffix.lower() in TABLES)
            return len(pictures_in(path, tables + 1)) > tables
        with path.open("rb") as file:
            return _holds_pictures(file)
    except (OSError, ValueError, EOFError, zlib.error):  # a zero byte in the name; a broken archive
        return False  # the reader of tables says what is wrong


def _holds_pictures(file: BinaryIO) -> bool:
    first = file.read(6)
    file.seek(0)
    if first.startswith(GZIP):
        try:
            with gzip.open(file) as inner:
                return _is_idx(inner.read(4))
        except (OSError, EOFError, zlib.error):
            return False
    if first == NUMPY:
        return len(_numpy_shape(file)) in (3, 4)
    if first.startswith(ZIP):
        try:
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                if len(names) != 1 or not names[0].endswith(".npy"):
                    return False
                with archive.open(names[0]) as inner:
                    return len(_numpy_shape(inner)) in (3, 4)  # type: ignore[arg-type]
        except (zipfile.BadZipFile, OSError, EOFError):
            return False
    return _is_idx(first[:4])


def _is_idx(magic: bytes) -> bool:
    return len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in range(8, 15) and 1 <= magic[3] <= 4


def _numpy_shape(file: BinaryIO) -> tuple[int, ...]:
    from numpy.lib import format as layout

    try:
        version = layout.read_magic(file)
        read = layout.read_array_header_1_0 if version == (1, 0) else layout.read_array_header_2_0
        return read(file)[0]
    except ValueError:
        return ()


def read_pictures(source: Any, options: ReadOptions | None = None, name: str = "memory") -> Pixels:
    """The pictures of a path or an array, treated as the options say (``resize``, ``grey``, ``binarise``, ``levels``).

    Raises DataError for files that are broken, pictures of mixed sizes, numbers that are no levels; UsageError for options
    that pictures do not take; SetupError where Pillow is needed and missing.

    >>> pixels = read_pictures(np.arange(8, dtype=np.uint8).reshape(2, 2, 2))
    >>> pixels.values.shape, pixels.levels
    ((2, 2, 2, 1), 256)
    """
    options = options or ReadOptions()
    _check(options)
    if isinstance(source, np.ndarray):
        pixels = of_array(source, Source(name), options)
    else:
        path = Path(source)
        if path.is_dir():
            values, file, notes = read_folder(path, options)
            pixels = Pixels(values, FULL, file, notes)
        else:
            pixels = _read_file(path, options)
    return _treated(pixels, options)


def _check(options: ReadOptions) -> None:
    plain = ReadOptions()
    for field in fields(ReadOptions):
        asked = getattr(options, field.name)
        if field.name in _APPLY or asked == getattr(plain, field.name) or asked in ((), [], {}):
            continue
        what = f"pictures take no --{field.name}"
        raise UsageError(what, why="Their columns are pixels", do=f"leave --{field.name} out")
    if options.binarise not in (None, "half", "draw", "redraw"):
        raise UsageError(f"--binarise is {options.binarise!r}", do="--binarise half, draw or redraw")
    if options.resize is not None and not 1 <= options.resize <= 1024:
        raise UsageError(f"--resize is {options.resize}", do="--resize 32")
    if options.levels is not None and not 2 <= options.levels <= FULL:
        raise UsageError(f"--levels is {options.levels}", do=f"--levels with a whole number from 2 to {FULL}")
    if options.rows is not None and options.rows < 1:
        raise UsageError(f"--rows is {options.rows}", do="--rows with a whole number of at least 2")


def refuse_picture_options(source: Any, options: ReadOptions) -> None:
    """UsageError where an option that is for pictures only meets a source that holds none."""
    asked = [name for name in ("resize", "grey", "binarise", "levels") if getattr(options, name)]
    if asked:
        what = f"--{asked[0]} is for pictures, and {source if isinstance(source, str | Path) else 'this'} holds none"
        why = "Pictures come in idx files, folders of PNG or JPEG, arrays of three or four dimensions"
        raise UsageError(what, why=why, do=f"leave --{asked[0]} out")


def _read_file(path: Path, options: ReadOptions) -> Pixels:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SetupError(f"cannot read {path}", error.strerror or "", do=f"chmod u+r {path}") from None
    source = Source(path.name, hashlib.sha256(data).hexdigest(), str(path))
    if not data.startswith((NUMPY, ZIP)):
        return Pixels(read_idx(path.name, data), FULL, source)
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else next(iter(loaded.values()))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} is broken", str(error), do="write it again") from None
    return of_array(array, source, options)


def read_idx(name: str, data: bytes) -> np.ndarray:
    """The pictures of an idx file, plain or compressed with gzip: uint8 (n, height, width, channels).

    The format is that of MNIST (LeCun, Cortes and Burges 1998): two zero bytes, the type (8: bytes), the number of
    dimensions, each dimension as four bytes with the greatest first, then the numbers.

    Raises DataError for labels, other types, and a length that is not the one that the header states.

    >>> read_idx("two", bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 9])).ravel()
    array([7, 9], dtype=uint8)
    """
    squeezed = data.startswith(GZIP)
    file: Any = gzip.GzipFile(fileobj=io.BytesIO(data)) if squeezed else io.BytesIO(data)
    try:
        magic = file.read(4)
        if len(magic) < 4:
            raise DataError(f"{name} is broken", "it ends within its first four bytes", do="copy or download it again")
        kind, rank = magic[2], magic[3]
        shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(rank))
        if rank == 1:
            do = "pass the file of pictures (its name usually has 'images' in it)"
            raise DataError(f"{name} holds {shape[0]:,} labels, not pictures", "an idx file of one dimension", do=do)
        if kind != 8:
            raise DataError(f"{name} is an idx file of type {kind:#04x}", why="Pictures are bytes (0x08)")
        if rank == 2:
            raise DataError(f"{name} has shape {shape}", why="Pictures have height and width", do="pass idx3 or idx4")
        size = math.prod(shape)
        room = len(data) * (MOST_SQUEEZED if squeezed else 1)
        values = file.read(size + 1) if size <= room else b""
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is broken", str(error), do="copy or download it again") from None
    if len(values) != size or size > room:
        found = "more" if len(values) > size else f"{len(values):,}" if size <= room else "fewer"
        stated = f"its header states {' x '.join(map(str, shape))} = {size:,} bytes, there are {found}"
        raise DataError(f"{name} is broken", stated, do="copy or download it again")
    return _with_channels(np.frombuffer(values, np.uint8).reshape(shape), name)


def of_array(array: np.ndarray, source: Source, options: ReadOptions) -> Pixels:
    """An array (n, height, width) or (n, height, width, channels) of levels; DataError where its numbers are none."""
    if array.dtype == bool:
        return Pixels(_with_channels(array.astype(np.uint8), source.name), 2, source)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{source.name} holds {array.dtype}", why="Pixels are whole numbers", do="pass uint8")
    most = (options.levels or FULL) - 1
    if array.dtype != np.uint8:
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            do = "(x * 255).round().astype(numpy.uint8)"
            raise DataError(f"{source.name} holds numbers that are not whole", why="Pixels are levels", do=do)
        if array.size and (array.min() < 0 or array.max() > most):
            found = f"{array.min():g} to {array.max():g}"
            raise DataError(
                f"{source.name} holds values from {found}", why=f"Levels go from 0 to {most}", do="rescale them"
            )
    pixels = _with_channels(array.astype(np.uint8), source.name)
    return Pixels(pixels, options.levels or FULL, source)


def _with_channels(array: np.ndarray, name: str) -> np.ndarray:
    values = array[..., None] if array.ndim == 3 else array
    if 0 in values.shape:
        raise DataError(f"{name} has shape {array.shape}: it holds no pixel")
    if values.shape[3] > 4:
        do = "numpy.moveaxis(x, 1, -1), if the channels are the second dimension"
        raise DataError(f"{name} has shape {array.shape}", why="The last of four dimensions is colour", do=do)
    return values


def _treated(pixels: Pixels, options: ReadOptions) -> Pixels:
    """Rows drawn, size, grey and binary, in this order, each said."""
    values, levels, notes = pixels.values, options.levels or pixels.levels, list(pixels.notes)
    if int(values.max(initial=0)) >= levels:
        what = f"{pixels.source.name} has a pixel of {int(values.max())}"
        raise DataError(what, why=f"{levels} levels go from 0 to {levels - 1}", do="more --levels, or leave it out")
    generator = np.random.Generator(np.random.PCG64(options.seed))
    n, chances = len(values), None
    if options.rows is not None and options.rows < n:
        values = values[np.sort(generator.choice(n, options.rows, replace=False))]
        notes.append(f"{options.rows:,} of {n:,} pictures, drawn at random (seed {options.seed})")
    side = options.resize
    if side is not None and values.shape[1:3] != (side, side):
        notes.append(f"resized from {values.shape[1]} x {values.shape[2]} to {side} x {side} (--resize)")
        values = resized(values, side)
    if options.grey and values.shape[3] >= 3:
        values = np.rint(values[..., :3] @ _LUMA).astype(np.uint8)[..., None]
        notes.append("colour read as grey (--grey)")
    if options.binarise is not None and levels > 2:
        share = values / (levels - 1.0)
        half = options.binarise == "half"
        values = (share >= 0.5 if half else generator.random(values.shape) < share).astype(np.uint8)
        how = "white from half of the levels on" if half else f"white as often as it is bright (seed {options.seed})"
        if options.binarise == "redraw":
            chances = share.astype(np.float32)
            how += ", training rows anew at each step of a family that can"
        notes.append(f"binarised: a pixel is {how} (--binarise {options.binarise})")
        levels = 2
    elif options.levels is None and levels == FULL and ((values == 0) | (values == FULL - 1)).all():
        values, levels = (values > 0).astype(np.uint8), 2
        notes.append("every pixel is 0 or 255: read as black and white, two levels")
    elif options.levels is None and levels == FULL and values.max() < FULL // 2:
        notes.append(f"no pixel is above {values.max()} of 255: --levels {values.max() + 1}, if that is white")
    return Pixels(values, levels, pixels.source, tuple(notes), chances)
