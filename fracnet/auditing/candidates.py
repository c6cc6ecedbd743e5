"""Which images may be copies of each other: nearest neighbours by one short vector an image.

Key points are counted into the words of a codebook that is fitted on the set's own images, as a
vector of locally aggregated descriptors (VLAD: Jegou et al., CVPR 2010). The vector of an image in
a mirror follows from permuted descriptors. All products go in blocks, so memory grows with the
number of images, not with its square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fracnet.auditing.features import Features, Floats, mirrored_descriptors, rooted

WORDS = 64
DESCRIPTOR = 48  # principal components kept of a descriptor
VECTOR = 256  # of the whole image
ROUNDS = 12  # of k-means
# Images that the codebook is fitted on, and their descriptors.
FITTED_IMAGES, FITTED_DESCRIPTORS = 500, 60_000
NEIGHBOURS = 8  # asked of each image and, once more, of its mirror image
BLOCK = 1024


@dataclass(frozen=True)
class Codebook:
    """Turns the descriptors of one image into a unit vector float32 [<= VECTOR].

    mean [128], axes [128, d]: principal components of descriptors. words [WORDS, d]. centre
    [WORDS * d], shrink [WORDS * d, v]: of the aggregated vector to the final one.
    """

    mean: Floats
    axes: Floats
    words: Floats
    centre: Floats
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
        centre = known.mean(axis=0)
        return cls(mean, axes, words, centre, _shrinking(known - centre))

    def __call__(self, descriptors: np.ndarray) -> Floats:
        """The vector of one image's descriptors uint8 [K, 128]; zero where there are none."""
        if not len(descriptors):
            return np.zeros(self.shrink.shape[1], np.float32)
        found = _aggregate(descriptors, self.mean, self.axes, self.words)
        return _unit((found - self.centre) @ self.shrink)


def nearest(plain: Floats, turned: Floats, start: int) -> list[tuple[int, int, bool]]:
    """(image, neighbour, whether mirrored) of the images from `start` on, one block of them.

    plain, turned: float32 [N, v], vectors of all images and of their mirror images. Neighbours come
    in no order; a pair may be found from both sides.
    """
    rows = np.arange(start, min(start + BLOCK, len(plain)))
    found = []
    for others, is_mirrored in ((plain, False), (turned, True)):
        alike = plain[rows] @ others.T
        alike[np.arange(len(rows)), rows] = -np.inf
        n = min(NEIGHBOURS, len(plain) - 1)
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
    """Principal components [m, v] of centred vectors [n, m], halfway to equal variance.

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
