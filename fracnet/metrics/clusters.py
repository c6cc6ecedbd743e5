"""Which rows of a table count as one independent observation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Clusters:
    """`ids` int64[N] in 0..count-1 of independent observations, and what one is (`unit`)."""

    ids: np.ndarray
    count: int
    unit: str

    @property
    def trivial(self) -> bool:
        """Whether every row is a cluster of its own."""
        return self.count == len(self.ids)

    @property
    def lone(self) -> str:
        """Why rows of a single cluster have no variance."""
        return "there is only one row" if self.trivial else f"all rows come from one {self.unit}"


def components(n: int, links: Sequence[tuple[int, int]] | np.ndarray) -> np.ndarray:
    """int64[n]: number of the connected component of each of n nodes; links are pairs of nodes."""
    a, b = np.asarray(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)
