"""What a file is by its first bytes, and what to do with the ones that are not tables."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from mulligan.errors import DataError, UsageError

FORMATS = ("csv", "parquet", "npy", "npz")
_SAVE_CSV = "save it as CSV"
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xfe\x00\x00", "UTF-32 text", "save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\x1f\x8b", "compressed with gzip", "gunzip it first"),
    (b"BZh", "compressed with bzip2", "bunzip2 it first"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unxz it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unzstd it first"),
    (b"%PDF-", "a PDF document", _SAVE_CSV),
    (b"\x89PNG\r\n", "a PNG picture", "pass the folder of pictures, or a CSV"),
    (b"\xff\xd8\xff", "a JPEG picture", "pass the folder of pictures, or a CSV"),
    (b"GIF8", "a GIF picture", "pass the folder of pictures, or a CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel (or other Office) file", "save the sheet as CSV, or --format parquet"),
    (b"\x89HDF", "an HDF5 file", _SAVE_CSV),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
)


def format_of(path: Path, data: bytes, stated: str | None = None) -> str:
    """``csv``, ``parquet``, ``npy`` or ``npz``, by the first bytes.

    Raises DataError that names what else the file is, or if the bytes are not of the ``stated`` format; UsageError for
    a format that does not exist.
    """
    if stated is not None and stated not in FORMATS:
        raise UsageError(f"no format {stated!r}", do=f"--format {'|'.join(FORMATS)}")
    found = _recognise(path, data)
    if stated is not None and found != stated:
        kind = "text" if found == "csv" else found
        raise DataError(f"{path.name} is {kind} by its first bytes, not {stated}", do=f"--format {found}")
    return found


def _recognise(path: Path, data: bytes) -> str:
    if data.startswith(b"PAR1"):
        return "parquet"
    if data.startswith(b"\x93NUMPY"):
        return "npy"
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(path, data)
    for first, what, do in _FOREIGN:
        if data.startswith(first):
            raise DataError(f"{path.name} is {what}", do=do)
    if len(data) > 1 and data[0] == 0x80 and data[1] in range(2, 6):
        raise DataError(
            f"{path.name} is a Python pickle",
            why="Reading one runs code of whoever wrote it",
            do="save it as CSV or npy",
        )
    place = data.find(b"\x00")
    if place >= 0:
        what = "UTF-16 text without its mark" if data[1:8:2] == b"\x00" * len(data[1:8:2]) else "a binary file"
        raise DataError(f"{path.name} is {what}", f"byte {place} is NUL", do="save it as CSV in UTF-8, or as Parquet")
    return "csv"


def _zip_kind(path: Path, data: bytes) -> str:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except zipfile.BadZipFile:
        raise DataError(f"{path.name} is a broken zip archive", do="copy or download it again") from None
    if any(name.startswith("xl/") for name in names):
        raise DataError(f"{path.name} is an Excel workbook", do="save the sheet as CSV, or --format parquet")
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise DataError(f"{path.name} is a zip archive", do="unzip it and pass the file inside")
