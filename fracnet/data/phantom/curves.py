"""Smooth curves through anatomical stations."""

import numpy as np


def monotone(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Monotone cubic through x [n], y [n, c], evaluated at `at` [k] within x's range -> [k, c].

    Slopes are Fritsch and Butland's harmonic means (SIAM J. Sci. Stat. Comput. 5, 1984), so a
    curve never swings beyond its stations. Written out because thousands of tiny curves are
    needed, where a general interpolator's set-up would cost more than everything else.
    """
    step = np.diff(x)
    rise = np.diff(y, axis=0) / step[:, None]
    before, after = step[:-1, None], step[1:, None]
    low, high = rise[:-1], rise[1:]
    same = low * high > 0
    weight = (2 * after + before) * high + (after + 2 * before) * low
    inner = 3 * (before + after) * low * high / np.where(same, weight, 1.0)
    slope = np.concatenate([rise[:1], np.where(same, inner, 0.0), rise[-1:]])
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = step[i]
    t = ((at - x[i]) / h)[:, None]
    s = 1 - t
    h = h[:, None]
    return np.asarray(
        s * s * (1 + 2 * t) * y[i]
        + t * t * (1 + 2 * s) * y[i + 1]
        + t * s * h * (s * slope[i] - t * slope[i + 1])
    )
