"""The OOD score of `fracnet.models.ood` as ONNX nodes, for one preprocessed image."""

import numpy as np

from fracnet.data.image_features import (
    APPEARANCE_BINS,
    APPEARANCE_NAMES,
    BLUR_WIDTHS,
    QUANTILES,
    band_width,
)
from fracnet.models.ood import NEIGHBOR, TINY, Reference
from fracnet.onnx_export.graph import Graph, Value

F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64
HALF_LEVEL = F64(0.5 / 255)


def ood_score(g: Graph, image: str, features: str, reference: Reference, image_size: int) -> str:
    """float64 [1] of uint8 [S, S] and the head's input float32 [1, F]: above 1 is OOD."""
    appearance = g.cast(_appearance(g, image, image_size), F32)
    z = g.cast(g.Div(g.Sub(appearance, reference.mean), reference.scale), F64)
    row = g.Reshape(z, np.array([1, -1]))
    product = g.MatMul(row, reference.precision.astype(F64))
    squared = g.ReduceSum(g.Mul(product, row), keepdims=0)
    logs = [g.flat(g.Log(g.Add(g.Sqrt(g.Max(squared, F64(0))), F64(TINY))))]
    if reference.features is not None:
        logs.append(g.Log(g.Add(_to_neighbor(g, features, reference.features), F64(TINY))))
    standard = g.Div(g.Sub(g.Concat(*logs, axis=0), reference.middle), reference.spread)
    largest = g.ReduceMax(standard, keepdims=0)
    return g.Div(g.flat(g.Max(largest, F64(0))), F64(reference.limit))


def _to_neighbor(g: Graph, features: str, stored: np.ndarray) -> str:
    """float64 [1]: distance to the K-th nearest of float16 [n, F]."""
    length = g.Sqrt(g.ReduceSum(g.Mul(features, features), np.array([1])))
    unit = g.cast(g.Div(features, g.Max(length, F32(TINY))), F64)
    others = g.cast(np.ascontiguousarray(stored.T), F64)
    lengths = (stored.astype(F64) ** 2).sum(axis=1)[None]
    own = g.ReduceSum(g.Mul(unit, unit), np.array([1]))
    squared = g.Sub(g.Add(own, lengths), g.Mul(F64(2), g.MatMul(unit, others)))
    k = min(NEIGHBOR, len(stored))
    nearest = g.TopK(squared, np.array([k]), axis=1, largest=0, n=2)[0]
    return g.flat(g.Sqrt(g.Max(g.Gather(nearest, I64(k - 1), axis=1), F64(0))))


def _appearance(g: Graph, image: str, side: int) -> str:
    """float64 [A]: the features that `APPEARANCE_NAMES` lists, of uint8 [S, S]."""
    size = side * side
    pixels = g.cast(image, F32)
    scaled = g.cast(g.Div(pixels, F32(255)), F64)
    counts = g.histogram(g.cast(image, I64), 256)
    shares = g.Div(g.cast(counts, F32), F32(size))
    cumulated = g.cast(g.CumSum(shares, I64(0)), F64)
    shares = g.cast(shares, F64)
    grey = np.arange(256) / 255

    def expected(values: Value) -> str:
        return g.ReduceSum(g.Mul(shares, values), keepdims=0)

    mean = expected(grey)
    distance = g.Sub(grey, mean)
    deviation = g.Sqrt(expected(g.Mul(distance, distance)))
    cube = g.Mul(g.Mul(distance, distance), distance)
    bounded = g.Max(deviation, F64(1 / 255))
    skewness = g.Div(expected(cube), g.Mul(g.Mul(bounded, bounded), bounded))
    levels = (np.array(QUANTILES) - 1e-6)[:, None]
    quantiles = g.Div(
        g.ReduceSum(g.cast(g.Less(cumulated, levels), F64), np.array([1]), keepdims=0), F64(255)
    )
    bins = g.ReduceSum(
        g.Reshape(shares, np.array([APPEARANCE_BINS, -1])), np.array([1]), keepdims=0
    )
    deep, quarter = max(1, side // 20), side // 4

    def part(start: tuple[int, int], end: tuple[int, int]) -> str:
        return g.Slice(scaled, np.array(start), np.array(end), np.array([0, 1]))

    strips = [
        part((0, 0), (deep, side)),
        part((side - deep, 0), (side, side)),
        part((0, 0), (side, deep)),
        part((0, side - deep), (side, side)),
    ]
    means, deviations = (
        g.TopK(
            g.Concat(*(g.flat(measure(g, strip)) for strip in strips), axis=0),
            np.array([4]), largest=0, n=2,
        )[0]
        for measure in (_mean, _deviation)
    )  # fmt: skip
    center = part((quarter, quarter), (side - quarter, side - quarter))
    values = [
        mean,
        deviation,
        skewness,
        quantiles,
        g.Slice(bins, np.array([1]), np.array([APPEARANCE_BINS])),
        g.Gather(shares, I64(0)),
        g.Gather(shares, I64(255)),
        means,
        deviations,
        _mean(g, center),
        _deviation(g, center),
        *_detail(g, pixels, side),
    ]
    result = g.Concat(*(g.flat(value) for value in values), axis=0)
    return g.Reshape(result, np.array([len(APPEARANCE_NAMES)]))


def _detail(g: Graph, pixels: str, side: int) -> list[str]:
    """As `image_features._detail`, of whole numbers float32 [S, S]."""
    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], F32)
    laplacian = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], F32)
    kernels = np.stack([across, across.T, laplacian])[:, None]
    stacked = g.Unsqueeze(pixels, np.array([0, 1]))
    mirrored = g.Pad(stacked, np.array([0, 0, 1, 1] * 2), mode="reflect")
    # Whole numbers up to here, so exact.
    filtered = g.Conv(mirrored, kernels)
    x, y, second = (g.Gather(filtered, I64(i), axis=1) for i in range(3))
    slope = g.Div(g.Sqrt(g.Add(g.Mul(x, x), g.Mul(y, y))), F32(8 * 255))
    size = side * side
    above = size - int(0.99 * size)
    highest = g.TopK(g.flat(slope), np.array([above]), n=2)[0]
    counts = g.CumSum(g.histogram(g.cast(g.Abs(second), I64), 4 * 255 + 1), I64(0))
    ranks = np.array([[(size - 1) // 2], [size // 2]], I32)
    below = g.ReduceSum(g.cast(g.LessOrEqual(counts, ranks), F64), np.array([1]), keepdims=0)
    middle = g.Div(g.ReduceMean(below, keepdims=0), F64(255))
    widths = [band_width(width, side) for width in BLUR_WIDTHS]
    margin = max(widths) // 2
    padded = g.Pad(stacked, np.array([0, 0, margin, margin] * 2), mode="edge")
    # Sums over rectangles from sums over all pixels above and to the left.
    bordered = g.Pad(g.cast(padded, I32), np.array([0, 0, 1, 1, 0, 0, 0, 0]))
    sums = g.CumSum(g.CumSum(bordered, I64(2)), I64(3))
    bands, previous = [], g.Div(stacked, F32(255))
    for width in widths:
        near, far = margin - width // 2, margin + width // 2 + 1

        def corner(top: int, left: int) -> str:
            start = np.array([top, left])
            return g.Slice(sums, start, start + side, np.array([2, 3]))

        box = g.Sub(
            g.Add(corner(far, far), corner(near, near)), g.Add(corner(near, far), corner(far, near))
        )
        blurred = g.Div(g.cast(box, F32), F32(width * width * 255))
        bands.append(_log(g, _deviation(g, g.Sub(previous, blurred))))
        previous = blurred

    def contrast(filtered: str) -> str:
        return _log(g, g.Div(_mean(g, g.Abs(filtered)), F32(8 * 255)))

    return [
        _log(g, _mean(g, slope)),
        _log(g, g.Gather(highest, I64(above - 1))),
        _log(g, middle),
        _log(g, g.Div(_deviation(g, second), F32(255))),
        g.Sub(contrast(x), contrast(y)),
        *bands,
    ]


def _mean(g: Graph, values: str) -> str:
    return g.ReduceMean(values, keepdims=0)


def _deviation(g: Graph, values: str) -> str:
    distance = g.Sub(values, _mean(g, values))
    return g.Sqrt(_mean(g, g.Mul(distance, distance)))


def _log(g: Graph, value: str) -> str:
    return g.Log(g.Add(g.cast(value, F64), HALF_LEVEL))
