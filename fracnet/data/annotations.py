"""Annotated polygons and boxes of the manifest in the preprocessed image: outlines, masks, maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import Preprocess

MAP_SIDE = 56
"""Cells per side of the maps that a network is trained towards, at most: finer than nearly any
network's last feature map, and a twelfth of the bytes of an image of 224 pixels."""
NEGATIVE = ("no", "non", "not", "normal", "negative", "neg", "healthy", "without", "0")
"""First words of the usual names for the class without a finding."""

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


class AnnotationMaps:
    """Where the images of some rows are annotated, and of which images that is known.

    An image without annotations is known to have nothing to find only if its label says so: it is
    of a class without a finding, no image of which is annotated. That is the first of two classes,
    of more classes one that is called normal or the like. All other images without annotations are
    unknown: nobody may have looked.
    """

    def __init__(self, manifest: Manifest, rows: np.ndarray, preprocess: Preprocess) -> None:
        """rows: int64 [n], of the manifest."""
        table = manifest.table.iloc[rows]
        records = dict(zip(rows.tolist(), table.to_dict("records"), strict=True))
        self._size = preprocess.image_size
        self._outlines = {
            row: annotation_outlines(record, preprocess) for row, record in records.items()
        }
        annotated = {records[row]["label"] for row, outlines in self._outlines.items() if outlines}
        self.annotated = sum(map(bool, self._outlines.values()))
        self.annotated_classes = annotated
        empty = set(negative_classes(manifest)) - annotated if annotated else set()
        self._empty = {row for row, record in records.items() if record["label"] in empty}
        self.side = min(MAP_SIDE, self._size)

    def mask(self, row: int) -> np.ndarray:
        """The annotations of an image, uint8 [S, S], 255 inside, pixels at the edge included."""
        mask = np.zeros((self._size, self._size), np.uint8)
        for points in self._outlines[row]:
            # OpenCV counts from the middle of the first pixel; four bits are fractions of a pixel.
            cv2.fillPoly(mask, [np.rint((points - 0.5) * 16).astype(np.int32)], 255, shift=4)
        return mask

    def shrink(self, mask: np.ndarray) -> np.ndarray:
        """Annotated share of each cell, in 255ths: uint8 [side, side]."""
        size = (self.side, self.side)
        return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.uint8)

    def is_known(self, row: int, map_: np.ndarray) -> bool:
        """Whether this map tells where the finding is; not if augmentation moved it outside."""
        return bool(map_.any()) or row in self._empty


def negative_classes(manifest: Manifest) -> tuple[str, ...]:
    """Classes without a finding: the first of two, else those with a name such as normal."""
    if manifest.task == "binary":
        return manifest.classes[:1]
    return tuple(name for name in manifest.classes if is_negative(name))


def is_negative(name: str) -> bool:
    """Whether the first word of a class name is one of `NEGATIVE`."""
    words = name.lower().replace("_", " ").replace("-", " ").split()
    return (words or [name])[0] in NEGATIVE


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
