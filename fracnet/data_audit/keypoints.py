"""What an image is compared by (key points, a small picture, a digest), and how two images align.

An affine map is fitted to matching key points. Nothing is random: a key point has a size and a
direction, so every match proposes a similarity transform, and all of them are tried.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]

# Pixels of the longest side of a square image where key points are detected, and where pictures are
# compared. An elongated image, which may be two images side by side, gets more.
WORK, SMALL = 288, 256
ELONGATED = 1 / 3  # power of length by width that the longest side grows by

# Contrast is equalized first, or a lead marker would take most of the key points. Smoothed, or
# noise would.
SMOOTHING, EQUALIZE_SIGMA = 1.0, 8.0
EDGE = 12.0  # accepts rounder blobs than OpenCV's default


@dataclass(frozen=True)
class _Level:
    """Key points of one picture.

    longest: its longest side. most: key points. contrast: lower than OpenCV's default, because
    radiographs are soft. floor: grey levels that keep an empty background from turning into noise.
    """

    longest: int
    most: int
    contrast: float
    floor: float


# Noise, blur and few pixels leave the structures that the second, half as large picture shows.
LEVELS = (_Level(WORK, 220, 0.015, 4.0), _Level(WORK // 2, 120, 0.01, 2.0))
MOST_POINTS = sum(level.most for level in LEVELS)

# In SIFT's 4 x 4 x 8 bins (across, along the orientation, direction), a mirror image has the first
# axis reversed and the directions negated.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][..., [0, 7, 6, 5, 4, 3, 2, 1]].ravel()
# An inverted image has all gradients reversed, and with them the orientation of the key point:
# the surroundings are rotated by 180 degrees, and directions relative to the orientation stay.
_INVERTED = np.arange(128).reshape(4, 4, 8)[::-1, ::-1].ravel()

RATIO = 0.85  # a match is mutual and this much nearer than the second best (Lowe 2004: 0.8)
FEWEST = 7  # matches that a map must explain
MAX_PROPOSALS = 4  # that are refined
NEAR, SLACK = 5.0, 0.25  # of a proposal: working pixels, and per pixel from its own match
TIGHTENING = (12.0, 7.0, 4.0, 3.0, 3.0)  # pixels
SCALES = (0.45, 2.2)
STRETCH = 2.0  # largest scale by smallest


@dataclass(frozen=True)
class Features:
    """One image, about 100 kB.

    size: (height, width) of the image. work: the same of the working picture. points: float32
    [K, 4], x and y in working pixels, diameter, direction in radians. descriptors: uint8 [K, 128],
    SIFT. small: uint8 [h, w], longest side `SMALL`. digest: of the image's pixels.
    """

    size: tuple[int, int]
    work: tuple[int, int]
    points: Floats
    descriptors: Grey
    small: Grey
    digest: bytes


def describe(image: Grey) -> Features:
    """Features of a uint8 image [H, W]; the same pixels always give the same features."""
    assert image.ndim == 2, image.shape
    assert image.dtype == np.uint8, image.dtype
    work = _resized(image, WORK)
    found = [_key_points(_resized(image, level.longest), level, work.shape) for level in LEVELS]
    return Features(
        size=image.shape,
        work=work.shape,
        points=np.concatenate([points for points, _ in found]),
        descriptors=np.concatenate([descriptors for _, descriptors in found]),
        small=_resized(work, SMALL),
        digest=_digest(image),
    )


def _key_points(picture: Grey, level: _Level, work: tuple[int, ...]) -> tuple[Floats, Grey]:
    """Points and descriptors of a picture, as in `Features`, whose working picture is `work`."""
    detector = cv2.SIFT.create(
        nfeatures=level.most,
        contrastThreshold=level.contrast,
        edgeThreshold=EDGE,
        # Otherwise all points are a quarter of a pixel off, to the other side in a mirror.
        enable_precise_upscale=True,
    )
    keys, descriptors = detector.detectAndCompute(_equalized(picture, level.floor), None)
    down, across = np.divide(work, picture.shape)
    points = [
        (
            (key.pt[0] + 0.5) * across - 0.5,
            (key.pt[1] + 0.5) * down - 0.5,
            key.size * (across + down) / 2,
            np.radians(key.angle),
        )
        for key in keys[: level.most]  # ties at the last place add a few
    ]
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    return (
        np.array(points, np.float32).reshape(-1, 4),
        descriptors[: level.most].astype(np.uint8),
    )


def variant(features: Features, is_mirrored: bool, is_inverted: bool) -> Features:
    """Features of the mirrored (left and right) or inverted image, without detecting them again."""
    points, small = features.points.copy(), features.small
    if is_mirrored:
        points[:, 0] = features.work[1] - 1 - points[:, 0]
        points[:, 3] = np.pi - points[:, 3]
        small = np.ascontiguousarray(small[:, ::-1])
    if is_inverted:
        points[:, 3] += np.pi
        small = 255 - small
    return replace(
        features,
        points=points,
        descriptors=variant_descriptors(features.descriptors, is_mirrored, is_inverted),
        small=small,
    )


def variant_descriptors(descriptors: Grey, is_mirrored: bool, is_inverted: bool) -> Grey:
    """SIFT descriptors [K, 128] of the mirrored or inverted image."""
    if is_mirrored:
        descriptors = descriptors[:, _MIRRORED]
    return descriptors[:, _INVERTED] if is_inverted else descriptors


def root_sift(descriptors: Grey) -> Floats:
    """Unit vectors float32 [K, 128] whose products compare descriptors by Hellinger's kernel.

    RootSIFT: Arandjelovic and Zisserman, CVPR 2012.
    """
    values = descriptors.astype(np.float32)
    values /= np.maximum(values.sum(axis=1, keepdims=True), 1)
    return np.sqrt(values)


def _resized(image: Grey, longest: int) -> Grey:
    """Resized so that the longest side has that many pixels, if it is square."""
    height, width = image.shape
    elongation = min(max(height, width) / min(height, width), 4.0)
    scale = longest * elongation**ELONGATED / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # INTER_AREA keeps noise from turning into patterns, but cannot enlarge.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def _equalized(image: Grey, floor: float) -> Grey:
    """Local mean and contrast equalized; mid-grey where there is no contrast."""
    values: npt.NDArray[Any] = image.astype(np.float32)
    values = cv2.GaussianBlur(values, (0, 0), SMOOTHING)
    values = values - cv2.GaussianBlur(values, (0, 0), EQUALIZE_SIGMA)
    spread = cv2.sqrt(cv2.GaussianBlur(values * values, (0, 0), EQUALIZE_SIGMA))
    return np.clip(128 + 40 * values / (spread + floor), 0, 255).astype(np.uint8)


def _digest(image: Grey) -> bytes:
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def fit_affine(a: Features, b: Features) -> tuple[Affine, float] | None:
    """The affine map [2, 3] from working pixels of `a` to those of `b`, or None.

    The second value is the share of the matching key points that it explains. It never mirrors:
    pass `variant(a, True, False)` for that.
    """
    from_a, from_b = _match(a, b)
    if len(from_a) < FEWEST:
        return None
    agreeing = _propose(from_a, from_b)
    if not len(agreeing):
        return None
    maps, counts = _refine(from_a[:, :2], from_b[:, :2], agreeing)
    best = int(counts.argmax())
    if counts[best] < FEWEST or not _is_plausible(maps[best]):
        return None
    return maps[best], float(counts[best] / len(from_a))


def share_explained(a: Features, b: Features, affine: Affine) -> float:
    """Share of the matching key points that a map of working pixels explains; 0 without any."""
    from_a, from_b = _match(a, b)
    if not len(from_a):
        return 0.0
    miss = from_a[:, :2] @ affine[:, :2].T + affine[:, 2] - from_b[:, :2]
    return float(np.mean(np.hypot(*miss.T) < TIGHTENING[-1]))


def invert(affine: Affine) -> Affine:
    """The inverse affine map [2, 3]."""
    back = np.linalg.inv(affine[:, :2])
    return np.column_stack([back, -back @ affine[:, 2]])


def _match(a: Features, b: Features) -> tuple[Affine, Affine]:
    """Matching points of `a` and of `b`, float64 [M, 4] each."""
    if min(len(a.points), len(b.points)) < FEWEST:
        return np.empty((0, 4)), np.empty((0, 4))
    similarity = root_sift(a.descriptors) @ root_sift(b.descriptors).T
    rows = np.arange(len(similarity))
    partner = similarity.argmax(axis=1)
    mutual = similarity.argmax(axis=0)[partner] == rows
    best = similarity[rows, partner]
    similarity[rows, partner] = -1
    # Squared distances of unit vectors.
    clear = 1 - best < RATIO**2 * (1 - similarity.max(axis=1))
    keep = mutual & clear
    return a.points[keep].astype(np.float64), b.points[partner[keep]].astype(np.float64)


def _propose(a: Affine, b: Affine) -> npt.NDArray[np.bool_]:
    """bool [P, M]: matches that agree with the similarity transform of one match, best first."""
    turn = b[:, 3] - a[:, 3]
    rate = b[:, 2] / a[:, 2]
    # The plane as complex numbers: a similarity is a product and a sum.
    of_a, of_b = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    offset = of_a[None] - of_a[:, None]
    miss = of_b[:, None] + (rate * np.exp(1j * turn))[:, None] * offset - of_b[None]
    agree = np.abs(miss) < NEAR + SLACK * np.abs(offset)
    count = agree.sum(axis=1)
    first = np.argsort(-count, kind="stable")[:MAX_PROPOSALS]
    return np.asarray(agree[first[count[first] >= FEWEST // 2]])


def _refine(
    a: Affine, b: Affine, agreeing: npt.NDArray[np.bool_]
) -> tuple[Affine, npt.NDArray[np.int64]]:
    """Repeated least squares over the agreeing matches, with less and less tolerance.

    All proposals [P, M] at once. Returns maps [P, 2, 3], and how many matches each explains: 0 if
    too few were left on the way.
    """
    ones = np.column_stack([a, np.ones(len(a))])
    alive = np.ones(len(agreeing), bool)
    solved: npt.NDArray[np.float64] = np.zeros((len(agreeing), 3, 2))
    for tolerance in TIGHTENING:
        alive &= agreeing.sum(axis=1) >= FEWEST // 2
        used = agreeing[:, None] * ones.T
        # Collinear points leave the map undetermined; a tiny ridge makes that a poor fit.
        solved = np.asarray(np.linalg.solve(used @ ones + 1e-6 * np.eye(3), used @ b))
        miss = ones @ solved - b
        agreeing = (miss * miss).sum(axis=2) < tolerance * tolerance
    return solved.transpose(0, 2, 1), agreeing.sum(axis=1) * alive


def _is_plausible(affine: Affine) -> bool:
    if np.linalg.det(affine[:, :2]) <= 0:
        return False
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(SCALES[0] < small and large < SCALES[1] and large < STRETCH * small)
