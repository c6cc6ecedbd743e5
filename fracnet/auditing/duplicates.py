"""All pairs of copies in a set of images: the same file, the same pixels, or altered copies.

An altered copy is a picture turned over, rotated, sheared, cropped, enlarged, brightened or
compressed anew. Another view of the same patient is none, nor are two exposures of one pose.
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

from fracnet.auditing.candidates import BLOCK, Codebook, nearest
from fracnet.auditing.features import Features, Grey, describe, mirrored_descriptors
from fracnet.auditing.geometry import Affine, inverse
from fracnet.auditing.verify import verified
from fracnet.data.threads import single_threaded
from fracnet.progress import Show, unseen

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
    show: Show = unseen,
) -> list[Pair]:
    """All pairs of copies among n images, by (a, b).

    images(i): the uint8 pixels [H, W] of image i, whole and as they lie in the file; None leaves it
    out. It is called once for each image, from `workers` threads (default: one per CPU at hand) in
    any order. files: tells the same bytes from the same pixels. show: passes on what goes by, for a
    progress bar.

    Of m images with the same pixels, m - 1 pairs with the first one are listed; that one stands for
    all of them in other pairs. Copies are sought among the nearest neighbours of each image, so of
    many copies of one image not every pair is listed, but `clusters` joins them.

    The result depends on the pixels alone: not on workers, time or chance. In another order of the
    images the same pairs are found.
    """
    single_threaded()
    with threadpool_limits(1):
        pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
        try:
            found = _run(pool, lambda i: _described(images, i), range(n), show, "look at images")
            described = {i: one for i, one in enumerate(found) if one is not None}
            pairs, unique = _same_pixels(described, files)
            pairs += _copies(pool, unique, show)
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


def _copies(pool: ThreadPoolExecutor, unique: dict[int, Features], show: Show) -> list[Pair]:
    """Pairs of altered copies among images of different pixels."""
    rows = list(unique)
    features = list(unique.values())
    if not any(len(one.points) for one in features):
        return []
    codebook = Codebook.fit(features)

    def embedded(one: Features) -> tuple[np.ndarray, np.ndarray]:
        return codebook(one.descriptors), codebook(mirrored_descriptors(one.descriptors))

    vectors = list(_run(pool, embedded, features, show, "sort images"))
    plain, turned = (np.stack(both) for both in zip(*vectors, strict=True))
    blocks = pool.map(lambda at: nearest(plain, turned, at), range(0, len(rows), BLOCK))
    asked = sorted({(min(i, j), max(i, j), flag) for block in blocks for i, j, flag in block})

    def judged(one: tuple[int, int, bool]) -> Pair | None:
        i, j, is_mirrored = one
        return _judged(rows[i], rows[j], unique, is_mirrored)

    best: dict[tuple[int, int], Pair] = {}
    for pair in _run(pool, judged, asked, show, "compare images"):
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
    show: Show,
    description: str,
) -> Iterable[R]:
    """Results of `work`, in the order of `items`."""
    return show(pool.map(work, items), len(items), description)
