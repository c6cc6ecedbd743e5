"""DICOM: from a file's bytes to grey uint8 pixels as the file says they are to be shown.

Raises ValueError with the reason for whatever is not a whole single grey image; `reading` puts the
file's name to it. Sizes are checked against the header before anything is decoded.
"""

import io
import logging
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from fracnet.data.voi import shown
from fracnet.errors import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
HEAD = 132
"""Bytes that tell DICOM: a preamble of 128, then "DICM"."""

# Transfer syntaxes by the decoder of imagecodecs that they need. pydicom's usual ones are not used:
# for lossless JPEG, gdcm can be crashed by a damaged file, and pylibjpeg-libjpeg is under the GPL;
# pylibjpeg-rle panics.
_DECODERS = {
    "1.2.840.10008.1.2.4.51": "jpeg8_decode",  # JPEG Extended, 8 and 12 bits
    "1.2.840.10008.1.2.4.57": "jpeg8_decode",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": "jpeg8_decode",  # JPEG Lossless, the usual one in radiography
    "1.2.840.10008.1.2.4.80": "jpegls_decode",
    "1.2.840.10008.1.2.4.81": "jpegls_decode",  # near-lossless
    "1.2.840.10008.1.2.4.90": "jpeg2k_decode",  # lossless
    "1.2.840.10008.1.2.4.91": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.201": "jpeg2k_decode",  # high-throughput JPEG 2000
    "1.2.840.10008.1.2.4.202": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.203": "jpeg2k_decode",
}
_BASELINE_JPEG = "1.2.840.10008.1.2.4.50"
_JPEG_2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
_IDS = ("PatientID", "StudyInstanceUID")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"


class NoDecoder(UserError):
    """A package is missing, which is no fault of the file: not a case for data.on_bad_file."""


class Ids(NamedTuple):
    """As text, None where the header has none."""

    patient: str | None
    study: str | None


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM, whatever its name."""
    return head[128:HEAD] == b"DICM"


def may_be_dicom(path: Path | str) -> bool:
    """Whether the name is one that DICOM files have: .dcm, or none, or the end of a UID."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix in SUFFIXES or suffix[1:].isdecimal() or suffix in ("", ".")


def read_size(file: BinaryIO) -> tuple[int, int]:
    """(width, height) from the header of an open DICOM file."""
    dataset = _opened(file, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return _number(dataset, "Columns"), _number(dataset, "Rows")


def read_ids(file: BinaryIO) -> Ids:
    """The ids from the header of an open DICOM file, whatever else is wrong with it."""
    dataset = _opened(file, stop_before_pixels=True, specific_tags=list(_IDS))
    return Ids(*(_whole_text(dataset, key) for key in _IDS))


def _whole_text(dataset: "Dataset", key: str) -> str | None:
    """The element's text; None where there is none, and where the file ends within it."""
    from pydicom.dataelem import RawDataElement

    raw = dataset.get_item(key)
    if raw is None or raw.value is None:
        return None
    if isinstance(raw, RawDataElement) and len(raw.value) < raw.length:
        return None  # half an id would be that of somebody else
    value = dataset[key].value
    # A backslash in an id is a separator of values to DICOM, and part of the id to a person.
    several = not isinstance(value, str) and isinstance(value, Sequence)
    text = "\\".join(map(str, value)) if several else str(value)
    # Control characters become spaces, at the ends nothing: headers are padded with NUL.
    text = "".join(" " if unicodedata.category(one) == "Cc" else one for one in text)
    return " ".join(text.split()) or None


def decode(data: bytes, path: Path | str, max_pixels: int) -> npt.NDArray[np.uint8]:
    """The image of a DICOM file, uint8 [H, W], dark to bright as MONOCHROME2 shows it.

    See `voi.shown` for the grey scale. `path` is for messages. Raises ValueError for what is not
    one whole grey image of 8 to 16 bits, NoDecoder where its compression needs further packages.
    """
    dataset = _opened(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise ValueError("this DICOM file has no pixel data, or is cut off before them")
    _refuse_what_is_not_grey(dataset)
    width, height = _number(dataset, "Columns"), _number(dataset, "Rows")
    if width < 1 or height < 1:
        raise ValueError(f"it has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ValueError(f"{width}x{height} pixels are more than the allowed {max_pixels}")
    return shown(dataset, _stored(dataset, path))


def _opened(file: BinaryIO, **options: Any) -> "Dataset":
    from pydicom import dcmread
    from pydicom.filereader import data_element_generator

    # What pydicom logs about odd headers is either harmless or refused here.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    file.seek(HEAD)
    # dcmread would inflate a file of this kind at once, to whatever size.
    for element in data_element_generator(file, False, True, lambda tag, *_: tag.group != 2):
        if element.tag == 0x00020010 and _DEFLATED in str(element.value):
            raise ValueError("it is deflated as a whole (a DICOM transfer syntax that is not read)")
    file.seek(0)
    return dcmread(file, **options)


def _number(dataset: "Dataset", key: str, default: int | None = None) -> int:
    value = dataset.get(key)
    if value is None or value == "":
        if default is None:
            raise ValueError(f"its DICOM header has no {key}")
        return default
    return int(value)


def _refuse_what_is_not_grey(dataset: "Dataset") -> None:
    frames = _number(dataset, "NumberOfFrames", 1)
    if frames != 1:
        raise ValueError(f"it holds {frames} frames; only single images are read")
    kind, samples = dataset.get("PhotometricInterpretation"), _number(dataset, "SamplesPerPixel", 1)
    if kind not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
        raise ValueError(
            f"it is a colour image ({kind}, {samples} samples a pixel); only MONOCHROME1 and "
            "MONOCHROME2 are read"
        )
    allocated, stored = _number(dataset, "BitsAllocated"), _number(dataset, "BitsStored")
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise ValueError(f"its pixels have {stored} of {allocated} bits; read are 8 to 16")
    if _number(dataset, "HighBit", stored - 1) != stored - 1:
        raise ValueError(f"its pixels do not end at bit {stored - 1}, but at {dataset.HighBit}")


def _stored(dataset: "Dataset", path: Path | str) -> npt.NDArray[np.integer[Any]]:
    """The pixel values as they are stored, [H, W]."""
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise ValueError("its DICOM header names no transfer syntax")
    shape = dataset.Rows, dataset.Columns
    if not syntax.is_encapsulated:
        wanted, held = shape[0] * shape[1] * dataset.BitsAllocated // 8, len(dataset.PixelData)
        if held < wanted:
            raise ValueError(f"the file is truncated: {held} of {wanted} bytes of pixels")
        return get_decoder(syntax).as_array(dataset, raw=True, index=0)[0]
    coded = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == _RLE:
        # Every 128 bytes may cost one more: what is longer decodes to something else.
        if len(coded) > 1.02 * shape[0] * shape[1] * dataset.BitsAllocated / 8 + 1024:
            raise ValueError("its RLE data are longer than its pixels")
        return get_decoder(syntax).as_array(dataset, raw=True, decoding_plugin="pydicom")[0]
    if syntax != _BASELINE_JPEG and syntax not in _DECODERS:
        raise ValueError(f"its compression, {syntax.name}, is not read")
    if (found := coded_size(coded)) != (shape[1], shape[0], 1):
        raise ValueError(
            f"its header says {shape[1]}x{shape[0]}, grey, but its compressed data say "
            + (f"{found[0]}x{found[1]}, {found[2]} channels" if found else "nothing")
        )
    if not syntax.startswith(_JPEG_2000) and coded.rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise ValueError("its compressed data are truncated")
    pixels = _decompressed(coded, syntax, path)
    bits = int(dataset.BitsStored)
    if pixels.shape != shape or (pixels.dtype.kind == "u" and int(pixels.max()) >> bits):
        raise ValueError(f"its compressed data hold no {shape[1]}x{shape[0]} pixels of {bits} bits")
    return pixels


def _decompressed(coded: bytes, syntax: Any, path: Path | str) -> npt.NDArray[np.integer[Any]]:
    if syntax == _BASELINE_JPEG:
        from PIL import Image

        with Image.open(io.BytesIO(coded), formats=("JPEG",)) as image:
            return np.asarray(image)
    try:
        import imagecodecs
    except ImportError as error:
        raise NoDecoder(
            f"{path} is compressed as {syntax.name}. Its decoder is an extra: "
            "pip install 'fracnet[dicom]'."
        ) from error
    return np.asarray(getattr(imagecodecs, _DECODERS[syntax])(coded))


def coded_size(coded: bytes) -> tuple[int, int, int] | None:
    """(width, height, channels) from a JPEG, JPEG-LS or JPEG 2000 codestream; None if unclear."""
    start = coded.find(b"\xff\x4f\xff\x51", 0, 4096)  # inside a JP2 file's boxes, or at once
    if start >= 0 and coded[:2] != b"\xff\xd8":
        size = coded[start + 8 : start + 42]
        if len(size) < 34:
            return None
        right, lower, left, upper = (int.from_bytes(size[i : i + 4]) for i in range(0, 16, 4))
        return right - left, lower - upper, int.from_bytes(size[32:34])
    if coded[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 < len(coded) and coded[place] == 0xFF:
        marker = coded[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        # SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            height, width = (int.from_bytes(coded[place + i : place + i + 2]) for i in (5, 7))
            return width, height, coded[place + 9]
        place += 2 + int.from_bytes(coded[place + 2 : place + 4])
    return None
