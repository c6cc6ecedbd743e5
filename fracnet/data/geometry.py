"""Affine and flips as albumentations draws them, without detours that cost more than the pixels.

albumentations makes a second matrix for boxes, multiplies six matrices and checks its arguments
for each image; of the published recipe that is more than half of the time. Here the same numbers
are drawn from the same stream in the same order, and go straight to OpenCV.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import albumentations as A
import cv2
import numpy as np

Image = np.ndarray
Step = Callable[[Image, random.Random], Image]
"""uint8 [H, W] and the stream -> uint8 [H, W]; the argument is not written to."""

_FLIPS = {A.HorizontalFlip: 1, A.VerticalFlip: 0}


def direct(transform: Any) -> Step | None:
    """The transform as a step, or None for one that is not known here. Subclasses are not."""
    kind = type(transform)
    if kind in _FLIPS:
        return _sometimes(transform.p, _flip(_FLIPS[kind]))
    if kind is A.Affine and not transform.fit_output and isinstance(transform.fill, int | float):
        return _sometimes(transform.p, _affine(transform))
    return None


def _sometimes(p: float, step: Step) -> Step:
    """With probability p; the stream is asked only where p leaves a choice."""

    def perhaps(image: Image, stream: random.Random) -> Image:
        return step(image, stream) if p >= 1 or (p > 0 and stream.random() < p) else image

    return perhaps


def _flip(code: int) -> Step:
    return lambda image, stream: cv2.flip(image, code)


def _affine(transform: A.Affine) -> Step:
    how = {
        "flags": transform.interpolation,
        "borderMode": transform.border_mode,
        "borderValue": transform.fill,
    }

    def warp(image: Image, stream: random.Random) -> Image:
        height, width = image.shape
        # The order of the draws is that of albumentations.
        transform.py_random = stream
        shift = transform._get_translate_params((height, width))
        shear = transform._get_shear_params()
        scale = transform._get_scale(
            transform.scale, transform.keep_ratio, transform.balanced_scale, stream
        )
        angle = stream.uniform(*transform.rotate)
        transform.params = {"rotate": angle, "scale": scale, "shear": shear, "translate": shift}
        matrix = affine_matrix((height, width), shift, shear, scale, angle)
        if np.array_equal(matrix, _IDENTITY):
            return image
        return cv2.warpAffine(image, matrix, (width, height), **how)

    return warp


_IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def affine_matrix(
    shape: tuple[int, int],
    translate: dict[str, int],
    shear: dict[str, float],
    scale: dict[str, float],
    rotate: float,
) -> np.ndarray:
    """Where a pixel of an image of `shape` (height, width) goes, float64 [2, 3].

    About the centre: first scaled, then turned by `rotate` degrees counter-clockwise as one sees
    it, then sheared by degrees, at last moved by pixels; each with its part for x and y.
    """
    turn = math.radians(rotate)
    cos, sin = math.cos(turn), math.sin(turn)
    along_x, along_y = math.tan(math.radians(shear["x"])), math.tan(math.radians(shear["y"]))
    # Shear times rotation times scale.
    a, b = (cos - along_x * sin) * scale["x"], (sin + along_x * cos) * scale["y"]
    c, d = (along_y * cos - sin) * scale["x"], (along_y * sin + cos) * scale["y"]
    x, y = shape[1] / 2 - 0.5, shape[0] / 2 - 0.5
    return np.array(
        [
            [a, b, x + translate["x"] - a * x - b * y],
            [c, d, y + translate["y"] - c * x - d * y],
        ]
    )
