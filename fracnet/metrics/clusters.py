"""Which rows of a table count as one independent observation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
    # scipy.sparse.csgraph does the same, but every command would wait 0.1 s for its import.
    a, b = np.asarray(links, np.int64).reshape(-1, 2).T
    root = np.arange(n)  # of each node: a smaller node of its component, in the end the smallest
    while (root[a] != root[b]).any():
        for ends in (root[a], root[b]):
            np.minimum.at(root, ends, np.minimum(root[a], root[b]))
        while (root != root[root]).any():
            root = root[root]
    return np.unique(root, return_inverse=True)[1].astype(np.int64)
