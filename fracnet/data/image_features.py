"""Image features that describe no anatomy: inputs of the shortcut baseline and of OOD detection.

Shortcut features come from the image as stored in the file. A label that they predict is usually
predicted by scanner, hospital or export: bone is among what a histogram counts, but nothing here
knows where it is or whether it is broken.

Appearance features come from the preprocessed image, as the model sees it, so file, format and
original size leave no trace. They distinguish photographs, inverted and empty images from
radiographs.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

SHORTCUT_BINS = 16
BORDERS = ("top", "bottom", "left", "right")
SHORTCUT_NAMES: tuple[str, ...] = (
    "width",
    "height",
    "aspect",
    "file_size",
    "mean",
    "standard_deviation",
    *(f"histogram_{i:02d}" for i in range(SHORTCUT_BINS)),
    *(f"{side}_{statistic}" for side in BORDERS for statistic in ("mean", "standard_deviation")),
)

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
APPEARANCE_BINS = 8
# Box blur widths for images of REFERENCE_SIZE pixels; the difference of two neighbors is one band
# of detail.
BLUR_WIDTHS = (3, 5, 9, 17, 33)
REFERENCE_SIZE = 224
APPEARANCE_NAMES: tuple[str, ...] = (
    "mean",
    "standard_deviation",
    "skewness",
    *(f"quantile_{int(100 * q):02d}" for q in QUANTILES),
    *(f"histogram_{i}" for i in range(1, APPEARANCE_BINS)),  # the first follows from the others
    "black",
    "white",
    *(f"border_mean_{i}" for i in range(4)),  # from the darkest side to the brightest
    *(f"border_deviation_{i}" for i in range(4)),
    "center_mean",
    "center_deviation",
    "gradient_mean",
    "gradient_99",
    "grain",
    "edges",
    "gradient_direction",
    *(f"band_{i}" for i in range(len(BLUR_WIDTHS))),
)


def shortcut_features(image: np.ndarray, file_size: int) -> np.ndarray:
    """Features of one image as stored in the file, float64 [F], named by `SHORTCUT_NAMES`.

    image: uint8 [H, W], before any preprocessing. file_size: bytes. Width and height are in
    pixels, aspect is width by height, the histogram has the share of pixels in each of 16 equal
    bins, and a border strip is one twentieth of the side deep, at least one pixel.
    """
    height, width = image.shape
    counts = cv2.calcHist([image], [0], None, [SHORTCUT_BINS], [0, 256]).ravel()
    deep, wide = max(1, height // 20), max(1, width // 20)
    strips = (image[:deep], image[-deep:], image[:, :wide], image[:, -wide:])
    return np.array(
        [
            width,
            height,
            width / height,
            file_size,
            *_mean_and_deviation(image),
            *(counts / image.size),
            *(value for strip in strips for value in _mean_and_deviation(strip)),
        ],
        dtype=np.float64,
    )


def _mean_and_deviation(image: np.ndarray) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(image)
    return float(mean[0, 0]), float(deviation[0, 0])


def appearance_features(
    images: np.ndarray, rows: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Features float32 [n, F], named by `APPEARANCE_NAMES`, of uint8 [N, S, S].

    rows: int64 [n], the images to use (default: all). Grey values range from 0 to 1; measures of
    detail are logarithms.
    """
    selected = np.arange(len(images)) if rows is None else np.asarray(rows)
    features = np.empty((len(selected), len(APPEARANCE_NAMES)), np.float32)

    def process(i: int) -> None:
        features[i] = _appearance(np.ascontiguousarray(images[selected[i]]))

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(process, range(len(selected))):
            pass
    return features


def _appearance(image: np.ndarray) -> list[float]:
    counts = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel() / image.size
    grey = np.arange(256) / 255
    mean = float(counts @ grey)
    deviation = float(np.sqrt(counts @ (grey - mean) ** 2))
    # The bounded divisor gives an empty image a skewness of 0.
    skewness = float(counts @ (grey - mean) ** 3) / max(deviation, 1 / 255) ** 3
    quantiles = np.searchsorted(np.cumsum(counts), np.array(QUANTILES) - 1e-6) / 255
    scaled = image.astype(np.float32) / 255
    side = image.shape[0]
    deep, quarter = max(1, side // 20), side // 4
    strips = (scaled[:deep], scaled[-deep:], scaled[:, :deep], scaled[:, -deep:])
    center = scaled[quarter : side - quarter, quarter : side - quarter]
    return [
        mean,
        deviation,
        skewness,
        *quantiles,
        *counts.reshape(APPEARANCE_BINS, -1).sum(axis=1)[1:],
        counts[0],
        counts[255],
        # Sorted, so that a rotated or mirrored image has the same features.
        *sorted(float(strip.mean()) for strip in strips),
        *sorted(float(strip.std()) for strip in strips),
        float(center.mean()),
        float(center.std()),
        *_detail(scaled),
    ]


def _detail(scaled: np.ndarray) -> list[float]:
    """Logarithms of the contrast from pixel to pixel, and in each band of detail."""
    across = cv2.Sobel(scaled, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(scaled, cv2.CV_32F, 0, 1, scale=1 / 8)
    # Not cv2.magnitude, whose last digit depends on where the arrays lie in memory.
    slope = np.sqrt(across * across + down * down)
    second = cv2.Laplacian(scaled, cv2.CV_32F)
    top = np.partition(slope.ravel(), int(0.99 * slope.size))[int(0.99 * slope.size)]
    bands, previous = [], scaled
    for width in BLUR_WIDTHS:
        odd = band_width(width, scaled.shape[0])
        blurred = cv2.blur(scaled, (odd, odd), borderType=cv2.BORDER_REPLICATE)
        bands.append(_log(float((previous - blurred).std())))
        previous = blurred
    return [
        _log(float(slope.mean())),
        _log(float(top)),
        _log(float(np.median(np.abs(second)))),
        _log(float(second.std())),
        _log(float(np.abs(across).mean())) - _log(float(np.abs(down).mean())),
        *bands,
    ]


def band_width(width: int, side: int) -> int:
    """Width in pixels, odd, of a blur of `BLUR_WIDTHS` in an image of this side."""
    return max(3, round(width * side / REFERENCE_SIZE) // 2 * 2 + 1)


def _log(value: float) -> float:
    """Logarithm of a share of the grey range, offset by half a grey level to be finite at 0."""
    return float(np.log(value + 0.5 / 255))
