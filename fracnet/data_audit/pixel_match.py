"""Whether one image is a copy of another: laid over each other, their pixels agree everywhere.

Key points alone are fooled by lead markers, implants and the like; a dark background is alike in
all radiographs. So after the key points have told how two pictures would lie on each other, the
finest detail that survives resampling and recompression is compared in small windows over the whole
overlap, and a window that tells nothing (clipped, filled, flat) does not count. A copy agrees
nearly perfectly; a second exposure of the same pose does not.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data_audit.keypoints import Affine, Features, Floats, fitted, mirrored

# Chosen on other radiographs and phantoms than those of experiments/duplicates' numbers.
COPY = 0.982  # score of a copy
HOPELESS = 0.4  # score that no alignment lifts to a copy's
QUANTILES = (0.2, 0.5)  # of the windows' correlations: their mean is the score

# Pixels of the small picture: finer than the first is what resampling blurs and compression drops,
# coarser than the second is alike in pictures of one body part.
BAND = (1.2, 2.4)
WINDOW, SPOT = 8.0, 2.0  # pixels, where detail is compared and where it is looked for
TEXTURE, STRONG = 0.5, 1.5  # grey levels (standard deviation) of detail
ANYWHERE = 0.9  # median correlation wherever there is texture
EVIDENCE, ENOUGH = 0.2, 0.1  # shares of the smaller picture: with texture, with strong texture
DARK, BRIGHT = 3, 252  # grey levels at and beyond which a pixel is clipped or filled
MARGIN = 2  # pixels around clipped ones that are left out too
OVERLAP = 0.5  # of the smaller picture
ALIGNING = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)


@dataclass(frozen=True)
class Verified:
    """A copy.

    transform: float64 [2, 3], from pixels (x, y) of one image to those of the other, the mirror
    included. score: from `COPY` to 1.
    """

    transform: Affine
    score: float


def verified(a: Features, b: Features, is_mirrored: bool) -> Verified | None:
    """What maps `a`, in a mirror or not, onto `b`; None where `b` is no copy of it."""
    shown = mirrored(a) if is_mirrored else a
    found = fitted(shown, b)
    if found is None:
        return None
    small = _between(_pixels(shown.small.shape, shown.work), found, _pixels(b.work, b.small.shape))
    score = _score(shown, b, small)
    if HOPELESS < score < COPY:
        aligned = _aligned(shown, b, small)
        if aligned is not None and (better := _score(shown, b, aligned)) > score:
            small, score = aligned, better
    if score < COPY:
        return None
    full = _between(_pixels(a.size, a.small.shape), small, _pixels(b.small.shape, b.size))
    if is_mirrored:
        full = _between(np.array([[-1.0, 0, a.size[1] - 1], [0, 1, 0]]), full, np.eye(2, 3))
    return Verified(full, score)


def _score(a: Features, b: Features, small: Affine) -> float:
    """Agreement of `a` with `b` laid over it by `small`, which maps small pictures. -1 to 1."""
    height, width = a.small.shape
    options = cv2.WARP_INVERSE_MAP
    inside = _warped(np.ones_like(b.small), small, a, cv2.INTER_NEAREST | options, 0) > 0
    smaller = min(a.small.size, b.small.size / np.linalg.det(small[:, :2]))
    if inside.sum() < OVERLAP * smaller:
        return -1.0
    laid = cv2.warpAffine(
        b.small,
        small,
        (width, height),
        flags=cv2.INTER_LINEAR | options,
        borderMode=cv2.BORDER_REPLICATE,
    )
    silent = _warped(_clipped(b), small, a, cv2.INTER_NEAREST | options, 1) | _clipped(a)
    grown = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MARGIN + 1, 2 * MARGIN + 1))
    telling = (cv2.dilate(silent, grown) == 0) & inside
    agreement, power, n_spots = _windows(a.small, laid, telling)
    textured, strong = agreement[power > TEXTURE**2], agreement[power > STRONG**2]
    if min(n_spots, len(textured)) < EVIDENCE * smaller:
        return -1.0
    anywhere = float(np.median(textured))
    judged = strong if len(strong) >= ENOUGH * smaller else textured
    score = float(np.quantile(judged, QUANTILES).mean())
    return score if anywhere >= ANYWHERE else min(score, anywhere)


def _windows(a: np.ndarray, b: np.ndarray, telling: np.ndarray) -> tuple[Floats, Floats, int]:
    """Around each pixel: correlation of the detail of two pictures, and its power in the stronger.

    Only pixels that are `telling` count; the power is 0 where they are too few. Last, the number of
    pixels at which there is detail: a marker's would fill the windows far around it.
    """
    weight = telling.astype(np.float32)
    detail_a, detail_b = (_band(image.astype(np.float32), weight) for image in (a, b))
    near = _blur(weight, WINDOW) + 1e-6
    power_a, power_b = _blur(detail_a**2, WINDOW) / near, _blur(detail_b**2, WINDOW) / near
    floor = TEXTURE**2
    both = np.sqrt(np.maximum(power_a, floor) * np.maximum(power_b, floor))
    agreement = _blur(detail_a * detail_b, WINDOW) / near / both
    spots = np.maximum(_blur(detail_a**2, SPOT), _blur(detail_b**2, SPOT)) > floor
    power = np.maximum(power_a, power_b) * (telling & (near > 0.3))
    return agreement, power, int(spots.sum())


def _band(values: Floats, weight: Floats) -> Floats:
    """Detail between the two scales of `BAND`, looking only at pixels that have a weight."""
    fine, coarse = (_blur(values * weight, s) / (_blur(weight, s) + 1e-6) for s in BAND)
    return np.asarray((fine - coarse) * weight, np.float32)


def _aligned(a: Features, b: Features, small: Affine) -> Affine | None:
    """The map improved by the pixels (ECC: Evangelidis and Psarakis, 2008); None if it runs off."""
    start = small.astype(np.float32)
    everywhere = np.full(b.small.shape, 255, np.uint8)
    try:
        _, found = cv2.findTransformECC(
            _detail(a.small), _detail(b.small), start, cv2.MOTION_AFFINE, ALIGNING, everywhere, 5
        )
    except cv2.error:  # its way to say that the pictures are not alike or do not meet
        return None
    return found.astype(np.float64)


def _detail(image: np.ndarray) -> np.ndarray:
    """Detail at even contrast, for the alignment; uint8."""
    values = image.astype(np.float32)
    values -= _blur(values, 4.0)
    values /= np.sqrt(_blur(values * values, 4.0)) + 3
    return np.clip(128 + 40 * values, 0, 255).astype(np.uint8)


def _clipped(features: Features) -> np.ndarray:
    small = features.small
    return ((small <= DARK) | (small >= BRIGHT)).astype(np.uint8)


def _warped(mask: np.ndarray, small: Affine, a: Features, flags: int, outside: int) -> np.ndarray:
    """A mask over `b` laid over `a`."""
    return cv2.warpAffine(mask, small, a.small.shape[::-1], flags=flags, borderValue=outside)


def _blur(values: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(values, (0, 0), sigma)


def _pixels(old: tuple[int, ...], new: tuple[int, ...]) -> Affine:
    """From pixels of a picture of one (height, width) to pixels of the same at another."""
    across, down = new[1] / old[1], new[0] / old[0]
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])


def _between(first: Affine, second: Affine, third: Affine) -> Affine:
    """Three affine maps one after the other."""
    whole = np.eye(3)
    for step in (first, second, third):
        whole = np.vstack([step, [0, 0, 1]]) @ whole
    return whole[:2]
