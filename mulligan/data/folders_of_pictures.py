"""Folders of PNG and JPEG files become one array of pictures, through Pillow; whatever is converted is said."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.data.table import ReadOptions, Source
from mulligan.errors import DataError, SetupError

PICTURES = (".png", ".jpg", ".jpeg")
_SHOWN = 3


def pictures_in(folder: Path, most: int | None = None) -> list[Path]:
    """The PNG and JPEG files in a folder and in its own subfolders, by name (the first ``most`` that are met, if told);
    hidden ones are left alone."""
    found = (path for path in _files_in(folder) if path.suffix.lower() in PICTURES)
    return sorted(found) if most is None else list(islice(found, most))


def _files_in(folder: Path) -> Iterator[Path]:
    """Files one or two levels down: no deeper, for a home folder would be searched for minutes."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from (p for p in path.iterdir() if not p.name.startswith(".") and p.is_file())
        elif path.is_file():
            yield path


def read_folder(folder: Path, options: ReadOptions) -> tuple[np.ndarray, Source, tuple[str, ...]]:
    """uint8 (n, height, width, channels) of all pictures in a folder, its source, and what was done.

    Raises DataError for a file that is no picture, for mixed sizes (unless ``options.resize``), SetupError without Pillow.
    """
    _pillow()
    paths = pictures_in(folder)
    digest, said = hashlib.sha256(), Counter[str]()
    pictures: list[np.ndarray] = []
    for path in paths:
        data = _bytes_of(path)
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + data)
        pictures.append(_read(path, folder, data, options, said))
    sizes = Counter((picture.shape[1], picture.shape[0]) for picture in pictures)
    if len(sizes) > 1:
        listed = ", ".join(f"{w} x {h} ({count:,})" for (w, h), count in sizes.most_common(_SHOWN))
        more = f", and {len(sizes) - _SHOWN} more sizes" if len(sizes) > _SHOWN else ""
        why = "Every row needs the same number of pixels"
        raise DataError(f"{folder} holds pictures of {len(sizes)} sizes", listed + more, why, "--resize 32")
    notes = [f"{count:,} {what}" for what, count in said.items()]
    channels = Counter(picture.shape[2] for picture in pictures)
    if len(channels) > 1:
        mixed = f"{channels[1]:,} grey and {channels[3]:,} colour pictures"
        notes.append(f"{mixed}: all read as colour (--grey reads all as grey)")
        pictures = [np.repeat(p, 3, axis=2) if p.shape[2] == 1 else p for p in pictures]
    folders = {path.parent for path in paths}
    if len(folders) > 1:
        notes.append(f"pictures of {len(folders):,} folders, read as one set: names of folders are no column")
    others = sum(1 for _ in _files_in(folder)) - len(paths)
    if others:
        notes.append(f"{others:,} other {'file' if others == 1 else 'files'} in it left alone")
    return np.stack(pictures), Source(folder.name or str(folder), digest.hexdigest(), str(folder)), tuple(notes)


def resized(values: np.ndarray, side: int) -> np.ndarray:
    """Pictures (n, h, w, c) with the shorter side brought to ``side`` pixels, and the middle square of that."""
    Image = _pillow()
    out = np.empty((len(values), side, side, values.shape[3]), np.uint8)
    for k, picture in enumerate(values):
        for channel in range(values.shape[3]):
            out[k, :, :, channel] = np.asarray(_square(Image.fromarray(picture[:, :, channel]), side))
    return out


def _square(picture: Any, side: int) -> Any:
    from PIL import Image

    width, height = picture.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return picture.resize((side, side), Image.Resampling.BOX if edge % side == 0 else Image.Resampling.LANCZOS,
                          box=(left, top, left + edge, top + edge))  # fmt: skip


def _read(path: Path, folder: Path, data: bytes, options: ReadOptions, said: Counter[str]) -> np.ndarray:
    """One picture, uint8 (h, w, 1 or 3); what is converted is counted."""
    import io

    Image = _pillow()
    name = path.relative_to(folder).as_posix()
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
            opened.load()
            picture = opened
    except Exception as error:  # Pillow raises many kinds for broken files
        raise DataError(f"{name} is no readable picture", f"{type(error).__name__}: {error}", do="remove it") from None
    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        deep = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray((np.clip(deep, 0, 65_535) // 257).astype(np.uint8))
        said["pictures had 16 bits a pixel: divided by 257, which leaves 8"] += 1
    if "A" in picture.mode or "transparency" in picture.info:
        whole = picture.convert("RGBA")
        if np.asarray(whole)[..., 3].min() < 255:
            said["pictures had transparent pixels: set on black"] += 1
        back = Image.new("RGBA", whole.size, (0, 0, 0, 255))
        grey = picture.mode in ("LA", "La")
        picture = Image.alpha_composite(back, whole).convert("L" if grey else "RGB")
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    if options.grey and picture.mode == "RGB":
        picture = picture.convert("L")
        said["colour pictures read as grey (--grey)"] += 1
    if options.resize is not None and picture.size != (options.resize, options.resize):
        picture = _square(picture, options.resize)
        said[f"pictures cut to their middle square and resized to {options.resize} x {options.resize} (--resize)"] += 1
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"cannot read {path}", error.strerror or "", do=f"chmod u+r {path}") from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise SetupError("reading and resizing pictures needs Pillow", do="pip install 'mulligan[images]'") from None
    return Image
