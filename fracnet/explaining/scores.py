"""How well a map finds what is marked: pointing game, energy inside, overlap.

Pointing game: Zhang et al. 2018 (IJCV 126:1084), whether the highest place lies in a mark; without
tolerance, and near: within their 15 pixels of one. Energy inside: Wang et al. 2020 (CVPR workshops,
Score-CAM). Overlap: intersection over union of the marks with the places where the map reaches a
level.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

# What counts as near, in shares of the image's side: 15 pixels of 224.
TOLERANCE = 15 / 224
# Shares of a map's maximum at which it may be cut; which one, validation says.
CUTS = np.arange(1, 20) / 20


@dataclass(frozen=True)
class Scores:
    """Of n maps: pointing and near bool [n], energy float64 [n], overlaps float64 [n, len(CUTS)].

    area: share of the image that is marked, float64 [n]; wide: that is near a mark. empty: bool
    [n], maps that are 0 everywhere; they point nowhere, hold no energy inside and overlap with
    nothing.
    """

    pointing: np.ndarray
    near: np.ndarray
    energy: np.ndarray
    overlaps: np.ndarray
    area: np.ndarray
    wide: np.ndarray
    empty: np.ndarray


def score(maps: Iterable[np.ndarray], masks: Iterable[np.ndarray]) -> Scores:
    """Scores of maps, batches float [b, S, S] of values from 0 to 1, by masks, bool [S, S] each.

    There are as many masks as maps; a map's highest value is 1, or it is empty. Neither are held.
    """
    found = [_one(heat, mask) for heat, mask in zip(_singly(maps), masks, strict=True)]
    return Scores(
        pointing=np.array([one[0] for one in found], dtype=bool),
        near=np.array([one[1] for one in found], dtype=bool),
        energy=np.array([one[2] for one in found], dtype=np.float64),
        overlaps=np.array([one[3] for one in found], dtype=np.float64).reshape(-1, len(CUTS)),
        area=np.array([one[4] for one in found], dtype=np.float64),
        wide=np.array([one[5] for one in found], dtype=np.float64),
        empty=np.array([one[6] for one in found], dtype=bool),
    )


def best_cut(overlaps: np.ndarray) -> int:
    """Index of the cut with the highest mean overlap, of float64 [n, len(CUTS)]; n is not 0."""
    return int(overlaps.mean(axis=0).argmax())


def _singly(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for batch in batches:
        yield from batch


def around(mask: np.ndarray) -> np.ndarray:
    """Pixels of bool [S, S] and those within `TOLERANCE` of one, from centre to centre."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= TOLERANCE * mask.shape[-1])


def _one(
    heat: np.ndarray, mask: np.ndarray
) -> tuple[bool, bool, float, np.ndarray, float, float, bool]:
    """The fields of `Scores` for one map, in their order."""
    assert heat.shape == mask.shape, (heat.shape, mask.shape)
    highest, close = float(heat.max()), around(mask)
    area, wide = float(mask.mean()), float(close.mean())
    if highest == 0:
        return False, False, 0.0, np.zeros(len(CUTS)), area, wide, True
    # Equal maxima, as of a flat top, count together: a hit has half of them inside at least.
    top = heat == highest
    pointing, near = bool(mask[top].mean() >= 0.5), bool(close[top].mean() >= 0.5)
    total = heat.sum(dtype=np.float64)
    energy = float(heat[mask].sum(dtype=np.float64) / total)
    # Cuts that each pixel reaches; pixels that reach cut k are those that reach k or more of them.
    reached = np.searchsorted(CUTS.astype(heat.dtype), heat.ravel(), side="right")
    above = _at_least(reached)
    inside = _at_least(reached[mask.ravel()])
    overlaps = inside / (above + int(mask.sum()) - inside)
    return pointing, near, energy, overlaps, area, wide, False


def _at_least(reached: np.ndarray) -> np.ndarray:
    """How many reach each cut, float64 [len(CUTS)]."""
    counts = np.bincount(reached, minlength=len(CUTS) + 1)
    return counts[::-1].cumsum()[::-1][1:].astype(np.float64)
