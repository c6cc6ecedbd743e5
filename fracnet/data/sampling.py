"""Which rows an epoch shows, and in which order."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

_STREAM = 0x04D  # keeps this stream apart from others that start from the same seed


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, row), so that the data set can augment a row by its epoch.

    The order is a function of (seed, epoch). A subclass that shows other rows, or some of them
    more often, overrides `order` and `__len__`.
    """

    def __init__(self, rows: np.ndarray, seed: int, shuffle: bool) -> None:
        """`rows`: int64 [N], rows of the manifest."""
        self.rows = np.asarray(rows, dtype=np.int64)
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """Rows of this epoch in the order in which they are shown, int64 [len(self)]."""
        if not self.shuffle:
            return self.rows
        return np.random.default_rng((_STREAM, self.seed, epoch)).permutation(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        return iter([(epoch, row) for row in self.order(epoch).tolist()])

    def __len__(self) -> int:
        return len(self.rows)
