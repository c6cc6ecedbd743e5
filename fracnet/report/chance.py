"""Whether an AUC is shown to exceed chance: one rule for pages of runs, comparisons and sweeps."""

from collections.abc import Sequence

CHANCE = 0.5
SHOWN = f"shown to do better than chance ({CHANCE:g}) on test"


def reaches_chance(low: float) -> bool:
    """Whether an interval with this lower limit leaves it open that the AUC is no more than chance.

    One that touches chance does, and one that lies below it.
    """
    return low <= CHANCE


def none_exceeds(lows: Sequence[float | None]) -> bool:
    """Whether every one of these intervals, by its lower limit, reaches chance.

    False where one has no interval: what is not computed is no failure.
    """
    return bool(lows) and all(low is not None and reaches_chance(low) for low in lows)
