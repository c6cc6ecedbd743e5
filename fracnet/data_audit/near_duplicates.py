"""All pairs of copies in a set of images: the same file, the same pixels, or altered copies.

An altered copy is a flipped, rotated, sheared, cropped, enlarged, brightened or recompressed image.
Another view of the same patient is not a copy, nor is a second exposure of the same pose.

Candidates are nearest neighbors by one short vector per image: key points are counted into the
centroids of a codebook that is fitted on the set's own images, as a vector of locally aggregated
descriptors (VLAD: Jegou et al., CVPR 2010). The vector of the mirror image follows from permuted
descriptors. Products are computed in blocks, so memory grows with the number of images, not with
its square.
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

from fracnet.data.image_io import limit_opencv_threads
from fracnet.data_audit.keypoints import (
    Affine,
    Features,
    Floats,
    Grey,
    describe,
    invert,
    mirrored_descriptors,
    root_sift,
)
from fracnet.data_audit.pixel_match import verify
from fracnet.utils.progress import Progress, no_progress

CENTROIDS = 64
DESCRIPTOR = 48  # principal components of a descriptor
VECTOR = 256  # dimensions of an image's vector
ROUNDS = 12  # of k-means
FITTED_IMAGES, FITTED_DESCRIPTORS = 500, 60_000  # the codebook is fitted on
NEIGHBORS = 8  # of each image, and as many of its mirror image
BLOCK = 1024  # rows of a product

Kind = Literal["same bytes", "same pixels", "copy"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Pair:
    """Two images, a < b: one was made from the other, or both from a third.

    transform: float64 [2, 3], from pixels (x, y) of `a` to pixels of `b`, including a mirror; None
    where the pixels are the same. mirrored: whether one is flipped. score: 0 to 1, how well the
    pixels agree.
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
    """All pairs of copies among n images, ordered by (a, b).

    images(i): the uint8 pixels [H, W] of image i, whole and as stored in the file; None leaves it
    out. Called once per image, in any order, from `workers` threads (default: one per available
    CPU). files: tells the same bytes from the same pixels.

    Of m images with the same pixels, m - 1 pairs with the first one are listed; the first one
    stands for all of them in other pairs. Copies are searched among the nearest neighbors of each
    image, so not every pair of many copies of one image is listed, but `clusters` joins them.

    The result depends only on the pixels: not on workers, timing or a seed. Another order of the
    images gives the same pairs.
    """
    limit_opencv_threads()
    with threadpool_limits(1):
        pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
        try:
            results = _parallel(
                pool, lambda i: _describe_image(images, i), range(n), progress, "read images"
            )
            described = {i: features for i, features in enumerate(results) if features is not None}
            pairs, unique = _same_pixels(described, files)
            pairs += _altered_copies(pool, unique, progress)
        finally:
            pool.shutdown(cancel_futures=True)
    return sorted(pairs, key=lambda pair: (pair.a, pair.b))


def clusters(pairs: Iterable[Pair], n: int) -> npt.NDArray[np.int64]:
    """int64 [n]: the lowest image that each image is connected with, over any number of pairs."""
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


@dataclass(frozen=True)
class Codebook:
    """Turns the descriptors of one image into a unit vector float32 [<= VECTOR].

    mean [128], axes [128, d]: principal components of descriptors. centroids [CENTROIDS, d].
    center [CENTROIDS * d], projection [CENTROIDS * d, v]: from the VLAD to the final vector.
    """

    mean: Floats
    axes: Floats
    centroids: Floats
    center: Floats
    projection: Floats

    @classmethod
    def fit(cls, images: Sequence[Features]) -> "Codebook":
        """Fitted on images and their mirror images; the order of the images does not matter."""
        chosen = sorted(images, key=lambda image: image.digest)[:FITTED_IMAGES]
        sets = [image.descriptors for image in chosen]
        sets += [mirrored_descriptors(descriptors) for descriptors in sets]
        stacked = np.concatenate(sets)
        assert len(stacked), "no image has a key point"
        step = -(-len(stacked) // FITTED_DESCRIPTORS)
        sample = root_sift(stacked[::step])
        mean = sample.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov(sample - mean, rowvar=False, bias=True))
        axes = np.ascontiguousarray(vectors[:, : -DESCRIPTOR - 1 : -1], np.float32)
        centroids = _k_means((sample - mean) @ axes)
        vlads = np.stack([_vlad(descriptors, mean, axes, centroids) for descriptors in sets])
        center = vlads.mean(axis=0)
        return cls(mean, axes, centroids, center, _fit_projection(vlads - center))

    def __call__(self, descriptors: np.ndarray) -> Floats:
        """The vector of one image's descriptors uint8 [K, 128]; zero if there are none."""
        if not len(descriptors):
            return np.zeros(self.projection.shape[1], np.float32)
        vlad = _vlad(descriptors, self.mean, self.axes, self.centroids)
        return _normalized((vlad - self.center) @ self.projection)


def nearest_neighbors(plain: Floats, mirrored: Floats, start: int) -> list[tuple[int, int, bool]]:
    """(image, neighbor, whether mirrored) of one block of images, from `start` on.

    plain, mirrored: float32 [N, v], vectors of all images and of their mirror images. Neighbors
    come in no order; a pair may come from both sides.
    """
    rows = np.arange(start, min(start + BLOCK, len(plain)))
    neighbors = []
    for vectors, is_mirrored in ((plain, False), (mirrored, True)):
        similarity = plain[rows] @ vectors.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        k = min(NEIGHBORS, len(plain) - 1)
        best = (
            np.argpartition(-similarity, k - 1, axis=1)[:, :k]
            if k
            else np.empty((len(rows), 0), int)
        )
        for row, columns in zip(rows.tolist(), best.tolist(), strict=True):
            neighbors += [(row, column, is_mirrored) for column in columns]
    return neighbors


def _vlad(descriptors: np.ndarray, mean: Floats, axes: Floats, centroids: Floats) -> Floats:
    """Sum of unit residuals per centroid; square-rooted, of length 1."""
    if not len(descriptors):
        return np.zeros(centroids.size, np.float32)
    values = (root_sift(descriptors) - mean) @ axes
    nearest = _nearest_centroid(values, centroids)
    residuals = _normalized(values - centroids[nearest])
    member = (nearest[:, None] == np.arange(len(centroids))).astype(np.float32)
    total = (member.T @ residuals).ravel()
    return _normalized(np.sign(total) * np.sqrt(np.abs(total)))


def _nearest_centroid(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return np.asarray((values @ centroids.T - 0.5 * (centroids**2).sum(axis=1)).argmax(axis=1))


def _k_means(values: np.ndarray) -> Floats:
    """Lloyd's algorithm from evenly spaced values: no seed, and the same with any threads."""
    centroids = values[np.linspace(0, len(values) - 1, CENTROIDS).astype(int)].copy()
    for _ in range(ROUNDS):
        nearest = _nearest_centroid(values, centroids)
        member = (nearest == np.arange(CENTROIDS)[:, None]).astype(np.float32)
        count = member.sum(axis=1, keepdims=True)
        used = count[:, 0] > 0
        centroids[used] = (member @ values / np.maximum(count, 1))[used]
    return np.ascontiguousarray(centroids, np.float32)


def _fit_projection(vlads: Floats) -> Floats:
    """Principal components [m, v] of centered vectors [n, m], halfway to equal variance.

    Computed from the n x n products: there are fewer images than dimensions.
    """
    values, vectors = np.linalg.eigh((vlads @ vlads.T).astype(np.float64))
    values, vectors = values[::-1][:VECTOR], vectors[:, ::-1][:, :VECTOR]
    positive = values > 1e-6 * max(values[0], 1e-12)
    values, vectors = values[positive], vectors[:, positive]
    axes = vlads.T @ (vectors / np.sqrt(values))
    return np.asarray(axes / (values / len(vlads)) ** 0.25, np.float32)


def _normalized(values: np.ndarray) -> Floats:
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-9), np.float32)


def _describe_image(images: Callable[[int], Grey | None], i: int) -> Features | None:
    image = images(i)
    return None if image is None else describe(image)


def _same_pixels(
    described: dict[int, Features], files: Sequence[Path] | None
) -> tuple[list[Pair], dict[int, Features]]:
    """Pairs of equal pixels, and the first image of each distinct picture."""
    rows_of = defaultdict(list)
    for i, features in described.items():
        rows_of[features.digest].append(i)
    pairs = []
    for first, *others in rows_of.values():
        data = files[first].read_bytes() if files is not None and others else None
        for other in others:
            same = files is not None and files[other].read_bytes() == data
            pairs.append(Pair(first, other, "same bytes" if same else "same pixels"))
    return pairs, {rows[0]: described[rows[0]] for rows in rows_of.values()}


def _altered_copies(
    pool: ThreadPoolExecutor, unique: dict[int, Features], progress: Progress
) -> list[Pair]:
    """Pairs of altered copies among images of different pixels."""
    rows = list(unique)
    images = list(unique.values())
    if not any(len(image.points) for image in images):
        return []
    codebook = Codebook.fit(images)

    def embed(image: Features) -> tuple[np.ndarray, np.ndarray]:
        return codebook(image.descriptors), codebook(mirrored_descriptors(image.descriptors))

    vectors = list(_parallel(pool, embed, images, progress, "index images"))
    plain, mirrored = (np.stack(both) for both in zip(*vectors, strict=True))
    blocks = pool.map(
        lambda start: nearest_neighbors(plain, mirrored, start), range(0, len(rows), BLOCK)
    )
    candidates = sorted({(min(i, j), max(i, j), flag) for block in blocks for i, j, flag in block})

    def verify_candidate(candidate: tuple[int, int, bool]) -> Pair | None:
        i, j, is_mirrored = candidate
        return _verify_pair(rows[i], rows[j], unique, is_mirrored)

    best: dict[tuple[int, int], Pair] = {}
    for pair in _parallel(pool, verify_candidate, candidates, progress, "compare images"):
        if pair is not None:
            previous = best.get((pair.a, pair.b))
            if previous is None or pair.score > previous.score:
                best[pair.a, pair.b] = pair
    return list(best.values())


def _verify_pair(i: int, j: int, unique: dict[int, Features], is_mirrored: bool) -> Pair | None:
    # The pixels, not the order of the images, decide which one is warped onto the other.
    swapped = unique[i].digest > unique[j].digest
    a, b = (j, i) if swapped else (i, j)
    match = verify(unique[a], unique[b], is_mirrored)
    if match is None:
        return None
    transform = invert(match.transform) if swapped else match.transform
    return Pair(i, j, "copy", transform, is_mirrored, match.score)


def _parallel(
    pool: ThreadPoolExecutor,
    work: Callable[[T], R],
    items: Sequence[T],
    progress: Progress,
    description: str,
) -> Iterable[R]:
    """Results of `work`, in the order of `items`."""
    return progress(pool.map(work, items), len(items), description)
