"""Which rows an epoch uses, how often, and in which order.

Class imbalance is handled by one of these methods, based on and applied to the train split only:

none               every image once per epoch
class_weights      every image once; rare classes have a larger weight in the loss
oversample         every class as often as the largest
undersample        every class as rarely as the smallest
augment_minority   every image once; all classes but the largest have an augmentation of their own

With several processes, each gets a shard of the epoch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch.distributed as dist
from torch.utils.data import Sampler

from fracnet.data.augment import Augment, Pair, build_augment

IMBALANCE_METHODS = ("none", "class_weights", "oversample", "undersample", "augment_minority")

# Each separates a random stream from others with the same seed.
_ORDER_STREAM, _EXTRA_STREAM, _TURN_STREAM = 0x04D, 0x04E, 0x04F


class Draw(NamedTuple):
    """One image of one epoch: all that its augmentation depends on besides the seed.

    `copy` counts the earlier draws of the row in this epoch, so that no two look the same.
    """

    epoch: int
    row: int
    copy: int = 0


class EpochSampler(Sampler[Draw]):
    """Yields draws, so that augmentation can depend on the epoch.

    Rows and order are functions of (seed, epoch). A subclass with other rows, or with some of them
    more often, overrides `select` and `__len__`.
    """

    def __init__(self, rows: np.ndarray, seed: int, shuffle: bool) -> None:
        """`rows`: int64 [N], rows of the manifest."""
        self.rows = np.asarray(rows, dtype=np.int64)
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.skipped = 0  # draws that the next iteration leaves out: an epoch is continued

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self.epoch = epoch

    def select(self, epoch: int) -> npt.NDArray[np.int64]:
        """Rows of this epoch, int64 [len(self)]; a row may occur more than once."""
        return self.rows

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Rows of this epoch in the order in which they are drawn, int64 [len(self)]."""
        rows = self.select(epoch)
        if not self.shuffle:
            return rows
        return np.random.default_rng((_ORDER_STREAM, self.seed, epoch)).permutation(rows)

    def __iter__(self) -> Iterator[Draw]:
        epoch, order = self.epoch, self.order(self.epoch)
        pairs = zip(order.tolist(), earlier_occurrences(order).tolist(), strict=True)
        skipped, self.skipped = self.skipped, 0
        return iter([Draw(epoch, row, copy) for row, copy in pairs][skipped:])

    def __len__(self) -> int:
        return len(self.rows)


class _ClassSampler(EpochSampler):
    """Base of the samplers that select rows by class."""

    def __init__(self, rows: np.ndarray, targets: np.ndarray, seed: int) -> None:
        """`rows`: int64 [N], rows of the manifest; `targets`: int64 [N], the class of each."""
        super().__init__(rows, seed, shuffle=True)
        self.class_rows = [self.rows[targets == c] for c in np.unique(targets)]
        self.sizes = [len(rows) for rows in self.class_rows]


class Oversampler(_ClassSampler):
    """Draws every class as often as the largest.

    A class of n rows with m draws draws each row m // n times, and m % n rows, which differ from
    epoch to epoch, once more.
    """

    def select(self, epoch: int) -> npt.NDArray[np.int64]:
        """Each row at least once, int64 [len(self)]."""
        rng = np.random.default_rng((_EXTRA_STREAM, self.seed, epoch))
        largest, parts = max(self.sizes), []
        for rows in self.class_rows:
            times, rest = divmod(largest, len(rows))
            parts += [np.tile(rows, times), rng.choice(rows, rest, replace=False)]
        return np.concatenate(parts)

    def __len__(self) -> int:
        return max(self.sizes) * len(self.sizes)


class Undersampler(_ClassSampler):
    """Draws as many rows of every class as the smallest has.

    A class of n rows with m draws uses turns of ceil(n / m) epochs, within which each row is drawn
    at least once. Each turn shuffles the rows.
    """

    def select(self, epoch: int) -> npt.NDArray[np.int64]:
        """No row twice, int64 [len(self)]."""
        smallest, parts = min(self.sizes), []
        for index, rows in enumerate(self.class_rows):
            turn, step = divmod(epoch, -(-len(rows) // smallest))
            rng = np.random.default_rng((_TURN_STREAM, self.seed, index, turn))
            # The last epoch of a turn is filled up with rows of the first.
            parts.append(np.roll(rng.permutation(rows), -step * smallest)[:smallest])
        return np.concatenate(parts)

    def __len__(self) -> int:
        return min(self.sizes) * len(self.sizes)


def earlier_occurrences(values: np.ndarray) -> npt.NDArray[np.int64]:
    """How often each value occurred before: [7, 5, 7, 7] -> [0, 0, 1, 2]; int64 [N]."""
    return np.asarray(pd.Series(values).groupby(values).cumcount(), np.int64)


@dataclass(frozen=True, eq=False)
class AugmentByClass:
    """Applies one of two pipelines; like `Augment`, a function of its arguments alone.

    is_minority: bool [rows of the manifest], true where `strong` applies.
    """

    ordinary: Augment
    strong: Augment
    is_minority: npt.NDArray[np.bool_]

    def with_mask(
        self, image: np.ndarray, mask: np.ndarray | None, *, row: int, **draw: int
    ) -> Pair:
        """As `Augment.with_mask`."""
        augment = self.strong if self.is_minority[row] else self.ordinary
        return augment.with_mask(image, mask, row=row, **draw)


class Imbalance:
    """One of the methods: provides its sampler, augmentation and class weights."""

    def __init__(self, config: Mapping[str, Any] | None, image_size: int) -> None:
        """`config`: {method} and, only for augment_minority, {transforms}, as in conf/imbalance.

        Raises UserError for transforms that do not work on an image of `image_size` squared.
        """
        config = config or {"method": "none"}
        self.method = str(config["method"])
        assert self.method in IMBALANCE_METHODS, self.method
        self.strong: Augment | None = None
        if self.method == "augment_minority":
            self.strong = build_augment(config["transforms"], "imbalance.transforms")
            self.strong.check(image_size)

    def sampler(self, rows: np.ndarray, targets: np.ndarray, seed: int) -> EpochSampler:
        """Draws of the train split: `rows` int64 [N] of the manifest, `targets` int64 [N]."""
        if self.method == "oversample":
            return Oversampler(rows, targets, seed)
        if self.method == "undersample":
            return Undersampler(rows, targets, seed)
        return EpochSampler(rows, seed, shuffle=True)

    def augment(
        self, ordinary: Augment, train_rows: np.ndarray, targets: np.ndarray
    ) -> Augment | AugmentByClass:
        """The training pipeline; `targets` int64 of all rows, `train_rows` the ones to count."""
        if self.strong is None:
            return ordinary
        counts = np.bincount(targets[train_rows], minlength=int(targets.max()) + 1)
        return AugmentByClass(ordinary, self.strong, (counts < counts.max())[targets])

    def weights(self, counts: np.ndarray) -> list[float] | None:
        """One loss weight per class, or None; `counts` int [C] of the train split."""
        return class_weights(counts).tolist() if self.method == "class_weights" else None

    def epoch_counts(self, counts: np.ndarray) -> npt.NDArray[np.int64]:
        """Draws of each class in one epoch, int64 [C]; `counts` of the train split."""
        size = {"oversample": counts.max(), "undersample": counts.min()}.get(self.method)
        return counts if size is None else np.full(len(counts), size)

    def describe(self, counts: np.ndarray, classes: tuple[str, ...]) -> str:
        """The method and what it does, in one line."""
        match self.method:
            case "class_weights":
                pairs = zip(classes, class_weights(counts), strict=True)
                effect = "weights in the loss: " + ", ".join(f"{c} {w:.3g}" for c, w in pairs)
            case "oversample":
                effect = "every class as often as the largest, with copies augmented differently"
            case "undersample":
                effect = "every class as rarely as the smallest, with other images each epoch"
            case "augment_minority":
                smaller = [c for c, n in zip(classes, counts, strict=True) if n < counts.max()]
                names = ", ".join(smaller) or "no class, because all have the same size"
                effect = f"separate transforms for {names}"
            case _:
                return self.method
        return f"{self.method}: {effect}"


def class_weights(counts: np.ndarray) -> npt.NDArray[np.float64]:
    """n / (C n_c), float64 [C]: all classes have the same total weight; the mean weight is 1.

    `counts`: int [C], images of each class in the train split, none of them 0. (King and Zeng
    2001; the "balanced" weights of scikit-learn.)
    """
    assert (counts > 0).all(), counts
    return np.asarray(counts.sum() / (len(counts) * counts), dtype=np.float64)


@dataclass(eq=False)
class ShardSampler(Sampler[Draw]):
    """The shard of one of `world` processes in the draws of a sampler.

    In training all shards have the same length, because processes step together: draws are
    distributed one by one, and the first ones are repeated to fill up. Otherwise whole batches are
    distributed, and a batch has the same rows as in a single process, so that its logits are
    identical to the last bit. A shard is never empty: if necessary, it repeats the last batch. Code
    that gathers the shards must drop the repeated rows.
    """

    sampler: EpochSampler
    _: KW_ONLY
    rank: int
    world: int
    batch_size: int
    training: bool

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self.sampler.set_epoch(epoch)

    def positions(self) -> npt.NDArray[np.int64]:
        """Positions in the whole epoch, int64 [len(self)]."""
        n = len(self.sampler)
        if self.training:
            padded = -(-n // self.world) * self.world
            return np.arange(self.rank, padded, self.world) % n
        batches = [np.arange(n)[i : i + self.batch_size] for i in range(0, n, self.batch_size)]
        return np.concatenate(batches[self.rank :: self.world] or batches[-1:])

    def __iter__(self) -> Iterator[Draw]:
        draws = list(self.sampler)
        return iter([draws[position] for position in self.positions()])

    def __len__(self) -> int:
        return len(self.positions())


def shard_for_process(
    sampler: EpochSampler, batch_size: int, *, training: bool
) -> EpochSampler | ShardSampler:
    """The sampler itself in a single process, else the shard of this process."""
    if not (dist.is_available() and dist.is_initialized()):
        return sampler
    return ShardSampler(
        sampler,
        rank=dist.get_rank(),
        world=dist.get_world_size(),
        batch_size=batch_size,
        training=training,
    )
