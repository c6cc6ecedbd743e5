"""Fractures: lucent lines, steps and angulations inside a window whose outline is known."""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data.phantoms.geometry import Array, Camera, Tube
from fracnet.data.phantoms.poses import Scene
from fracnet.data.phantoms.xray import RADIUS, Film, Framing, Layer

KINDS = ("transverse", "oblique", "spiral", "comminuted", "step", "angled", "impacted", "buckle")


@dataclass(frozen=True)
class Break:
    """One fracture of one shaft, in local coordinates of its projection (mm).

    middle [2] pixels; axis, across [2] unit vectors in the image; half: bone half-width; extent:
    half-length of the window along the axis; nothing changes outside.
    """

    kind: str
    middle: Array
    axis: Array
    across: Array
    half: float
    extent: float
    slope: float
    gap: float
    depth: float
    shift: float
    teeth: Array

    @classmethod
    def draw(
        cls, rng: np.random.Generator, kind: str, shaft: Tube, along: float, camera: Camera
    ) -> "Break":
        """A fracture of that kind at `along` mm of the shaft as this camera sees it."""
        assert kind in KINDS, kind
        section = shaft.sections(np.array([along]))[0]
        side, axis, front = shaft.frame.axes @ camera.matrix.T
        axis = axis / max(float(np.hypot(*axis)), 1e-6)
        across = np.array([-axis[1], axis[0]])
        ps, pf = float(side @ across) / camera.scale, float(front @ across) / camera.scale
        half = float(np.hypot(section[1] * ps, section[3] * pf))
        middle = camera.project(shaft.frame.point(section[0], along, section[2]))
        slopes = {"transverse": 0.15, "oblique": 0.9, "spiral": 1.3, "step": 0.3}
        slope = slopes.get(kind, 0.2) * float(rng.choice([-1, 1])) * float(rng.uniform(0.7, 1.2))
        fine = 1 / camera.scale
        gap = float(rng.uniform(0.9, 1.5)) * max(0.09 * half, 0.5, 1.7 * fine)
        shift = {"step": 0.42, "angled": 0.55, "spiral": 0.16, "comminuted": 0.2, "buckle": 0.22}
        jagged = np.cumsum(rng.standard_normal(64))
        jagged = 0.16 * half * (jagged - np.linspace(jagged[0], jagged[-1], 64)) / 4
        extent = max(abs(slope) * half + np.abs(jagged).max() + 2.5 * gap, 0.9 * half)
        return cls(
            kind=kind,
            middle=middle,
            axis=axis,
            across=across,
            half=half,
            extent=float(1.15 * extent if kind not in ("angled", "step") else 1.5 * extent),
            slope=slope,
            gap=gap,
            depth=float(rng.uniform(0.7, 0.97)),
            shift=shift.get(kind, 0.05) * half * float(rng.choice([-1, 1]) * rng.uniform(0.7, 1.2)),
            teeth=jagged,
        )

    def apply(
        self, layer: Layer, scale: float
    ) -> tuple[Array, tuple[slice, slice]] | tuple[None, None]:
        """The broken planes of a window of the layer, and the window's position in the layer."""
        h, w = layer.planes.shape[:2]
        grow = (self.extent + self.half * 1.6 + abs(self.shift)) * scale + 2
        cx, cy = self.middle[0] - layer.x0, self.middle[1] - layer.y0
        x0, y0 = max(0, int(cx - grow)), max(0, int(cy - grow))
        x1, y1 = min(w, int(cx + grow) + 2), min(h, int(cy + grow) + 2)
        if x1 <= x0 or y1 <= y0:
            return None, None
        x = np.arange(x0, x1, dtype=np.float32)[None, :]
        y = np.arange(y0, y1, dtype=np.float32)[:, None]
        a, c = self.axis.astype(np.float32) / np.float32(scale), self.across.astype(np.float32)
        u = (x - np.float32(cx)) * a[0] + (y - np.float32(cy)) * a[1]
        v = ((x - np.float32(cx)) * c[0] + (y - np.float32(cy)) * c[1]) / np.float32(scale)
        inside = (np.abs(u) < self.extent) & (np.abs(v) < 1.6 * self.half + abs(self.shift))
        line = self.line(v)
        moved = (self.displacement(u, v, line) * inside * scale).astype(np.float32)
        broken: Array = cv2.remap(
            layer.planes, x - moved * c[0], y - moved * c[1], cv2.INTER_LINEAR
        )
        broken *= (1 - self.lucency(u, v, line)).astype(np.float32)[..., None]
        window = np.s_[y0:y1, x0:x1]
        return np.where(inside[..., None], broken, layer.planes[window]), window

    def line(self, v: Array) -> Array:
        """Position of the main line along the axis at offset v across the bone."""
        entry = np.clip((v / (3.2 * self.half) + 0.5) * 63, 0, 63).astype(np.int32)
        jag = self.teeth.astype(np.float32)[entry]
        x = np.clip(v / self.half, -1.5, 1.5)
        if self.kind == "spiral":
            return (self.slope * self.half * np.sin(np.pi / 2 * np.clip(x, -1, 1)) + jag).astype(
                np.float32
            )
        return (np.clip(self.slope * v, -self.extent, self.extent) + jag).astype(np.float32)

    def displacement(self, u: Array, v: Array, line: Array) -> Array:
        """How far (mm, across) the bone at (u, v) has moved; zero at the ends of the window."""
        relax = np.clip(1 - np.abs(u) / self.extent, 0, 1)
        if self.kind == "buckle":
            bulge = (1 - (u / self.extent) ** 2).clip(0, 1) ** 2
            return abs(self.shift) * bulge * np.clip(v / self.half, -1.3, 1.3)
        if self.kind == "angled":
            return self.shift * relax**1.3
        smooth = relax * relax * (3 - 2 * relax)
        return self.shift * smooth * np.where(u > line, 0.65, -0.65)

    def lucency(self, u: Array, v: Array, line: Array) -> Array:
        """Share of the bone missing at (u, v), the open cleft; negative where it is crushed."""
        ends = np.clip((self.extent - np.abs(u)) / (0.2 * self.extent), 0, 1)
        cleft = self.depth * groove((u - line) / self.gap)
        if self.kind == "impacted":
            dense = -0.45 * groove((u - line - 1.2 * self.gap) / (2 * self.gap))
            return ends * np.where(cleft > 0.05, 0.6 * cleft, dense)
        if self.kind == "buckle":
            return ends * -0.35 * groove(u / (2.2 * self.gap))
        if self.kind == "comminuted":
            second = np.where(v > 0, line + 0.75 * v + 0.1, line + 0.1 * v)
            cleft = np.maximum(cleft, self.depth * groove((u - second) / self.gap))
            third = np.where(v < 0, line + 0.9 * v, line)
            cleft = np.maximum(cleft, 0.7 * self.depth * groove((u - third) / self.gap))
        return ends * cleft


def groove(x: Array) -> Array:
    """A smooth notch of height 1 and half-width 1, exactly zero outside."""
    return np.maximum(1 - x * x, 0) ** 2


def outline(changed: Array, corner: tuple[int, int]) -> Array | None:
    """Convex hull [k, 2] in pixels of a mask [h, w]; None if nothing changed."""
    points = cv2.findNonZero(changed.astype(np.uint8))
    if points is None or len(points) < 3:
        return None
    hull = cv2.convexHull(points)
    if cv2.contourArea(hull) < 4:
        return None
    near = cv2.approxPolyDP(hull, 1.0, True)
    return near[:, 0, :].astype(np.float64) + corner


SECOND_FRACTURE_SHARE = 0.2  # share of fractured views with a second broken bone
VISIBLE_STEP = 14  # grey levels by which a pixel must change to count as visibly changed
VISIBLE_PIXELS = 60  # visibly changed pixels that make a fracture visible
MAX_TRIES = 120


@dataclass(frozen=True)
class VisibleFracture:
    """A fracture in the image: its kind, outline [k, 2] in pixels, and how the image changes.

    position: slices of the image. Of that window: changed, a mask of the pixels that change; grey,
    the new grey levels; attenuation, the new attenuation. visible: number of visible changes.
    """

    bone: str
    kind: str
    polygon: Array
    position: tuple[slice, slice]
    changed: Array
    grey: Array
    attenuation: Array
    visible: int

    def draw_on(self, image: Array) -> None:
        """Write the new grey levels into the image, and nothing else."""
        window = image[self.position]
        window[self.changed] = self.grey[self.changed]


def add_fractures(
    rng: np.random.Generator,
    scene: Scene,
    camera: Camera,
    framing: Framing,
    film: Film,
    layers: dict[str, Layer],
    intact: Array,
) -> tuple[Array, list[VisibleFracture]]:
    """The image with its fractures, one or two, each of a different bone.

    Sites are tried in the order of the study until one is visible; otherwise the best one is used.
    """
    n_fractures = 1 + int(rng.random() < SECOND_FRACTURE_SHARE)
    fractures: list[VisibleFracture] = []
    image, attenuation = film.image.copy(), intact.copy()
    best: VisibleFracture | None = None
    for attempt in range(MAX_TRIES):
        site = scene.sites[int(rng.integers(len(scene.sites)))]
        along, kind = float(rng.uniform(site.low, site.high)), str(rng.choice(site.kinds))
        shape_rng = np.random.Generator(np.random.Philox(int(rng.integers(2**63))))
        if site.bone not in layers or site.bone in {fracture.bone for fracture in fractures}:
            continue
        break_ = Break.draw(shape_rng, kind, scene.body.bone(site.bone).shaft, along, camera)
        margin = 0.8 * break_.extent * camera.scale if attempt < MAX_TRIES // 2 else 0.0
        if not framing.contains(break_.middle, margin):
            continue
        layer = layers[site.bone]
        candidate = develop_fracture(break_, site.bone, layer, camera, film, attenuation)
        if candidate is None:
            continue
        if candidate.visible >= VISIBLE_PIXELS:
            fractures.append(candidate)
            candidate.draw_on(image)
            attenuation[candidate.position] = candidate.attenuation
            if len(fractures) == n_fractures or attempt > MAX_TRIES // 2:
                break
        elif best is None or candidate.visible > best.visible:
            best = candidate
    if not fractures and best is not None:
        fractures.append(best)
        best.draw_on(image)
    return image, fractures


def develop_fracture(
    break_: Break, bone: str, layer: Layer, camera: Camera, film: Film, attenuation: Array
) -> VisibleFracture | None:
    """What a break of that bone changes in an image of that attenuation; None if nothing."""
    broken, window = break_.apply(layer, camera.scale)
    if broken is None or window is None:
        return None
    before = layer.planes[window]
    changed = (broken != before).any(axis=-1)
    x0, y0 = layer.x0 + window[1].start, layer.y0 + window[0].start
    polygon = outline(changed, (x0, y0))
    if polygon is None:
        return None
    pad = RADIUS + 1
    h, w = changed.shape
    a, b = max(0, x0 - pad), max(0, y0 - pad)
    c, d = min(camera.width, x0 + w + pad), min(camera.height, y0 + h + pad)
    position = np.s_[b:d, a:c]
    inner = np.s_[y0 : y0 + h, x0 : x0 + w]
    after = attenuation.copy()
    mineral = film.exposure.mineral
    # Where the planes agree, the difference is exactly zero and the attenuation unchanged.
    after[inner] += mineral(broken, inner) - mineral(before, inner)
    spread = np.zeros((d - b, c - a), np.uint8)
    spread[y0 - b : y0 - b + h, x0 - a : x0 - a + w] = changed
    blurred = cv2.dilate(spread, np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8)) > 0
    old, grey = film.grey(attenuation, (a, b, c, d)), film.grey(after, (a, b, c, d))
    step = np.abs(grey.astype(np.int16) - old) >= VISIBLE_STEP
    visible = int((step & blurred).sum())
    return VisibleFracture(
        bone, break_.kind, polygon, position, blurred, grey, after[position], visible
    )
