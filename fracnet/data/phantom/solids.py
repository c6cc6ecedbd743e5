"""Parts of bones that are no tubes: ellipsoids, thin plates, curved rods.

As every part, each paints planes of a layer in mm of path: the whole part, the inside of its
cortical shell, and its trabecular bone.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from fracnet.data.phantom.space import Array, Box, Camera, Frame


@dataclass(frozen=True)
class Ball:
    """An ellipsoid: centre [3], semi-axes [3] along `frame`'s axes, cortex in mm.

    wobble [k] are amplitudes (share of the radius) of the outline's 2nd, 3rd, ... harmonics.
    carve > 0 takes that share of its chord away from what the bone's earlier parts have painted.
    """

    frame: Frame
    semi: tuple[float, float, float]
    cortex: float = 1.0
    spongy: float = 1.0
    wobble: tuple[float, ...] = ()
    carve: float = 0.0

    def paint(self, camera: Camera) -> tuple[Box, Array] | None:
        """(box, planes [h, w, 3]) or None when out of the image."""
        spread = (self.frame.axes.T * np.asarray(self.semi)) @ self.frame.axes
        flat = camera.matrix @ spread
        shape = flat @ flat.T
        centre = camera.project(self.frame.origin)
        reach = np.sqrt(np.diag(shape)) * (1 + sum(np.abs(self.wobble)))
        box = camera.clip(centre - reach, centre + reach)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        dx = (np.arange(x0, x1, dtype=np.float32) - np.float32(centre[0]))[None, :]
        dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(centre[1]))[:, None]
        inverse = np.linalg.inv(shape)
        a, b, c = (np.float32(x) for x in (inverse[0, 0], inverse[0, 1], inverse[1, 1]))
        square = a * dx * dx + 2 * b * dx * dy + c * dy * dy
        if self.wobble:
            # Carpals and the like are boxes with round corners rather than ellipses.
            values, vectors = np.linalg.eigh(inverse)
            turn = (np.sqrt(values)[:, None] * vectors.T).astype(np.float32)
            x, y = turn[0, 0] * dx + turn[0, 1] * dy, turn[1, 0] * dx + turn[1, 1] * dy
            square = np.sqrt(x**4 + y**4 + 0.9 * x * x * y * y)
            angle = np.arctan2(dy, dx)
            bend = np.ones_like(angle)
            for k, amplitude in enumerate(self.wobble, start=2):
                bend += np.float32(amplitude) * np.cos(k * angle + np.float32(37 * amplitude * k))
            square /= bend * bend
        ray = np.linalg.solve(spread, camera.ray)
        depth = 2 / float(np.hypot.reduce(ray))
        shrink = max(0.05, 1 - self.cortex / min(self.semi))
        planes = np.zeros((*square.shape, 3), np.float32)
        planes[..., 0] = depth * np.sqrt(np.maximum(1 - square, 0))
        planes[..., 1] = depth * np.sqrt(np.maximum(shrink * shrink - square, 0))
        planes[..., 2] = self.spongy * planes[..., 1]
        return box, planes


@dataclass(frozen=True)
class Sheet:
    """A thin plate: corners [n, 3] in mm, thickness in mm, a rim of rim mm half-width."""

    corners: Array
    thickness: float
    rim: float
    normal: Array = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))

    def paint(self, camera: Camera) -> tuple[Box, Array] | None:
        """(box, planes [h, w, 3]) or None when out of the image."""
        points = camera.project(self.corners)
        grow = self.rim * camera.scale + 4
        box = camera.clip(points.min(0) - grow, points.max(0) + grow)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        fixed = np.round((points - [x0, y0]) * 16).astype(np.int32)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
        edge = np.zeros_like(mask)
        width = max(1, round(self.rim * camera.scale))
        cv2.polylines(edge, [fixed], True, 255, width, cv2.LINE_AA, 4)
        sigma = 0.35 * self.rim * camera.scale + 0.5
        soft = cv2.GaussianBlur(edge.astype(np.float32) / 255, (0, 0), sigma)
        slant = 1 / max(0.3, abs(float(self.normal @ camera.ray)))
        outer = self.thickness * slant * mask.astype(np.float32) / 255 + self.rim * soft
        return box, np.stack([outer, 0.6 * outer, 0.4 * outer], axis=-1)


@dataclass(frozen=True)
class Cord:
    """Curved rods of one thickness: paths, each [n, 3] in mm; radius and cortex in mm."""

    paths: tuple[Array, ...]
    radius: float
    cortex: float = 1.0
    spongy: float = 0.5

    def paint(self, camera: Camera) -> tuple[Box, Array] | None:
        """(box, planes [h, w, 3]) or None when out of the image."""
        lines = [camera.project(path) for path in self.paths]
        reach = self.radius * camera.scale
        both = np.concatenate(lines)
        box = camera.clip(both.min(0) - reach, both.max(0) + reach)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        off = np.full((y1 - y0, x1 - x0), 255, np.uint8)
        fixed = [np.round((line - [x0, y0]) * 16).astype(np.int32) for line in lines]
        cv2.polylines(off, fixed, False, 0, 1, cv2.LINE_8, 4)
        away = cv2.GaussianBlur(cv2.distanceTransform(off, cv2.DIST_L2, 5), (0, 0), 0.7)
        away = away * np.float32(1 / camera.scale)
        square = away * away
        outer = 2 * np.sqrt(np.maximum(self.radius**2 - square, 0))
        inner = 2 * np.sqrt(np.maximum((self.radius - self.cortex) ** 2 - square, 0))
        return box, np.stack([outer, inner, self.spongy * inner], axis=-1).astype(np.float32)
