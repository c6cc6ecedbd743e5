"""Traces that acquisition, export and handling leave in the pixels of an image.

JPEG blocks, sharpness, noise, the grid of a resampling, thin borders and lead marks near the
corners. A class that was collected or exported in another way differs in these, and a network
sees them too.
"""

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from fracnet.data.image_io import Grey

QUADRANTS = ("top_left", "top_right", "bottom_left", "bottom_right")
JPEG_TRACES = ("blocks_across", "blocks_down", "grid_across", "grid_down")
SHARPNESS_TRACES = ("fine_detail", "middle_detail", "fine_edges")
NOISE_TRACES = ("noise_10", "noise_30", "noise_60", "noise_black")
RESAMPLING_TRACES = ("steps_half", "steps_other", "bends_half", "bends_other")
THIN_BORDER_TRACES = (
    "jump_least",
    "jump_most",
    "rim_darkest",
    "rim_brightest",
    "rim_evenest",
    "rim_unevenest",
)
MARK_TRACES = tuple(
    f"mark_{quadrant}_{what}" for quadrant in QUADRANTS for what in ("contrast", "area")
)
TRACES: tuple[str, ...] = (
    *JPEG_TRACES,
    *SHARPNESS_TRACES,
    *NOISE_TRACES,
    *RESAMPLING_TRACES,
    *THIN_BORDER_TRACES,
    *MARK_TRACES,
)

WINDOW = 384  # pixels of the central window in which texture is measured
BLOCK = 8  # pixels of a side of JPEG's blocks
EDGE = 20.0  # grey levels above which a difference is an edge of anatomy, not texture
FLOOR = 0.05  # grey levels, so that logarithms are finite
RIM = 8  # pixels from the border in which a thin border ends, and as many to compare with
MARK_SIDE = 640  # pixels of the longest side where marks are detected
MARK_STEP = 16  # grey levels of a mark above its surroundings, at least
MOST_MARKS = 40  # candidates examined per image, to bound the cost


def measure_traces(image: Grey) -> npt.NDArray[np.float64]:
    """Features float64 [F], named by `TRACES`, of uint8 [H, W] as stored in the file.

    Texture is measured in a central window at full resolution: shrinking an image removes it.
    """
    window = _central_window(image)
    values = [
        *_jpeg_grid(window),
        *_sharpness(window),
        *_noise(window),
        *_resampling(window),
        *_thin_border(image),
        *_marks(image),
    ]
    return np.array(values, dtype=np.float64)


def _central_window(image: Grey) -> npt.NDArray[np.float32]:
    """At most `WINDOW` pixels a side, cut along the grid of JPEG's blocks."""
    cuts = []
    for side in image.shape:
        start = max(0, side - WINDOW) // 2 // BLOCK * BLOCK
        cuts.append(slice(start, start + WINDOW))
    return image[tuple(cuts)].astype(np.float32)


def _log(value: float) -> float:
    return float(np.log(value + FLOOR))


def _profile(x: npt.NDArray[np.float32], kernel: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Mean absolute differences between the columns of x, [W - len(kernel) + 1]; edges are cut.

    Entry j is of the columns from j on.
    """
    n = x.shape[1] - len(kernel) + 1
    difference = cv2.filter2D(x, -1, np.array([kernel], np.float32), anchor=(0, 0))[:, :n]
    _, cut = cv2.threshold(np.abs(difference), EDGE, 0, cv2.THRESH_TRUNC)
    return np.asarray(cv2.reduce(cut, 0, cv2.REDUCE_AVG, dtype=cv2.CV_64F)[0])


def _jpeg_grid(x: npt.NDArray[np.float32]) -> list[float]:
    """How much the third difference grows at block edges: at the file's grid, and at any grid.

    An image that was cropped or turned after it was compressed has its grid elsewhere.
    """
    aligned, anywhere = [], []
    for y in (x, np.ascontiguousarray(x.T)):
        if y.shape[1] < 2 * BLOCK:
            aligned.append(0.0)
            anywhere.append(0.0)
            continue
        profile = _profile(y, (-1, 3, -3, 1))
        phase = np.array([profile[p::BLOCK].mean() for p in range(BLOCK)])
        usual = _log(float(np.median(phase)))
        # Entry j is the step from pixel j + 1 to j + 2, so a block ends at j = 6.
        aligned.append(_log(float(phase[BLOCK - 2])) - usual)
        anywhere.append(_log(float(phase.max())) - usual)
    return [*aligned, *anywhere]


def _sharpness(x: npt.NDArray[np.float32]) -> list[float]:
    """Fine detail relative to the next coarser one: overall, one octave up, and at edges."""
    blurred = [cv2.blur(x, (width, width)) for width in (3, 5, 9)]
    bands = [cv2.absdiff(a, b) for a, b in zip([x, *blurred], blurred, strict=False)]
    means = [_log(cv2.mean(band)[0]) for band in bands]
    edges = [_log(float(np.quantile(band[::4, ::4], 0.99))) for band in bands[:2]]
    return [means[0] - means[1], means[1] - means[2], edges[0] - edges[1]]


NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6


def _noise(x: npt.NDArray[np.float32]) -> list[float]:
    """Quantiles over small blocks of what no smooth surface explains (Immerkaer 1996), log.

    The last one is over all blocks; the others leave out blocks that are black or white.
    """
    height, width = (max(1, side // BLOCK) for side in x.shape)
    residual = np.abs(cv2.filter2D(x, -1, NOISE_KERNEL))
    noise = cv2.resize(residual, (width, height), interpolation=cv2.INTER_AREA)
    level = cv2.resize(x, (width, height), interpolation=cv2.INTER_AREA)
    exposed = noise[(level > 8) & (level < 247)]
    inside = exposed if exposed.size else noise.ravel()
    quantiles = np.quantile(inside, (0.1, 0.3, 0.6))
    return [*(_log(float(q)) for q in quantiles), _log(float(np.quantile(noise, 0.1)))]


def _resampling(x: npt.NDArray[np.float32]) -> list[float]:
    """Periodic smoothness along rows and columns, which interpolation leaves (Gallagher 2005).

    For first and second differences: the peak at half of the sampling frequency, as doubling
    leaves, and the highest other one that is not of JPEG's grid; log, relative to the median.
    """
    results = np.zeros((2, 4))
    for axis, y in enumerate((x, np.ascontiguousarray(x.T))):
        n = y.shape[1] // BLOCK * BLOCK
        if n < 8 * BLOCK:
            continue
        for k, kernel in enumerate(((-1, 1), (1, -2, 1))):
            profile = _profile(y, kernel)[:n] + FLOOR
            trend = cv2.blur(profile[None], (17, 1), borderType=cv2.BORDER_REPLICATE)[0]
            profile = profile / trend - 1
            size = len(profile) // BLOCK * BLOCK
            spectrum = np.abs(np.fft.rfft(profile[:size] * np.hanning(size)))
            place = np.arange(len(spectrum)) * BLOCK / size
            other = (place > 0.6) & (np.abs(place - np.rint(place)) * size / BLOCK > 2.5)
            usual = float(np.median(spectrum[other])) + 1e-3
            results[axis, 2 * k] = np.log((spectrum[-1] + 1e-3) / usual)
            results[axis, 2 * k + 1] = np.log((spectrum[other].max() + 1e-3) / usual)
    return [float(value) for value in results.mean(axis=0)]


def _thin_border(image: Grey) -> list[float]:
    """Over the four sides, least and most of: the highest jump between neighboring lines near the
    border, relative to usual jumps there; the mean of the two outermost lines relative to the next
    ones, grey levels; the same of their deviation, log.
    """
    jumps, means, deviations = [], [], []
    for turned in (image, image[::-1], image.T, image.T[::-1]):
        lines = turned[: 2 * RIM].astype(np.float32)
        steps = np.abs(np.diff(lines, axis=0)).mean(axis=1)
        usual = float(np.median(steps)) if steps.size else 0.0
        jumps.append(_log(float(steps[:RIM].max(initial=0.0))) - _log(usual))
        rim, inside = lines[:2], lines[-RIM:]
        means.append(float(rim.mean() - inside.mean()))
        deviations.append(_log(float(rim.std())) - _log(float(inside.std())))
    return [f(values) for values in (jumps, means, deviations) for f in (min, max)]


def _marks(image: Grey) -> list[float]:
    """The most contrasted mark of each quadrant beside the middle third: grey levels, area share.

    A mark is a small region brighter than all around it; bones go on beyond any small frame.
    """
    height, width = image.shape
    scale = MARK_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        height, width = image.shape
    side = max(height, width)
    smooth = cv2.GaussianBlur(image, (3, 3), 0)
    reach = max(7, side // 24 | 1)
    hat = cv2.morphologyEx(smooth, cv2.MORPH_TOPHAT, np.ones((reach, reach), np.uint8))
    found = (hat >= MARK_STEP).astype(np.uint8)
    _, regions, stats, centers = cv2.connectedComponentsWithStats(found, connectivity=8)
    x, y, w, h, area = stats.T
    outside = (centers[:, 0] < width / 3) | (centers[:, 0] > 2 * width / 3)
    small = (area >= 6) & (np.maximum(w, h) <= side // 8) & outside
    small[0] = False  # the background
    places = np.flatnonzero(small)
    best: Mapping[tuple[bool, bool], list[float]] = {
        (bottom, right): [0.0, 0.0] for bottom in (False, True) for right in (False, True)
    }
    for i in places[np.argsort(-area[places], kind="stable")][:MOST_MARKS]:
        top, bottom = max(0, y[i] - 2), min(height, y[i] + h[i] + 2)
        left, right = max(0, x[i] - 2), min(width, x[i] + w[i] + 2)
        box = smooth[top:bottom, left:right]
        frame = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
        mark = box[regions[top:bottom, left:right] == i]
        contrast = float(mark.mean()) - float(np.sort(frame)[int(0.95 * (len(frame) - 1))])
        quadrant = best[bool(centers[i, 1] > height / 2), bool(centers[i, 0] > width / 2)]
        if contrast > quadrant[0]:
            quadrant[:] = contrast, float(area[i] / image.size)
    return [value for quadrant in best.values() for value in quadrant]
