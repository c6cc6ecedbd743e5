"""Choosing and showing a scene's fractures: places that the view really shows."""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data.phantom.display import RADIUS, Film
from fracnet.data.phantom.fracture import Break, outline
from fracnet.data.phantom.framing import Framing
from fracnet.data.phantom.layers import Layer
from fracnet.data.phantom.regions import Scene
from fracnet.data.phantom.space import Array, Camera

SECOND = 0.2  # share of injured views with a second bone broken
STEP = 14  # grey levels by which a pixel must change to count as visibly changed
PIXELS = 60  # visibly changed pixels that make a fracture visible
TRIES = 120


@dataclass(frozen=True)
class Injury:
    """A fracture shown: its manner, outline [k, 2] in pixels, and how the image changes.

    place: slices of the image; changed: mask there of the pixels that a change reaches; grey: the
    new grey levels there; attenuation: likewise.
    """

    bone: str
    kind: str
    polygon: Array
    place: tuple[slice, slice]
    changed: Array
    grey: Array
    attenuation: Array
    visible: int

    def develop(self, image: Array) -> None:
        """Writes the new grey levels into the image, and nothing else."""
        here = image[self.place]
        here[self.changed] = self.grey[self.changed]


def injure(
    rng: np.random.Generator,
    scene: Scene,
    camera: Camera,
    framing: Framing,
    film: Film,
    layers: dict[str, Layer],
    intact: Array,
) -> tuple[Array, list[Injury]]:
    """The image with its fractures, one or two, each of another bone.

    Sites are tried in the study's order until one shows; where none shows well, the best is taken.
    """
    wanted = 1 + int(rng.random() < SECOND)
    injuries: list[Injury] = []
    image, shown = film.image.copy(), intact.copy()
    best: Injury | None = None
    for attempt in range(TRIES):
        site = scene.sites[int(rng.integers(len(scene.sites)))]
        along, kind = float(rng.uniform(site.low, site.high)), str(rng.choice(site.kinds))
        own = np.random.Generator(np.random.Philox(int(rng.integers(2**63))))
        if site.bone not in layers or site.bone in {one.bone for one in injuries}:
            continue
        hurt = Break.draw(own, kind, scene.body.bone(site.bone).shaft, along, camera)
        margin = 0.8 * hurt.reach * camera.scale if attempt < TRIES // 2 else 0.0
        if not framing.sees(hurt.middle, margin):
            continue
        found = show(hurt, site.bone, layers[site.bone], camera, film, shown)
        if found is None:
            continue
        if found.visible >= PIXELS:
            injuries.append(found)
            found.develop(image)
            shown[found.place] = found.attenuation
            if len(injuries) == wanted or attempt > TRIES // 2:
                break
        elif best is None or found.visible > best.visible:
            best = found
    if not injuries and best is not None:
        injuries.append(best)
        best.develop(image)
    return image, injuries


def show(
    hurt: Break, bone: str, layer: Layer, camera: Camera, film: Film, shown: Array
) -> Injury | None:
    """What a fracture of that bone changes on top of `shown`; None when it changes nothing."""
    broken, window = hurt.apply(layer, camera.scale)
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
    place = np.s_[b:d, a:c]
    here = np.s_[y0 : y0 + h, x0 : x0 + w]
    after = shown.copy()
    mineral = film.exposure.mineral
    # Where the planes agree the difference is exactly zero, and so the sum exactly `shown`.
    after[here] += mineral(broken, here) - mineral(before, here)
    spread = np.zeros((d - b, c - a), np.uint8)
    spread[y0 - b : y0 - b + h, x0 - a : x0 - a + w] = changed
    reached = cv2.dilate(spread, np.ones((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8)) > 0
    old, grey = film.grey(shown, (a, b, c, d)), film.grey(after, (a, b, c, d))
    step = np.abs(grey.astype(np.int16) - old) >= STEP
    visible = int((step & reached).sum())
    return Injury(bone, hurt.kind, polygon, place, reached, grey, after[place], visible)
