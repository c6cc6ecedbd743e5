"""Figures of an image that know no shape: the inputs of the shortcut baseline.

A label that they predict is as a rule predicted by scanner, hospital or export: bone is among what
a histogram counts, but nothing here knows where it lies or whether it is broken.

What an image looks like as a whole, in a few dozen numbers that know nothing of bones.

For telling a photograph, an inverted or an empty image from radiographs. Taken from the preprocessed
image, as the model sees it: file, format and original size leave no trace here.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

BINS = 16
BORDERS = ("top", "bottom", "left", "right")

FEATURE_NAMES: tuple[str, ...] = (
    "width",
    "height",
    "aspect",
    "file_size",
    "mean",
    "standard_deviation",
    *(f"histogram_{i:02d}" for i in range(BINS)),
    *(f"{side}_{statistic}" for side in BORDERS for statistic in ("mean", "standard_deviation")),
)


def shortcut_features(image: np.ndarray, file_size: int) -> np.ndarray:
    """Features of one image as it lies in the file, float64 [F], named by `FEATURE_NAMES`.

    `image`: uint8 [H, W], before any preprocessing. `file_size`: bytes. Width and height are in
    pixels, aspect is width by height, the histogram holds the share of pixels in each of 16 equal
    bins, and a border strip is a twentieth of the side deep, at least one pixel.
    """
    height, width = image.shape
    counts = cv2.calcHist([image], [0], None, [BINS], [0, 256]).ravel()
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


QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

HISTOGRAM_BINS = 8

# Widths of box blurs for images of 224 pixels; what two neighbors differ by is one band of detail.
WIDTHS = (3, 5, 9, 17, 33)
REFERENCE_SIZE = 224

NAMES: tuple[str, ...] = (
    "mean",
    "standard_deviation",
    "skewness",
    *(f"quantile_{int(100 * q):02d}" for q in QUANTILES),
    *(f"histogram_{i}" for i in range(1, HISTOGRAM_BINS)),  # the first follows from the others
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
    *(f"band_{i}" for i in range(len(WIDTHS))),
)


def appearance(images: np.ndarray, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """float32 [n, F] named by `NAMES`, of uint8 [N, S, S], or of its rows int64 [n].

    Grey values count from 0 to 1; what measures detail is a logarithm.
    """
    wanted = np.arange(len(images)) if rows is None else np.asarray(rows)
    found = np.empty((len(wanted), len(NAMES)), np.float32)

    def one(place: int) -> None:
        found[place] = _of(np.ascontiguousarray(images[wanted[place]]))

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(one, range(len(wanted))):
            pass
    return found


def _of(image: np.ndarray) -> list[float]:
    counts = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel() / image.size
    grey = np.arange(256) / 255
    mean = float(counts @ grey)
    deviation = float(np.sqrt(counts @ (grey - mean) ** 2))
    # Bounded below, so that an empty image has a skewness, 0.
    skewness = float(counts @ (grey - mean) ** 3) / max(deviation, 1 / 255) ** 3
    quantiles = np.searchsorted(np.cumsum(counts), np.array(QUANTILES) - 1e-6) / 255
    plain = image.astype(np.float32) / 255
    side = image.shape[0]
    deep, quarter = max(1, side // 20), side // 4
    strips = (plain[:deep], plain[-deep:], plain[:, :deep], plain[:, -deep:])
    center = plain[quarter : side - quarter, quarter : side - quarter]
    return [
        mean,
        deviation,
        skewness,
        *quantiles,
        *counts.reshape(HISTOGRAM_BINS, -1).sum(axis=1)[1:],
        counts[0],
        counts[255],
        # Sorted: an image that is turned or mirrored looks no different here.
        *sorted(float(strip.mean()) for strip in strips),
        *sorted(float(strip.std()) for strip in strips),
        float(center.mean()),
        float(center.std()),
        *_detail(plain),
    ]


def _detail(plain: np.ndarray) -> list[float]:
    """Logarithms of how much changes from pixel to pixel, and in each band of widths."""
    across = cv2.Sobel(plain, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(plain, cv2.CV_32F, 0, 1, scale=1 / 8)
    slope = cv2.magnitude(across, down)
    second = cv2.Laplacian(plain, cv2.CV_32F)
    top = np.partition(slope.ravel(), int(0.99 * slope.size))[int(0.99 * slope.size)]
    bands, before = [], plain
    for width in WIDTHS:
        odd = max(3, round(width * plain.shape[0] / REFERENCE_SIZE) // 2 * 2 + 1)
        blurred = cv2.blur(plain, (odd, odd), borderType=cv2.BORDER_REPLICATE)
        bands.append(_log(float((before - blurred).std())))
        before = blurred
    return [
        _log(float(slope.mean())),
        _log(float(top)),
        _log(float(np.median(np.abs(second)))),
        _log(float(second.std())),
        _log(float(np.abs(across).mean())) - _log(float(np.abs(down).mean())),
        *bands,
    ]


def _log(value: float) -> float:
    """Of a share of the grey range; half a grey level is as good as none."""
    return float(np.log(value + 0.5 / 255))
