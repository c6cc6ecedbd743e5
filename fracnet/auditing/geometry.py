"""Where one image would lie in another: from matching key points to an affine map.

No chance is in it: a key point has a size and a direction, so every single match proposes a map,
and all of them are tried.
"""

import numpy as np
import numpy.typing as npt

from fracnet.auditing.features import Features, rooted

Affine = npt.NDArray[np.float64]

# A match counts when it is mutual and this much nearer than the second best (Lowe 2004: 0.8).
RATIO = 0.85
FEWEST = 12  # matches that one map must explain; copies had 18 at the least
TRIED = 4  # proposals refined
# A proposal, in working pixels and in pixels a pixel from its own match: shear is not in it.
NEAR, SLACK = 5.0, 0.25
TIGHTENING = (12.0, 7.0, 4.0, 3.0, 3.0)  # pixels
SCALES = (0.45, 2.2)
STRETCH = 2.0  # largest scale by smallest


def fitted(a: Features, b: Features) -> Affine | None:
    """The affine map [2, 3] from working pixels of `a` to those of `b`, None where there is none.

    No map turns the picture over: `a` in a mirror is asked for by itself.
    """
    from_a, from_b = _matches(a, b)
    if len(from_a) < FEWEST:
        return None
    agreeing = _proposals(from_a, from_b)
    if not len(agreeing):
        return None
    maps, counts = _refined(from_a[:, :2], from_b[:, :2], agreeing)
    best = int(counts.argmax())
    return maps[best] if counts[best] >= FEWEST and _plausible(maps[best]) else None


def inverse(affine: Affine) -> Affine:
    """The affine map [2, 3] the other way."""
    back = np.linalg.inv(affine[:, :2])
    return np.column_stack([back, -back @ affine[:, 2]])


def _matches(a: Features, b: Features) -> tuple[Affine, Affine]:
    """Points of `a` and of `b` [M, 4] that match, float64."""
    if min(len(a.points), len(b.points)) < FEWEST:
        return np.empty((0, 4)), np.empty((0, 4))
    alike = rooted(a.descriptors) @ rooted(b.descriptors).T
    rows = np.arange(len(alike))
    partner = alike.argmax(axis=1)
    mutual = alike.argmax(axis=0)[partner] == rows
    best = alike[rows, partner]
    alike[rows, partner] = -1
    # Squared distances of unit vectors.
    clear = 1 - best < RATIO**2 * (1 - alike.max(axis=1))
    kept = mutual & clear
    return a.points[kept].astype(np.float64), b.points[partner[kept]].astype(np.float64)


def _proposals(a: Affine, b: Affine) -> npt.NDArray[np.bool_]:
    """Which matches [P, M] agree with the similarity of one of them, the most popular first."""
    turn = b[:, 3] - a[:, 3]
    rate = b[:, 2] / a[:, 2]
    # The plane as complex numbers: a similarity is a product and a sum.
    of_a, of_b = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    away = of_a[None] - of_a[:, None]
    miss = of_b[:, None] + (rate * np.exp(1j * turn))[:, None] * away - of_b[None]
    agree = np.abs(miss) < NEAR + SLACK * np.abs(away)
    count = agree.sum(axis=1)
    first = np.argsort(-count, kind="stable")[:TRIED]
    return np.asarray(agree[first[count[first] >= FEWEST // 2]])


def _refined(
    a: Affine, b: Affine, kept: npt.NDArray[np.bool_]
) -> tuple[Affine, npt.NDArray[np.int64]]:
    """Least squares over the matches that agree, again and again with less tolerance.

    All proposals [P, M] at once: maps [P, 2, 3], and how many matches each explains, 0 where too
    few were left on the way.
    """
    ones = np.column_stack([a, np.ones(len(a))])
    alive = np.ones(len(kept), bool)
    solved: npt.NDArray[np.float64] = np.zeros((len(kept), 3, 2))
    for tolerance in TIGHTENING:
        alive &= kept.sum(axis=1) >= FEWEST // 2
        used = kept[:, None] * ones.T
        # Three points in a line leave it open; a grain of ridge makes that a poor fit instead.
        solved = np.asarray(np.linalg.solve(used @ ones + 1e-6 * np.eye(3), used @ b))
        miss = ones @ solved - b
        kept = (miss * miss).sum(axis=2) < tolerance * tolerance
    return solved.transpose(0, 2, 1), kept.sum(axis=1) * alive


def _plausible(found: Affine) -> bool:
    if np.linalg.det(found[:, :2]) <= 0:
        return False
    large, small = np.linalg.svd(found[:, :2], compute_uv=False)
    return bool(SCALES[0] < small and large < SCALES[1] and large < STRETCH * small)
