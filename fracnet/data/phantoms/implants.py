"""Metal and plaster: plates with screws, wires, nails, casts.

Drawn from the study's own random stream and placed without knowledge of the fracture, so they are
equally common with and without one and reveal nothing about it.
"""

import cv2
import numpy as np

from fracnet.data.phantoms.anatomy import Body, Bone
from fracnet.data.phantoms.geometry import Array, Camera, Tube
from fracnet.data.phantoms.xray import Framing

KINDS = ("plate", "wires", "nail", "cast")
SHARE = 0.14  # of studies
STEEL, PLASTER = 0.45, 0.012  # attenuation per mm above soft tissue


def draw_implant(
    rng: np.random.Generator, body: Body, camera: Camera, framing: Framing
) -> tuple[Array | None, str | None]:
    """(attenuation [H, W], kind), both None for most studies."""
    kind = draw_kind(rng)
    if kind is None:
        return None, None
    if kind == "cast":
        return _cast(rng, body, camera), kind
    bone = _choose_bone(rng, body, camera, framing)
    if bone is None:
        return None, None
    canvas = np.zeros((camera.height, camera.width), np.float32)
    draw = {"plate": _plate, "wires": _wires, "nail": _nail}[kind]
    draw(rng, canvas, bone.shaft, camera)
    return STEEL * cv2.GaussianBlur(canvas, (0, 0), 0.6), kind


def draw_kind(rng: np.random.Generator) -> str | None:
    """The kind of implant in the study, if any; a view may not show it."""
    kind = str(rng.choice(KINDS, p=[0.4, 0.3, 0.15, 0.15]))
    return kind if rng.random() < SHARE else None


def _choose_bone(
    rng: np.random.Generator, body: Body, camera: Camera, framing: Framing
) -> Bone | None:
    """A long bone with its middle in the field."""
    candidates = []
    for bone in body.bones:
        if isinstance(bone.parts[0], Tube):
            first, last = bone.shaft.span()
            inside = [
                framing.contains(camera.project(bone.shaft.frame.point(0, t)), 0.0)
                for t in np.linspace(first, last, 7)[1:-1]
            ]
            long = (last - first) * camera.scale > 0.12 * max(camera.width, camera.height)
            if sum(inside) >= 2 and long:
                candidates.append(bone)
    return candidates[int(rng.integers(len(candidates)))] if candidates else None


def _visible_shaft(rng: np.random.Generator, shaft: Tube, camera: Camera) -> tuple[float, float]:
    """Middle and usable length (mm) of the part of the shaft inside the image."""
    first, last = shaft.span()
    grid = np.linspace(first, last, 60)
    points = camera.project(np.array([shaft.frame.point(0, t) for t in grid]))
    size = np.array([camera.width, camera.height])
    visible = grid[((points > 0) & (points < size)).all(axis=1)]
    if len(visible) < 2:
        return (first + last) / 2, 0.5 * (last - first)
    low, high = float(visible[0]), float(visible[-1])
    return low + float(rng.uniform(0.3, 0.7)) * (high - low), high - low


def _at(shaft: Tube, along: float, side: float = 0.0, front: float = 0.0) -> Array:
    """A point in space relative to the middle line of the shaft."""
    section = shaft.sections(np.array([along]))[0]
    return shaft.frame.point(section[0] + side, along, section[2] + front)


def _half(shaft: Tube, along: float) -> float:
    return float(shaft.sections(np.array([along]))[0, [1, 3]].max())


def _rod(canvas: Array, camera: Camera, points: list[Array], width: float, path: float) -> None:
    """Add a bar through points in space; width and path length of metal in mm."""
    mask = np.zeros(canvas.shape, np.uint8)
    fixed = np.round(camera.project(np.array(points)) * 16).astype(np.int32)
    thick = max(1, round(width * camera.scale))
    cv2.polylines(mask, [fixed], False, 255, thick, cv2.LINE_AA, 4)
    canvas += np.float32(path / 255) * mask


def _plate(rng: np.random.Generator, canvas: Array, shaft: Tube, camera: Camera) -> None:
    middle, free = _visible_shaft(rng, shaft, camera)
    half = _half(shaft, middle)
    length = min(float(rng.uniform(7, 12)) * half, 0.75 * free)
    aside = float(rng.choice([-1, 1])) * half
    face = float(rng.uniform(0, 1))  # from edge-on to face-on
    places = middle + length * np.linspace(-0.5, 0.5, max(3, round(length / (1.5 * half))) + 1)
    bar = [_at(shaft, t, aside * face, aside * 1.1) for t in places]
    _rod(canvas, camera, bar, (0.4 + 0.5 * (1 - face)) * half, 2.5)
    for t in (places[1:] + places[:-1]) / 2:
        deep = float(rng.uniform(0.8, 1.2))
        screw = [_at(shaft, t, aside * face, aside), _at(shaft, t, -aside * deep, -aside)]
        _rod(canvas, camera, screw, 0.3 * half, 3.0)


def _wires(rng: np.random.Generator, canvas: Array, shaft: Tube, camera: Camera) -> None:
    middle, free = _visible_shaft(rng, shaft, camera)
    half = _half(shaft, middle)
    for _ in range(int(rng.integers(1, 4))):
        length = min(float(rng.uniform(2.5, 5)) * half, 0.5 * free)
        slant, lift = (float(x) * half for x in rng.uniform(0.4, 1.3, 2) * rng.choice([-1, 1], 2))
        ends = [_at(shaft, middle, s * slant, s * lift) for s in (-1, 1)]
        ahead = length * shaft.frame.axes[1]
        _rod(canvas, camera, [ends[0] - ahead, ends[1] + ahead], max(1.4, 0.12 * half), 1.8)


def _nail(rng: np.random.Generator, canvas: Array, shaft: Tube, camera: Camera) -> None:
    middle, free = _visible_shaft(rng, shaft, camera)
    half, length = float(shaft.sections(np.array([middle]))[0, 1]), 0.42 * free
    first, last = shaft.span()
    low, high = max(first, middle - length), min(last, middle + length)
    _rod(canvas, camera, [_at(shaft, t) for t in np.linspace(low, high, 9)], 0.75 * half, 3.0)
    for t in (low + 0.08 * (high - low), high - 0.08 * (high - low)):
        bolt = [_at(shaft, t, s * 1.1 * _half(shaft, t)) for s in (-1, 1)]
        _rod(canvas, camera, bolt, 0.35 * half, 3.0)


def _cast(rng: np.random.Generator, body: Body, camera: Camera) -> Array:
    """A shell around the limb; the soft tissue of the trunk is omitted."""
    thick = float(rng.uniform(5, 9))
    outer = np.zeros((camera.height, camera.width), np.float32)
    inner = np.zeros_like(outer)
    for part in body.soft_tissue:
        if not isinstance(part, Tube) or part.stations[:, 2].max() > 70:
            continue
        for canvas, extra in ((outer, 4 + thick), (inner, 4.0)):
            table = part.stations.copy()
            table[:, [2, 4]] += extra
            hit = Tube(part.frame, table, part.caps, planes=2).paint(camera)
            if hit is not None:
                (x0, y0, x1, y1), planes = hit
                target = canvas[y0:y1, x0:x1]
                np.maximum(target, planes[..., 0], out=target)
    weave = 1 + 0.06 * cv2.resize(
        rng.standard_normal((60, 60)).astype(np.float32), outer.shape[::-1]
    )
    return PLASTER * np.maximum(outer - inner, 0) * weave
