"""What the technician does: image format, zoom, rotation, centring, collimation, side marker.

Nothing here knows the region or the fracture: every draw has one distribution for all images.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data.phantom.regions import Scene
from fracnet.data.phantom.space import Array, Camera

LONGEST = 512  # pixels, as in the public sets


@dataclass(frozen=True)
class Marker:
    """The lead letter beside the limb: place and height as shares of the image, brightness 0..1."""

    x: float
    y: float
    size: float
    bright: float
    bold: bool
    boxed: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Marker":
        """Near the left or the right edge, anywhere along it."""
        x = 0.07 + 0.1 * float(rng.random())
        return cls(
            x=x if rng.random() < 0.5 else 1 - x,
            y=float(rng.uniform(0.08, 0.92)),
            size=float(rng.uniform(0.035, 0.06)),
            bright=float(rng.uniform(0.7, 1.0)),
            bold=bool(rng.random() < 0.5),
            boxed=bool(rng.random() < 0.5),
        )


@dataclass(frozen=True)
class Framing:
    """The draws for one view.

    width, height: pixels. zoom: factor on the field. rotation: degrees in the image plane. off:
    shift as a share of the field. side: "L" or "R". shutter [4, 2]: corners of the collimated
    field in pixels, None when open; outside: grey level beyond it. marker: None when missing.
    """

    width: int
    height: int
    zoom: float
    rotation: float
    off: tuple[float, float]
    side: str
    shutter: Array | None
    outside: float
    marker: "Marker | None"

    @classmethod
    def draw(cls, rng: np.random.Generator, study: np.random.Generator) -> "Framing":
        """Draws all of it from the view's and the study's streams."""
        side = "LR"[int(study.integers(2))]
        longest = LONGEST if rng.random() < 0.6 else int(rng.integers(384, LONGEST))
        aspect = float(np.clip(rng.normal(0.8, 0.12), 0.5, 1.0))
        landscape = bool(rng.random() < 0.25)
        short = round(longest * aspect)
        width, height = (longest, short) if landscape else (short, longest)
        rotation = float(np.clip(rng.normal(0, 6), -15, 15))
        if landscape and rng.random() < 0.2:
            rotation += 90.0 * float(rng.choice([-1, 1]))
        off = (float(rng.normal(0, 0.035)), float(rng.normal(0, 0.035)))
        zoom = float(rng.uniform(0.87, 1.16))
        shutter = None
        turn, margins = rng.normal(0, 3), rng.uniform(0.02, 0.11, 4)
        if rng.random() < 0.7:
            shutter = _corners(width, height, float(turn), margins)
        marker = Marker.draw(rng) if rng.random() < 0.75 else None
        outside = float(rng.choice([0.0, rng.random(), 1.0], p=[0.5, 0.25, 0.25]))
        return cls(width, height, zoom, rotation, off, side, shutter, outside, marker)

    def camera(self, scene: Scene, size: float) -> Camera:
        """The camera that shows the scene's field; `size` scales the patient."""
        longest = max(self.width, self.height)
        scale = longest / (scene.field * self.zoom) * size
        c, s = np.cos(np.radians(scene.turn)), np.sin(np.radians(scene.turn))
        flat = np.array([[c, 0.0, s], [0.0, 1.0, 0.0]])
        if self.side == "L":
            flat[0] *= -1
        a, b = np.cos(np.radians(self.rotation)), np.sin(np.radians(self.rotation))
        matrix = scale * np.array([[a, -b], [b, a]]) @ flat
        middle = np.array([self.width, self.height]) / 2 + np.array(self.off) * longest
        offset = middle - matrix @ scene.centre
        return Camera(matrix, offset, np.array([-s, 0.0, c]), scale, self.width, self.height)

    def sees(self, point: Array, margin: float) -> bool:
        """Whether a point (pixels) lies inside the field by that margin."""
        corners = self.shutter
        if corners is None:
            w, h = self.width, self.height
            corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], dtype=float)
        away = cv2.pointPolygonTest(
            corners.astype(np.float32), (float(point[0]), float(point[1])), True
        )
        return bool(away > margin + 4)

    def overlay(self) -> tuple[Array, Array]:
        """Gain and offset float32 [H, W] that put marker and shutters on a displayed image."""
        gain: Array = np.ones((self.height, self.width), np.float32)
        offset: Array = np.zeros_like(gain)
        if self.marker is not None:
            cover = self._glyph()
            gain, offset = 1 - cover, self.marker.bright * cover
        if self.shutter is not None:
            mask = np.zeros(gain.shape, np.uint8)
            fixed = np.round(self.shutter * 16).astype(np.int32)
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
            soft = cv2.GaussianBlur(mask, (0, 0), 1.2).astype(np.float32) / 255
            gain, offset = gain * soft, offset * soft + np.float32(self.outside) * (1 - soft)
        return gain, offset

    def _glyph(self) -> Array:
        assert self.marker is not None
        mark = self.marker
        height = mark.size * max(self.width, self.height)
        glyph = np.zeros((self.height, self.width), np.uint8)
        font = cv2.FONT_HERSHEY_DUPLEX if mark.bold else cv2.FONT_HERSHEY_SIMPLEX
        thick = max(1, round(height / 8))
        grow = height / 22
        (wide, tall), _ = cv2.getTextSize(self.side, font, grow, thick)
        x = np.clip(mark.x * self.width - wide / 2, 6, self.width - wide - 6)
        y = np.clip(mark.y * self.height + tall / 2, tall + 6, self.height - 6)
        at = (int(x), int(y))
        if mark.boxed:
            pad = thick + 3
            low, high = (at[0] - pad, at[1] - tall - pad), (at[0] + wide + pad, at[1] + pad)
            cv2.rectangle(glyph, low, high, 255, max(1, thick // 2), cv2.LINE_AA)
        cv2.putText(glyph, self.side, at, font, grow, 255, thick, cv2.LINE_AA)
        return cv2.GaussianBlur(glyph, (0, 0), 0.6).astype(np.float32) / 255


def _corners(width: int, height: int, turn: float, margins: Array) -> Array:
    left, right, top, bottom = margins * np.array([width, width, height, height])
    box = np.array(
        [
            [left, top],
            [width - right, top],
            [width - right, height - bottom],
            [left, height - bottom],
        ]
    )
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    middle = box.mean(axis=0)
    return np.asarray((box - middle) @ np.array([[c, s], [-s, c]]) + middle)
