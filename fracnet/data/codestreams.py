"""The bytes of coded images: JPEG, JPEG-LS and JPEG 2000, in files of their own or in DICOM."""

from collections.abc import Callable

import numpy as np

_END_OF_IMAGE = b"\xff\xd9"
# Entropy-coded bytes without a marker; any will do that are not all equal.
_FILLER = bytes((37 * i + 11) % 251 for i in range(4096))
_MAX_PADDING = 64  # bytes of any value after the end of an image; a pad byte makes its length even


def has_end(coded: bytes) -> bool:
    """Whether a JPEG or JPEG-LS codestream is complete but for padding."""
    end = coded.rfind(_END_OF_IMAGE)
    padding = coded[end + 2 :]
    return end >= 0 and (len(padding) <= _MAX_PADDING or not padding.strip(padding[:1]))


def ends_early(coded: bytes, pixels: np.ndarray, decode: Callable[[bytes], np.ndarray]) -> bool:
    """Whether a JPEG's end marker comes before its last block, which `pixels` hold all the same.

    libjpeg silently fills in what is missing. Such a file, and no other, changes when coded data is
    inserted before the end marker.
    """
    end = coded.rfind(_END_OF_IMAGE)
    if end < 0:
        return False
    try:
        return not np.array_equal(decode(coded[:end] + _FILLER + coded[end:]), pixels)
    except Exception:  # decoders raise almost anything
        return True


def coded_precision(coded: bytes) -> int | None:
    """Bits of the first component of a JPEG 2000 codestream; None if unclear."""
    start = coded.find(b"\xff\x4f\xff\x51", 0, 4096)
    precision = coded[start + 42 : start + 43] if start >= 0 else b""
    return (precision[0] & 0x7F) + 1 if precision else None


def coded_size(coded: bytes) -> tuple[int, int, int] | None:
    """(width, height, channels) from a JPEG, JPEG-LS or JPEG 2000 codestream; None if unclear."""
    start = coded.find(b"\xff\x4f\xff\x51", 0, 4096)  # at the start, or inside a JP2 file's boxes
    if start >= 0 and coded[:2] != b"\xff\xd8":
        size = coded[start + 8 : start + 42]
        if len(size) < 34:
            return None
        right, lower, left, upper = (int.from_bytes(size[i : i + 4]) for i in range(0, 16, 4))
        return right - left, lower - upper, int.from_bytes(size[32:34])
    if coded[:2] != b"\xff\xd8":
        return None
    offset = 2
    while offset + 9 < len(coded) and coded[offset] == 0xFF:
        marker = coded[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
            continue
        # SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            height, width = (int.from_bytes(coded[offset + i : offset + i + 2]) for i in (5, 7))
            return width, height, coded[offset + 9]
        offset += 2 + int.from_bytes(coded[offset + 2 : offset + 4])
    return None
