"""The grey scale of a DICOM image: modality transformation, window or look-up table, polarity.

A pixel has at most 16 bits, so all of it is worked out once for each value that a pixel can have
(DICOM PS3.3, C.11.1 and C.11.2; PS3.14 calls the result P-values).
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

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
        raise ValueError("its window has only one of centre and width")
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
