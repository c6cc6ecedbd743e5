"""Reads thousands of damaged image files and prints the outcomes; runs in a separate process.

So a crash shows as a signal, and the memory measured is that of this process alone.
"""

import json
import resource
import struct
import sys
import warnings
import zlib
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
from helpers.dicom_files import compressed, dicom, rle
from helpers.pictures import color, encoded, picture
from PIL import Image
from pydicom import uid

from fracnet.data.image_io import BadImage, image_size, read_grey

GREY = np.asarray(picture())
DEEP = GREY.astype(np.uint16) * 13 + 200
HEADER = {"BitsStored": 12, "WindowCenter": 1800, "WindowWidth": 2001, "PatientID": "p"}


def valid_files() -> dict[str, bytes]:
    """One small image of each kind."""
    return {
        "jpeg": encoded(picture(), "JPEG"),
        "progressive jpeg": encoded(color(), "JPEG", progressive=True),
        "png": encoded(picture(), "PNG"),
        "16-bit png": encoded(Image.fromarray(DEEP), "PNG"),
        "gif": encoded(picture(), "GIF"),
        "tiff": encoded(picture(), "TIFF"),
        "lzw tiff": encoded(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
        "bmp": encoded(color(), "BMP"),
        "dicom": dicom(DEEP, **HEADER),
        "dicom rle": rle(DEEP, **HEADER),
        "dicom lossless jpeg": compressed(
            DEEP,
            imagecodecs.jpeg8_encode(DEEP, lossless=True, bitspersample=12),
            uid.JPEGLosslessSV1,
            **HEADER,
        ),
        "dicom jpeg-ls": compressed(
            DEEP, imagecodecs.jpegls_encode(DEEP), uid.JPEGLSLossless, **HEADER
        ),
        "dicom jpeg 2000": compressed(
            DEEP,
            imagecodecs.jpeg2k_encode(DEEP, level=0, reversible=True, codecformat="j2k"),
            uid.JPEG2000Lossless,
            **HEADER,
        ),
        "dicom jpeg": compressed(GREY, imagecodecs.jpeg8_encode(GREY), uid.JPEGBaseline8Bit),
    }


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Changed bytes in a few places, mostly in the header; or a piece removed, doubled or blank."""
    values = np.frombuffer(data, np.uint8).copy()
    kind = rng.integers(0, 6)
    start = int(rng.integers(0, len(values)))
    stop = min(len(values), start + int(rng.integers(1, 200)))
    if kind < 3:
        end = len(values) if kind == 0 else min(len(values), 1200)
        places = rng.integers(0, end, rng.integers(1, 6))
        values[places] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))], len(places))
        return values.tobytes()
    if kind == 3:
        return data[:start] + data[stop:]
    if kind == 4:
        return data[:stop] + data[start:]
    values[start:stop] = 0
    return values.tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def png_of(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG that claims this size but has hardly any pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Small files that need much memory when decoded."""
    packer = zlib.compressobj(9)  # in pieces, because the memory of this process is measured
    blank = b"".join([packer.compress(bytes(1 << 20)) for _ in range(300)]) + packer.flush()
    text = chunk(b"zTXt", b"a\0\0" + blank)
    jpeg, gif, bmp = (bytearray(encoded(picture(), kind)) for kind in ("JPEG", "GIF", "BMP"))
    offset = jpeg.index(b"\xff\xc0")
    jpeg[offset + 5 : offset + 9] = b"\xff\xdc\xff\xdc"
    gif[6:10] = b"\xff\xff\xff\xff"
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    tiff = encoded(picture(), "TIFF").replace(
        struct.pack("<HHIH", 256, 4, 1, 70), struct.pack("<HHIH", 256, 4, 1, 65_535)
    )
    runs = b"\x01\0\0\0\x40\0\0\0" + bytes(56) + b"\x81\xff" * 4_000_000
    sized = {"Rows": 65_535, "Columns": 65_535, "NumberOfFrames": None}
    deep = b"".join(struct.pack("<HHII", 8, 0x1140, 0xFFFFFFFF, 0) for _ in range(50_000))
    return {
        "png": png_of(65_000, 65_000),
        "png, deep text": png_of(70, 50, text),
        "jpeg": bytes(jpeg),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
        "tiff": tiff,
        "dicom": dicom(GREY, **sized),
        "dicom runs": compressed(DEEP, runs, uid.RLELossless),
        "dicom jpeg": compressed(GREY, bytes(jpeg), uid.JPEGBaseline8Bit),
        "dicom jpeg, both": compressed(GREY, bytes(jpeg), uid.JPEGBaseline8Bit, **sized),
        "dicom length": dicom(DEEP)[:-7008] + struct.pack("<HHII", 0x10, 0x10, 1 << 31, 9),
        "dicom nested": dicom(DEEP)[:-7012] + deep,
    }


def classify(path: Path, data: bytes) -> str:
    """ok, rejected or black; any other error propagates."""
    path.write_bytes(data)
    errors = []
    try:
        image_size(path)
    except BadImage as error:
        errors.append(str(error))
    grey = None
    try:
        grey = read_grey(path)
    except BadImage as error:
        errors.append(str(error))
    assert all("\n" not in error for error in errors), errors
    if grey is None:
        return "rejected"
    assert grey.dtype == np.uint8, grey.dtype
    assert grey.ndim == 2, grey.shape
    return "ok" if grey.max() > 0 else "black"


def main(folder: Path, seed: int, n: int) -> None:
    warnings.simplefilter("error")
    rng = np.random.default_rng(seed)
    path = folder / "file.png"
    for name, data in valid_files().items():
        assert classify(path, data) == "ok", name
    bomb_files = bombs()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {name: classify(path, data) for name, data in bomb_files.items()}
    counts: dict[str, Counter[str]] = {}
    for name, data in valid_files().items():
        counts[name] = Counter(classify(path, damaged(data, rng)) for _ in range(n))
        counts[name].update(f"empty {classify(path, blank)}" for blank in (b"", b"\0", bytes(500)))
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"bombs": outcomes, "counts": counts, "growth_kib": growth}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
