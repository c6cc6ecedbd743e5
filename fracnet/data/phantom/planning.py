"""What the plans of all data sets share: counts that make sense, regions in their proportions."""

from collections.abc import Collection, Mapping

import numpy as np

from fracnet.errors import UserError


def check_counts(key: str, counts: Mapping[str, int], allowed: Collection[str]) -> None:
    """Raises UserError unless all are numbers of 0 or more for the allowed splits."""
    if extra := sorted(set(counts) - set(allowed)):
        raise UserError(f"{key}: {extra} are no splits; allowed are {list(allowed)}.")
    for split, n in counts.items():
        if n < 0:
            raise UserError(f"{key}.{split} is {n}; it must be 0 or more.")


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raises UserError unless low <= value <= high."""
    if not low <= value <= high:
        raise UserError(f"{key} is {value}; it must lie in {low}..{high}.")


def check_seed(seed: int) -> None:
    """Raises UserError unless it can seed a generator."""
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed is {seed!r}; it must be an integer of 0 or more.")


def mixed(n: int, shares: Mapping[str, int]) -> list[str]:
    """n names, each as often as its share says, within one."""
    total = sum(shares.values())
    edges = np.cumsum([0.0, *(share / total for share in shares.values())]) * n
    whole = np.round(edges).astype(int)
    return [name for name, k in zip(shares, np.diff(whole), strict=True) for _ in range(k)]
