"""All pairs of copies in a set of images: the same file, the same pixels, or altered copies.

An altered copy is an image after a flip, rotation, shear, crop or padding, with another tone curve,
inverted, blurred, noisy, labeled, put beside another image, or recompressed. Another view of the
same patient is not a copy, nor is a second exposure of the same pose. What share of such copies is
found is measured in experiments/duplicates.

Key points propose candidates (`Index`), their pixels decide (`pixel_match`), and then pairs that
link the same copies are decided together. Memory grows with the number of images, not its square.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, combinations
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
    root_sift,
    variant,
)
from fracnet.data_audit.pixel_match import COPY_SCORE, Match, Source, compose
from fracnet.utils.progress import Progress, no_progress

COMPONENTS = 48  # principal components of a descriptor, and bits of its signature
PER_WORD, FEWEST_WORDS, MOST_WORDS = 700, 64, 4096  # descriptors of the set per visual word
FITTED_DESCRIPTORS = 60_000  # that words are fitted on
ROUNDS = 8  # of k-means
BITS = 12  # in which signatures of matching descriptors may differ
BLOCK = 2048  # descriptors assigned to words at once
AT_ONCE = 32  # descriptors compared with their lists at once, which stay in the processor's cache
TURNS = 16  # bins of the angle between two images
CANDIDATES = 14  # images that each image is compared with, and at most as many over its copies
RUNNER_UP = 0.6  # of the votes of the best variant from which another one is compared, too
LIKELY = 0.2  # score of a pair that its clusters support
CERTAIN = 0.95  # score of two copies of one picture that are compared over it
# Log-odds that two images without other copies need; of a pair that needs no support; of a pair
# with nothing in common, which may still be parts of one image; the range to which a pair's
# log-odds are clipped.
ALONE, SURE, UNRELATED, RANGE = 3.3, 7.0, -4.0, (-3.0, 6.0)
# Of the log-odds within two clusters, or within the one that a single picture joins, that those
# between them must reach.
OWN, JOINING = 0.4, 0.06
# Ellipses of one standard deviation are apart if their centers are, by this many times what both
# reach towards each other: 1.7 where two filled rectangles touch.
APART = 1.3
VARIANTS = ((False, False), (True, False), (False, True), (True, True))  # mirrored, inverted

Rows = npt.NDArray[np.int64]
Kind = Literal["same bytes", "same pixels", "copy"]
# Comparisons, by an image and a variant of it, which is prepared once: the other images, each with
# a map to start from if one is known.
_Tasks = dict[tuple[int, bool, bool], dict[int, Affine | None]]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Pair:
    """Two images, a < b: one was made from the other, or both from a third.

    transform: float64 [2, 3], from pixels (x, y) of `a` to pixels of `b`, including a mirror; None
    where the pixels are the same. mirrored: whether one is flipped. score: 0 to 1, how certain it
    is. inverted: whether black and white are exchanged. region: `Match.region` of `a`.
    """

    a: int
    b: int
    kind: Kind
    transform: Affine | None = None
    mirrored: bool = False
    score: float = 1.0
    inverted: bool = False
    region: Affine | None = None

    @property
    def region_of_b(self) -> Affine | None:
        """The same ellipse in pixels of `b`."""
        if self.region is None or self.transform is None:
            return None
        return compose(self.region, self.transform)


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
    CPU). files: distinguishes equal bytes from equal pixels.

    Of m images with the same pixels, m - 1 pairs with the first one are listed; the first one
    stands for all of them in other pairs. Each image is compared with `CANDIDATES` others, in the
    likeliest of `VARIANTS` and those with nearly as many votes, and with at most as many again
    over its copies; so not every pair of many copies of one image is listed, but `clusters` joins
    them.

    The result depends only on the pixels: not on workers, timing or a seed. Another order of the
    images gives the same pairs.
    """

    def describe_image(i: int) -> Features | None:
        image = images(i)
        return None if image is None else describe(image)

    limit_opencv_threads()
    with threadpool_limits(1):
        pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
        try:
            results = _parallel(pool, describe_image, range(n), progress, "read images")
            described = {i: features for i, features in enumerate(results) if features is not None}
            pairs, unique = _same_pixels(described, files)
            pairs += _altered_copies(pool, unique, progress)
        finally:
            pool.shutdown(cancel_futures=True)
    return sorted(pairs, key=lambda pair: (pair.a, pair.b))


def clusters(pairs: Iterable[Pair], n: int) -> Rows:
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


class Index:
    """Finds images that share key points with an image, by votes of similar descriptors.

    Descriptors vote for each other if they have the same visual word and nearly the same binary
    signature (Hamming embedding), rare words count more, and only votes that agree on the angle
    between both images add up (weak geometric consistency: Jegou, Douze and Schmid, ECCV 2008).
    A crop, two images side by side or burned-in text leave many votes.
    """

    def __init__(self, images: Sequence[Features]) -> None:
        """images: in an order that depends on their pixels only, as the words depend on it."""
        self.images = images
        counts = [len(image.points) for image in images]
        stacked = np.concatenate([image.descriptors for image in images])
        assert len(stacked), "no image has a key point"
        n_words = int(np.clip(len(stacked) // PER_WORD, FEWEST_WORDS, MOST_WORDS))
        sample = root_sift(stacked[:: -(-len(stacked) // FITTED_DESCRIPTORS)])
        self.mean = sample.mean(axis=0)
        _, vectors = np.linalg.eigh(np.cov(sample - self.mean, rowvar=False, bias=True))
        self.axes = np.ascontiguousarray(vectors[:, : -COMPONENTS - 1 : -1], np.float32)
        self.words = _k_means((sample - self.mean) @ self.axes, n_words)
        parts = [self._project(image.descriptors) for image in images]
        values = np.concatenate([part[0] for part in parts])
        words = np.concatenate([part[1] for part in parts])
        order = np.argsort(words, kind="stable")
        self.size = np.bincount(words, minlength=n_words)
        self.start = np.cumsum(self.size) - self.size
        self.medians = np.zeros((n_words, COMPONENTS), np.float32)
        for word in np.flatnonzero(self.size):
            members = order[self.start[word] : self.start[word] + self.size[word]]
            self.medians[word] = np.median(values[members], axis=0)
        self.signatures = self._sign(values, words)[order]
        self.image = np.repeat(np.arange(len(images), dtype=np.int32), counts)[order]
        self.angle = np.concatenate([image.points[:, 3] for image in images])[order]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(self.image) != 0) | (np.diff(words[order]) != 0)
        frequency = np.bincount(words[order][new], minlength=n_words)
        self.weight = np.log1p(len(images) / np.maximum(frequency, 1)).astype(np.float32) ** 2
        self.scale = 1 / np.sqrt(np.maximum(counts, 1))

    def candidates(self, query: int) -> list[tuple[int, bool, bool]]:
        """(image, mirrored, inverted), in no order: at most `CANDIDATES` images, not itself, each
        in the variant with most votes and in those with nearly as many.
        """
        votes = np.stack([self._votes(query, *flags) for flags in VARIANTS]) * self.scale
        votes[:, query] = 0
        best = votes.max(axis=0)
        k = min(CANDIDATES, len(best))
        top = np.argpartition(-best, k - 1)[:k]
        top = top[best[top] > 0]
        flags, places = np.nonzero(votes[:, top] >= RUNNER_UP * best[top])
        return [(int(top[i]), *VARIANTS[flag]) for flag, i in zip(flags, places, strict=True)]

    def _votes(self, query: int, is_mirrored: bool, is_inverted: bool) -> Affine:
        """Votes of one image for each image, float [N]."""
        features = variant(self.images[query], is_mirrored, is_inverted)
        values, words = self._project(features.descriptors)
        signatures = self._sign(values, words)
        n = len(self.images)
        place, row, distance = self._near(signatures, words)
        # A point votes once for an image, so that repeated structures, e.g. letters, do not add up.
        order = np.argsort(distance, kind="stable")
        once = np.unique(row[order] * n + self.image[place[order]], return_index=True)[1]
        place, row, distance = place[order[once]], row[order[once]], distance[order[once]]
        vote = self.weight[words[row]] * (1 - distance / (2 * BITS))
        turn = (self.angle[place] - features.points[row, 3]) / (2 * np.pi) % 1
        bin_ = np.minimum((turn * TURNS).astype(np.int64), TURNS - 1)
        # Of many images, few get a vote.
        voted, image = np.unique(self.image[place], return_inverse=True)
        total = np.bincount(image * TURNS + bin_, vote, minlength=len(voted) * TURNS)
        total = total.reshape(-1, TURNS)
        votes = np.zeros(n)
        votes[voted] = (total + np.roll(total, 1, axis=1)).max(axis=1)
        return votes

    def _near(
        self, signatures: npt.NDArray[np.uint64], words: Rows
    ) -> tuple[Rows, Rows, npt.NDArray[np.uint8]]:
        """Descriptors of the index with the same word and a similar signature: their places, the
        rows of `signatures`, and in how many bits they differ.
        """
        found = []
        for first in range(0, len(words), AT_ONCE):
            rows = slice(first, first + AT_ONCE)
            start, size = self.start[words[rows]], self.size[words[rows]]
            lists = zip(start.tolist(), (start + size).tolist(), strict=True)
            values = np.concatenate([self.signatures[low:high] for low, high in lists])
            values ^= np.repeat(signatures[rows], size)
            distance = np.bitwise_count(values)
            near = np.flatnonzero(distance <= BITS)
            end = np.cumsum(size)
            row = np.searchsorted(end, near, side="right")
            found.append((near + (start - end + size)[row], row + first, distance[near]))
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)
        place, row, distance = (np.concatenate(each) for each in zip(*found, strict=True))
        return place, row, distance

    def _project(self, descriptors: Grey) -> tuple[Floats, Rows]:
        values = (root_sift(descriptors) - self.mean) @ self.axes
        return values, _nearest_word(values, self.words)

    def _sign(self, values: Floats, words: Rows) -> npt.NDArray[np.uint64]:
        bits = (values > self.medians[words]) << np.arange(COMPONENTS, dtype=np.uint64)
        return bits.sum(axis=1, dtype=np.uint64)


def _nearest_word(values: Floats, words: Floats) -> Rows:
    return np.asarray((values @ words.T - 0.5 * (words**2).sum(axis=1)).argmax(axis=1))


def _k_means(values: Floats, n: int) -> Floats:
    """Lloyd's algorithm from evenly spaced values: no seed, and the same with any threads."""
    words = values[np.linspace(0, len(values) - 1, n).astype(int)].copy()
    for _ in range(ROUNDS):
        blocks = np.array_split(values, -(-len(values) // BLOCK))
        nearest = np.concatenate([_nearest_word(block, words) for block in blocks])
        size = np.bincount(nearest, minlength=n)
        used = size > 0
        start = (np.cumsum(size) - size)[used]
        order = np.argsort(nearest, kind="stable")
        words[used] = np.add.reduceat(values[order], start, axis=0) / size[used, None]
    return np.ascontiguousarray(words, np.float32)


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
    # The pixels, not the order of the images, decide on words, candidates and directions.
    rows = sorted(unique, key=lambda row: unique[row].digest)
    images = [unique[row] for row in rows]
    if not any(len(image.points) for image in images):
        return []
    index = Index(images)
    neighbors = _parallel(pool, index.candidates, range(len(rows)), progress, "find candidates")
    tasks: _Tasks = defaultdict(dict)
    for i, others in enumerate(neighbors):
        for j, is_mirrored, is_inverted in others:
            tasks[min(i, j), is_mirrored, is_inverted][max(i, j)] = None

    def compare_all(task: tuple[tuple[int, bool, bool], dict[int, Affine | None]]) -> list[Pair]:
        (i, *flags), others = task
        source = Source(images[i], *flags)
        matches = [(j, source.compare(images[j], start)) for j, start in sorted(others.items())]
        return [as_pair(match, i, j, *flags) for j, match in matches if match]

    best: dict[tuple[int, int], Pair] = {}

    def keep_best(results: Iterable[list[Pair]]) -> None:
        for pair in chain.from_iterable(results):
            previous = best.get((pair.a, pair.b))
            if previous is None or pair.score > previous.score:
                best[pair.a, pair.b] = pair

    items = sorted(tasks.items())
    keep_best(_parallel(pool, compare_all, items, progress, "compare images"))
    keep_best(pool.map(compare_all, sorted(over_copies(best).items())))
    found = consistent_pairs(list(best.values()))
    return [_ordered(replace(pair, a=rows[pair.a], b=rows[pair.b])) for pair in found]


def over_copies(best: dict[tuple[int, int], Pair]) -> _Tasks:
    """Further comparisons: a copy's copy is a copy, which key points may have missed.

    Compares two certain copies of one picture, from the map over that picture, unless known to be
    copies. Less certain ones would link another exposure with all copies of one. Of many copies of
    one picture, only the `CANDIDATES` most certain count, so that the pairs stay few.
    """
    around: dict[int, list[Pair]] = defaultdict(list)
    for pair in sorted(best.values(), key=_order):
        if pair.score >= CERTAIN:
            around[pair.a].append(pair)
            around[pair.b].append(_reversed(pair))
    routes: dict[tuple[int, int], tuple[float, Pair, Pair]] = {}
    for pairs in around.values():
        strongest = sorted(pairs[:CANDIDATES], key=lambda pair: pair.b)
        for first, second in combinations(strongest, 2):
            known = best.get((first.b, second.b))
            if known is not None and known.score >= COPY_SCORE:
                continue
            if _are_apart(first.region, second.region):
                continue
            weak = min(first.score, second.score)
            if weak > routes.get((first.b, second.b), (0.0,))[0]:
                routes[first.b, second.b] = weak, first, second
    tasks: _Tasks = defaultdict(dict)
    number: Counter[int] = Counter()
    for (i, j), (_, first, second) in sorted(
        routes.items(), key=lambda item: (-item[1][0], item[0])
    ):
        if max(number[i], number[j]) < CANDIDATES:
            number.update([i, j])
            flags = first.mirrored != second.mirrored, first.inverted != second.inverted
            assert first.transform is not None
            assert second.transform is not None
            tasks[i, *flags][j] = compose(invert(first.transform), second.transform)
    return tasks


def as_pair(match: Match, a: int, b: int, is_mirrored: bool, is_inverted: bool) -> Pair:
    """The pair of two images, in either order, of which the first is mapped onto the second."""
    transform, region = match.transform, match.region
    return _ordered(Pair(a, b, "copy", transform, is_mirrored, match.score, is_inverted, region))


def _ordered(pair: Pair) -> Pair:
    return pair if pair.a < pair.b else _reversed(pair)


def _reversed(pair: Pair) -> Pair:
    """The same pair, from `b` to `a`."""
    assert pair.transform is not None
    transform, region = invert(pair.transform), pair.region_of_b
    return replace(pair, a=pair.b, b=pair.a, transform=transform, region=region)


def consistent_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that are copies, by their scores and by those of their copies.

    Copies of one picture are copies of each other. So clusters grow from the most certain pair to
    the least, and two of them merge if the pairs between them say so together. Of two exposures
    with several copies each, a blurred copy may look like one of the other exposure, but each
    resembles the copies of its own exposure much more (`OWN`). A picture without other copies must
    resemble more of a cluster than a copy that is blurred or too white (`JOINING`), or be as
    certain as two such pictures must be (`ALONE`), because most have no copy. Pairs between two
    clusters that were not compared, or have nothing in common, count as undecided.
    """
    ends = _pictures(pairs)
    n = 1 + max((picture for both in ends for picture in both), default=0)
    cluster, members = np.arange(n), {i: [i] for i in range(n)}
    # Between two clusters: log-odds and both pictures of each pair.
    links: dict[int, dict[int, list[tuple[float, int, int]]]] = {i: {} for i in range(n)}
    for pair, (p, q) in zip(pairs, ends, strict=True):
        if (odds := _log_odds(pair)) > UNRELATED:
            links[p][q] = links[q][p] = [(odds, p, q)]
    own = np.zeros(n)  # log-odds of each picture's most certain copy
    for pair, (p, q) in sorted(zip(pairs, ends, strict=True), key=lambda each: _order(each[0])):
        if pair.score < COPY_SCORE:
            break
        odds = _log_odds(pair)
        x, y = sorted((int(cluster[p]), int(cluster[q])), key=lambda c: len(members[c]))
        if x != y:
            sizes = len(members[x]), len(members[y])
            if odds < SURE and not _show_one_picture(links[x][y], *sizes, own):
                continue
            cluster[members[x]] = y
            members[y] += members.pop(x)
            for other, more in links.pop(x).items():
                del links[other][x]
                if other != y:
                    links[y][other] = links[other][y] = [*links[y].get(other, []), *more]
        own[[p, q]] = np.maximum(own[[p, q]], odds)
    return [
        pair
        for pair, (p, q) in zip(pairs, ends, strict=True)
        if cluster[p] == cluster[q] and pair.score >= LIKELY
    ]


def _show_one_picture(
    between: Sequence[tuple[float, int, int]], n: int, larger: int, own: npt.NDArray[np.float64]
) -> bool:
    """Whether two clusters, of n pictures and of at least as many, show one picture.

    between: log-odds and both pictures of each pair that links them. own: log-odds of each
    picture's most certain copy.
    """
    odds = np.clip([each for each, _, _ in between], *RANGE)
    if n == 1 and odds.mean() >= ALONE:
        return True
    if larger == 1:
        return False
    evidence = odds.sum() / max(len(odds), min(n * larger, CANDIDATES))
    held = own[[[i, j] for _, i, j in between]]
    needed = JOINING * held.max(axis=1).mean() if n == 1 else OWN * held.min(axis=1).mean()
    return bool(evidence >= needed)


def _pictures(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Numbers of the two pictures that each pair compares.

    An image is one picture, unless it agrees with two others at different places: then it shows
    several side by side, whose copies need not resemble each other.
    """
    pictures: dict[int, list[tuple[int, Affine | None]]] = defaultdict(list)  # of each image
    ends: dict[tuple[int, int], tuple[int, int]] = {}
    n = 0
    for pair in sorted(pairs, key=_order):
        both = []
        for image, region in ((pair.a, pair.region), (pair.b, pair.region_of_b)):
            known = pictures[image]
            number = next((i for i, other in known if not _are_apart(region, other)), None)
            if number is None:
                number, n = n, n + 1
                known.append((number, region))
            both.append(number)
        ends[pair.a, pair.b] = both[0], both[1]
    return [ends[pair.a, pair.b] for pair in pairs]


def _are_apart(first: Affine | None, second: Affine | None) -> bool:
    """Whether two ellipses, around the places of two matches, hardly overlap."""
    if first is None or second is None:
        return False
    step = first[:, 2] - second[:, 2]
    length = float(np.hypot(*step))
    reach = sum(float(np.linalg.norm(step @ region[:, :2])) for region in (first, second))
    return length**2 > APART * reach


def _order(pair: Pair) -> tuple[float, int, int]:
    """The most certain first."""
    return -pair.score, pair.a, pair.b


def _log_odds(pair: Pair) -> float:
    score = min(max(pair.score, 1e-6), 1 - 1e-6)
    return float(np.log(score / (1 - score)))


def _parallel(
    pool: ThreadPoolExecutor,
    work: Callable[[T], R],
    items: Sequence[T],
    progress: Progress,
    description: str,
) -> Iterable[R]:
    """Results of `work`, in the order of `items`."""
    return progress(pool.map(work, items), len(items), description)
