"""Would two models differ as much if it were chance which of them made which prediction?

Within each cluster the predictions of both are swapped or not, as a whole: what belongs together
stays together, so no independence of rows is assumed.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from fracnet.evaluation.bootstrap import CHUNK
from fracnet.evaluation.figure import Figure, Sample, cluster_sums
from fracnet.evaluation.paired_tests import Test
from fracnet.evaluation.predictions import Clusters

SWAPS = 9999
# Areas are sorted anew for each swap.
SWAPS_OF_AREAS = 1999
# More clusters than this have more swaps than anybody wants.
MOST_BITS = 30
# Floating-point sums of the same terms in another order.
TOLERANCE = 1e-10


def permutation_test(
    figure: Figure,
    one: Sample,
    two: Sample,
    clusters: Clusters,
    *,
    swaps: int | None = None,
    seed: int = 0,
) -> Test:
    """Cluster permutation test of a figure's difference between two models on the same rows.

    All swaps are tried where they are no more than wanted, else so many drawn by `seed`; the
    observed one then counts as one of them. A swap that leaves the figure undefined counts against
    a difference.
    """
    method = f"permutation by {clusters.unit}"
    wanted = swaps or (SWAPS if figure.additive else SWAPS_OF_AREAS)
    observed = abs(figure.value(one) - figure.value(two))
    if np.isnan(observed):
        return Test(None, method, "undefined")
    every = clusters.count <= MOST_BITS and 2**clusters.count <= wanted + 1
    total = 2**clusters.count if every else wanted
    difference = _swapped(figure, one, two, clusters)
    rng = np.random.default_rng(seed)
    as_far = 0
    for start in range(0, total, CHUNK):
        size = min(CHUNK, total - start)
        if every:
            swap = np.arange(start, start + size)[:, None] >> np.arange(clusters.count) & 1
        else:
            swap = rng.integers(2, size=(size, clusters.count))
        moved = np.abs(difference(swap.astype(np.float64)))
        as_far += int((~(moved < observed - TOLERANCE)).sum())
    return Test(as_far / total if every else (as_far + 1) / (total + 1), method)


def _swapped(
    figure: Figure, one: Sample, two: Sample, clusters: Clusters
) -> Callable[[np.ndarray], np.ndarray]:
    """First less second, float64[B], as a function of the swaps float64[B, G], 0 or 1."""
    if figure.additive:
        first, second = (cluster_sums(figure.parts(own), clusters) for own in (one, two))

        def of_sums(swap: np.ndarray) -> np.ndarray:
            moved = swap @ (second - first)
            mine, other = first.sum(axis=0) + moved, second.sum(axis=0) - moved
            return figure.of_sums(mine) - figure.of_sums(other)

        return of_sums
    # Ranks: the scores of two models need not mean the same.
    both = Sample(
        np.tile(one.target, 2),
        np.concatenate([rankdata(own.prob, axis=0) for own in (one, two)]),
        np.concatenate([one.predicted, two.predicted]),
    )

    def of_rows(swap: np.ndarray) -> np.ndarray:
        other = swap[:, clusters.ids]
        mine = np.hstack([1 - other, other])
        return figure.weighted(both, mine) - figure.weighted(both, 1 - mine)

    return of_rows
