"""What the jobs of one sweep in one process have in common is made once."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_kept: dict[str, tuple[Hashable, Any]] | None = None
"""By name the last key and its value; None outside of a sweep."""


def begin() -> None:
    """From here on a value is kept for the next job."""
    global _kept
    _kept = {}


def end() -> None:
    """Forget all values."""
    global _kept
    _kept = None


def in_use() -> bool:
    """Whether values are kept."""
    return _kept is not None


def shared(name: str, key: Hashable, make: Callable[[], T]) -> T:
    """What `make` returns, or what it returned to the job before if that had the same key.

    name: one value is kept for each. key: all that the value depends on; with None it is not kept.
    Nobody may change the value.
    """
    if _kept is None or key is None:
        return make()
    if name not in _kept or _kept[name][0] != key:
        _kept.pop(name, None)  # free its memory first
        _kept[name] = key, make()
    value: T = _kept[name][1]
    return value
