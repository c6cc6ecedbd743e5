"""Several tests at once: what each p value is worth among the others."""

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p values, in the order given, by Holm's step-down method (1979, Scand J Stat 6:65).

    The k-th smallest of m is multiplied by m - k + 1 and is never below the one before it: to
    accept those under 0.05 keeps the chance of even one false positive at 5 %.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(value) for value in adjusted]
