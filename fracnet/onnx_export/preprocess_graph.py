"""The preprocessing pipeline as ONNX nodes that give OpenCV's bytes.

Each step follows the arithmetic of OpenCV's code for 8-bit images: its order of additions, its
types and its rounding. Tests compare every byte with `fracnet.data.preprocess`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fracnet.data.preprocess import gaussian_kernel
from fracnet.onnx_export.graph import Graph, Value
from fracnet.utils.errors import UserError

I0, I1, I2 = (np.int64(i) for i in range(3))
F32, F64, U8, I32, I64 = np.float32, np.float64, np.uint8, np.int32, np.int64
EPSILON = np.finfo(np.float64).eps
MAX_SORTED = 5
"""Larger windows of a median are counted, not sorted."""
MIN_BILATERAL = 6


def check_exportable(steps: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError for a step whose bytes cannot be reproduced."""
    for step in steps:
        if step["name"] == "bilateral" and step["diameter"] < MIN_BILATERAL:
            raise UserError(
                f"preprocess: the step bilateral with diameter={step['diameter']} cannot be "
                "exported: OpenCV filters with a diameter below 6 by closed code of Intel, "
                f"whose bytes cannot be reproduced. Allowed: {MIN_BILATERAL} to 25."
            )


def to_uint8(g: Graph, pixels: str, bits: str) -> str:
    """uint8 [H, W] of uint16 [H, W]: unchanged where `bits` is 8, else as `stretch_to_uint8`."""

    def stretched(g: Graph) -> Value:
        values = g.cast(pixels, F64)
        low = g.ReduceMin(values, keepdims=0)
        span = g.Sub(g.ReduceMax(values, keepdims=0), low)

        def constant(g: Graph) -> Value:
            return g.Add(g.Sub(values, low), g.Round(g.Div(low, F64(257))))

        def scaled(g: Graph) -> Value:
            return g.Round(g.Mul(g.Sub(values, low), g.Div(F64(255), span)))

        return g.cast(g.when(g.Equal(span, F64(0)), constant, scaled), U8)

    return g.when(g.Equal(bits, I64(8)), lambda g: g.cast(pixels, U8), stretched)


def preprocess(g: Graph, image: str, steps: Sequence[Mapping[str, Any]], image_size: int) -> str:
    """uint8 [S, S] of uint8 [H, W], by the checked steps of a `Preprocess`."""
    for step in steps:
        match step["name"]:
            case "resize":
                resize = squash if step["mode"] == "squash" else pad
                image = resize(g, image, image_size)
            case "clahe":
                image = clahe(g, image, step["clip_limit"], step["tiles"])
            case "median":
                image = median(g, image, step["size"])
            case "gaussian":
                image = gaussian(g, image, step["size"], step["sigma"])
            case "bilateral":
                image = bilateral(
                    g, image, step["diameter"], step["sigma_color"], step["sigma_space"]
                )
            case name:
                raise AssertionError(name)
    return image


def _sides(g: Graph, image: Value) -> tuple[str, str]:
    """Height and width, int64."""
    shape = g.Shape(image)
    return g.Gather(shape, I0), g.Gather(shape, I1)


def squash(g: Graph, image: str, image_size: int) -> str:
    """As `fracnet.data.preprocess.squash`."""
    height, width = _sides(g, image)
    side = I64(image_size)
    small_height, small_width = g.Min(height, side), g.Min(width, side)
    shrunk = area(g, image, small_height, small_width)
    grows = g.Or(g.Less(height, side), g.Less(width, side))
    return g.when(grows, lambda g: linear(g, shrunk, side, side), lambda g: shrunk)


def pad(g: Graph, image: str, image_size: int) -> str:
    """As `fracnet.data.preprocess.pad`."""
    height, width = _sides(g, image)
    side = I64(image_size)
    longer = g.Max(height, width)
    scale = g.Div(F64(image_size), g.cast(longer, F64))

    def scaled(value: str) -> str:
        return g.Max(I1, g.cast(g.Round(g.Mul(g.cast(value, F64), scale)), I64))

    new_height, new_width = scaled(height), scaled(width)
    new = new_height, new_width
    shrinks = g.Less(side, longer)
    resized = g.when(shrinks, lambda g: area(g, image, *new), lambda g: linear(g, image, *new))
    spare_height, spare_width = g.Sub(side, new_height), g.Sub(side, new_width)
    top, left = g.Div(spare_height, I2), g.Div(spare_width, I2)
    bottom, right = g.Sub(spare_height, top), g.Sub(spare_width, left)
    sides = [g.Reshape(value, np.array([1])) for value in (top, left, bottom, right)]
    padded = g.Pad(g.cast(resized, I32), g.Concat(*sides, axis=0), I32(0))
    return g.Reshape(g.cast(padded, U8), np.array([image_size, image_size]))


def _scale(g: Graph, old: Value, new: Value) -> str:
    """Pixels of the old side per pixel of the new one, with OpenCV's two roundings in double."""
    return g.Div(F64(1), g.Div(g.cast(new, F64), g.cast(old, F64)))


def _inverse(g: Graph, number: str) -> str:
    """1 / number, float32. ONNX Runtime turns `1 / x * y` into `y / x`, which rounds otherwise."""
    return g.Div(F32(2), g.Add(number, number))


def area(g: Graph, image: str, new_height: Value, new_width: Value) -> str:
    """cv2.resize with INTER_AREA to sides that are not larger: uint8."""
    height, width = _sides(g, image)
    down, across = _scale(g, height, new_height), _scale(g, width, new_width)

    def is_whole(scale: str) -> str:
        return g.Less(g.Abs(g.Sub(scale, g.Round(scale))), F64(EPSILON))

    def whole(g: Graph) -> Value:
        high, wide = (g.cast(g.Round(scale), I64) for scale in (down, across))
        one = np.array([1])
        parts = (new_height, high, new_width, wide)
        shape = g.Concat(*(g.Reshape(part, one) for part in parts), axis=0)
        sums = g.ReduceSum(g.Reshape(g.cast(image, I32), shape), np.array([1, 3]), keepdims=0)
        count = g.Mul(high, wide)

        def halved(g: Graph) -> Value:
            return g.cast(g.Div(g.Add(sums, I32(2)), I32(4)), U8)

        def averaged(g: Graph) -> Value:
            share = _inverse(g, g.cast(count, F32))
            return g.cast(g.Round(g.Mul(g.cast(sums, F32), share)), U8)

        is_two = g.And(g.Equal(high, I2), g.Equal(wide, I2))
        return g.when(is_two, halved, averaged)

    def weighted(g: Graph) -> Value:
        # Rows are gathered, because that copies whole blocks of memory.
        columns = _weighted_rows(g, g.Transpose(image, perm=[1, 0]), across, width, new_width)
        rows = _weighted_rows(g, g.Transpose(columns, perm=[1, 0]), down, height, new_height)
        return g.cast(g.Round(rows), U8)

    return g.when(g.And(is_whole(down), is_whole(across)), whole, weighted)


def _weighted_rows(g: Graph, image: str, scale: str, old: Value, new: Value) -> str:
    """float32 [new, n] of [old, n]: means of rows, added one after the other as OpenCV does."""
    place = g.cast(g.Range(I0, new, I1), F64)
    first = g.Mul(place, scale)
    last = g.Add(first, scale)
    cell = g.Min(scale, g.Sub(g.cast(old, F64), first))
    final = g.Min(g.Floor(last), g.cast(g.Sub(old, I1), F64))
    start = g.Min(g.Ceil(first), final)
    tiny, zero, one = F64(1e-3), F64(0), F64(1)
    before, after = g.Sub(start, first), g.Sub(last, final)
    before = g.Where(g.Greater(before, tiny), g.Div(before, cell), zero)
    after = g.Where(g.Greater(after, tiny), g.Div(g.Min(g.Min(after, one), cell), cell), zero)
    inside = g.Div(one, cell)
    # Nor a row before the first one, which could hold no weight.
    n_steps = g.cast(g.Add(g.ReduceMax(g.Sub(final, start), keepdims=0), F64(2)), I64)
    shape = g.Concat(g.Reshape(new, np.array([1])), g.Shape(image, start=1), axis=0)
    zeros = g.Expand(F32(0), shape)

    def add(g: Graph, index: str, total: str) -> Value:
        row = g.Add(g.Sub(start, one), g.cast(index, F64))
        weight = g.Where(g.Less(row, final), inside, g.Where(g.Equal(row, final), after, zero))
        weight = g.Where(g.Equal(index, I0), before, weight)
        rows = g.cast(g.Max(zero, g.Min(row, final)), I64)
        pixels = g.cast(g.Gather(image, rows), F32)
        return g.Add(total, g.Mul(pixels, g.Unsqueeze(g.cast(weight, F32), np.array([1]))))

    return g.repeat(n_steps, zeros, add)


def linear(g: Graph, image: str, new_height: Value, new_width: Value) -> str:
    """cv2.resize with INTER_LINEAR to sides that are not smaller: uint8, by 11-bit weights."""
    height, width = _sides(g, image)
    left, right, left_weight, right_weight = _neighbors(g, width, new_width, at_edge=False)
    pixels = g.cast(image, I32)
    columns = g.Add(
        g.Mul(g.Gather(pixels, left, axis=1), left_weight),
        g.Mul(g.Gather(pixels, right, axis=1), right_weight),
    )
    columns = g.Div(columns, I32(16))
    upper, lower, upper_weight, lower_weight = _neighbors(g, height, new_height, at_edge=True)

    def part(rows: str, weight: str) -> str:
        weighted = g.Mul(g.Gather(columns, rows), g.Unsqueeze(weight, np.array([1])))
        return g.Div(weighted, I32(1 << 16))

    both = g.Add(part(upper, upper_weight), part(lower, lower_weight))
    return g.cast(g.Div(g.Add(both, I32(2)), I32(4)), U8)


def _neighbors(g: Graph, old: Value, new: Value, at_edge: bool) -> tuple[str, str, str, str]:
    """For each new pixel the two nearest old ones, int64 [new], and their weights, int32 [new].

    at_edge: whether the outermost pixel, repeated, still has two weights: their products are
    truncated one by one.
    """
    place = g.cast(g.Range(I0, new, I1), F64)
    center = g.Sub(g.Mul(g.Add(place, F64(0.5)), _scale(g, old, new)), F64(0.5))
    center = g.cast(center, F32)
    floor = g.Floor(center)
    share = g.Sub(center, floor)
    end = g.cast(g.Sub(old, I1), F32)
    if not at_edge:
        outside = g.Or(g.Less(floor, F32(0)), g.GreaterOrEqual(floor, end))
        share = g.Where(outside, F32(0), share)

    def fixed(value: str) -> str:
        return g.cast(g.Round(g.Mul(value, F32(2048))), I32)

    def inside(value: str) -> str:
        return g.cast(g.Max(F32(0), g.Min(value, end)), I64)

    weights = fixed(g.Sub(F32(1), share)), fixed(share)
    return inside(floor), inside(g.Add(floor, F32(1))), *weights


def clahe(g: Graph, image: str, clip_limit: float, tiles: int) -> str:
    """cv2.CLAHE with `tiles` squared tiles: uint8 [H, W]."""
    height, width = _sides(g, image)
    n = I64(tiles)
    rest_height, rest_width = g.Mod(height, n), g.Mod(width, n)
    divides = g.Equal(g.Add(rest_height, rest_width), I0)

    def extended(side: str, rest: str) -> str:
        # A side that divides grows by a whole `tiles` where the other one does not divide.
        return g.Where(divides, side, g.Add(side, g.Sub(n, rest)))

    tall, wide = extended(height, rest_height), extended(width, rest_width)
    source = g.Gather(
        g.Gather(image, _reflected(g, I0, tall, height)), _reflected(g, I0, wide, width), axis=1
    )
    tile_height, tile_width = g.Div(tall, n), g.Div(wide, n)
    luts = _lookup_tables(g, source, tile_height, tile_width, clip_limit, tiles)

    upper, lower, down = _tile_shares(g, height, tile_height, tiles)
    left, right, across = _tile_shares(g, width, tile_width, tiles)
    down = g.Unsqueeze(down, np.array([1]))
    up, back = g.Sub(F32(1), down), g.Sub(F32(1), across)
    value = g.cast(image, I64)

    def looked_up(row: str, column: str) -> str:
        # int64 [H, W] places in the tables of all tiles, one after the other.
        tile = g.Add(g.Unsqueeze(g.Mul(row, n), np.array([1])), column)
        return g.Gather(luts, g.Add(g.Mul(tile, I64(256)), value))

    def across_pair(row: str) -> str:
        return g.Add(g.Mul(looked_up(row, left), back), g.Mul(looked_up(row, right), across))

    blended = g.Add(g.Mul(across_pair(upper), up), g.Mul(across_pair(lower), down))
    return g.cast(g.Round(blended), U8)


def _reflected(g: Graph, start: Value, end: Value, side: Value) -> str:
    """int64 [end - start]: places in a side that is continued by BORDER_REFLECT_101."""
    place = g.Range(start, end, I1)
    turn = g.Sub(side, I1)
    around = g.Mod(place, g.Max(I1, g.Mul(I2, turn)))
    return g.Sub(turn, g.Abs(g.Sub(around, turn)))


def _lookup_tables(
    g: Graph, source: str, tile_height: str, tile_width: str, clip_limit: float, tiles: int
) -> str:
    """float32 [tiles * tiles * 256] of the extended image: each tile's equalization."""
    tile_area = g.Mul(tile_height, tile_width)
    tall, wide = _sides(g, source)
    row = g.Div(g.Range(I0, tall, I1), tile_height)
    column = g.Div(g.Range(I0, wide, I1), tile_width)
    tile = g.Add(g.Unsqueeze(g.Mul(row, I64(tiles)), np.array([1])), column)
    place = g.Add(g.Mul(tile, I64(256)), g.cast(source, I64))
    counts = g.Reshape(g.histogram(place, tiles * tiles * 256), np.array([-1, 256]))
    limit = g.cast(g.Floor(g.Div(g.Mul(F64(clip_limit), g.cast(tile_area, F64)), F64(256))), I32)
    limit = g.Max(limit, I32(1))
    kept = g.Min(counts, limit)
    clipped = g.ReduceSum(g.Sub(counts, kept), np.array([1]), keepdims=1)
    batch = g.Div(clipped, I32(256))
    residual = g.Sub(clipped, g.Mul(batch, I32(256)))
    step = g.Max(g.Div(I32(256), g.Max(residual, I32(1))), I32(1))
    bins = np.arange(256, dtype=I32)
    chosen = g.And(g.Equal(g.Mod(bins, step), I32(0)), g.Less(g.Div(bins, step), residual))
    counts = g.Add(g.Add(kept, batch), g.cast(chosen, I32))
    scale = g.Div(F32(255), g.cast(tile_area, F32))
    tables = g.Round(g.Mul(g.cast(g.CumSum(counts, I64(1)), F32), scale))
    return g.flat(g.Min(tables, F32(255)))


def _tile_shares(g: Graph, side: str, tile: str, tiles: int) -> tuple[str, str, str]:
    """For each pixel of a side two tiles, int64, and the share of the second, float32."""
    place = g.cast(g.Range(I0, side, I1), F32)
    position = g.Sub(g.Mul(place, _inverse(g, g.cast(tile, F32))), F32(0.5))
    floor = g.Floor(position)
    first, end = g.cast(floor, I64), I64(tiles - 1)
    return g.Max(first, I0), g.Min(g.Add(first, I1), end), g.Sub(position, floor)


def median(g: Graph, image: str, size: int) -> str:
    """cv2.medianBlur, whose border repeats the outermost pixels: uint8 [H, W]."""
    reach = size // 2
    stacked = g.Unsqueeze(g.cast(image, F32), np.array([0, 1]))
    padded = g.Pad(stacked, np.array([0, 0, reach, reach] * 2), mode="edge")
    build = _median_by_sorting if size <= MAX_SORTED else _median_by_counting
    return g.cast(g.Squeeze(build(g, padded, size), np.array([0, 1])), U8)


def _median_by_sorting(g: Graph, padded: str, size: int) -> str:
    """By the part of a sorting network (Batcher 1968, AFIPS 32:307) that ends in the median."""
    height, width = (g.Shape(padded, start=i, end=i + 1) for i in (2, 3))
    back = np.array([size - 1])
    height, width = g.Sub(height, back), g.Sub(width, back)
    n = size * size
    values = []
    for row, column in np.ndindex(size, size):
        end = g.Concat(g.Add(height, np.array([row])), g.Add(width, np.array([column])), axis=0)
        values.append(g.Slice(padded, np.array([row, column]), end, np.array([2, 3])))
    for i, j, lower, upper in _for_median(n):
        a, b = values[i], values[j]
        if lower:
            values[i] = g.Min(a, b)
        if upper:
            values[j] = g.Max(a, b)
    return values[n // 2]


def _for_median(n: int) -> list[tuple[int, int, bool, bool]]:
    """The comparisons that the median of n values depends on.

    Two places, and whether the lower value, to the first, and the upper one, to the second, count.
    """
    used, kept = {n // 2}, []
    for i, j in reversed([*_comparisons(n)]):
        if i in used or j in used:
            kept.append((i, j, i in used, j in used))
            used |= {i, j}
    return kept[::-1]


def _comparisons(n: int) -> Iterator[tuple[int, int]]:
    """Pairs of places to sort one after the other, so that n values are sorted."""
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        yield i + j, i + j + k
            k //= 2
        p *= 2


def _median_by_counting(g: Graph, padded: str, size: int) -> str:
    """The number of grey levels that more than half of a window's pixels reach, a pass each."""
    half = F32(size * size // 2)

    def passed(g: Graph, level: str) -> str:
        above = g.cast(g.Greater(padded, g.cast(level, F32)), F32)
        sums = g.Conv(above, np.ones((1, 1, 1, size), F32))
        sums = g.Conv(sums, np.ones((1, 1, size, 1), F32))
        return g.cast(g.Greater(sums, half), F32)

    return g.repeat(
        I64(254), passed(g, g.constant(I64(0))),
        lambda g, level, total: g.Add(total, passed(g, g.Add(level, I1))),
    )  # fmt: skip


def _extended(g: Graph, image: str, reach: int) -> str:
    """The image with a border of `reach` pixels by BORDER_REFLECT_101."""
    for axis, side in enumerate(_sides(g, image)):
        places = _reflected(g, I64(-reach), g.Add(side, I64(reach)), side)
        image = g.Gather(image, places, axis=axis)
    return image


def gaussian(g: Graph, image: str, size: int, sigma: float) -> str:
    """cv2.sepFilter2D with `gaussian_kernel`: uint8 [H, W].

    OpenCV multiplies and adds in one step where the processor can: here in float64, then rounded.
    """
    kernel = gaussian_kernel(size, sigma).astype(F32)
    reach = size // 2
    height, width = _sides(g, image)
    pixels = g.cast(_extended(g, image, reach), F32)

    def shifted(values: str, place: int, side: str, axis: int) -> str:
        start = np.array([place])
        end = g.Add(g.Reshape(side, np.array([1])), start)
        return g.Slice(values, start, end, np.array([axis]))

    def added(total: str | None, values: str, weight: np.float32) -> str:
        product = g.Mul(g.cast(values, F64), F64(weight))
        return g.cast(product if total is None else g.Add(g.cast(total, F64), product), F32)

    rows: str | None = None
    for place in range(size):
        rows = added(rows, shifted(pixels, place, width, 1), kernel[place])
    assert rows is not None
    result = added(None, shifted(rows, reach, height, 0), kernel[reach])
    for k in range(1, reach + 1):
        pair = g.Add(shifted(rows, reach + k, height, 0), shifted(rows, reach - k, height, 0))
        result = added(result, pair, kernel[reach + k])
    return g.cast(g.Min(g.Round(result), F32(255)), U8)


def bilateral(g: Graph, image: str, diameter: int, sigma_color: float, sigma_space: float) -> str:
    """cv2.bilateralFilter with a diameter of 6 and more: uint8 [H, W]."""
    reach = diameter // 2
    offsets = [
        (row, column)
        for row, column in np.ndindex(2 * reach + 1, 2 * reach + 1)
        if (row - reach) ** 2 + (column - reach) ** 2 <= reach**2
    ]
    squared = np.array([(row - reach) ** 2 + (column - reach) ** 2 for row, column in offsets])
    by_space = np.exp(squared * (-0.5 / sigma_space**2)).astype(F32)
    by_color = np.exp(np.arange(256.0) ** 2 * (-0.5 / sigma_color**2)).astype(F32)
    center, shape = g.cast(image, I32), g.Shape(image)
    padded = g.cast(_extended(g, image, reach), I32)
    zeros = g.Expand(F32(0), g.Concat(np.array([2]), shape, axis=0))
    places: np.ndarray = np.array(offsets)

    def add(g: Graph, index: str, totals: str) -> Value:
        start = g.Gather(places, index)
        pixels = g.Slice(padded, start, g.Add(start, shape), np.array([0, 1]))
        color = g.Gather(by_color, g.Abs(g.Sub(pixels, center)))
        weight = g.cast(g.Mul(g.Gather(by_space, index), color), F64)
        # As for `gaussian`; the sum of the weights comes out the same.
        values = g.Mul(weight, g.cast(pixels, F64))
        both = g.Concat(*(g.Unsqueeze(v, np.array([0])) for v in (weight, values)), axis=0)
        return g.cast(g.Add(g.cast(totals, F64), both), F32)

    totals = g.repeat(I64(len(offsets)), zeros, add)
    return g.cast(g.Round(g.Div(g.Gather(totals, I1), g.Gather(totals, I0))), U8)
