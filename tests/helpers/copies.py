"""Altered copies of images, planted so that they can be counted."""

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
    """Images; origins: the same for an image and all its copies. recipes: () for an original."""

    images: list[np.ndarray]
    origins: list[str]
    recipes: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class SearchResult:
    """recall: share of planted copies paired with an original. precision: share of pairs with one
    origin. by_kind: (found, planted) of each alteration, alone or combined.
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
    """A copy: one alteration after the other, then JPEG of quality 40 to 90."""
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
    """Keeps 80 to 95 % of each side; half of the copies are enlarged to the original size."""
    height, width = image.shape
    share = rng.uniform(0.8, 0.95)
    tall, wide = round(share * height), round(share * width)
    y, x = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    image = image[y : y + tall, x : x + wide]
    return cv2.resize(image, (width, height)) if rng.random() < 0.5 else image


def plant(
    originals: Iterable[tuple[str, np.ndarray, int]], seed: int, recipes: Iterable | None = None
) -> Planted:
    """All originals (origin, image, number of copies), then their copies by recipes in turn."""
    rng = np.random.default_rng(seed)
    sources = list(originals)
    cycle: Iterator = itertools.cycle(recipes or RECIPES)
    images = [image for _, image, _ in sources]
    origins = [origin for origin, _, _ in sources]
    applied: list[tuple[str, ...]] = [()] * len(sources)
    for origin, image, number in sources:
        for _ in range(number):
            recipe = next(cycle)
            images.append(altered(image, recipe, rng))
            origins.append(origin)
            applied.append(recipe)
    return Planted(images, origins, applied)


def score_search(planted: Planted, pairs: Sequence[Pair]) -> SearchResult:
    """How many planted copies were found, and whether anything else was."""
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
    n_planted, n_found = Counter[str](), Counter[str]()
    for i in copies:
        n_planted.update(planted.recipes[i])
        n_found.update(planted.recipes[i] if hit[i] else ())
    return SearchResult(
        copies=len(copies),
        recall=float(np.mean(list(hit.values()))),
        by_cluster=float(np.mean(near)),
        pairs=len(pairs),
        precision=1 - len(false) / max(1, len(pairs)),
        by_kind={kind: (n_found[kind], n_planted[kind]) for kind in KINDS if n_planted[kind]},
        missed=[i for i in copies if not hit[i]],
        false=false,
    )


def radiographs(root: Path, held_out: bool | None = None) -> list[tuple[str, np.ndarray]]:
    """(origin, image) of the FracAtlas sample's readable images.

    held_out: only the half that thresholds were chosen on (False) or the other half (True). Images
    with the same pixels have one origin. Large images are reduced to 1024 pixels to save time.
    """
    known: dict[bytes, str] = {}
    images = []
    for place, path in enumerate(sorted(root.glob("images/*/*.jpg"), key=lambda path: path.name)):
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
        images.append((origin, image))
    return images


@cache
def phantom(number: int) -> np.ndarray:
    """A phantom, uint8; the same read-only array each time."""
    region = REGIONS[number % len(REGIONS)]
    image = np.asarray(render(Spec(region, 50, number, 0, number % 3, False)).image)
    image.setflags(write=False)
    return image
