"""Polygons and boxes of the manifest as they lie in the preprocessed image: outlines and masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fracnet.data.preprocess import Preprocess

Outline = np.ndarray
"""Corners float64 [k, 2] of a polygon: x, y in pixels; the first pixel covers 0..1 in both."""


def outlines(row: Mapping[Any, Any], preprocess: Preprocess) -> list[Outline]:
    """What is marked in an image as a case of its own class, in pixels of the preprocessed image.

    row: a manifest's, with label, polygons, boxes, width and height. Marks that have another
    label than the image mark something else. None are found where the place depends on the file's
    size (resize mode pad) and that is not known.
    """
    frame = _frame(row, preprocess)
    if frame is None:
        return []
    left, top, width, height = frame
    scale, corner = np.array([width, height]), np.array([left, top])
    found = [_points(mark["points"]) for mark in _own(row, "polygons")]
    found += [_corners(mark["points"]) for mark in _own(row, "boxes")]
    return [points * scale + corner for points in found]


def mask_of(outlines: Sequence[Outline], size: int) -> np.ndarray:
    """Which pixels lie within any of the outlines, bool [S, S]: those whose center does.

    An outline that holds no pixel's center counts as the one pixel in which its own middle lies,
    so that a small mark is not lost.
    """
    mask = np.zeros((size, size), bool)
    for points in outlines:
        inside = _inside(points, size)
        if not inside.any():
            x, y = np.clip(np.floor(points.mean(axis=0)), 0, size - 1).astype(int)
            inside[y, x] = True
        mask |= inside
    return mask


def _inside(points: Outline, size: int) -> np.ndarray:
    """Pixels from whose center a ray to the right crosses the outline an odd number of times."""
    inside = np.zeros((size, size), bool)
    low = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), 0, size).astype(int)
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    x = np.arange(low[0], high[0])[None, :] + 0.5
    y = np.arange(low[1], high[1])[:, None] + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crossed = (y0 <= y) != (y1 <= y)
        inside[window] ^= crossed & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


def _frame(
    row: Mapping[Any, Any], preprocess: Preprocess
) -> tuple[float, float, float, float] | None:
    width, height = row["width"], row["height"]
    if pd.isna(width) or pd.isna(height):
        # Squashed, a file of any size fills the whole image.
        squashed = any(step.get("mode") == "squash" for step in preprocess.steps)
        return preprocess.frame(1, 1) if squashed else None
    return preprocess.frame(int(width), int(height))


def _own(row: Mapping[Any, Any], kind: str) -> list[Mapping[str, Any]]:
    marks = row[kind]
    if not isinstance(marks, list):
        return []
    return [mark for mark in marks if mark["label"] == row["label"]]


def _points(points: Sequence[Sequence[float]]) -> Outline:
    return np.array(points, dtype=np.float64)


def _corners(box: Sequence[Sequence[float]]) -> Outline:
    (x0, y0), (x1, y1) = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64)
