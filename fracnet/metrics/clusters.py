"""Which rows of a table count as one independent observation."""

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
