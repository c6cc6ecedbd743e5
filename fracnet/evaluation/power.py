"""How many patients a difference would need, from the variance that these patients showed."""

import math

from scipy import stats

POWER = 0.8
ALPHA = 0.05


def detectable(error: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The true difference that a two-sided test at `alpha` finds with the chance `power`.

    `error` is the standard error of the difference. (z_(1 - alpha/2) + z_power) errors, by the
    normal approximation.
    """
    return float((stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)) * error)


def clusters_needed(
    error: float,
    clusters: int,
    margin: float,
    *,
    fixed: float = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> int | None:
    """How many clusters make a true difference of `margin` detectable.

    error: standard error of the difference on `clusters` clusters, of which the part `fixed`, a
        standard error too, does not shrink with more of them (the chance of seeds).

    Returns:
        The number; None where `fixed` alone hides the margin, however many there were.
    """
    assert margin > 0, margin
    allowed = (margin / detectable(1.0, alpha, power)) ** 2 - fixed**2
    if allowed <= 0:
        return None
    return max(2, math.ceil(clusters * (error**2 - fixed**2) / allowed))
