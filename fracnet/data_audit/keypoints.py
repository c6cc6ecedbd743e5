"""What an image is compared by: key points with their surroundings, a small picture, a hash.

Where one image would lie in another: from matching key points to an affine map.

No chance is in it: a key point has a size and a direction, so every single match proposes a map,
and all of them are tried.
"""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WORK = 256  # pixels of the longest side, where key points are looked for
SMALL = 160  # pixels of the longest side, where pictures are compared
MOST_POINTS = 160

# Contrast is made equal everywhere first, or a lead marker would take most of the key points. The
# floor, in grey levels, keeps an empty background from becoming all noise.
EVEN_SIGMA, EVEN_FLOOR = 8.0, 4.0

# Lower contrast and rounder blobs than OpenCV's defaults keep, for radiographs are soft.
CONTRAST, EDGE = 0.02, 12.0

# In SIFT's 4 x 4 x 8 bins (across, along the orientation, direction), a mirror image has the first
# axis reversed and the directions negated.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][..., [0, 7, 6, 5, 4, 3, 2, 1]].ravel()


@dataclass(frozen=True)
class Features:
    """One image, about 45 kB.

    size: (height, width) of the image. work: the same where key points lie. points: float32 [K, 4],
    x and y in pixels of the working picture, diameter, direction in radians. descriptors: uint8
    [K, 128], SIFT. small: uint8 [h, w], longest side `SMALL`. digest: of the image's pixels.
    """

    size: tuple[int, int]
    work: tuple[int, int]
    points: Floats
    descriptors: Grey
    small: Grey
    digest: bytes


def describe(image: Grey) -> Features:
    """The features of a uint8 image [H, W]: the same for the same pixels, on any thread."""
    assert image.ndim == 2, image.shape
    assert image.dtype == np.uint8, image.dtype
    work = _fitted(image, WORK)
    finder = cv2.SIFT.create(
        nfeatures=MOST_POINTS,
        contrastThreshold=CONTRAST,
        edgeThreshold=EDGE,
        # Or all points lie a quarter of a pixel off, in a mirror to the other side.
        enable_precise_upscale=True,
    )
    found, descriptors = finder.detectAndCompute(_evened(work), None)
    # Ties at the last place make it a few more.
    found = found[:MOST_POINTS]
    points = [(*key.pt, key.size, np.radians(key.angle)) for key in found]
    if descriptors is None:
        descriptors = np.zeros((0, 128), np.float32)
    return Features(
        size=image.shape,
        work=work.shape,
        points=np.array(points, np.float32).reshape(-1, 4),
        descriptors=descriptors[:MOST_POINTS].astype(np.uint8),
        small=_fitted(work, SMALL),
        digest=_digest(image),
    )


def mirrored(features: Features) -> Features:
    """The features of the image with left and right exchanged, without looking at it again."""
    points = features.points.copy()
    points[:, 0] = features.work[1] - 1 - points[:, 0]
    points[:, 3] = np.pi - points[:, 3]
    return Features(
        size=features.size,
        work=features.work,
        points=points,
        descriptors=mirrored_descriptors(features.descriptors),
        small=np.ascontiguousarray(features.small[:, ::-1]),
        digest=features.digest,
    )


def mirrored_descriptors(descriptors: Grey) -> Grey:
    """SIFT descriptors [K, 128] of the same surroundings in a mirror."""
    return np.ascontiguousarray(descriptors[:, _MIRRORED])


def rooted(descriptors: Grey) -> Floats:
    """Unit vectors float32 [K, 128] whose products compare descriptors by Hellinger's kernel.

    RootSIFT: Arandjelovic and Zisserman, CVPR 2012.
    """
    values = descriptors.astype(np.float32)
    values /= np.maximum(values.sum(axis=1, keepdims=True), 1)
    return np.sqrt(values)


def _fitted(image: Grey, longest: int) -> Grey:
    """Resized so that the longest side has that many pixels."""
    height, width = image.shape
    scale = longest / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Averaging areas keeps noise from turning into patterns; it does not enlarge.
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def _evened(image: Grey) -> Grey:
    """Local mean and contrast made equal everywhere, mid-grey without contrast."""
    values = image.astype(np.float32)
    values -= cv2.GaussianBlur(values, (0, 0), EVEN_SIGMA)
    spread = cv2.sqrt(cv2.GaussianBlur(values * values, (0, 0), EVEN_SIGMA))
    return np.clip(128 + 40 * values / (spread + EVEN_FLOOR), 0, 255).astype(np.uint8)


def _digest(image: Grey) -> bytes:
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


Affine = npt.NDArray[np.float64]

# A match counts when it is mutual and this much nearer than the second best (Lowe 2004: 0.8).
RATIO = 0.85
FEWEST = 12  # matches that one map must explain; copies had 18 at the least
TRIED = 4  # proposals refined

# A proposal, in working pixels and in pixels a pixel from its own match: shear is not in it.
NEAR, SLACK = 5.0, 0.25
TIGHTENING = (12.0, 7.0, 4.0, 3.0, 3.0)  # pixels
SCALES = (0.45, 2.2)
STRETCH = 2.0  # largest scale by smallest


def fitted(a: Features, b: Features) -> Affine | None:
    """The affine map [2, 3] from working pixels of `a` to those of `b`, None where there is none.

    No map turns the picture over: `a` in a mirror is asked for by itself.
    """
    from_a, from_b = _matches(a, b)
    if len(from_a) < FEWEST:
        return None
    agreeing = _proposals(from_a, from_b)
    if not len(agreeing):
        return None
    maps, counts = _refined(from_a[:, :2], from_b[:, :2], agreeing)
    best = int(counts.argmax())
    return maps[best] if counts[best] >= FEWEST and _plausible(maps[best]) else None


def inverse(affine: Affine) -> Affine:
    """The affine map [2, 3] the other way."""
    back = np.linalg.inv(affine[:, :2])
    return np.column_stack([back, -back @ affine[:, 2]])


def _matches(a: Features, b: Features) -> tuple[Affine, Affine]:
    """Points of `a` and of `b` [M, 4] that match, float64."""
    if min(len(a.points), len(b.points)) < FEWEST:
        return np.empty((0, 4)), np.empty((0, 4))
    alike = rooted(a.descriptors) @ rooted(b.descriptors).T
    rows = np.arange(len(alike))
    partner = alike.argmax(axis=1)
    mutual = alike.argmax(axis=0)[partner] == rows
    best = alike[rows, partner]
    alike[rows, partner] = -1
    # Squared distances of unit vectors.
    clear = 1 - best < RATIO**2 * (1 - alike.max(axis=1))
    kept = mutual & clear
    return a.points[kept].astype(np.float64), b.points[partner[kept]].astype(np.float64)


def _proposals(a: Affine, b: Affine) -> npt.NDArray[np.bool_]:
    """Which matches [P, M] agree with the similarity of one of them, the most popular first."""
    turn = b[:, 3] - a[:, 3]
    rate = b[:, 2] / a[:, 2]
    # The plane as complex numbers: a similarity is a product and a sum.
    of_a, of_b = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    away = of_a[None] - of_a[:, None]
    miss = of_b[:, None] + (rate * np.exp(1j * turn))[:, None] * away - of_b[None]
    agree = np.abs(miss) < NEAR + SLACK * np.abs(away)
    count = agree.sum(axis=1)
    first = np.argsort(-count, kind="stable")[:TRIED]
    return np.asarray(agree[first[count[first] >= FEWEST // 2]])


def _refined(
    a: Affine, b: Affine, kept: npt.NDArray[np.bool_]
) -> tuple[Affine, npt.NDArray[np.int64]]:
    """Least squares over the matches that agree, again and again with less tolerance.

    All proposals [P, M] at once: maps [P, 2, 3], and how many matches each explains, 0 where too
    few were left on the way.
    """
    ones = np.column_stack([a, np.ones(len(a))])
    alive = np.ones(len(kept), bool)
    solved: npt.NDArray[np.float64] = np.zeros((len(kept), 3, 2))
    for tolerance in TIGHTENING:
        alive &= kept.sum(axis=1) >= FEWEST // 2
        used = kept[:, None] * ones.T
        # Three points in a line leave it open; a grain of ridge makes that a poor fit instead.
        solved = np.asarray(np.linalg.solve(used @ ones + 1e-6 * np.eye(3), used @ b))
        miss = ones @ solved - b
        kept = (miss * miss).sum(axis=2) < tolerance * tolerance
    return solved.transpose(0, 2, 1), kept.sum(axis=1) * alive


def _plausible(found: Affine) -> bool:
    if np.linalg.det(found[:, :2]) <= 0:
        return False
    large, small = np.linalg.svd(found[:, :2], compute_uv=False)
    return bool(SCALES[0] < small and large < SCALES[1] and large < STRETCH * small)
