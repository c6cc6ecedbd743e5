"""Altered copies of images, planted where they can be counted."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from fracnet.data.image_io import BadImage, read_grey
from fracnet.data.phantoms.render import REGIONS, Spec, render
from fracnet.data_audit.near_duplicates import Pair, clusters

KINDS = ("rotation", "shear", "horizontal flip", "vertical flip", "crop", "gain", "jpeg")
RECIPES = [*((kind,) for kind in KINDS), *itertools.combinations(KINDS, 2)]


@dataclass
class Planted:
    """Images; origin: the same for an image and all copies of it. recipe: () for an original."""

    images: list[np.ndarray]
    origins: list[str]
    recipes: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Found:
    """recall: of the planted copies, paired with an original. precision: of the pairs, those that
    have one origin. by_kind: (found, planted) of each alteration, alone or not.
    """

    copies: int
    recall: float
    by_cluster: float
    pairs: int
    precision: float
    by_kind: dict[str, tuple[int, int]]
    missed: list[int]
    false: list[Pair]


def altered(image: np.ndarray, recipe: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """A copy, one alteration after the other; the last JPEG compression is of quality 40 to 90."""
    # Corners that a rotation opens are black, or smeared from the edge.
    fill = cv2.BORDER_REPLICATE if rng.random() < 0.25 else cv2.BORDER_CONSTANT
    quality = 90
    for kind in recipe:
        height, width = image.shape
        if kind == "rotation":
            angle = float(rng.uniform(3, 15) * rng.choice([-1, 1]))
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
            image = cv2.warpAffine(image, turn, (width, height), borderMode=fill)
        elif kind == "shear":
            x, y = np.tan(np.radians(rng.uniform(-15, 15, 2)))
            slant = np.array([[1, x, -x * height / 2], [y, 1, -y * width / 2]])
            image = cv2.warpAffine(image, slant, (width, height), borderMode=fill)
        elif kind == "horizontal flip":
            image = image[:, ::-1]
        elif kind == "vertical flip":
            image = image[::-1]
        elif kind == "crop":
            image = _cropped(image, rng)
        elif kind == "gain":
            gain = rng.uniform(0.7, 0.9) if rng.random() < 0.5 else rng.uniform(1.1, 1.4)
            image = np.clip(np.rint(image * gain), 0, 255).astype(np.uint8)
        else:
            assert kind == "jpeg", kind
            quality = int(rng.integers(40, 76))
        image = np.ascontiguousarray(image)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def _cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keeps 80 to 95 % of each side; half of the copies are enlarged to the old size."""
    height, width = image.shape
    kept = rng.uniform(0.8, 0.95)
    tall, wide = round(kept * height), round(kept * width)
    y, x = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    image = image[y : y + tall, x : x + wide]
    return cv2.resize(image, (width, height)) if rng.random() < 0.5 else image


def plant(
    originals: Iterable[tuple[str, np.ndarray, int]], seed: int, recipes: Iterable | None = None
) -> Planted:
    """(origin, image, number of copies): all originals, then their copies by recipes in turn."""
    rng = np.random.default_rng(seed)
    given = list(originals)
    turn: Iterator = itertools.cycle(recipes or RECIPES)
    images = [image for _, image, _ in given]
    origins = [origin for origin, _, _ in given]
    done: list[tuple[str, ...]] = [()] * len(given)
    for origin, image, number in given:
        for _ in range(number):
            recipe = next(turn)
            images.append(altered(image, recipe, rng))
            origins.append(origin)
            done.append(recipe)
    return Planted(images, origins, done)


def judge(planted: Planted, pairs: Sequence[Pair]) -> Found:
    """How much of what was planted is found, and whether anything else is."""
    joined = {(pair.a, pair.b) for pair in pairs}
    group = clusters(pairs, len(planted))
    first: dict[str, list[int]] = {}
    for i, (origin, recipe) in enumerate(zip(planted.origins, planted.recipes, strict=True)):
        if not recipe:
            first.setdefault(origin, []).append(i)
    copies = [i for i, recipe in enumerate(planted.recipes) if recipe]
    hit = {i: any((j, i) in joined for j in first[planted.origins[i]]) for i in copies}
    near = [any(group[i] == group[j] for j in first[planted.origins[i]]) for i in copies]
    false = [pair for pair in pairs if planted.origins[pair.a] != planted.origins[pair.b]]
    made, found = Counter[str](), Counter[str]()
    for i in copies:
        made.update(planted.recipes[i])
        found.update(planted.recipes[i] if hit[i] else ())
    return Found(
        copies=len(copies),
        recall=float(np.mean(list(hit.values()))),
        by_cluster=float(np.mean(near)),
        pairs=len(pairs),
        precision=1 - len(false) / max(1, len(pairs)),
        by_kind={kind: (found[kind], made[kind]) for kind in KINDS if made[kind]},
        missed=[i for i in copies if not hit[i]],
        false=false,
    )


def radiographs(root: Path, held_out: bool | None = None) -> list[tuple[str, np.ndarray]]:
    """(origin, image) of the FracAtlas sample's readable images.

    held_out: only the half on which thresholds were chosen (False) or the other one (True). Images
    of the same pixels have one origin. The largest are reduced to 1024 pixels, for time and memory.
    """
    known: dict[bytes, str] = {}
    found = []
    for place, path in enumerate(sorted(root.glob("images/*/*.jpg"), key=lambda one: one.name)):
        if held_out is not None and bool(place // 10 % 2) != held_out:
            continue
        try:
            image = read_grey(path)
        except BadImage:  # six are truncated
            continue
        origin = known.setdefault(image.tobytes(), path.name)
        scale = 1024 / max(image.shape)
        if scale < 1:
            image = np.asarray(
                cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            )
        found.append((origin, image))
    return found


@cache
def phantom(number: int) -> np.ndarray:
    """One of some different phantoms, uint8; the same array each time, so write to a copy."""
    region = REGIONS[number % len(REGIONS)]
    image = np.asarray(render(Spec(region, 50, number, 0, number % 3, False)).image)
    image.setflags(write=False)
    return image
