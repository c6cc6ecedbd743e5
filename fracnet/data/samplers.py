"""Which rows an epoch shows, how often, and in which order.

What is done about classes of unequal size; by the train split alone, and to nothing else.

none               every image once an epoch
class_weights      every image once; the loss counts rare classes more
oversample         every class as often as the largest
undersample        every class as rarely as the smallest
augment_minority   every image once; all classes but the largest are augmented by a pipeline of
                   their own

The share of one process in an epoch that several processes show together.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch.utils.data import Sampler

from fracnet.data.augment import Augment, build_augment

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


METHODS = ("none", "class_weights", "oversample", "undersample", "augment_minority")


class AugmentByClass:
    """Calls one of two pipelines; a function of its arguments alone, as `Augment` is."""

    def __init__(self, ordinary: Augment, strong: Augment, is_minority: np.ndarray) -> None:
        """`is_minority`: bool [rows of the manifest], true where `strong` is due."""
        self.ordinary = ordinary
        self.strong = strong
        self.is_minority = is_minority

    def __call__(
        self, image: np.ndarray, *, seed: int, epoch: int, row: int, copy: int = 0
    ) -> np.ndarray:
        """Augment uint8 [H, W] -> uint8 [H, W]."""
        augment = self.strong if self.is_minority[row] else self.ordinary
        return augment(image, seed=seed, epoch=epoch, row=row, copy=copy)


class Imbalance:
    """One of the methods, ready to be asked for its sampler, its augmentation and its weights."""

    def __init__(self, config: Mapping[str, Any] | None, image_size: int) -> None:
        """`config`: {method} and, for augment_minority alone, {transforms}, as conf/imbalance.

        Raises UserError for transforms that do not work on an image of `image_size` squared.
        """
        config = config or {"method": "none"}
        self.method = str(config["method"])
        assert self.method in METHODS, self.method
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
        """The pipeline for training; `targets` int64 of all rows, `train_rows` those to count."""
        if self.strong is None:
            return ordinary
        counts = np.bincount(targets[train_rows], minlength=int(targets.max()) + 1)
        return AugmentByClass(ordinary, self.strong, (counts < counts.max())[targets])

    def weights(self, counts: np.ndarray) -> list[float] | None:
        """One factor a class for the loss, or None; `counts` int [C] of the train split."""
        return class_weights(counts).tolist() if self.method == "class_weights" else None

    def epoch_counts(self, counts: np.ndarray) -> npt.NDArray[np.int64]:
        """Images of each class that one epoch shows, int64 [C]; `counts` of the train split."""
        pick = {"oversample": counts.max(), "undersample": counts.min()}
        return np.full(len(counts), pick[self.method]) if self.method in pick else counts

    def in_words(self, counts: np.ndarray, classes: tuple[str, ...]) -> str:
        """The method and what it does, in one line."""
        match self.method:
            case "class_weights":
                pairs = zip(classes, class_weights(counts), strict=True)
                does = "factors in the loss: " + ", ".join(f"{c} {w:.3g}" for c, w in pairs)
            case "oversample":
                does = "every class as often as the largest, copies augmented differently"
            case "undersample":
                does = "every class as rarely as the smallest, another choice each epoch"
            case "augment_minority":
                fewer = [c for c, n in zip(classes, counts, strict=True) if n < counts.max()]
                does = "transforms of their own for " + (", ".join(fewer) or "no class: all equal")
            case _:
                return self.method
        return f"{self.method}: {does}"


def class_weights(counts: np.ndarray) -> npt.NDArray[np.float64]:
    """n / (C n_c), float64 [C]: every class counts alike in the sum, and the mean factor is 1.

    `counts`: int [C], images of each class in the train split, none of them 0. (King and Zeng
    2001; the "balanced" weights of scikit-learn.)
    """
    assert (counts > 0).all(), counts
    return np.asarray(counts.sum() / (len(counts) * counts), dtype=np.float64)


class Shard(Sampler[Draw]):
    """Deals the draws of a sampler out to `world` processes; this is the share of one.

    In training all shares are equally long, as their steps are taken together: the draws are
    dealt out one by one, the first ones once more where that does not come out even. Elsewhere
    whole batches are dealt out, and a batch holds the very rows that it holds in a single process,
    so that its logits are the same to the last bit. A share is never empty: it repeats the last
    batch if need be. Whoever gathers the shares has to drop the rows that come twice.
    """

    def __init__(
        self, whole: EpochSampler, *, rank: int, world: int, batch_size: int, training: bool
    ) -> None:
        assert 0 <= rank < world, (rank, world)
        self.whole = whole
        self.rank = rank
        self.world = world
        self.batch_size = batch_size
        self.training = training

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self.whole.set_epoch(epoch)

    def places(self) -> npt.NDArray[np.int64]:
        """Places in the whole epoch, int64 [len(self)]."""
        n = len(self.whole)
        if self.training:
            padded = -(-n // self.world) * self.world
            return np.arange(self.rank, padded, self.world) % n
        batches = [np.arange(n)[i : i + self.batch_size] for i in range(0, n, self.batch_size)]
        return np.concatenate(batches[self.rank :: self.world] or batches[-1:])

    def __iter__(self) -> Iterator[Draw]:
        draws = list(self.whole)
        return iter([draws[place] for place in self.places()])

    def __len__(self) -> int:
        return len(self.places())


def of_this_process(
    sampler: EpochSampler, batch_size: int, *, training: bool
) -> EpochSampler | Shard:
    """The sampler itself in a single process, else this process's share of it."""
    if not (dist.is_available() and dist.is_initialized()):
        return sampler
    return Shard(
        sampler,
        rank=dist.get_rank(),
        world=dist.get_world_size(),
        batch_size=batch_size,
        training=training,
    )
