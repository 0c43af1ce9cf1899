"""Pictures as PNG files, and many pictures on one sheet: the format's own pieces, so that no library is needed.

Definition (PNG, ISO/IEC 15948:2004). A signature, then chunks of length, name, data and CRC-32: IHDR (width, height, 8 bits
a sample, colour type 0 for grey and 2 for red, green, blue), IDAT (rows, each after a zero byte for "no filter", compressed
by zlib), IEND.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

GAP = 0.12  # of a picture's shorter side, between two pictures
LEAST_SIDE = 48  # pixels: smaller pictures are drawn larger, by whole numbers
BACKGROUND = 128


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels (height, width), (height, width, 1) or (height, width, 3), uint8.

    Raises ValueError for another shape or type.

    >>> png_bytes(np.zeros((2, 3), np.uint8))[:4]
    b'\\x89PNG'
    """
    pixels = np.asarray(pixels)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"expected uint8 (height, width, 1 or 3), got {pixels.dtype} {pixels.shape}")
    height, width, channels = pixels.shape
    lines = np.zeros((height, 1 + width * channels), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def sheet(pictures: np.ndarray, levels: int, across: int | None = None) -> np.ndarray:
    """Pictures (n, h, w, channels) of values 0 … levels − 1 side by side, uint8 (height, width, 1 or 3), grey between them.

    ``across`` is the number in a line, the square root of n unless told. A last line that is not full stays grey. Pictures
    of two channels are shown by their first, of four without their fourth.

    >>> sheet(np.zeros((4, 64, 64, 1)), 2).shape
    (152, 152, 1)
    """
    n, height, width, channels = pictures.shape
    pictures = pictures[..., : 1 if channels < 3 else 3]
    shown = np.rint(np.asarray(pictures, np.float64) * (255 / max(levels - 1, 1))).clip(0, 255).astype(np.uint8)
    zoom = max(1, -(-LEAST_SIDE // min(height, width)))
    shown = shown.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = height * zoom, width * zoom
    across = min(n, across or int(np.ceil(np.sqrt(n))))
    down = -(-n // across)
    gap = max(1, round(GAP * min(height, width))) if zoom == 1 else max(2, zoom)
    out = np.full((down * (height + gap) + gap, across * (width + gap) + gap, shown.shape[3]), BACKGROUND, np.uint8)
    for k, picture in enumerate(shown):
        top, left = gap + (k // across) * (height + gap), gap + (k % across) * (width + gap)
        out[top : top + height, left : left + width] = picture
    return out


def data_uri(pixels: np.ndarray) -> str:
    """A PNG as text that a page can hold in an ``img``."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode("ascii")
