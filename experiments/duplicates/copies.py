"""Altered copies of images, planted so that they can be counted."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from fracnet.data.image_io import BadImage, read_grey
from fracnet.data.phantoms.render import REGIONS, Spec, render
from fracnet.data_audit.near_duplicates import Pair, clusters

KINDS = (
    "rotation",
    "shear",
    "horizontal flip",
    "vertical flip",
    "crop",
    "gain",
    "gamma",
    "clahe",
    "window",
    "inversion",
    "noise",
    "blur",
    "text",
    "padding",
    "quarter turn",
    "downscaling",
    "side by side",
    "jpeg",
)


def _triples(rounds: int) -> list[tuple[str, ...]]:
    """Triples in random order; each kind is in `rounds` of them."""
    rng = np.random.default_rng(0)
    dealt = [rng.permutation(len(KINDS)).reshape(-1, 3) for _ in range(rounds)]
    return [tuple(KINDS[i] for i in triple) for triples in dealt for triple in triples]


SINGLES: list[tuple[str, ...]] = [(kind,) for kind in KINDS]
TRIPLES = _triples(12)
RECIPES = [*SINGLES, *TRIPLES]


@dataclass
class Planted:
    """Images; origins: what each shows, which an image shares with its copies (two with two images
    side by side). recipes: () for an original.
    """

    images: list[np.ndarray]
    origins: list[frozenset[str]]
    recipes: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class SearchResult:
    """recall: share of planted copies paired with an original. precision: share of pairs with one
    origin. by_recipe: (detected, planted) of single alterations; by_kind: the same in triples.
    """

    copies: int
    recall: float
    by_cluster: float
    pairs: int
    precision: float
    by_recipe: dict[str, tuple[int, int]]
    by_kind: dict[str, tuple[int, int]]
    missed: list[int]
    false: list[Pair]


def altered(
    image: np.ndarray,
    recipe: Sequence[str],
    rng: np.random.Generator,
    other: np.ndarray | None = None,
) -> np.ndarray:
    """A copy: one alteration after the other, then JPEG of quality 40 to 90.

    other: the second image of `side by side`; by default the mirrored left half.
    """
    # Corners that a rotation opens are black, or smeared from the edge.
    fill = cv2.BORDER_REPLICATE if rng.random() < 0.25 else cv2.BORDER_CONSTANT
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
        elif kind == "quarter turn":
            image = np.rot90(image, rng.integers(1, 4))
        elif kind == "crop":
            image = _cropped(image, rng)
        elif kind == "padding":
            side = max(height, width)
            canvas = np.zeros((side, side), np.uint8)
            y, x = (side - height) // 2, (side - width) // 2
            canvas[y : y + height, x : x + width] = image
            image = canvas
        elif kind == "downscaling":
            small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
            image = small if rng.random() < 0.5 else cv2.resize(small, (width, height))
        elif kind == "side by side":
            image = _side_by_side(
                image, image[:, : width // 2][:, ::-1] if other is None else other, rng
            )
        elif kind == "text":
            image = _labeled(image, rng)
        elif kind in ("noise", "blur"):
            image = _degraded(image, kind, rng)
        elif kind == "jpeg":
            image = _recompressed(image, int(rng.integers(20, 51)))
        else:
            image = _toned(image, kind, rng)
        image = np.ascontiguousarray(image)
    return _recompressed(image, int(rng.integers(40, 91)))


def _recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def _cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keeps 60 to 95 % of each side; half of the copies are enlarged to the original size."""
    height, width = image.shape
    share = rng.uniform(0.6, 0.95)
    tall, wide = round(share * height), round(share * width)
    y, x = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    image = image[y : y + tall, x : x + wide]
    return cv2.resize(image, (width, height)) if rng.random() < 0.5 else image


def _toned(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Another tone curve: gain 0.2 to 4, gamma 0.4 to 2.5, a contrast window, CLAHE, inversion."""
    if kind == "inversion":
        return np.asarray(255 - image)
    if kind == "clahe":
        return cv2.createCLAHE(float(rng.uniform(2, 4)), (8, 8)).apply(image)
    values = image / 255
    if kind == "gain":
        values = values * np.exp(rng.uniform(np.log(0.2), np.log(4)))
    elif kind == "gamma":
        values = values ** np.exp(rng.uniform(np.log(0.4), np.log(2.5)))
    else:
        assert kind == "window", kind
        inside = image[image > 8] if (image > 8).any() else image
        low, high = np.quantile(inside, [rng.uniform(0, 0.25), rng.uniform(0.75, 1)]) / 255
        values = (values - low) / max(high - low, 0.05)
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def _degraded(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind == "blur":  # of 1 to 3 pixels in an image of 512
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(1, 3) * max(image.shape) / 512)
    noisy = image + rng.normal(0, rng.uniform(5, 20), image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _labeled(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three lines of burned-in text, half of them in a black box."""
    image = image.copy()
    height, width = image.shape
    for _ in range(rng.integers(1, 4)):
        text = "".join(rng.choice(list("ABCDEFGHLR 0123456789:/"), rng.integers(4, 16)))
        scale = rng.uniform(0.5, 1.2) * max(height, width) / 512
        thick = max(1, round(2 * scale))
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        x, y = rng.integers(max(1, width - w)), h + rng.integers(max(1, height - h))
        if rng.random() < 0.5:
            cv2.rectangle(image, (int(x), int(y - h)), (int(x + w), int(y + h // 3)), 0, -1)
        place = (int(x), int(y))
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    return image


def _side_by_side(image: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Both at one height, in random order."""
    scale = len(image) / len(other)
    wide = max(1, round(other.shape[1] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pictures = [image, cv2.resize(other, (wide, len(image)), interpolation=method)]
    return np.hstack(pictures if rng.random() < 0.5 else pictures[::-1])


def plant(
    originals: Iterable[tuple[str, np.ndarray, int]], seed: int, recipes: Iterable | None = None
) -> Planted:
    """All originals (origin, image, number of copies), then their copies by recipes in turn."""
    rng = np.random.default_rng(seed)
    sources = list(originals)
    cycle = itertools.cycle(recipes or RECIPES)
    images = [image for _, image, _ in sources]
    origins = [frozenset([origin]) for origin, _, _ in sources]
    applied: list[tuple[str, ...]] = [()] * len(sources)
    for place, (origin, image, number) in enumerate(sources):
        for _ in range(number):
            recipe = next(cycle)
            step = int(rng.integers(1, max(2, len(sources))))
            partner, other, _ = sources[(place + step) % len(sources)]
            images.append(altered(image, recipe, rng, other))
            origins.append(frozenset([origin, partner] if "side by side" in recipe else [origin]))
            applied.append(recipe)
    return Planted(images, origins, applied)


def score_search(planted: Planted, pairs: Sequence[Pair]) -> SearchResult:
    """Recall and precision of a search for the planted copies."""
    joined = {(pair.a, pair.b) for pair in pairs}
    group = clusters(pairs, len(planted))
    originals = [i for i, recipe in enumerate(planted.recipes) if not recipe]
    copies = [i for i, recipe in enumerate(planted.recipes) if recipe]
    images_of: dict[str, list[int]] = {}
    for i in originals:
        images_of.setdefault(*planted.origins[i], []).append(i)  # type: ignore[misc]
    # Of two images side by side, both must be detected.
    of = {i: [images_of[origin] for origin in planted.origins[i]] for i in copies}
    hit = {i: all(any((j, i) in joined for j in rows) for rows in of[i]) for i in copies}
    near = [all(any(group[i] == group[j] for j in rows) for rows in of[i]) for i in copies]
    false = [pair for pair in pairs if not planted.origins[pair.a] & planted.origins[pair.b]]
    by_recipe: dict[str, Counter[bool]] = {}
    by_kind: dict[str, Counter[bool]] = {}
    for i in copies:
        recipe = planted.recipes[i]
        for kind in recipe:
            counts = by_recipe if len(recipe) == 1 else by_kind
            counts.setdefault(kind, Counter())[hit[i]] += 1
    return SearchResult(
        copies=len(copies),
        recall=float(np.mean(list(hit.values()))),
        by_cluster=float(np.mean(near)),
        pairs=len(pairs),
        precision=1 - len(false) / max(1, len(pairs)),
        by_recipe={kind: (count[True], count.total()) for kind, count in by_recipe.items()},
        by_kind={kind: (count[True], count.total()) for kind, count in by_kind.items()},
        missed=[i for i in copies if not hit[i]],
        false=false,
    )


def radiographs(root: Path, held_out: bool | None = None) -> list[tuple[str, np.ndarray]]:
    """(origin, image) of the FracAtlas sample's readable images.

    held_out: only the half that thresholds were chosen on (False) or the other half (True). Images
    with the same pixels have one origin. Large images are reduced to 1024 pixels to save time.
    """
    seen_bytes: dict[bytes, str] = {}
    images = []
    for place, path in enumerate(sorted(root.glob("images/*/*.jpg"), key=lambda path: path.name)):
        if held_out is not None and bool(place // 10 % 2) != held_out:
            continue
        try:
            image = read_grey(path)
        except BadImage:  # six are truncated
            continue
        origin = seen_bytes.setdefault(image.tobytes(), path.name)
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
