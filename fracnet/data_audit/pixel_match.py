"""Whether one image is a copy of another: aligned, their pixels agree everywhere.

Key points alone are fooled by lead markers, implants and the like, and all radiographs share a dark
background. So once the key points have aligned two pictures, the finest detail that survives
resampling and recompression is compared in small windows over the whole overlap. Windows without
information (clipped, filled, flat) do not count. A copy agrees nearly perfectly; a second exposure
of the same pose does not.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data_audit.keypoints import Affine, Features, Floats, fit_affine, mirrored

# Chosen on other radiographs and phantoms than those that experiments/duplicates reports.
COPY_SCORE = 0.982  # score of a copy
HOPELESS = 0.4  # a score that no refined alignment raises to a copy's
QUANTILES = (0.2, 0.5)  # of the window correlations; the score is their mean

# Pixels of the small picture: resampling and compression lose what is finer than the first, and
# what is coarser than the second is similar in all pictures of a body part.
BAND = (1.2, 2.4)
WINDOW, SPOT = 8.0, 2.0  # pixels, over which detail is compared and detected
TEXTURE, STRONG = 0.5, 1.5  # grey levels (standard deviation) of detail
ANYWHERE = 0.9  # median correlation of all windows with texture
EVIDENCE, ENOUGH = 0.2, 0.1  # of the smaller picture: with texture, with strong texture
DARK, BRIGHT = 3, 252  # grey levels at and beyond which a pixel is clipped or filled
MARGIN = 2  # pixels around clipped ones that are left out as well
OVERLAP = 0.5  # of the smaller picture, at least
ALIGNING = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)


@dataclass(frozen=True)
class Match:
    """A verified copy.

    transform: float64 [2, 3], from pixels (x, y) of one image to those of the other, including a
    mirror. score: from `COPY_SCORE` to 1.
    """

    transform: Affine
    score: float


def verify(a: Features, b: Features, is_mirrored: bool) -> Match | None:
    """What maps `a`, mirrored or not, onto `b`; None if `b` is not a copy of it."""
    source = mirrored(a) if is_mirrored else a
    affine = fit_affine(source, b)
    if affine is None:
        return None
    small = _compose(
        _rescale(source.small.shape, source.work), affine, _rescale(b.work, b.small.shape)
    )
    score = _score(source, b, small)
    if HOPELESS < score < COPY_SCORE:
        aligned = _align(source, b, small)
        if aligned is not None and (better := _score(source, b, aligned)) > score:
            small, score = aligned, better
    if score < COPY_SCORE:
        return None
    full = _compose(_rescale(a.size, a.small.shape), small, _rescale(b.small.shape, b.size))
    if is_mirrored:
        full = _compose(np.array([[-1.0, 0, a.size[1] - 1], [0, 1, 0]]), full, np.eye(2, 3))
    return Match(full, score)


def _score(a: Features, b: Features, small: Affine) -> float:
    """Agreement of `a` with `b` after `small`, which maps small pictures. From -1 to 1."""
    height, width = a.small.shape
    options = cv2.WARP_INVERSE_MAP
    inside = _warped(np.ones_like(b.small), small, a, cv2.INTER_NEAREST | options, 0) > 0
    smaller = min(a.small.size, b.small.size / np.linalg.det(small[:, :2]))
    if inside.sum() < OVERLAP * smaller:
        return -1.0
    aligned = cv2.warpAffine(
        b.small,
        small,
        (width, height),
        flags=cv2.INTER_LINEAR | options,
        borderMode=cv2.BORDER_REPLICATE,
    )
    clipped = _warped(_clipped(b), small, a, cv2.INTER_NEAREST | options, 1) | _clipped(a)
    grown = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MARGIN + 1, 2 * MARGIN + 1))
    informative = (cv2.dilate(clipped, grown) == 0) & inside
    agreement, power, n_spots = _windows(a.small, aligned, informative)
    textured, strong = agreement[power > TEXTURE**2], agreement[power > STRONG**2]
    if min(n_spots, len(textured)) < EVIDENCE * smaller:
        return -1.0
    anywhere = float(np.median(textured))
    scored = strong if len(strong) >= ENOUGH * smaller else textured
    score = float(np.quantile(scored, QUANTILES).mean())
    return score if anywhere >= ANYWHERE else min(score, anywhere)


def _windows(a: np.ndarray, b: np.ndarray, informative: np.ndarray) -> tuple[Floats, Floats, int]:
    """Around each pixel: correlation of the detail of two pictures, and the larger of its powers.

    Only `informative` pixels count; where they are too few, the power is 0. The third result is the
    number of pixels with detail, because a marker's detail fills the windows far around it.
    """
    weight = informative.astype(np.float32)
    detail_a, detail_b = (_band(image.astype(np.float32), weight) for image in (a, b))
    near = _blur(weight, WINDOW) + 1e-6
    power_a, power_b = _blur(detail_a**2, WINDOW) / near, _blur(detail_b**2, WINDOW) / near
    floor = TEXTURE**2
    both = np.sqrt(np.maximum(power_a, floor) * np.maximum(power_b, floor))
    agreement = _blur(detail_a * detail_b, WINDOW) / near / both
    spots = np.maximum(_blur(detail_a**2, SPOT), _blur(detail_b**2, SPOT)) > floor
    power = np.maximum(power_a, power_b) * (informative & (near > 0.3))
    return agreement, power, int(spots.sum())


def _band(values: Floats, weight: Floats) -> Floats:
    """Detail between the two scales of `BAND`, from pixels with a weight only."""
    fine, coarse = (_blur(values * weight, s) / (_blur(weight, s) + 1e-6) for s in BAND)
    return np.asarray((fine - coarse) * weight, np.float32)


def _align(a: Features, b: Features, small: Affine) -> Affine | None:
    """The map refined on pixels (ECC: Evangelidis and Psarakis, 2008); None if that diverges."""
    start = small.astype(np.float32)
    everywhere = np.full(b.small.shape, 255, np.uint8)
    try:
        _, refined = cv2.findTransformECC(
            _detail(a.small), _detail(b.small), start, cv2.MOTION_AFFINE, ALIGNING, everywhere, 5
        )
    except cv2.error:  # raised for pictures that do not correlate or do not overlap
        return None
    return refined.astype(np.float64)


def _detail(image: np.ndarray) -> np.ndarray:
    """Detail at equalized contrast, for the alignment; uint8."""
    values = image.astype(np.float32)
    values -= _blur(values, 4.0)
    values /= np.sqrt(_blur(values * values, 4.0)) + 3
    return np.clip(128 + 40 * values, 0, 255).astype(np.uint8)


def _clipped(features: Features) -> np.ndarray:
    small = features.small
    return ((small <= DARK) | (small >= BRIGHT)).astype(np.uint8)


def _warped(mask: np.ndarray, small: Affine, a: Features, flags: int, outside: int) -> np.ndarray:
    """A mask of `b` warped onto `a`."""
    return cv2.warpAffine(mask, small, a.small.shape[::-1], flags=flags, borderValue=outside)


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(values, (0, 0), sigma)


def _rescale(old: tuple[int, ...], new: tuple[int, ...]) -> Affine:
    """The map from pixels of a picture of one (height, width) to those of another."""
    across, down = new[1] / old[1], new[0] / old[0]
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])


def _compose(first: Affine, second: Affine, third: Affine) -> Affine:
    """Three affine maps, applied in this order."""
    whole = np.eye(3)
    for step in (first, second, third):
        whole = np.vstack([step, [0, 0, 1]]) @ whole
    return whole[:2]
