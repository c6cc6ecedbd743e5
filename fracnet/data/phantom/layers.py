"""Layers: the parts of one bone, or of all flesh, united into maps of path length.

Parts of one bone unite by a smooth maximum, which is exact for nested solids and close for
blended ones; bones add up.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data.phantom.body import Body, Bone, Part
from fracnet.data.phantom.solids import Ball
from fracnet.data.phantom.space import Array, Camera

BLEND = 8.0  # mm over which two parts of a bone flow into each other
SKIN = 25.0  # mm, the same for limbs
FAT = 0.16  # share by which fat attenuates less than muscle
AIR = 0.75  # share of a lung that is air


@dataclass(frozen=True)
class Layer:
    """A bone's planes [h, w, 3] (whole, inside of the shell, trabecular; mm) with corner x0, y0."""

    x0: int
    y0: int
    planes: Array

    @property
    def here(self) -> tuple[slice, slice]:
        """Its place in the image."""
        h, w = self.planes.shape[:2]
        return np.s_[self.y0 : self.y0 + h, self.x0 : self.x0 + w]


def paint(bone: Bone, camera: Camera) -> Layer | None:
    """The bone as the camera sees it; None when it is out of the image."""
    painted = [(part, hit) for part in bone.parts if (hit := part.paint(camera)) is not None]
    if not painted:
        return None
    if len(painted) == 1:
        (x0, y0, _, _), planes = painted[0][1]
        return Layer(x0, y0, planes)
    boxes = np.array([hit[0] for _, hit in painted])
    x0, y0 = (int(v) for v in boxes[:, :2].min(0))
    x1, y1 = (int(v) for v in boxes[:, 2:].max(0))
    planes = np.zeros((y1 - y0, x1 - x0, 3), np.float32)
    for part, ((a, b, c, d), own) in painted:
        here = planes[b - y0 : d - y0, a - x0 : c - x0]
        if isinstance(part, Ball) and part.carve:
            np.maximum(here - part.carve * own[..., :1], 0, out=here)
        else:
            merge(here, own, BLEND)
    return Layer(x0, y0, planes)


def merge(here: Array, own: Array, blend: float) -> None:
    """Smooth maximum in place: where both paths are long and alike the seam is filled."""
    low = np.minimum(here, own)
    np.maximum(here, own, out=here)
    if not low.any():
        return
    near = np.maximum(1 - (here - low) / np.float32(blend), 0)
    near *= near
    near *= np.minimum(low, np.float32(blend))
    near *= np.float32(0.25)
    here += near


def flesh(body: Body, camera: Camera) -> Array:
    """Soft tissue path in mm of muscle [H, W]: fat counts less, air-filled lung is taken out.

    Painted at half the resolution: skin and muscle have no fine detail.
    """
    half = camera.shrunk(2)
    soft = union(body.flesh, half)
    path: Array = (1 - FAT) * soft[..., 0] + FAT * soft[..., 1]
    path = cv2.GaussianBlur(path, (0, 0), 1.2 * half.scale)
    if body.gas:
        gas = union(body.gas, half)[..., 0]
        path = np.maximum(path - AIR * cv2.GaussianBlur(gas, (0, 0), 2.5 * half.scale), 0)
    size = (2 * half.width, 2 * half.height)
    path = cv2.resize(path, size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(path[: camera.height, : camera.width])


def union(parts: list[Part], camera: Camera) -> Array:
    """The longest path of the parts in every pixel [H, W, 2]: whole and inside."""
    canvas = np.zeros((camera.height, camera.width, 2), np.float32)
    for part in parts:
        hit = part.paint(camera)
        if hit is not None:
            (x0, y0, x1, y1), planes = hit
            merge(canvas[y0:y1, x0:x1], planes[..., :2], SKIN)
    return canvas
