"""Where things are: the camera that projects the patient, and frames to place parts in."""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, the last two exclusive


@dataclass(frozen=True)
class Camera:
    """Parallel projection: pixel = matrix @ point + offset. Points are (x, y, z) in mm.

    matrix [2, 3] and offset [2] in pixels (x right, y down); ray [3] is the unit vector along the
    beam; scale in pixels a mm; width and height of the image in pixels.
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
        """The pixel box (x0, y0, x1, y1) around low..high inside the image; None when outside."""
        x0, y0 = max(0, int(low[0]) - 2), max(0, int(low[1]) - 2)
        x1 = min(self.width, int(np.ceil(high[0])) + 3)
        y1 = min(self.height, int(np.ceil(high[1])) + 3)
        return (x0, y0, x1, y1) if x1 - x0 > 1 and y1 - y0 > 1 else None


@dataclass(frozen=True)
class Frame:
    """A right-handed place in space: origin [3] in mm, rows of axes = (side, along, front)."""

    origin: Array
    axes: Array

    def point(self, side: float, along: float, front: float = 0.0) -> Array:
        """A local point in space."""
        return self.origin + np.array([side, along, front]) @ self.axes

    def turned(self, axis: int, degrees: float, at: tuple[float, float, float]) -> "Frame":
        """A frame whose origin is the local point `at`, turned about its own axis 0, 1 or 2."""
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = c, s, -s, c
        return Frame(self.point(*at), turn @ self.axes)
