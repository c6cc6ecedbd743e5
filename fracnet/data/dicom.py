"""DICOM: from a file's bytes to grey uint8 pixels, displayed as its header says.

Raises ValueError with the reason for anything but one complete grey image; `image_io` adds the
file name. Sizes are checked against the header before anything is decoded.

The grey scale consists of modality transformation, window or look-up table, and polarity. A pixel
has at most 16 bits, so it is computed once for each possible pixel value (DICOM PS3.3, C.11.1 and
C.11.2; PS3.14 calls the result P-values).
"""

import io
import logging
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame, parse_fragments
from pydicom.filereader import data_element_generator
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from fracnet.data.codestreams import coded_precision, coded_size, ends_early, has_end
from fracnet.data.dicom_files import HEADER_LENGTH, Ids, header_start
from fracnet.utils.errors import UserError

try:
    import imagecodecs
except ImportError:  # an extra; `NoDecoder` says how to install it
    imagecodecs = None  # type: ignore[assignment]

Values = npt.NDArray[np.float64]
Number = TypeVar("Number", int, float)

LOOKUP_BLOCK = 1 << 20  # pixels looked up at a time: an index takes eight bytes

# The imagecodecs decoder of each transfer syntax. pydicom's usual decoders are not used: for
# lossless JPEG, a damaged file can crash gdcm, and pylibjpeg-libjpeg is under the GPL;
# pylibjpeg-rle panics.
_DECODERS = {
    "1.2.840.10008.1.2.4.51": "jpeg8_decode",  # JPEG Extended, 8 and 12 bits
    "1.2.840.10008.1.2.4.53": "jpeg8_decode",  # JPEG in spectral selections
    "1.2.840.10008.1.2.4.55": "jpeg8_decode",  # JPEG, progressive
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
_JPEG = (_BASELINE_JPEG, *(name for name, decode in _DECODERS.items() if decode == "jpeg8_decode"))
_JPEG_2000 = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
# Lossy JPEG and near-lossless JPEG-LS, whose values may exceed the range of the original ones.
_OVERSHOOTING = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (51, 53, 55, 81))
_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
COMPRESSED_SYNTAXES = (*_DECODERS, _BASELINE_JPEG, _RLE)
"""Transfer syntaxes that `decode` reads, beside the uncompressed ones."""
_SOP_CLASS = 0x00020002
_TRANSFER_SYNTAX = 0x00020010
_STANDARD = "1.2.840.10008."  # start of the UIDs that DICOM itself defines
_SIEMENS_NON_IMAGE = "1.3.12.2.1107.5.9.1"
_IDS = ("PatientID", "StudyInstanceUID")


class NoDecoder(UserError):
    """A package is missing. The file is not at fault, so data.on_bad_file does not apply."""


class Scale(NamedTuple):
    """values: one per pixel code, in a unit in which grey is linear from low to high."""

    values: Values
    low: float
    high: float


def display_pixels(dataset: Dataset, stored: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    """Stored pixel values as display values, uint8 [H, W], bright is MONOCHROME2's white.

    - Rescale slope and intercept, or a modality LUT, come first.
    - Then the first VOI LUT, else the first window (LINEAR, LINEAR_EXACT or SIGMOID), applies.
      Without either, 8-bit values stay unchanged, and others map linearly from the image's own
      minimum..maximum to 0..255, as with 16-bit PNG; a constant image keeps its position in the
      full range.
    - MONOCHROME1 is inverted. Pixel padding is excluded from the range and becomes black.
    - Bits above the stored ones are removed: the sign, an overlay, or anything else.

    Raises ValueError for invalid values, those that continue above the stored bits, and a window
    that maps all pixels to one grey.
    """
    _use_functional_groups(dataset)
    bits = int(dataset.BitsStored)
    numbers = np.arange(1 << bits)
    signed = bool(int(dataset.get("PixelRepresentation") or 0))
    if signed:
        numbers = np.where(numbers < 1 << bits - 1, numbers, numbers - (1 << bits))
    size = max(stored.dtype.itemsize, 1 + (bits > 8))  # a codestream may have fewer bits
    native = np.asarray(stored, f"{stored.dtype.kind}{size}")
    words = native.view(f"u{native.itemsize}")
    codes = words & ((1 << bits) - 1)
    low, high = _padding(dataset, bits)
    padding = (numbers >= low) & (numbers <= high)
    beyond = None
    if low <= high and (low < numbers.min() or high > numbers.max()):
        # Without the bits above the stored ones, such padding looks like an ordinary value.
        beyond = (native >= low) & (native <= high)
    _check_upper_bits(words, bits, signed, beyond)
    present = _present(codes if beyond is None else codes[~beyond], 1 << bits) & ~padding
    if not present.any():
        raise ValueError("all of its pixels are padding")
    values = _modality(dataset, numbers.astype(np.float64))
    scale = _voi(dataset, values) or _own_range(values, present, numbers)
    if not scale.high > scale.low:
        raise ValueError("its look-up table or rescaling maps all values to one grey")
    grey = _grey(scale, inverted=dataset.PhotometricInterpretation == "MONOCHROME1")
    if present.sum() > 1 and len(np.unique(grey[present])) == 1:
        raise ValueError("its window or look-up table maps all pixels to one grey")
    grey[padding] = 0
    flat, pixels = codes.ravel(), np.empty(codes.size, np.uint8)
    for start in range(0, codes.size, LOOKUP_BLOCK):
        pixels[start : start + LOOKUP_BLOCK] = grey[flat[start : start + LOOKUP_BLOCK]]
    image = pixels.reshape(codes.shape)
    if beyond is not None:
        image[beyond] = 0
    return image


def _check_upper_bits(
    words: npt.NDArray[np.unsignedinteger],
    bits: int,
    signed: bool,
    beyond: npt.NDArray[np.bool_] | None,
) -> None:
    """Raise ValueError where the bits above the stored ones are part of the values.

    Without them, a value beyond the range that the header gives would wrap: white to black. The
    standard leaves these bits undefined (PS3.5 8.1.1), so they may hold anything. They are part of
    the values where neighbors in a row of which they differ are closer with them than without.
    beyond: padding, which does not count.
    """
    upper = words >> (bits - signed)  # of signed values, those from half the range on wrap
    changed = upper[:, 1:] != upper[:, :-1]
    if beyond is not None:
        changed &= ~(beyond[:, 1:] | beyond[:, :-1])

    def distance(width: int) -> int:
        sides = words[:, :-1][changed], words[:, 1:][changed]
        ends = [side.astype(np.int64) & ((1 << width) - 1) for side in sides]
        if signed:
            ends = [values - ((values >> width - 1) << width) for values in ends]
        return int(np.abs(ends[1] - ends[0]).sum())

    if distance(8 * words.itemsize) < distance(bits):
        raise ValueError(
            f"its pixels have values of more than the {bits} bits that its header says are stored"
        )


def _present(codes: npt.NDArray[np.integer[Any]], n: int) -> npt.NDArray[np.bool_]:
    """Which of the codes 0..n-1 occur."""
    flat = codes.ravel()
    present = np.zeros(n, dtype=bool)
    for start in range(0, flat.size, LOOKUP_BLOCK):
        present[flat[start : start + LOOKUP_BLOCK]] = True
    return present


def _padding(dataset: Dataset, bits: int) -> tuple[int, int]:
    """The least and the greatest value of padding, (1, 0) without; bits: stored per pixel."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return 1, 0
    limit = dataset.get("PixelPaddingRangeLimit")
    signed = bool(int(dataset.get("PixelRepresentation") or 0))
    ends = []
    for end in (int(value), int(value if limit is None else limit)):
        # Some devices write it as unsigned although the pixels are signed, or reverse: the code,
        # of as many bits as are stored or allocated, is the same.
        n = 1 << (bits if 0 <= end < 1 << bits else int(dataset.BitsAllocated))
        first = -n // 2 if signed else 0
        ends.append((end - first) % n + first)
    return min(ends), max(ends)


def _use_functional_groups(dataset: Dataset) -> None:
    """Move rescaling and window of an enhanced image, which has them for each frame, to its top."""
    for kind in ("Shared", "PerFrame"):
        for frame in (dataset.get(f"{kind}FunctionalGroupsSequence") or ())[:1]:
            for part in ("PixelValueTransformation", "FrameVOILUT"):
                for values in (frame.get(f"{part}Sequence") or ())[:1]:
                    dataset.update(values)


def _modality(dataset: Dataset, values: Values) -> Values:
    if tables := dataset.get("ModalityLUTSequence"):
        return _look_up(dataset, tables[0], values)[0]
    slope, intercept = _decimal(dataset, "RescaleSlope"), _decimal(dataset, "RescaleIntercept")
    slope = 1.0 if slope is None else slope
    if abs(slope) < 1e-9:
        raise ValueError(f"its rescale slope is {slope:g}")
    return values * slope + (intercept or 0)


def _voi(dataset: Dataset, values: Values) -> Scale | None:
    """The first VOI LUT, else the first window, else None."""
    if tables := dataset.get("VOILUTSequence"):
        # The table's own range, not that of its bits: some 12-bit tables claim 16.
        values, data = _look_up(dataset, tables[0], values)
        return Scale(values, float(data.min()), float(data.max()))
    center, width = _decimal(dataset, "WindowCenter"), _decimal(dataset, "WindowWidth")
    if center is None and width is None:
        return None
    if center is None or width is None:
        raise ValueError("its window lacks center or width")
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
    """Without a window: the image's own range, or that of all possible values."""
    unscaled = len(numbers) == 256 and np.array_equal(values, numbers)
    used = values if unscaled or present.sum() == 1 else values[present]
    return Scale(values, float(used.min()), float(used.max()))


def _grey(scale: Scale, *, inverted: bool) -> npt.NDArray[np.uint8]:
    # Subtracted in reverse, so that an inverted twin goes through the same numbers.
    steps = scale.high - scale.values if inverted else scale.values - scale.low
    span = scale.high - scale.low
    return np.rint(np.clip(steps, 0, span) * (255 / span)).astype(np.uint8)


def _look_up(dataset: Dataset, table: Dataset, values: Values) -> tuple[Values, Values]:
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
        raise ValueError(f"its look-up table has only {len(data)} of {n} entries")
    return data[np.clip(np.rint(values) - first, 0, n - 1).astype(np.intp)], data[:n]


def _decimal(dataset: Dataset, key: str) -> float | None:
    """The first value of a numeric header element, None without one."""
    number = _number(dataset, key, float)
    if number is not None and not abs(number) < 1e9:
        raise ValueError(f"its {key} is {number}")
    return number


def class_without_image(file: BinaryIO) -> str | None:
    """Name of the SOP class of an open DICOM file if it is not one of images, else None.

    Structured reports, presentation states, directories, documents, dose, segmentations and the
    like; a class that DICOM does not define counts as one of images. Raises for a broken header.
    """
    uid = next((_text(item.value) for item in _meta(file) if item.tag == _SOP_CLASS), None)
    if uid is None:
        dataset = _read_dataset(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        uid = str(dataset.get("SOPClassUID") or "")
    name = UID(uid).name
    known = uid.startswith(_STANDARD) and name != uid and "Image" not in name
    return name if known or uid == _SIEMENS_NON_IMAGE else None


def _text(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")


def read_size(file: BinaryIO) -> tuple[int, int]:
    """(width, height) from the header of an open DICOM file."""
    dataset = _read_dataset(file, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return _integer(dataset, "Columns"), _integer(dataset, "Rows")


def read_ids(file: BinaryIO) -> Ids:
    """The ids from the header of an open DICOM file, even if its pixels are broken."""
    dataset = _read_dataset(file, stop_before_pixels=True, specific_tags=list(_IDS))
    return Ids(*(_whole_text(dataset, key) for key in _IDS))


def _whole_text(dataset: Dataset, key: str) -> str | None:
    """The element's text; None if there is none, or if the file ends within it."""
    raw = dataset.get_item(key)
    if raw is None or raw.value is None:
        return None
    if isinstance(raw, RawDataElement) and len(raw.value) < raw.length:
        return None  # part of an id could be the id of another patient
    value = dataset[key].value
    # DICOM reads a backslash as a separator of values, but people write it as part of an id.
    several = not isinstance(value, str) and isinstance(value, Sequence)
    text = "\\".join(map(str, value)) if several else str(value)
    # Control characters become spaces, or nothing at the ends: headers are padded with NUL.
    text = "".join(" " if unicodedata.category(char) == "Cc" else char for char in text)
    return " ".join(text.split()) or None


def decode(
    data: bytes, path: Path, memory_for: Callable[[Path, int, int], AbstractContextManager[None]]
) -> npt.NDArray[np.uint8]:
    """The image of a DICOM file, uint8 [H, W], dark to bright as MONOCHROME2 shows it.

    See `display_pixels` for the grey scale. `path` is for messages; `memory_for(path, width,
    height)` checks the size and reserves the memory that decoding takes. Raises ValueError for
    anything but one complete grey image of 8 to 16 bits, NoDecoder if its compression needs another
    package.
    """
    dataset = _read_dataset(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise ValueError("this DICOM file has no pixel data, or is truncated before them")
    _check_is_grey(dataset)
    with memory_for(path, _integer(dataset, "Columns"), _integer(dataset, "Rows")):
        return display_pixels(dataset, _stored_pixels(dataset, path))


def _read_dataset(file: BinaryIO, **options: Any) -> Dataset:
    # What pydicom logs about odd headers is either harmless or rejected here.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    # dcmread would inflate such a file immediately, to any size.
    for element in _meta(file):
        if element.tag == _TRANSFER_SYNTAX and _DEFLATED in str(element.value):
            raise ValueError("it is deflated as a whole, which is not supported")
    file.seek(0)
    dataset = dcmread(file, force=True, **options)  # also without the preamble; see `is_dicom`
    compressed = getattr(dataset.get_item("PixelData"), "length", 0) == 0xFFFFFFFF
    if not dataset.file_meta and not compressed:
        is_implicit, is_little = dataset.original_encoding
        plain = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = plain if is_little else ExplicitVRBigEndian
    return dataset


def _meta(file: BinaryIO) -> Iterator[Any]:
    """The elements of group 2, which say what the file is."""
    file.seek(0)
    file.seek(header_start(file.read(HEADER_LENGTH)) or 0)
    return data_element_generator(file, False, True, lambda tag, *_: tag.group != 2)


def _integer(dataset: Dataset, key: str, default: int | None = None) -> int:
    number = _number(dataset, key, int)
    number = default if number is None else number
    if number is None:
        raise ValueError(f"its DICOM header has no {key}")
    return number


def _number(dataset: Dataset, key: str, kind: type[Number]) -> Number | None:
    """The first value of a numeric header element, None without one; ValueError for a text."""
    try:
        value = dataset.get(key)
        if isinstance(value, list) or hasattr(value, "append"):
            value = value[0] if len(value) else None
        return None if value is None or value == "" else kind(value)
    except ValueError as error:
        written = _text(getattr(dataset.get_item(key), "value", ""))[:40]
        comma = "; decimals need a point" if "," in written else ""
        raise ValueError(f"its {key} {written!r} is not a number{comma}") from error


def _check_is_grey(dataset: Dataset) -> None:
    frames = _integer(dataset, "NumberOfFrames", 1)
    # Some devices write 0 for a single image.
    if frames != 1 and not (frames == 0 and _holds_one_frame(dataset)):
        raise ValueError(f"it has {frames} frames; only single images are supported")
    kind = dataset.get("PhotometricInterpretation")
    if not kind:
        raise ValueError(
            "its DICOM header has no PhotometricInterpretation, so whether bright is white or "
            "black is unknown"
        )
    samples = _integer(dataset, "SamplesPerPixel", 1)
    if kind not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
        raise ValueError(
            f"it is a color image ({kind}, {samples} samples per pixel); only MONOCHROME1 and "
            "MONOCHROME2 are supported"
        )
    allocated, stored = _integer(dataset, "BitsAllocated"), _integer(dataset, "BitsStored")
    if allocated not in (8, 16) or not 8 <= stored <= allocated:
        raise ValueError(f"its pixels have {stored} of {allocated} bits; 8 to 16 are supported")
    if _integer(dataset, "HighBit", stored - 1) != stored - 1:
        raise ValueError(f"its pixels end at bit {dataset.HighBit} instead of {stored - 1}")


def _holds_one_frame(dataset: Dataset) -> bool:
    """Whether the pixel data end before a second frame could."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_encapsulated:
        return parse_fragments(dataset.PixelData)[0] == 2  # the first one lists the offsets
    bits = [_integer(dataset, key) for key in ("Rows", "Columns", "BitsAllocated")]
    return len(dataset.PixelData) < 2 * math.prod(bits) // 8


def _stored_pixels(dataset: Dataset, path: Path) -> npt.NDArray[np.integer[Any]]:
    """The pixel values as stored, [H, W]."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise ValueError("its DICOM header names no transfer syntax")
    shape = dataset.Rows, dataset.Columns
    options: dict[str, Any]
    if not syntax.is_encapsulated:
        expected = shape[0] * shape[1] * dataset.BitsAllocated // 8
        actual = len(dataset.PixelData)
        if actual < expected:
            raise ValueError(f"the file is truncated: {actual} of {expected} bytes of pixels")
        options = {"raw": True, "index": 0, "correct_unused_bits": False}
        return get_decoder(syntax).as_array(dataset, **options)[0]
    coded = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == _RLE:
        # RLE adds at most one byte per 128: longer data decode to something else.
        if len(coded) > 1.02 * shape[0] * shape[1] * dataset.BitsAllocated / 8 + 1024:
            raise ValueError("its RLE data are longer than its pixels allow")
        options = {"raw": True, "decoding_plugin": "pydicom", "correct_unused_bits": False}
        return get_decoder(syntax).as_array(dataset, **options)[0]
    if syntax != _BASELINE_JPEG and syntax not in _DECODERS:
        raise ValueError(f"its compression, {syntax.name}, is not supported")
    if (size := coded_size(coded)) != (shape[1], shape[0], 1):
        coded_as = f"{size[0]}x{size[1]}, {size[2]} channels" if size else "of unknown size"
        raise ValueError(
            f"its header says {shape[1]}x{shape[0]}, grey, but its compressed data are {coded_as}"
        )
    if not syntax.startswith(_JPEG_2000) and not has_end(coded):
        raise ValueError("its compressed data are truncated")
    decode = _decoder(syntax, path)
    pixels = decode(coded)
    # What is missing has one value.
    if syntax in _JPEG and np.ptp(pixels[-1, -8:]) == 0 and ends_early(coded, pixels, decode):
        raise ValueError("its compressed data are truncated: the lower part is missing")
    bits = int(dataset.BitsStored)
    if syntax.startswith(_JPEG_2000):
        # Signed values that were coded as unsigned, or reverse, keep their bits (two's complement
        # of the codestream's precision), so the header's sign applies to them.
        dataset.BitsStored = bits = coded_precision(coded) or bits
    elif syntax in _OVERSHOOTING and not int(pixels.max()) >> bits + 1:
        pixels = np.minimum(pixels, pixels.dtype.type((1 << bits) - 1))
    if pixels.shape != shape or (pixels.dtype.kind == "u" and int(pixels.max()) >> bits):
        raise ValueError(f"its compressed data are not {shape[1]}x{shape[0]} pixels of {bits} bits")
    return pixels


def _decode_baseline(coded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(coded), formats=("JPEG",)) as image:
        return np.asarray(image)


def _decoder(syntax: Any, path: Path) -> Callable[[bytes], npt.NDArray[np.integer[Any]]]:
    if syntax == _BASELINE_JPEG:
        return _decode_baseline
    if imagecodecs is None:
        raise NoDecoder(
            f"{path} is compressed as {syntax.name}. To install the decoder, run: "
            "pip install 'fracnet[dicom]'."
        )
    decode: Callable[[bytes], np.ndarray] = getattr(imagecodecs, _DECODERS[syntax])
    return decode
