"""One image from its identifiers: pose, project, expose, break.

What names one phantom image, and the random streams that follow from the names.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fracnet.data.phantoms.anatomy import POSES, PROJECTIONS, Build
from fracnet.data.phantoms.fractures import Injury, injure
from fracnet.data.phantoms.geometry import Array
from fracnet.data.phantoms.implants import hardware
from fracnet.data.phantoms.xray import Exposure, Film, Framing, flesh, paint

# Raised whenever the pixels of an unchanged Spec change.
VERSION = 1

REGIONS = ("elbow", "fingers", "forearm", "hand", "humerus", "shoulder", "wrist")

_STREAMS = (
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
    hardware, place and manner of the fracture. view: projection, rotation, framing; views count
    from 0: frontal, lateral, oblique, frontal again. fracture: whether the fracture is shown;
    nothing else depends on it.
    """

    region: str
    seed: int = 0
    patient: int = 0
    study: int = 0
    view: int = 0
    fracture: bool = False

    def __post_init__(self) -> None:
        assert self.region in REGIONS, f"region {self.region!r} is not one of {REGIONS}"
        assert min(self.seed, self.patient, self.study, self.view) >= 0

    def stream(self, name: str) -> np.random.Generator:
        """A generator of its own for one purpose, so that no draw shifts another purpose's.

        The region is no part of any key: it enters only where anatomy is built, so that scenery
        (noise, exposure, display) is drawn alike, draw by draw, for all regions.
        """
        key = {
            "patient": (self.patient,),
            "study": (self.patient, self.study),
            "fracture": (self.patient, self.study),
            "exposure": (self.patient, self.study),
            "hardware": (self.patient, self.study),
        }.get(name, (self.patient, self.study, self.view))
        words = np.random.SeedSequence([self.seed, _STREAMS.index(name), len(key), *key])
        return np.random.Generator(np.random.Philox(words))


# An intact and a broken rendering of equal identifiers are equal, pixel by pixel, farther than
# this many pixels from every polygon (point spread of the detector and rounding of the outline).
DILATION = 5

# Specs tried until one frames a place that can break; about one in 500 does not.
TRIES = 20


@dataclass(frozen=True)
class Rendered:
    """image uint8 [H, W]; polygons: arrays [k, 2] of (x, y) in 0..1, one for each fracture shown;
    info: what was drawn (projection, side, kinds, bones in view, hardware), plain values.
    """

    image: Array
    polygons: list[Array]
    info: dict[str, Any] = field(default_factory=dict)


def render(spec: Spec) -> Rendered:
    """Draws the image that `spec` names."""
    build = Build.draw(spec.stream("patient"))
    projection = PROJECTIONS[spec.view % len(PROJECTIONS)]
    framing = Framing.draw(spec.stream("display"), spec.stream("study"))
    scene = POSES[spec.region](build, spec.stream("view"), projection)
    camera = framing.camera(scene, build.size)
    exposure = Exposure.draw(spec.stream("exposure"), spec.stream("noise"), camera, build)
    intact = exposure.soft * flesh(scene.body, camera)
    metal, kind = hardware(spec.stream("hardware"), scene.body, camera, framing)
    if metal is not None:
        intact += metal
    layers = {bone.name: layer for bone in scene.body.bones if (layer := paint(bone, camera))}
    for layer in layers.values():
        intact[layer.here] += exposure.mineral(layer.planes, layer.here)
    film = Film(exposure, intact, framing.overlay())
    image = film.image
    injuries: list[Injury] = []
    if spec.fracture:
        rng = spec.stream("fracture")
        image, injuries = injure(rng, scene, camera, framing, film, layers, intact)
    size = np.array([camera.width, camera.height], dtype=np.float64)
    polygons = [np.clip((injury.polygon + 0.5) / size, 0.0, 1.0) for injury in injuries]
    info = {
        "projection": projection,
        "side": framing.side,
        "hardware": kind,
        "kinds": [injury.kind for injury in injuries],
        "visible": [injury.visible for injury in injuries],
        "bones": sorted(name for name, layer in layers.items() if layer.planes[..., 0].any()),
    }
    return Rendered(image, polygons, info)


def render_shown(spec: Spec, key: str, step: int) -> Rendered:
    """The image of a spec; where its frame leaves no place for its fracture, of the next.

    The next spec has that identifier (study or view) raised by `step`.
    """
    first = getattr(spec, key)
    for number in range(first, first + TRIES * step, step):
        drawn = render(replace(spec, **{key: number}))  # type: ignore[arg-type]
        if drawn.polygons or not spec.fracture:
            return drawn
    raise AssertionError(f"{spec} shows no fracture, nor do the {TRIES - 1} after it by {key}")
