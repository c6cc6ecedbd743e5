"""Long parts of bones and limbs: solids swept along an axis, and the path that rays cut in them."""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data.phantom.curves import monotone
from fracnet.data.phantom.space import Array, Box, Camera, Frame


@dataclass(frozen=True)
class Tube:
    """A solid swept along `frame`'s second axis with elliptic sections.

    stations [n, 7]: (along, side centre, side half-width, front centre, front half-width, cortex
    thickness, spongy share 0..1), mm. caps: mm over which either end is rounded off.
    """

    frame: Frame
    stations: Array
    caps: tuple[float, float] = (4.0, 4.0)
    planes: int = 3  # 2 leaves the spongy plane out, for soft tissue

    def span(self) -> tuple[float, float]:
        """Where along the axis the tube begins and ends, in mm."""
        return float(self.stations[0, 0]), float(self.stations[-1, 0])

    def sections(self, along: Array) -> Array:
        """Stations interpolated at `along` [k] -> [k, 6], half-widths rounded off at the ends."""
        table = monotone(self.stations[:, 0], self.stations[:, 1:], along)
        first, last = self.span()
        for reach, cap in ((along - first, self.caps[0]), (last - along, self.caps[1])):
            x = np.clip(1 - reach / max(cap, 1e-3), 0, 1)
            table[:, [1, 3]] *= np.sqrt(1 - x * x)[:, None]
        return table

    def paint(self, camera: Camera) -> tuple[Box, Array] | None:
        """(box, planes [h, w, 3]) or None when out of the image."""
        side, along, front = self.frame.axes @ camera.matrix.T
        speed = float(np.hypot(*along))
        if speed < 0.25 * camera.scale:  # nearly along the ray: nothing sensible to draw
            speed = 0.25 * camera.scale
            along = along + 1e-9
        axis = along / np.hypot(*along)
        across = np.array([-axis[1], axis[0]])
        first, last = self.span()
        start = camera.project(self.frame.point(0, first))
        ps, pf = float(side @ across), float(front @ across)
        wide = np.abs(self.stations[:, 1:5]).max(axis=0)
        reach = np.hypot(wide[1] * ps, wide[3] * pf) + abs(wide[0] * ps) + abs(wide[2] * pf) + 2
        length = (last - first) * speed
        grow = np.abs(across) * reach
        low = np.minimum(start, start + axis * length) - grow
        box = camera.clip(low, np.maximum(start, start + axis * length) + grow)
        if box is None:
            return None
        x0, y0, x1, y1 = box
        # The straight patch covers only what the box can show of the tube.
        back = np.array([across, axis])
        corners = np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)]) - start
        v, u = (corners @ back.T).T
        u0, u1 = int(max(-2.0, u.min() - 2)), int(min(length + 2, u.max() + 2)) + 1
        v0, v1 = int(max(-reach, v.min() - 2)) - 1, int(min(reach, v.max() + 2)) + 2
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
    """Path length through an ellipse of half-width `half` [rows] and full `depth` at offset v."""
    x = v * (1 / half).astype(np.float32)[:, None]
    x *= x
    np.subtract(1, x, out=x)
    np.maximum(x, 0, out=x)
    np.sqrt(x, out=x)
    x *= depth.astype(np.float32)[:, None]
    return x
