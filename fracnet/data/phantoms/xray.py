"""From a posed body to the displayed image: framing, path lengths, exposure and film.

Nothing here depends on the region or the fracture: every draw has the same distribution for all
images.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data.phantoms.anatomy import Body, Bone, Build, Part
from fracnet.data.phantoms.geometry import Array, Box, Camera, Ellipsoid, monotone_cubic
from fracnet.data.phantoms.poses import Scene

BONE_BLEND = 8.0  # mm over which two parts of a bone flow into each other
LIMB_BLEND = 25.0  # mm, the same for soft tissue
FAT = 0.16  # how much less fat attenuates than muscle, as a share
AIR = 0.75  # share of a lung that is air


@dataclass(frozen=True)
class Layer:
    """A bone: planes [h, w, 3] in mm (whole, inside of the shell, trabecular), corner x0, y0."""

    x0: int
    y0: int
    planes: Array

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its position in the image."""
        h, w = self.planes.shape[:2]
        return np.s_[self.y0 : self.y0 + h, self.x0 : self.x0 + w]


def paint_bone(bone: Bone, camera: Camera) -> Layer | None:
    """The bone as the camera sees it, its parts united; None outside the image."""
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
    for part, ((a, b, c, d), path) in painted:
        target = planes[b - y0 : d - y0, a - x0 : c - x0]
        if isinstance(part, Ellipsoid) and part.carve:
            np.maximum(target - part.carve * path[..., :1], 0, out=target)
        else:
            smooth_maximum(target, path, BONE_BLEND)
    return Layer(x0, y0, planes)


def smooth_maximum(target: Array, path: Array, blend: float) -> None:
    """Unite `path` into `target` in place; if both are long and similar, the seam is filled.

    Exact for nested solids and close for blended ones.
    """
    low = np.minimum(target, path)
    np.maximum(target, path, out=target)
    if not low.any():
        return
    near = np.maximum(1 - (target - low) / np.float32(blend), 0)
    near *= near
    near *= np.minimum(low, np.float32(blend))
    near *= np.float32(0.25)
    target += near


def soft_tissue_path(body: Body, camera: Camera) -> Array:
    """Path in soft tissue, in mm of muscle [H, W]: fat counts less, air-filled lung is removed.

    Painted at half the resolution: skin and muscle have no fine detail.
    """
    half = camera.shrunk(2)
    soft = longest_path(body.soft_tissue, half)
    path: Array = (1 - FAT) * soft[..., 0] + FAT * soft[..., 1]
    path = cv2.GaussianBlur(path, (0, 0), 1.2 * half.scale)
    if body.gas:
        gas = longest_path(body.gas, half)[..., 0]
        path = np.maximum(path - AIR * cv2.GaussianBlur(gas, (0, 0), 2.5 * half.scale), 0)
    size = (2 * half.width, 2 * half.height)
    path = cv2.resize(path, size, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(path[: camera.height, : camera.width])


def longest_path(parts: list[Part], camera: Camera) -> Array:
    """The united path of the parts in every pixel [H, W, 2]: whole and inside."""
    canvas = np.zeros((camera.height, camera.width, 2), np.float32)
    for part in parts:
        hit = part.paint(camera)
        if hit is not None:
            (x0, y0, x1, y1), planes = hit
            smooth_maximum(canvas[y0:y1, x0:x1], planes[..., :2], LIMB_BLEND)
    return canvas


# Linear attenuation per mm at about 45 keV, the middle of an extremity beam (NIST XCOM, rounded):
# soft tissue 0.024; cortical bone 0.10 and trabecular bone 0.045, here as the excess over the
# tissue that they replace; fatty marrow a little less than soft tissue.
SOFT, CORTEX, SPONGY, MARROW = 0.024, 0.076, 0.022, -0.002
PSF = 0.7  # pixels, detector and focal spot together
RADIUS = 3  # pixels, where the point spread ends

TONE = 0.45
"""How far grey levels follow a random target rather than the image: at 0 the histogram reveals the
body part, at 1 contrast is lost."""


@dataclass(frozen=True)
class Exposure:
    """A device and an exposure: coefficients per mm at the patient's size, scatter, noise, window.

    scatter: share of the primary beam that returns as a veil; grain: noise of an unattenuated
    pixel relative to its signal; flatten: how strongly slow changes of density are compressed;
    levels: grey levels of the window's three inner knots; texture, quanta: fixed fields [H, W] of
    mean 0.
    """

    soft: float
    cortex: float
    spongy: float
    scatter: float
    grain: float
    flatten: float
    levels: tuple[float, ...]
    texture: Array
    quanta: Array

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        noise: np.random.Generator,
        camera: Camera,
        build: Build,
    ) -> "Exposure":
        """An exposure of that patient; `noise` fills the fixed fields."""
        shape = (camera.height, camera.width)
        beam = float(rng.uniform(0.85, 1.15)) * build.size
        # Random bytes are ten times as fast as normal deviates; blurring makes them nearly normal.
        grains = noise.integers(0, 256, (3, *shape), dtype=np.uint8).astype(np.float32)
        fine = cv2.GaussianBlur(grains[0], (0, 0), 0.16 * camera.scale + 0.35)
        texture = fine - cv2.GaussianBlur(fine, (0, 0), 0.7 * camera.scale + 0.6)
        texture /= texture.std() + 1e-6
        quanta = cv2.GaussianBlur(grains[1] + grains[2] - 255, (0, 0), 0.55) / np.float32(57)
        levels = np.sort(rng.uniform(0.0, [0.6, 0.8, 1.0]))
        return cls(
            soft=SOFT * beam,
            cortex=CORTEX * beam * build.density,
            spongy=SPONGY * beam * build.density,
            scatter=float(rng.uniform(0.05, 0.5)),
            grain=float(np.exp(rng.uniform(np.log(0.004), np.log(0.022)))),
            flatten=float(rng.uniform(0.25, 0.65)),
            levels=tuple(float(x) for x in levels),
            texture=texture,
            quanta=quanta,
        )

    def mineral(self, planes: Array, position: tuple[slice, slice]) -> Array:
        """Excess attenuation of a bone's planes (outer, inner, spongy) at a position."""
        grain = np.clip(1 + 0.13 * self.texture[position], 0.2, 2.0)
        outer, inner, spongy = planes[..., 0], planes[..., 1], planes[..., 2]
        shell = self.cortex * np.maximum(outer - inner, 0)
        return np.asarray(shell + self.spongy * spongy * grain + MARROW * inner, np.float32)


class Film:
    """Turns attenuation into the displayed image.

    Everything with long range (scatter, range compression, window) is measured once, on the intact
    patient, so that a fracture changes the image only locally.
    """

    def __init__(self, exposure: Exposure, intact: Array, overlay: tuple[Array, Array]) -> None:
        self.exposure = exposure
        self.gain, self.offset = overlay
        size = intact.shape[::-1]
        small = cv2.resize(np.exp(-intact), None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
        veil = exposure.scatter * cv2.GaussianBlur(small, (0, 0), 0.05 * max(small.shape))
        small = -np.log(small + veil)
        base = exposure.flatten * cv2.GaussianBlur(small, (0, 0), 0.07 * max(small.shape))
        self.low, self.high, self.table = window(small - base, exposure.levels)
        self.veil = cv2.resize(veil, size, interpolation=cv2.INTER_LINEAR)
        self.base = cv2.resize(base, size, interpolation=cv2.INTER_LINEAR)
        self.image = self.grey(intact, (0, 0, size[0], size[1]))

    def grey(self, attenuation: Array, box: Box) -> Array:
        """Grey levels uint8 of one box of an attenuation map [H, W]."""
        x0, y0, x1, y1 = box
        position = np.s_[y0:y1, x0:x1]
        a, b = max(0, x0 - RADIUS), max(0, y0 - RADIUS)
        primary = np.exp(-attenuation[b : y1 + RADIUS, a : x1 + RADIUS])
        primary = cv2.GaussianBlur(primary, (2 * RADIUS + 1, 2 * RADIUS + 1), PSF)
        signal = primary[y0 - b : y1 - b, x0 - a : x1 - a] + self.veil[position]
        signal += self.exposure.grain * np.sqrt(signal) * self.exposure.quanta[position]
        density = -np.log(np.maximum(signal, 1e-4)) - self.base[position]
        last = len(self.table) - 1
        entry = np.clip((density - self.low) * (last / (self.high - self.low)), 0, last)
        grey = self.table[entry.astype(np.int32)] * self.gain[position] + self.offset[position]
        return np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)


def window(density: Array, levels: tuple[float, ...]) -> tuple[float, float, Array]:
    """Lowest and highest density and a rising table [4096] of grey levels between them.

    The table moves quantiles of the image TONE of the way to random levels, as automatic processing
    on the device does.
    """
    quantiles = np.quantile(density, [0.005, 0.15, 0.5, 0.85, 0.998])
    low, high = float(quantiles[0]) - 0.05, float(max(quantiles[-1], quantiles[0] + 0.3)) + 0.1
    x = (quantiles[1:-1] - low) / (high - low)
    y = (1 - TONE) * x + TONE * np.asarray(levels)
    x = np.concatenate([[0.0], np.maximum.accumulate(x + 0.01 * np.arange(3)), [1.05]])
    y = np.concatenate([[0.0], y, [1.0]])
    grid = np.linspace(0, 1, 4096)
    smooth = monotone_cubic(x, np.maximum.accumulate(y)[:, None], grid)[:, 0]
    return low, high, smooth.astype(np.float32)


LONGEST = 512  # pixels, as in the public sets


@dataclass(frozen=True)
class Marker:
    """The lead letter next to the limb: position and height as shares of the image."""

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
    """What the technician does for one view: format, zoom, rotation, collimation, side marker.

    width, height: pixels. zoom: factor on the field. rotation: degrees in the image plane. off:
    shift as a share of the field. side: "L" or "R". shutter [4, 2]: corners of the collimated
    field in pixels, None if open; outside: grey level beyond it. marker: None if missing.
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
        """Everything from the random streams of the view and the study."""
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
        offset = middle - matrix @ scene.center
        return Camera(matrix, offset, np.array([-s, 0.0, c]), scale, self.width, self.height)

    def contains(self, point: Array, margin: float) -> bool:
        """Whether a point (pixels) is inside the field by that margin."""
        corners = self.shutter
        if corners is None:
            w, h = self.width, self.height
            corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], dtype=float)
        distance = cv2.pointPolygonTest(
            corners.astype(np.float32), (float(point[0]), float(point[1])), True
        )
        return bool(distance > margin + 4)

    def overlay(self) -> tuple[Array, Array]:
        """Gain and offset float32 [H, W] that add marker and shutters to a displayed image."""
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
