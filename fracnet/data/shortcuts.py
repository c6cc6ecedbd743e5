"""Figures of an image that know no shape: the inputs of the shortcut baseline.

A label that they predict is as a rule predicted by scanner, hospital or export: bone is among what
a histogram counts, but nothing here knows where it lies or whether it is broken.
"""

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

    `image`: uint8 [H, W], before any enhancement. `file_size`: bytes. Width and height are in
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
