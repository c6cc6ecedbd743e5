"""Annotated polygons and boxes of the manifest in the preprocessed image: outlines and masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fracnet.data.preprocess import Preprocess

Outline = np.ndarray
"""Corners of a polygon, float64 [k, 2]: x, y in pixels; the first pixel covers 0..1 in both."""


def annotation_outlines(row: Mapping[Any, Any], preprocess: Preprocess) -> list[Outline]:
    """Outlines of an image's annotations of its own class, in pixels of the preprocessed image.

    row: of a manifest, with label, polygons, boxes, width and height. Annotations with another
    label than the image's are ignored. The list is empty if the position depends on the file's
    size (resize mode pad) and that size is unknown.
    """
    width, height = row["width"], row["height"]
    if pd.isna(width) or pd.isna(height):
        # With mode squash, a file of any size fills the whole image.
        if not any(step.get("mode") == "squash" for step in preprocess.steps):
            return []
        width = height = 1
    left, top, frame_width, frame_height = preprocess.frame(int(width), int(height))
    scale, corner = np.array([frame_width, frame_height]), np.array([left, top])
    result = [np.array(points, dtype=np.float64) for points in _own_points(row, "polygons")]
    for (x0, y0), (x1, y1) in _own_points(row, "boxes"):
        result.append(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64))
    return [points * scale + corner for points in result]


def outline_mask(outlines: Sequence[Outline], size: int) -> np.ndarray:
    """Pixels whose center lies within any of the outlines, bool [S, S].

    An outline that contains no pixel center counts as the pixel at its own center, so that small
    annotations are not lost.
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


def _own_points(row: Mapping[Any, Any], kind: str) -> list[Sequence[Sequence[float]]]:
    """Points of the annotations of one kind that have the image's label."""
    shapes = row[kind] if isinstance(row[kind], list) else []
    return [shape["points"] for shape in shapes if shape["label"] == row["label"]]
