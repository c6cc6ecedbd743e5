"""All pairs of copies in a set of images: the same file, the same pixels, or altered copies.

An altered copy is a picture turned over, rotated, sheared, cropped, enlarged, brightened or
compressed anew. Another view of the same patient is none, nor are two exposures of one pose.

Which images may be copies of each other: nearest neighbors by one short vector an image.

Key points are counted into the words of a codebook that is fitted on the set's own images, as a
vector of locally aggregated descriptors (VLAD: Jegou et al., CVPR 2010). The vector of an image in
a mirror follows from permuted descriptors. All products go in blocks, so memory grows with the
number of images, not with its square.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from fracnet.data.image_io import single_threaded
from fracnet.data_audit.keypoints import (
    Affine,
    Features,
    Floats,
    Grey,
    describe,
    inverse,
    mirrored_descriptors,
    rooted,
)
from fracnet.data_audit.pixel_match import verified
from fracnet.utils.progress import Progress, no_progress

WORDS = 64
DESCRIPTOR = 48  # principal components kept of a descriptor
VECTOR = 256  # of the whole image
ROUNDS = 12  # of k-means

# Images that the codebook is fitted on, and their descriptors.
FITTED_IMAGES, FITTED_DESCRIPTORS = 500, 60_000
NEIGHBORS = 8  # asked of each image and, once more, of its mirror image
BLOCK = 1024


@dataclass(frozen=True)
class Codebook:
    """Turns the descriptors of one image into a unit vector float32 [<= VECTOR].

    mean [128], axes [128, d]: principal components of descriptors. words [WORDS, d]. center
    [WORDS * d], shrink [WORDS * d, v]: of the aggregated vector to the final one.
    """

    mean: Floats
    axes: Floats
    words: Floats
    center: Floats
    shrink: Floats

    @classmethod
    def fit(cls, images: Sequence[Features]) -> "Codebook":
        """From images and their mirror images; what it is does not depend on their order."""
        chosen = sorted(images, key=lambda image: image.digest)[:FITTED_IMAGES]
        sets = [image.descriptors for image in chosen]
        sets += [mirrored_descriptors(one) for one in sets]
        stacked = np.concatenate(sets)
        assert len(stacked), "no image has a key point"
        step = -(-len(stacked) // FITTED_DESCRIPTORS)
        sample = rooted(stacked[::step])
        mean = sample.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov(sample - mean, rowvar=False, bias=True))
        axes = np.ascontiguousarray(vectors[:, : -DESCRIPTOR - 1 : -1], np.float32)
        words = _k_means((sample - mean) @ axes)
        known = np.stack([_aggregate(one, mean, axes, words) for one in sets])
        center = known.mean(axis=0)
        return cls(mean, axes, words, center, _shrinking(known - center))

    def __call__(self, descriptors: np.ndarray) -> Floats:
        """The vector of one image's descriptors uint8 [K, 128]; zero where there are none."""
        if not len(descriptors):
            return np.zeros(self.shrink.shape[1], np.float32)
        found = _aggregate(descriptors, self.mean, self.axes, self.words)
        return _unit((found - self.center) @ self.shrink)


def nearest(plain: Floats, turned: Floats, start: int) -> list[tuple[int, int, bool]]:
    """(image, neighbor, whether mirrored) of the images from `start` on, one block of them.

    plain, turned: float32 [N, v], vectors of all images and of their mirror images. Neighbors come
    in no order; a pair may be found from both sides.
    """
    rows = np.arange(start, min(start + BLOCK, len(plain)))
    found = []
    for others, is_mirrored in ((plain, False), (turned, True)):
        alike = plain[rows] @ others.T
        alike[np.arange(len(rows)), rows] = -np.inf
        n = min(NEIGHBORS, len(plain) - 1)
        best = np.argpartition(-alike, n - 1, axis=1)[:, :n] if n else np.empty((len(rows), 0), int)
        for row, columns in zip(rows.tolist(), best.tolist(), strict=True):
            found += [(row, column, is_mirrored) for column in columns]
    return found


def _aggregate(descriptors: np.ndarray, mean: Floats, axes: Floats, words: Floats) -> Floats:
    """Sum, for each word, of the unit residuals of its descriptors; square-rooted, of length 1."""
    if not len(descriptors):
        return np.zeros(words.size, np.float32)
    values = (rooted(descriptors) - mean) @ axes
    own = _nearest_word(values, words)
    away = _unit(values - words[own])
    member = (own[:, None] == np.arange(len(words))).astype(np.float32)
    total = (member.T @ away).ravel()
    return _unit(np.sign(total) * np.sqrt(np.abs(total)))


def _nearest_word(values: np.ndarray, words: np.ndarray) -> np.ndarray:
    return np.asarray((values @ words.T - 0.5 * (words * words).sum(axis=1)).argmax(axis=1))


def _k_means(values: np.ndarray) -> Floats:
    """Lloyd's rounds from evenly spaced values: no chance and no threads in it."""
    words = values[np.linspace(0, len(values) - 1, WORDS).astype(int)].copy()
    for _ in range(ROUNDS):
        own = _nearest_word(values, words)
        member = (own == np.arange(WORDS)[:, None]).astype(np.float32)
        count = member.sum(axis=1, keepdims=True)
        used = count[:, 0] > 0
        words[used] = (member @ values / np.maximum(count, 1))[used]
    return np.ascontiguousarray(words, np.float32)


def _shrinking(known: Floats) -> Floats:
    """Principal components [m, v] of centered vectors [n, m], halfway to equal variance.

    By way of the n x n products: there are fewer images than dimensions.
    """
    values, vectors = np.linalg.eigh((known @ known.T).astype(np.float64))
    values, vectors = values[::-1][:VECTOR], vectors[:, ::-1][:, :VECTOR]
    kept = values > 1e-6 * max(values[0], 1e-12)
    values, vectors = values[kept], vectors[:, kept]
    axes = known.T @ (vectors / np.sqrt(values))
    return np.asarray(axes / (values / len(known)) ** 0.25, np.float32)


def _unit(values: np.ndarray) -> Floats:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-9), np.float32)


Kind = Literal["same bytes", "same pixels", "copy"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Pair:
    """Two images, a < b, of which one is made from the other or both from a third.

    transform: float64 [2, 3], from pixels (x, y) of `a` to pixels of `b`, a mirror included; None
    where the pixels are the same. mirrored: whether one is turned over. score: 0 to 1, how well
    the pixels agree.
    """

    a: int
    b: int
    kind: Kind
    transform: Affine | None = None
    mirrored: bool = False
    score: float = 1.0


def find_duplicates(
    images: Callable[[int], Grey | None],
    n: int,
    *,
    files: Sequence[Path] | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> list[Pair]:
    """All pairs of copies among n images, by (a, b).

    images(i): the uint8 pixels [H, W] of image i, whole and as they lie in the file; None leaves it
    out. It is called once for each image, from `workers` threads (default: one per CPU at hand) in
    any order. files: tells the same bytes from the same pixels. progress: passes on what goes by, for a
    progress bar.

    Of m images with the same pixels, m - 1 pairs with the first one are listed; that one stands for
    all of them in other pairs. Copies are sought among the nearest neighbors of each image, so of
    many copies of one image not every pair is listed, but `clusters` joins them.

    The result depends on the pixels alone: not on workers, time or chance. In another order of the
    images the same pairs are found.
    """
    single_threaded()
    with threadpool_limits(1):
        pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
        try:
            found = _run(
                pool, lambda i: _described(images, i), range(n), progress, "look at images"
            )
            described = {i: one for i, one in enumerate(found) if one is not None}
            pairs, unique = _same_pixels(described, files)
            pairs += _copies(pool, unique, progress)
        finally:
            pool.shutdown(cancel_futures=True)
    return sorted(pairs, key=lambda pair: (pair.a, pair.b))


def clusters(pairs: Iterable[Pair], n: int) -> npt.NDArray[np.int64]:
    """int64 [n]: the lowest image that each image is joined with, over any number of pairs."""
    lowest = list(range(n))

    def root(i: int) -> int:
        while lowest[i] != i:
            lowest[i] = lowest[lowest[i]]
            i = lowest[i]
        return i

    for pair in pairs:
        low, high = sorted((root(pair.a), root(pair.b)))
        lowest[high] = low
    return np.array([root(i) for i in range(n)], np.int64)


def _described(images: Callable[[int], Grey | None], i: int) -> Features | None:
    image = images(i)
    return None if image is None else describe(image)


def _same_pixels(
    described: dict[int, Features], files: Sequence[Path] | None
) -> tuple[list[Pair], dict[int, Features]]:
    """Pairs of equal pixels, and the first image of each kind of pixels."""
    alike = defaultdict(list)
    for i, features in described.items():
        alike[features.digest].append(i)
    pairs = []
    for first, *others in alike.values():
        data = files[first].read_bytes() if files is not None and others else None
        for other in others:
            same = files is not None and files[other].read_bytes() == data
            pairs.append(Pair(first, other, "same bytes" if same else "same pixels"))
    return pairs, {group[0]: described[group[0]] for group in alike.values()}


def _copies(
    pool: ThreadPoolExecutor, unique: dict[int, Features], progress: Progress
) -> list[Pair]:
    """Pairs of altered copies among images of different pixels."""
    rows = list(unique)
    features = list(unique.values())
    if not any(len(one.points) for one in features):
        return []
    codebook = Codebook.fit(features)

    def embedded(one: Features) -> tuple[np.ndarray, np.ndarray]:
        return codebook(one.descriptors), codebook(mirrored_descriptors(one.descriptors))

    vectors = list(_run(pool, embedded, features, progress, "sort images"))
    plain, turned = (np.stack(both) for both in zip(*vectors, strict=True))
    blocks = pool.map(lambda at: nearest(plain, turned, at), range(0, len(rows), BLOCK))
    asked = sorted({(min(i, j), max(i, j), flag) for block in blocks for i, j, flag in block})

    def judged(one: tuple[int, int, bool]) -> Pair | None:
        i, j, is_mirrored = one
        return _judged(rows[i], rows[j], unique, is_mirrored)

    best: dict[tuple[int, int], Pair] = {}
    for pair in _run(pool, judged, asked, progress, "compare images"):
        if pair is not None:
            known = best.get((pair.a, pair.b))
            if known is None or pair.score > known.score:
                best[pair.a, pair.b] = pair
    return list(best.values())


def _judged(i: int, j: int, unique: dict[int, Features], is_mirrored: bool) -> Pair | None:
    # Which one is laid over the other follows from their pixels, not from their places.
    turned = unique[i].digest > unique[j].digest
    a, b = (j, i) if turned else (i, j)
    found = verified(unique[a], unique[b], is_mirrored)
    if found is None:
        return None
    transform = inverse(found.transform) if turned else found.transform
    return Pair(i, j, "copy", transform, is_mirrored, found.score)


def _run(
    pool: ThreadPoolExecutor,
    work: Callable[[T], R],
    items: Sequence[T],
    progress: Progress,
    description: str,
) -> Iterable[R]:
    """Results of `work`, in the order of `items`."""
    return progress(pool.map(work, items), len(items), description)
