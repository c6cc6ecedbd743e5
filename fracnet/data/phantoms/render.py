"""One phantom image from its identifiers: pose, project, expose, break."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fracnet.data.phantoms.anatomy import Build
from fracnet.data.phantoms.fractures import VisibleFracture, add_fractures
from fracnet.data.phantoms.geometry import Array, Camera
from fracnet.data.phantoms.implants import draw_implant
from fracnet.data.phantoms.poses import (
    POSES,
    PROJECTIONS,
    WIDE_SCENES,
    WIDE_SITES,
    Scene,
    wide_scene,
)
from fracnet.data.phantoms.xray import Exposure, Film, Framing, paint_bone, soft_tissue_path

VERSION = 1
"""Raised whenever the pixels of an unchanged Spec change."""

REGIONS = ("elbow", "fingers", "forearm", "hand", "humerus", "shoulder", "wrist")

STREAMS = (
    "patient",
    "study",
    "view",
    "fracture",
    "noise",
    "hardware",
    "display",
    "exposure",
    "file",
)


@dataclass(frozen=True)
class Spec:
    """Identifiers of one image. Equal specs give equal pixels.

    seed, patient: the anatomy (size, proportions, bone density). study: exposure, device, side,
    hardware, position and kind of the fracture. view: projection, rotation, framing; views count
    from 0: frontal, lateral, oblique, frontal again. fracture: whether the fracture exists;
    nothing else depends on it. scene: one of `WIDE_SCENES`, where the region is one of several in
    view, and nothing but the fracture depends on it.
    """

    region: str
    seed: int = 0
    patient: int = 0
    study: int = 0
    view: int = 0
    fracture: bool = False
    scene: str | None = None

    def __post_init__(self) -> None:
        assert self.region in REGIONS, f"region {self.region!r} is not one of {REGIONS}"
        assert self.scene is None or self.region in WIDE_SCENES[self.scene], self
        assert min(self.seed, self.patient, self.study, self.view) >= 0

    def stream(self, name: str) -> np.random.Generator:
        """A separate generator for each purpose, so that no draw shifts those of another purpose.

        No key contains the region: only the anatomy depends on it, so that noise, exposure and
        display are the same, draw by draw, for all regions.
        """
        key = {
            "patient": (self.patient,),
            "study": (self.patient, self.study),
            "fracture": (self.patient, self.study),
            "exposure": (self.patient, self.study),
            "hardware": (self.patient, self.study),
        }.get(name, (self.patient, self.study, self.view))
        sequence = np.random.SeedSequence([self.seed, STREAMS.index(name), len(key), *key])
        return np.random.Generator(np.random.Philox(sequence))


DILATION = 5
"""Renderings with and without the fracture are equal, pixel by pixel, farther than this many pixels
from every polygon (point spread of the detector and rounding of the outline)."""
MAX_TRIES = 40
"""Specs tried until one frames a site that can break. One in 500 does not; one in three wide
scenes does not frame all its regions."""
MARGIN = 20.0
"""Pixels from the edge of the field to the middle of each region of a wide scene, at least."""


@dataclass(frozen=True)
class Rendered:
    """image uint8 [H, W]; polygons: arrays [k, 2] of (x, y) in 0..1, one per visible fracture;
    info: what the image shows (projection, side, kinds, bones in view, hardware), plain values.
    """

    image: Array
    polygons: list[Array]
    info: dict[str, Any] = field(default_factory=dict)


def pose(spec: Spec) -> tuple[Build, Framing, Scene, Camera]:
    """The patient, the technician's choices, what is in the field, and the camera that sees it."""
    build = Build.draw(spec.stream("patient"))
    projection = PROJECTIONS[spec.view % len(PROJECTIONS)]
    framing = Framing.draw(spec.stream("display"), spec.stream("study"))
    if spec.scene is None:
        scene = POSES[spec.region](build, spec.stream("view"), projection)
    else:
        scene = wide_scene(build, spec.stream("view"), projection, spec.scene)
        scene.sites = WIDE_SITES[spec.region]
    return build, framing, scene, framing.camera(scene, build.size)


def frames_every_region(spec: Spec) -> bool:
    """Whether all regions of a wide scene are inside the field; True for other images.

    Images that are not are left out whichever region is broken: otherwise the shape of the frame
    would tell a label.
    """
    if spec.scene is None:
        return True
    _, framing, scene, camera = pose(spec)
    for region in WIDE_SCENES[spec.scene]:
        points = []
        for site in WIDE_SITES[region]:
            shaft = scene.body.bone(site.bone).shaft
            points.append(camera.project(shaft.frame.point(0.0, (site.low + site.high) / 2)))
        if not framing.contains(np.mean(points, axis=0), MARGIN):
            return False
    return True


def render(spec: Spec) -> Rendered:
    """The image that `spec` identifies."""
    build, framing, scene, camera = pose(spec)
    exposure = Exposure.draw(spec.stream("exposure"), spec.stream("noise"), camera, build)
    intact = exposure.soft * soft_tissue_path(scene.body, camera)
    metal, kind = draw_implant(spec.stream("hardware"), scene.body, camera, framing)
    if metal is not None:
        intact += metal
    layers = {bone.name: layer for bone in scene.body.bones if (layer := paint_bone(bone, camera))}
    for layer in layers.values():
        intact[layer.slices] += exposure.mineral(layer.planes, layer.slices)
    film = Film(exposure, intact, framing.overlay())
    image = film.image
    fractures: list[VisibleFracture] = []
    if spec.fracture:
        rng = spec.stream("fracture")
        image, fractures = add_fractures(rng, scene, camera, framing, film, layers, intact)
    size = np.array([camera.width, camera.height], dtype=np.float64)
    polygons = [np.clip((fracture.polygon + 0.5) / size, 0.0, 1.0) for fracture in fractures]
    info = {
        "projection": PROJECTIONS[spec.view % len(PROJECTIONS)],
        "side": framing.side,
        "hardware": kind,
        "kinds": [fracture.kind for fracture in fractures],
        "visible": [fracture.visible for fracture in fractures],
        "bones": sorted(name for name, layer in layers.items() if layer.planes[..., 0].any()),
    }
    return Rendered(image, polygons, info)


def render_visible(spec: Spec, key: str, step: int) -> Rendered:
    """The image of a spec, or of the next one if its frame has no room for its fracture.

    The next spec has the identifier `key` (study or view) increased by `step`.
    """
    first = getattr(spec, key)
    for number in range(first, first + MAX_TRIES * step, step):
        current: Spec = replace(spec, **{key: number})  # type: ignore[arg-type]
        if not frames_every_region(current):
            continue
        rendered = render(current)
        if rendered.polygons or not spec.fracture:
            return rendered
    raise AssertionError(f"{spec} shows no fracture, nor do the {MAX_TRIES - 1} after it by {key}")
