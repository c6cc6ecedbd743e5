"""DICOM: from a file's bytes to grey uint8 pixels as the file says they are to be shown.

Raises ValueError with the reason for whatever is not a whole single grey image; `reading` puts the
file's name to it. Sizes are checked against the header before anything is decoded.

The grey scale of a DICOM image: modality transformation, window or look-up table, polarity.

A pixel has at most 16 bits, so all of it is worked out once for each value that a pixel can have
(DICOM PS3.3, C.11.1 and C.11.2; PS3.14 calls the result P-values).
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

from fracnet.utils.errors import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Values = npt.NDArray[np.float64]

BLOCK = 1 << 20
"""Pixels looked up at a time: an index takes eight bytes."""


class Scale(NamedTuple):
    """values: of each code, in a unit in which the grey scale is linear from low to high."""

    values: Values
    low: float
    high: float


def shown(dataset: "Dataset", stored: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    """Stored pixel values as they are to be shown, uint8 [H, W], bright is MONOCHROME2's white.

    - Rescale slope and intercept, or a modality LUT, come first.
    - Then the first VOI LUT, else the first window (LINEAR, LINEAR_EXACT or SIGMOID), decides.
      Without either, 8-bit values stay as they are, and others map linearly from the image's own
      minimum..maximum to 0..255, as 16-bit PNG do; one constant value keeps its place in the full
      range.
    - MONOCHROME1 is turned round. Pixel padding is left out of the range, and black.

    Raises ValueError for values that make no sense, and for a window in which all is one grey.
    """
    bits = int(dataset.BitsStored)
    numbers = np.arange(1 << bits)
    if int(dataset.get("PixelRepresentation") or 0):
        numbers = np.where(numbers < 1 << bits - 1, numbers, numbers - (1 << bits))
    native = np.asarray(stored, stored.dtype.newbyteorder("="))
    codes = native.view(f"u{native.itemsize}") & ((1 << bits) - 1)
    padding = _padding(dataset, numbers)
    present = _present(codes, 1 << bits) & ~padding
    if not present.any():
        raise ValueError("all its pixels are padding")
    values = _modality(dataset, numbers.astype(np.float64))
    scale = _voi(dataset, values) or _own_range(values, present, numbers)
    if not scale.high > scale.low:
        raise ValueError("its look-up table or rescaling makes one grey of all values")
    grey = _grey(scale, inverted=dataset.PhotometricInterpretation == "MONOCHROME1")
    if present.sum() > 1 and len(np.unique(grey[present])) == 1:
        raise ValueError("its window or look-up table shows all pixels in one grey")
    grey[padding] = 0
    flat, picture = codes.ravel(), np.empty(codes.size, np.uint8)
    for start in range(0, codes.size, BLOCK):
        picture[start : start + BLOCK] = grey[flat[start : start + BLOCK]]
    return picture.reshape(codes.shape)


def _present(codes: npt.NDArray[np.integer[Any]], n: int) -> npt.NDArray[np.bool_]:
    """Which of the codes 0..n-1 occur."""
    flat = codes.ravel()
    found = np.zeros(n, dtype=bool)
    for start in range(0, flat.size, BLOCK):
        found[flat[start : start + BLOCK]] = True
    return found


def _padding(dataset: "Dataset", numbers: npt.NDArray[np.int_]) -> npt.NDArray[np.bool_]:
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return np.zeros(len(numbers), dtype=bool)
    other = dataset.get("PixelPaddingRangeLimit")
    # Written as unsigned by some although the pixels are signed: both are the same code.
    ends = [
        int(numbers[int(end) % len(numbers)]) for end in (value, value if other is None else other)
    ]
    return (numbers >= min(ends)) & (numbers <= max(ends))


def _modality(dataset: "Dataset", values: Values) -> Values:
    if tables := dataset.get("ModalityLUTSequence"):
        return _look_up(dataset, tables[0], values)[0]
    slope, intercept = _real(dataset, "RescaleSlope", 1), _real(dataset, "RescaleIntercept", 0)
    assert slope is not None
    assert intercept is not None
    if abs(slope) < 1e-9:
        raise ValueError(f"its rescale slope is {slope:g}")
    return values * slope + intercept


def _voi(dataset: "Dataset", values: Values) -> Scale | None:
    """The first VOI LUT, else the first window, else None."""
    if tables := dataset.get("VOILUTSequence"):
        # Its own range, not that of its bits: tables of 12 bits are met that say 16.
        values, data = _look_up(dataset, tables[0], values)
        return Scale(values, float(data.min()), float(data.max()))
    center, width = _real(dataset, "WindowCenter"), _real(dataset, "WindowWidth")
    if center is None and width is None:
        return None
    if center is None or width is None:
        raise ValueError("its window has only one of center and width")
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"its VOI LUT function {function[:20]!r} is unknown")
    if width < (1 if function == "LINEAR" else 1e-6):
        raise ValueError(f"its window width {width:g} is too small")
    if function == "SIGMOID":
        steps = np.clip(-4 * (values - center) / width, -60, 60)
        return Scale(1 / (1 + np.exp(steps)), 0, 1)
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
        if width == 0:
            return Scale((values > center).astype(np.float64), 0, 1)
    return Scale(values, center - width / 2, center + width / 2)


def _own_range(
    values: Values, present: npt.NDArray[np.bool_], numbers: npt.NDArray[np.int_]
) -> Scale:
    """Without a window: the image's own range, or all that its values could be."""
    plain = len(numbers) == 256 and np.array_equal(values, numbers)
    used = values if plain or present.sum() == 1 else values[present]
    return Scale(values, float(used.min()), float(used.max()))


def _grey(scale: Scale, *, inverted: bool) -> npt.NDArray[np.uint8]:
    # Subtracted the other way round, so that an inverted twin goes through the same numbers.
    steps = scale.high - scale.values if inverted else scale.values - scale.low
    span = scale.high - scale.low
    return np.rint(np.clip(steps, 0, span) * (255 / span)).astype(np.uint8)


def _look_up(dataset: "Dataset", table: "Dataset", values: Values) -> tuple[Values, Values]:
    """Values through a modality or VOI LUT, and the table itself."""
    n, first, _ = (int(part) for part in table.LUTDescriptor)
    n = n or 1 << 16
    if first >= 1 << 15 and values.min() < 0:
        first -= 1 << 16  # signed, but written as unsigned
    data = table.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, "u1" if len(data) in (n, n + n % 2) else f"{order}u2")
    data = np.atleast_1d(np.asarray(data, dtype=np.float64))
    if len(data) < n:
        raise ValueError(f"its look-up table has {len(data)} of {n} entries")
    return data[np.clip(np.rint(values) - first, 0, n - 1).astype(np.intp)], data[:n]


def _real(dataset: "Dataset", key: str, default: float | None = None) -> float | None:
    """The first of a header's numbers."""
    value = dataset.get(key)
    if isinstance(value, list) or hasattr(value, "append"):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return default
    number = float(value)
    if not abs(number) < 1e9:
        raise ValueError(f"its {key} is {number}")
    return number


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
            f"it is a color image ({kind}, {samples} samples a pixel); only MONOCHROME1 and "
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
