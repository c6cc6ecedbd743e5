"""Cameras, frames, and the solids that bones and soft tissue are made of, in mm.

Each solid paints planes of path length in mm: the whole part, the inside of its cortical shell, and
its trabecular bone.
"""

from dataclasses import dataclass

import cv2
import numpy as np

Array = np.ndarray
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, the last two exclusive


@dataclass(frozen=True)
class Camera:
    """Parallel projection: pixel = matrix @ point + offset. Points are (x, y, z) in mm.

    matrix [2, 3] and offset [2] in pixels (x right, y down); ray [3] is the unit vector along the
    beam; scale in pixels per mm; width and height of the image in pixels.
    """

    matrix: Array
    offset: Array
    ray: Array
    scale: float
    width: int
    height: int

    def project(self, points: Array) -> Array:
        """Points [..., 3] in mm to pixels [..., 2]."""
        return np.asarray(points) @ self.matrix.T + self.offset

    def shrunk(self, factor: int) -> "Camera":
        """The same view on a detector with pixels `factor` times as large."""
        return Camera(
            self.matrix / factor,
            (self.offset + 0.5) / factor - 0.5,
            self.ray,
            self.scale / factor,
            -(-self.width // factor),
            -(-self.height // factor),
        )

    def clip(self, low: Array, high: Array) -> Box | None:
        """The pixel box (x0, y0, x1, y1) around low..high inside the image, or None."""
        x0, y0 = max(0, int(low[0]) - 2), max(0, int(low[1]) - 2)
        x1 = min(self.width, int(np.ceil(high[0])) + 3)
        y1 = min(self.height, int(np.ceil(high[1])) + 3)
        return (x0, y0, x1, y1) if x1 - x0 > 1 and y1 - y0 > 1 else None


@dataclass(frozen=True)
class Frame:
    """A right-handed frame: origin [3] in mm, rows of axes = (side, along, front)."""

    origin: Array
    axes: Array

    def point(self, side: float, along: float, front: float = 0.0) -> Array:
        """A local point in space."""
        return self.origin + np.array([side, along, front]) @ self.axes

    def rotated(self, axis: int, degrees: float, at: tuple[float, float, float]) -> "Frame":
        """The frame moved to the local point `at` and rotated about its own axis 0, 1 or 2."""
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        rotation = np.eye(3)
        rotation[[i, i, j, j], [i, j, i, j]] = c, s, -s, c
        return Frame(self.point(*at), rotation @ self.axes)


def monotone_cubic(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Monotone cubic through x [n], y [n, c], evaluated at `at` [k] within x's range -> [k, c].

    Slopes are Fritsch and Butland's harmonic means (SIAM J. Sci. Stat. Comput. 5, 1984), so a curve
    never leaves the range of its stations. Written out because thousands of tiny curves are needed,
    where the set-up of a general interpolator would cost more than everything else.
    """
    step = np.diff(x)
    rise = np.diff(y, axis=0) / step[:, None]
    before, after = step[:-1, None], step[1:, None]
    low, high = rise[:-1], rise[1:]
    same = low * high > 0
    weight = (2 * after + before) * high + (after + 2 * before) * low
    inner = 3 * (before + after) * low * high / np.where(same, weight, 1.0)
    slope = np.concatenate([rise[:1], np.where(same, inner, 0.0), rise[-1:]])
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = step[i]
    t = ((at - x[i]) / h)[:, None]
    s = 1 - t
    h = h[:, None]
    return np.asarray(
        s * s * (1 + 2 * t) * y[i]
        + t * t * (1 + 2 * s) * y[i + 1]
        + t * s * h * (s * slope[i] - t * slope[i + 1])
    )


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: center [3], semi-axes [3] along `frame`'s axes, cortex in mm.

    wobble [k] are amplitudes (share of the radius) of the outline's 2nd, 3rd, ... harmonics.
    carve > 0 removes that share of its chord from what the earlier parts of the bone painted.
    """

    frame: Frame
    semi: tuple[float, float, float]
    cortex: float = 1.0
    spongy: float = 1.0
    wobble: tuple[float, ...] = ()
    carve: float = 0.0

    def paint(self, camera: Camera) -> tuple[Box, Array] | None:
        """(box, planes [h, w, 3]) or None outside the image."""
        spread = (self.frame.axes.T * np.asarray(self.semi)) @ self.frame.axes
        flat = camera.matrix @ spread
        shape = flat @ flat.T
        center = camera.project(self.frame.origin)
        extent = np.sqrt(np.diag(shape)) * (1 + sum(np.abs(self.wobble)))
        box = camera.clip(center - extent, center + extent)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        dx = (np.arange(x0, x1, dtype=np.float32) - np.float32(center[0]))[None, :]
        dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(center[1]))[:, None]
        inverse = np.linalg.inv(shape)
        a, b, c = (np.float32(x) for x in (inverse[0, 0], inverse[0, 1], inverse[1, 1]))
        square = a * dx * dx + 2 * b * dx * dy + c * dy * dy
        if self.wobble:
            # Carpals look like boxes with round corners rather than ellipses.
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
    """A thin plate across z: corners [n, 3], thickness and half-width of the rim in mm."""

    corners: Array
    thickness: float
    rim: float

    def paint(self, camera: Camera) -> tuple[Box, Array] | None:
        """(box, planes [h, w, 3]) or None outside the image."""
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
        slant = 1 / max(0.3, abs(float(camera.ray[2])))
        outer = self.thickness * slant * mask.astype(np.float32) / 255 + self.rim * soft
        return box, np.stack([outer, 0.6 * outer, 0.4 * outer], axis=-1)


@dataclass(frozen=True)
class Rods:
    """Curved rods of one thickness: paths, each [n, 3] in mm; radius and cortex in mm."""

    paths: tuple[Array, ...]
    radius: float
    cortex: float = 1.0
    spongy: float = 0.5

    def paint(self, camera: Camera) -> tuple[Box, Array] | None:
        """(box, planes [h, w, 3]) or None outside the image."""
        lines = [camera.project(path) for path in self.paths]
        extent = self.radius * camera.scale
        points = np.concatenate(lines)
        box = camera.clip(points.min(0) - extent, points.max(0) + extent)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        background = np.full((y1 - y0, x1 - x0), 255, np.uint8)
        fixed = [np.round((line - [x0, y0]) * 16).astype(np.int32) for line in lines]
        cv2.polylines(background, fixed, False, 0, 1, cv2.LINE_8, 4)
        distance = cv2.GaussianBlur(cv2.distanceTransform(background, cv2.DIST_L2, 5), (0, 0), 0.7)
        distance = distance * np.float32(1 / camera.scale)
        square = distance * distance
        outer = 2 * np.sqrt(np.maximum(self.radius**2 - square, 0))
        inner = 2 * np.sqrt(np.maximum((self.radius - self.cortex) ** 2 - square, 0))
        return box, np.stack([outer, inner, self.spongy * inner], axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Tube:
    """A solid swept along `frame`'s second axis with elliptic sections.

    stations [n, 7]: (along, side center, side half-width, front center, front half-width, cortex
    thickness, spongy share 0..1), mm. caps: length in mm over which each end is rounded.
    """

    frame: Frame
    stations: Array
    caps: tuple[float, float] = (4.0, 4.0)
    planes: int = 3  # 2 omits the spongy plane, for soft tissue

    def span(self) -> tuple[float, float]:
        """Start and end of the tube along its axis, in mm."""
        return float(self.stations[0, 0]), float(self.stations[-1, 0])

    def sections(self, along: Array) -> Array:
        """Stations interpolated at `along` [k] -> [k, 6], half-widths rounded at the ends."""
        table = monotone_cubic(self.stations[:, 0], self.stations[:, 1:], along)
        first, last = self.span()
        for extent, cap in ((along - first, self.caps[0]), (last - along, self.caps[1])):
            x = np.clip(1 - extent / max(cap, 1e-3), 0, 1)
            table[:, [1, 3]] *= np.sqrt(1 - x * x)[:, None]
        return table

    def paint(self, camera: Camera) -> tuple[Box, Array] | None:
        """(box, planes [h, w, 3]) or None outside the image."""
        side, along, front = self.frame.axes @ camera.matrix.T
        speed = float(np.hypot(*along))
        if speed < 0.25 * camera.scale:  # nearly along the ray
            speed = 0.25 * camera.scale
            along = along + 1e-9
        axis = along / np.hypot(*along)
        across = np.array([-axis[1], axis[0]])
        first, last = self.span()
        start = camera.project(self.frame.point(0, first))
        ps, pf = float(side @ across), float(front @ across)
        wide = np.abs(self.stations[:, 1:5]).max(axis=0)
        extent = np.hypot(wide[1] * ps, wide[3] * pf) + abs(wide[0] * ps) + abs(wide[2] * pf) + 2
        length = (last - first) * speed
        grow = np.abs(across) * extent
        low = np.minimum(start, start + axis * length) - grow
        box = camera.clip(low, np.maximum(start, start + axis * length) + grow)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        # The patch along the tube covers only what the box can show.
        back = np.array([across, axis])
        corners = np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)]) - start
        v, u = (corners @ back.T).T
        u0, u1 = int(max(-2.0, u.min() - 2)), int(min(length + 2, u.max() + 2)) + 1
        v0, v1 = int(max(-extent, v.min() - 2)) - 1, int(min(extent, v.max() + 2)) + 2
        if u1 - u0 < 2 or v1 - v0 < 2:
            return None
        rows = np.arange(u0, u1, dtype=np.float64)
        table = self.sections(np.clip(first + rows / speed, first, last))
        half = np.hypot(table[:, 1] * ps, table[:, 3] * pf) + 1e-6
        depth = 2 * min(2.0, camera.scale / speed) * camera.scale * table[:, 1] * table[:, 3] / half
        shell = table[:, 4]
        hollow = np.maximum(half - shell * camera.scale, 1e-6)
        hollow_depth = np.maximum(depth - 2 * shell, 0) * (half > shell * camera.scale)
        middle = (table[:, 0] * ps + table[:, 2] * pf).astype(np.float32)
        offset = np.arange(v0, v1, dtype=np.float32)[None, :] - middle[:, None]
        planes = np.zeros((*offset.shape, self.planes), np.float32)
        planes[..., 0] = chord(offset, half, depth)
        planes[..., 1] = chord(offset, hollow, hollow_depth)
        if self.planes == 3:
            planes[..., 2] = planes[..., 1] * table[:, 5].astype(np.float32)[:, None]
        planes[(rows < 0) | (rows > length)] = 0
        # From a pixel of the box to (column, row) of the patch.
        matrix = np.column_stack([back, back @ (np.array([x0, y0]) - start) - [v0, u0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return box, cv2.warpAffine(planes, matrix, (x1 - x0, y1 - y0), flags=flags)


def chord(v: Array, half: Array, depth: Array) -> Array:
    """Path length at offset v through an ellipse of half-width `half` [rows] and full `depth`."""
    x = v * (1 / half).astype(np.float32)[:, None]
    x *= x
    np.subtract(1, x, out=x)
    np.maximum(x, 0, out=x)
    np.sqrt(x, out=x)
    x *= depth.astype(np.float32)[:, None]
    return x
