"""A heatmap over a radiograph, with what was marked in it."""

from collections.abc import Sequence

import cv2
import numpy as np

# Its lightness rises evenly with the value, also for colour-blind eyes and in grey print.
COLOURS = cv2.COLORMAP_INFERNO
# The radiograph shows through everywhere, and alone where nothing speaks for the class.
OPACITY = 0.6
LINE, RIM = (90, 220, 255), (0, 0, 0)
# Enlarged pictures have thin outlines.
LEAST = 224


def draw(
    image: np.ndarray, heat: np.ndarray | None = None, outlines: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """The picture, uint8 RGB [H, W, 3].

    Args:
        image: uint8 [H, W].
        heat: float32 [H, W], 0 to 1, or None for the radiograph with its outlines alone.
        outlines: each float [k, 2], x and y in pixels; the first pixel covers 0 to 1 in both.
    """
    grey = np.repeat(image[:, :, None], 3, axis=2)
    if heat is not None:
        assert heat.shape == image.shape, (heat.shape, image.shape)
        values = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
        colour = cv2.cvtColor(cv2.applyColorMap(values, COLOURS), cv2.COLOR_BGR2RGB)
        share = OPACITY * np.clip(heat, 0, 1)[:, :, None]
        grey = np.rint(grey * (1 - share) + colour * share).astype(np.uint8)
    picture = np.ascontiguousarray(grey)
    for colour_of_line, width in ((RIM, 3), (LINE, 1)):
        for points in outlines:
            # OpenCV counts from the middle of the first pixel; four bits are fractions of a pixel.
            fixed = np.rint((np.asarray(points) - 0.5) * 16).astype(np.int32)
            cv2.polylines(picture, [fixed], True, colour_of_line, width, cv2.LINE_AA, shift=4)
    return picture


def enlarged(
    image: np.ndarray, heat: np.ndarray, outlines: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The same, so many times as large that the picture has `LEAST` pixels a side or more."""
    times = -(-LEAST // min(image.shape))
    if times <= 1:
        return image, heat, list(outlines)
    size = (image.shape[1] * times, image.shape[0] * times)
    return (
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8),
        np.asarray(cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32),
        [np.asarray(points) * times for points in outlines],
    )
