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
    found, most = None, FEWEST - 1
    for agreeing in _proposals(from_a, from_b):
        proposed, count = _refined(from_a[:, :2], from_b[:, :2], agreeing)
        if proposed is not None and count > most:
            found, most = proposed, count
    return found if found is not None and _plausible(found) else None


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


def _proposals(a: Affine, b: Affine) -> list[np.ndarray]:
    """Which matches [M] agree with the similarity of one of them, the most popular first."""
    turn = b[:, 3] - a[:, 3]
    rate = b[:, 2] / a[:, 2]
    # The plane as complex numbers: a similarity is a product and a sum.
    of_a, of_b = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    away = of_a[None] - of_a[:, None]
    miss = of_b[:, None] + (rate * np.exp(1j * turn))[:, None] * away - of_b[None]
    agree = np.abs(miss) < NEAR + SLACK * np.abs(away)
    count = agree.sum(axis=1)
    first = np.argsort(-count, kind="stable")[:TRIED]
    return [agree[i] for i in first if count[i] >= FEWEST // 2]


def _refined(a: Affine, b: Affine, kept: np.ndarray) -> tuple[Affine | None, int]:
    """Least squares over the matches that agree, again and again with less tolerance."""
    ones = np.column_stack([a, np.ones(len(a))])
    solved = None
    for tolerance in TIGHTENING:
        if kept.sum() < FEWEST // 2:
            return None, 0
        used = ones[kept]
        # Three points in a line leave it open; a grain of ridge makes that a poor fit instead.
        normal = used.T @ used + 1e-6 * np.eye(3)
        solved = np.linalg.solve(normal, used.T @ b[kept])
        miss = ones @ solved - b
        kept = (miss * miss).sum(axis=1) < tolerance * tolerance
    assert solved is not None
    return solved.T, int(kept.sum())


def _plausible(found: Affine) -> bool:
    if np.linalg.det(found[:, :2]) <= 0:
        return False
    large, small = np.linalg.svd(found[:, :2], compute_uv=False)
    return bool(SCALES[0] < small and large < SCALES[1] and large < STRETCH * small)
