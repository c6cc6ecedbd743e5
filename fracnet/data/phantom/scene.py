"""One image from its identifiers: pose, project, expose, break."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fracnet.data.phantom.body import Build
from fracnet.data.phantom.display import Exposure, Film
from fracnet.data.phantom.framing import Framing
from fracnet.data.phantom.hardware import hardware
from fracnet.data.phantom.injury import Injury, injure
from fracnet.data.phantom.layers import flesh, paint
from fracnet.data.phantom.regions import POSES, PROJECTIONS
from fracnet.data.phantom.space import Array
from fracnet.data.phantom.spec import Spec

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
