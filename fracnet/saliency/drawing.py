"""Heatmaps as pictures; this module does not import torch."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fracnet.utils.files import write_atomically

COLORS = cv2.COLORMAP_INFERNO
"""Its lightness rises evenly with the value, for color-blind readers and in print as well."""
OPACITY = 0.6
"""Of the highest value: the radiograph shows through everywhere, and alone where the map is 0."""
LINE, RIM = (90, 220, 255), (0, 0, 0)
MIN_SIDE = 224
"""Smaller pictures are enlarged, so that outlines stay thin."""


def upsample(coarse: np.ndarray, size: int) -> np.ndarray:
    """A map float32 [h, w] of at least 0, at the size of the image and with a maximum of 1."""
    assert np.isfinite(coarse).all(), "a heatmap with infinite or missing values"
    maximum = coarse.max()
    if not maximum > 0:
        return np.zeros((size, size), np.float32)
    # Twice: without the first, the smallest of maps would be lost to the range of floats.
    scaled = np.asarray(coarse / maximum, dtype=np.float32)
    fine = np.asarray(cv2.resize(scaled, (size, size), interpolation=cv2.INTER_LINEAR))
    return np.asarray(fine / fine.max(), dtype=np.float32)


def draw_overlay(
    image: np.ndarray, heat: np.ndarray | None = None, outlines: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """The picture, uint8 RGB [H, W, 3].

    Args:
        image: uint8 [H, W].
        heat: float32 [H, W], 0 to 1, or None for the radiograph with its outlines only.
        outlines: each float [k, 2], x and y in pixels; the first pixel covers 0 to 1 in both.
    """
    picture = np.repeat(image[:, :, None], 3, axis=2)
    if heat is not None:
        assert heat.shape == image.shape, (heat.shape, image.shape)
        values = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
        color = cv2.cvtColor(cv2.applyColorMap(values, COLORS), cv2.COLOR_BGR2RGB)
        share = OPACITY * np.clip(heat, 0, 1)[:, :, None]
        picture = np.rint(picture * (1 - share) + color * share).astype(np.uint8)
    picture = np.ascontiguousarray(picture)
    for color_of_line, width in ((RIM, 3), (LINE, 1)):
        for points in outlines:
            # OpenCV counts from the middle of the first pixel; four bits are fractions of a pixel.
            fixed = np.rint((np.asarray(points) - 0.5) * 16).astype(np.int32)
            cv2.polylines(picture, [fixed], True, color_of_line, width, cv2.LINE_AA, shift=4)
    return picture


def enlarge(
    image: np.ndarray, heat: np.ndarray, outlines: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Scale all by a whole number, so that the picture has at least `MIN_SIDE` pixels a side."""
    times = -(-MIN_SIDE // min(image.shape))
    if times <= 1:
        return image, heat, list(outlines)
    size = (image.shape[1] * times, image.shape[0] * times)
    return (
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8),
        np.asarray(cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32),
        [np.asarray(points) * times for points in outlines],
    )


def write_png(picture: np.ndarray, path: Path) -> None:
    """Write uint8 [H, W], grey, or [H, W, 3], RGB."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", picture)
    assert done, path
    write_atomically(path, data.tobytes())
