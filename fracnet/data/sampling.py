"""Which rows an epoch shows, how often, and in which order."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

# Each keeps its stream apart from others that start from the same seed.
_STREAM, _EXTRA, _TURN = 0x04D, 0x04E, 0x04F


class Draw(NamedTuple):
    """One image of one epoch: everything that its augmentation depends on beside the seed.

    `copy` counts the earlier draws of the row in this epoch, so that no two look the same.
    """

    epoch: int
    row: int
    copy: int = 0


class EpochSampler(Sampler[Draw]):
    """Yields draws, so that the data set can augment a row by its epoch.

    Rows and order are functions of (seed, epoch). A subclass that shows other rows, or some of
    them more often, overrides `chosen` and `__len__`.
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

    def chosen(self, epoch: int) -> npt.NDArray[np.int64]:
        """Rows of this epoch, int64 [len(self)]; a row that stands twice is shown twice."""
        return self.rows

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Rows of this epoch in the order in which they are shown, int64 [len(self)]."""
        chosen = self.chosen(epoch)
        if not self.shuffle:
            return chosen
        return np.random.default_rng((_STREAM, self.seed, epoch)).permutation(chosen)

    def __iter__(self) -> Iterator[Draw]:
        epoch, order = self.epoch, self.order(self.epoch)
        copies = occurrences(order)
        return iter(
            [
                Draw(epoch, row, copy)
                for row, copy in zip(order.tolist(), copies.tolist(), strict=True)
            ]
        )

    def __len__(self) -> int:
        return len(self.rows)


class _ByClass(EpochSampler):
    """Knows the rows of each class."""

    def __init__(self, rows: np.ndarray, targets: np.ndarray, seed: int) -> None:
        """`rows`: int64 [N], rows of the manifest; `targets`: int64 [N], the class of each."""
        super().__init__(rows, seed, shuffle=True)
        self.of_class = [self.rows[targets == c] for c in np.unique(targets)]
        self.sizes = [len(rows) for rows in self.of_class]


class Oversampler(_ByClass):
    """Shows every class as often as the largest.

    A class of n rows that is to fill m places shows each of them m // n times and a choice of
    m % n of them, another one each epoch, once more.
    """

    def chosen(self, epoch: int) -> npt.NDArray[np.int64]:
        """Each row at least once, int64 [len(self)]."""
        draws = np.random.default_rng((_EXTRA, self.seed, epoch))
        most, parts = max(self.sizes), []
        for rows in self.of_class:
            times, rest = divmod(most, len(rows))
            parts += [np.tile(rows, times), draws.choice(rows, rest, replace=False)]
        return np.concatenate(parts)

    def __len__(self) -> int:
        return max(self.sizes) * len(self.sizes)


class Undersampler(_ByClass):
    """Shows as many rows of every class as the smallest has.

    A class of n rows with m places takes turns of ceil(n / m) epochs, within which each row is
    shown at least once. Each turn deals the rows out anew.
    """

    def chosen(self, epoch: int) -> npt.NDArray[np.int64]:
        """No row twice, int64 [len(self)]."""
        fewest, parts = min(self.sizes), []
        for number, rows in enumerate(self.of_class):
            turn, place = divmod(epoch, -(-len(rows) // fewest))
            dealt = np.random.default_rng((_TURN, self.seed, number, turn)).permutation(rows)
            # The last hand of a turn is filled up from the first.
            parts.append(np.roll(dealt, -place * fewest)[:fewest])
        return np.concatenate(parts)

    def __len__(self) -> int:
        return min(self.sizes) * len(self.sizes)


def occurrences(values: np.ndarray) -> npt.NDArray[np.int64]:
    """How often each value stood before its place: [7, 5, 7, 7] -> [0, 0, 1, 2]; int64 [N]."""
    by_value = np.argsort(values, kind="stable")
    _, first, counts = np.unique(values[by_value], return_index=True, return_counts=True)
    found = np.empty(len(values), dtype=np.int64)
    found[by_value] = np.arange(len(values)) - np.repeat(first, counts)
    return found
