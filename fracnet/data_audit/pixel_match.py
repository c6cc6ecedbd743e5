"""Whether one image is a copy of another: once aligned, their edges lie at the same places.

The comparison does not depend on the tone curve. A gain, a gamma curve, a contrast window or CLAHE
changes how strong an edge is, but hardly its direction, and inversion turns all directions by 180
degrees. So small windows of gradient directions are correlated (orientation correlation: Fitch et
al., BMVC 2002). Windows without information (clipped, filled, flat) do not count.

Two exposures of one pose also correlate well, but their bones and soft tissue have moved against
each other: each window fits best a little off its place. So the score depends on how far off the
windows are, in pixels and compared with the uncertainty of each, on how much correlation that
costs, and on whether neighbors are off in the same way. All this is measured on the grids of both
images. Key points alone are fooled by lead markers, implants and the like.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.fft

from fracnet.data_audit.keypoints import (
    Affine,
    Features,
    Floats,
    Grey,
    fit_affine,
    invert,
    share_explained,
    variant,
)

COPY_SCORE = 0.5  # of a copy
UNLIKELY = 0.01  # score on one grid from which on the other may change the decision
HOPELESS = 0.55  # mean correlation of the first alignment that no refinement makes a copy's
WINDOW = 32  # pixels of a side
BLOCK = 32  # windows transformed at once, so that they stay in the processor's cache
STRIDES = (24, 24, 16)  # pixels between windows, of one alignment after the other
SHIFTS = (6, 4, 3)  # pixels that a window may be off
LOST = (3.0, 2.2)  # pixels that windows are off afterwards, but for the last: no copy's are
# Log-odds before the last alignment. Of 1,557 alignments below, none ended with a score above 0.12,
# and 10 with one above 0.018, from which a pair counts (`near_duplicates.UNRELATED`).
HOPELESS_ODDS = -9.3
CLOSE = 0.7  # pixels that an alignment has moved the corners, after which the last one follows
FEWEST_WINDOWS = 12
# By how much strong edges may correlate less than all. Radiographs that share only the dust and
# stripes of one imaging plate had 0.2 and more, copies at most 0.071 (experiments/duplicates).
PLATE = 0.1
SIGMA = 1.5  # pixels, of the smoothing before gradients
NEARBY = 25  # pixels, over which the strength of gradients is evened out
FLOOR = 0.08  # grey levels per pixel that never count as an edge
DARK, BRIGHT = 3, 252  # grey levels at and beyond which a pixel is clipped or filled
MARGIN = 7  # pixels of a disk around clipped ones that are left out as well

# Logistic regression on copies and on other exposures, by experiments/duplicates/fit.py. The
# intercept is 1.5 higher: `near_duplicates.consistent_pairs` asks more of pairs without support.
INTERCEPT = -6.68
WEIGHTS = {
    "offset low": -1.46,
    "offset high": -0.8,
    "significance low": -0.97,
    "significance high": -0.67,
    "cost low": -0.9,
    "cost high": -0.3,
    "correlation low": -4.97,
    "correlation high": 1.5,
    "bend low": -0.83,
    "bend high": -0.22,
    "windows low": 0.2,
    "windows high": 3.61,
    "agreeing": 4.13,
}

_TAPER = np.hanning(WINDOW + 2)[1:-1].astype(np.float32)
_HANN = np.outer(_TAPER, np.repeat(_TAPER, 2))  # of both components of each pixel
Rows = npt.NDArray[np.int64]
_DISK = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (MARGIN, MARGIN))


@dataclass(frozen=True)
class Match:
    """Two images that align.

    transform: float64 [2, 3], from pixels (x, y) of one image to those of the other, including a
    mirror. region: float64 [2, 3], maps the unit circle to an ellipse of one standard deviation
    around what agrees, in pixels of the first image. score: 0 to 1, from `COPY_SCORE` on a copy.
    measured: what the score is made of, named by `WEIGHTS`.
    """

    transform: Affine
    region: Affine
    score: float
    measured: dict[str, float]


@dataclass(frozen=True)
class _Windows:
    """Where windows of two pictures fit best. All float [n].

    x, y: centers. dx, dy: how far off, in pixels. power: of the gradients, relative to their
    surroundings. edges: strength of the gradients, in any unit. peak, center: correlation there and
    at the same place. spread: standard error of dx and dy from noise alone.
    """

    x: Affine
    y: Affine
    dx: Affine
    dy: Affine
    power: Affine
    edges: Affine
    peak: Affine
    center: Affine
    spread: Affine

    def __len__(self) -> int:
        return len(self.x)


class _Picture:
    """A small picture, and what comparisons need of it."""

    def __init__(self, pixels: Grey) -> None:
        self.pixels = pixels

    @cached_property
    def clipped(self) -> Grey:
        """1 where a pixel is clipped or filled."""
        return ((self.pixels <= DARK) | (self.pixels >= BRIGHT)).astype(np.uint8)

    @cached_property
    def gradient(self) -> tuple[Floats, Floats, Floats, float]:
        return _gradient(self.pixels)


class Source:
    """An image, mirrored or inverted or not, that is compared with several others."""

    def __init__(self, image: Features, is_mirrored: bool, is_inverted: bool) -> None:
        self.features = variant(image, is_mirrored, is_inverted)
        self.picture = _Picture(self.features.small)
        # From the small picture to the image as it is.
        self.back = _rescale(image.small.shape, image.size)
        if is_mirrored:
            self.back = compose(self.back, np.array([[-1.0, 0, image.size[1] - 1], [0, 1, 0]]))

    def compare(self, b: Features, start: Affine | None = None) -> Match | None:
        """What maps the image onto `b`; None if nothing does.

        start: a map from pixels to pixels that is almost right, instead of one by key points.
        """
        a, other = self.features, _Picture(b.small)
        to_work, from_work = _rescale(a.small.shape, a.work), _rescale(b.work, b.small.shape)
        agreeing: float | None = None
        if start is None:
            fit = fit_affine(a, b)
            if fit is None:
                return None
            small, agreeing = compose(to_work, fit[0], from_work), fit[1]
        else:
            small = compose(self.back, start, _rescale(b.size, b.small.shape))
        aligned = align(self.picture, other, small, agreeing)
        if aligned is None:
            return None
        small, windows = aligned
        if agreeing is None:
            agreeing = share_explained(a, b, compose(invert(to_work), small, invert(from_work)))
        forward = backward = _measure(windows)
        measured = _combined(forward, backward, agreeing)
        if score_of(measured) > UNLIKELY:
            # A blurred picture is best compared on its own grid, a small part is not.
            reverse = align(other, self.picture, invert(small), refined=True)
            backward = _measure(reverse[1]) if reverse else forward
            measured = _combined(forward, backward, agreeing)
        full = compose(invert(self.back), small, _rescale(b.small.shape, b.size))
        region = compose(_region(windows), self.back)
        return Match(full, region, score_of(measured), measured)


def _combined(
    forward: dict[str, float], backward: dict[str, float], agreeing: float
) -> dict[str, float]:
    """The measurements on both grids, as `WEIGHTS` names them."""
    measured = {"agreeing": agreeing}
    for name, value in forward.items():
        measured[f"{name} low"] = min(value, backward[name])
        measured[f"{name} high"] = max(value, backward[name])
    return measured


def score_of(measured: dict[str, float]) -> float:
    """0 to 1, from the measurements of `align`."""
    return float(1 / (1 + np.exp(-_log_odds(measured))))


def _log_odds(measured: dict[str, float]) -> float:
    return INTERCEPT + sum(WEIGHTS[name] * measured[name] for name in WEIGHTS)


def align(
    a: _Picture, b: _Picture, small: Affine, agreeing: float | None = None, refined: bool = False
) -> tuple[Affine, _Windows] | None:
    """The refined map from small picture `a` to `b`, and its windows; None if there is none.

    agreeing: as measured, if the map is by key points; then it ends as soon as it is hopeless.
    refined: the map is from such an alignment, so the last step is enough.
    """
    last = len(STRIDES) - 1
    step = last if refined else 0
    corners = np.array([[x, y, 1] for y in (0, a.pixels.shape[0]) for x in (0, a.pixels.shape[1])])
    while True:
        windows = _compare(a, b, small, STRIDES[step], SHIFTS[step])
        if len(windows) < 6:
            return None
        if step == 0 and np.average(windows.peak, weights=windows.power) < HOPELESS:
            return None
        before = small
        small, windows = _realigned(small, windows, a.pixels.shape)
        if step == last:
            break
        if _quantile(np.hypot(windows.dx, windows.dy), _trusted(windows), 0.7) > LOST[step]:
            return None
        if agreeing is not None:
            measured = _measure(windows)
            if _log_odds(_combined(measured, measured, agreeing)) < HOPELESS_ODDS:
                return None
        moved = float(np.abs(corners @ (small - before).T).max())
        step = last if moved < CLOSE else step + 1
    if _independent(_trusted(windows)) < FEWEST_WINDOWS or _plate(windows) > PLATE:
        return None
    return small, windows


def _plate(windows: _Windows) -> float:
    """How much better windows agree if faint edges count as much as strong ones."""
    faint = np.average(windows.peak, weights=np.minimum(windows.power, 15))
    strong = np.average(windows.peak, weights=windows.power * windows.edges)
    return float(faint - strong)


def _independent(weights: Affine) -> float:
    """How many windows of equal weight would weigh as much (Kish's effective sample size).

    A map that rests on three windows fits them whatever they show.
    """
    return float(weights.sum() ** 2 / (weights**2).sum())


def _measure(windows: _Windows) -> dict[str, float]:
    weight = np.minimum(windows.power, 15)
    trusted = _trusted(windows)
    offset = np.hypot(windows.dx, windows.dy)
    cost = np.average(windows.peak - windows.center, weights=weight)
    return {
        "offset": float(np.log(_quantile(offset, trusted, 0.7) + 0.01)),
        "significance": float(np.log(_quantile(offset / windows.spread, trusted, 0.7) + 0.01)),
        "cost": float(np.log(cost + 1e-3)),
        "correlation": _quantile(windows.peak, weight, 0.5),
        "bend": _bend(windows, offset, trusted),
        "windows": float(np.log(len(windows) / 50)),
    }


def _region(windows: _Windows) -> Affine:
    """As in `Match`, in pixels of the small picture."""
    places, trusted = np.vstack([windows.x, windows.y]), _trusted(windows)
    center = np.average(places, axis=1, weights=trusted)
    spread = np.cov(places, aweights=trusted, ddof=0) + np.eye(2)
    return np.column_stack([np.linalg.cholesky(spread), center])


def _trusted(windows: _Windows) -> Affine:
    return np.minimum(windows.power, 15) * np.maximum(windows.peak - 0.3, 0) + 1e-6


def _bend(windows: _Windows, offset: Affine, trusted: Affine) -> float:
    """How much of the offsets a cubic map explains, against chance: the log of an F statistic.

    Noise moves each window on its own; tissue that has moved takes neighboring windows along.
    """
    weight = trusted / trusted.sum()
    x, y = ((v - np.average(v, weights=weight)) / 64 for v in (windows.x, windows.y))
    limit = 2 * _quantile(offset, trusted, 0.7)
    clip = np.minimum(1, limit / np.maximum(offset, 1e-9))
    offsets = np.column_stack([windows.dx, windows.dy]) * clip[:, None]
    linear = np.column_stack([np.ones_like(x), x, y])
    cubic = np.column_stack([linear, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3])
    left = []
    for terms in (linear, cubic):
        weighted = terms * weight[:, None]
        ridge = 1e-6 * np.eye(terms.shape[1])
        fitted = terms @ np.linalg.solve(terms.T @ weighted + ridge, weighted.T @ offsets)
        left.append(float(weight @ ((offsets - fitted) ** 2).sum(axis=1)))
    freedom = max(1 / (weight**2).sum() - cubic.shape[1], 2)
    return float(np.log((left[0] - left[1]) / 7 / (left[1] / freedom + 1e-6) + 0.1))


def _realigned(small: Affine, windows: _Windows, shape: tuple[int, ...]) -> tuple[Affine, _Windows]:
    """The map after an affine correction that explains most offsets, and the windows without it."""
    center = np.array([[shape[1] / 2], [shape[0] / 2]])
    points = np.vstack([windows.x - center[0], windows.y - center[1], np.ones(len(windows))])
    offsets = np.vstack([windows.dx, windows.dy])
    trusted = weight = _trusted(windows)
    for tolerance in (1.5, 1.0, 0.7, 0.7):
        left = (points * weight) @ points.T + 1e-3 * np.eye(3)
        correction = np.linalg.solve(left, (points * weight) @ offsets.T).T
        miss = np.hypot(*(offsets - correction @ points))
        weight = trusted / (1 + (miss / tolerance) ** 2) ** 2
    step = np.eye(3)
    step[:2, :2] += correction[:, :2]
    step[:2, 2:] += correction[:, 2:] - correction[:, :2] @ center
    dx, dy = offsets - correction @ points
    return (np.vstack([small, [0, 0, 1]]) @ step)[:2], replace(windows, dx=dx, dy=dy)


def _compare(a: _Picture, b: _Picture, small: Affine, stride: int, shift: int) -> _Windows:
    """Windows of `a` with information, against `b` warped onto it by `small`."""
    height, width = a.pixels.shape
    back = cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(
        b.pixels,
        small,
        (width, height),
        flags=cv2.INTER_LINEAR | back,
        borderMode=cv2.BORDER_REPLICATE,
    )
    clipped: npt.NDArray[Any] = cv2.warpAffine(
        b.clipped, small, (width, height), flags=cv2.INTER_NEAREST | back, borderValue=1
    )
    mask = (cv2.dilate(clipped | a.clipped, _DISK) == 0).astype(np.float32)
    known = cv2.blur(mask, (NEARBY, NEARBY)) + 1e-3
    gradients = a.gradient, _gradient(np.asarray(warped, np.uint8))
    (of_a, strength), (of_b, other) = (_directions(each, mask, known) for each in gradients)
    across, down = _tapers(width, stride), _tapers(height, stride)
    power = np.sqrt((down @ strength @ across.T) * (down @ other @ across.T))
    row, column = np.nonzero(power > 1)
    power = power[row, column].astype(np.float64) + 1e-6
    squares = [down @ (each[2] * mask) ** 2 @ across.T for each in gradients]
    edges = (squares[0] * squares[1])[row, column].astype(np.float64) ** 0.25
    y, x = row * stride, column * stride
    correlation = _correlation(of_a, of_b, y, x, shift) / power[:, None, None]
    n = 2 * shift + 1
    row, column = np.divmod(correlation.reshape(-1, n * n).argmax(axis=1), n)
    each = np.arange(len(power))
    peak = correlation[each, row, column]
    # A parabola through the peak and its neighbors; at the rim, through the nearest three.
    row, column = np.clip(row, 1, n - 2), np.clip(column, 1, n - 2)
    dy, bend_y = _vertex(*(correlation[each, row + k, column] for k in (-1, 0, 1)))
    dx, bend_x = _vertex(*(correlation[each, row, column + k] for k in (-1, 0, 1)))
    noise = (1 - np.minimum(peak, 0.999) ** 2) / (power * np.sqrt(bend_x * bend_y))
    return _Windows(
        x=(x + (WINDOW - 1) / 2).astype(np.float64),
        y=(y + (WINDOW - 1) / 2).astype(np.float64),
        dx=column - shift + dx,
        dy=row - shift + dy,
        power=power,
        edges=edges,
        peak=peak,
        center=correlation[:, shift, shift],
        spread=np.sqrt(noise / np.maximum(peak, 0.2) ** 2 + 0.03**2),
    )


def _correlation(a: Floats, b: Floats, y: Rows, x: Rows, shift: int) -> Floats:
    """Correlation of windows at (y, x) of two fields [H, W, 2], float32 [n, shifts, shifts]."""
    n = 2 * shift + 1
    # The inverse transform of the few shifts that count.
    turn = np.outer(np.arange(-shift, shift + 1), np.arange(WINDOW)) / WINDOW
    inverse = (np.exp(2j * np.pi * turn) / WINDOW).astype(np.complex64)
    correlation = np.empty((len(y), n, n), np.float32)
    views = [_views(field) for field in (a, b)]
    for start in range(0, len(y), BLOCK):
        rows = slice(start, start + BLOCK)
        of_a, of_b = (
            scipy.fft.fft2((view[y[rows], 2 * x[rows]] * _HANN).view(np.complex64))
            for view in views
        )
        product = np.conj(of_a, out=of_a)
        product *= of_b
        partial = (product.reshape(-1, WINDOW) @ inverse.T).reshape(-1, WINDOW, n)
        correlation[rows] = (inverse @ partial).real
    return correlation


def _views(field: Floats) -> Floats:
    """All windows of a field [H, W, 2], float32 [H', 2 W', WINDOW, 2 WINDOW]."""
    lacking = [max(0, WINDOW - side) for side in field.shape[:2]]
    if any(lacking):
        field = np.pad(field, [*((0, n) for n in lacking), (0, 0)])
    rows = field.reshape(len(field), -1)
    return np.lib.stride_tricks.sliding_window_view(rows, (WINDOW, 2 * WINDOW))


@lru_cache(maxsize=256)
def _tapers(side: int, stride: int) -> Floats:
    """The squared taper of each window along a side, float32 [windows, side]."""
    starts = range(0, max(1, side - WINDOW + 1), stride)
    tapers = np.zeros((len(starts), max(side, WINDOW)), np.float32)
    for taper, start in zip(tapers, starts, strict=True):
        taper[start : start + WINDOW] = _TAPER**2
    return tapers[:, :side]


def _vertex(left: Affine, middle: Affine, right: Affine) -> tuple[Affine, Affine]:
    """Where the parabola through three neighbors has its vertex, -1 to 1, and its curvature."""
    bend = np.maximum(2 * middle - left - right, 1e-4)
    return np.clip(0.5 * (right - left) / bend, -1, 1), bend


def _gradient(image: npt.NDArray[Any]) -> tuple[Floats, Floats, Floats, float]:
    """Both derivatives, the magnitude, and how strong the noise alone would be."""
    values: npt.NDArray[Any] = image.astype(np.float32)
    fine = (values - cv2.GaussianBlur(values, (0, 0), 1.0))[::2, ::2]
    noise = 1.4826 * float(np.median(np.abs(fine)))
    values = cv2.GaussianBlur(values, (0, 0), SIGMA)
    x: Any = cv2.Sobel(values, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    y: Any = cv2.Sobel(values, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    magnitude: Any = cv2.magnitude(x, y)
    # White noise has this deviation in a derivative of the smoothed picture, times 2.
    return x, y, magnitude, FLOOR + 2 * noise / (5 * SIGMA**2)


def _directions(
    gradient: tuple[Floats, Floats, Floats, float], mask: Floats, known: Floats
) -> tuple[Floats, Floats]:
    """Gradients [H, W, 2] of strength 0 to 1, relative to their surroundings, and their squares."""
    x, y, magnitude, floor = gradient
    scale: npt.NDArray[Any] = cv2.blur(magnitude * mask, (NEARBY, NEARBY))
    scale /= known
    scale += magnitude
    scale += floor
    np.divide(mask, scale, out=scale)
    field: npt.NDArray[Any] = cv2.merge((x * scale, y * scale))
    scale *= magnitude
    scale *= scale
    return field, scale


def _quantile(values: Affine, weights: Affine, share: float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][min(np.searchsorted(total, share * total[-1]), len(values) - 1)])


def _rescale(old: tuple[int, ...], new: tuple[int, ...]) -> Affine:
    """The map from pixels of a picture of one (height, width) to those of another."""
    across, down = new[1] / old[1], new[0] / old[0]
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])


def compose(*maps: Affine) -> Affine:
    """Affine maps, applied in this order."""
    whole = np.eye(3)
    for step in maps:
        whole = np.vstack([step, [0, 0, 1]]) @ whole
    return whole[:2]
