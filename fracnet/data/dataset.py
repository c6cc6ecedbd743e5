"""Samples and batches of a cached data set, and the loader that serves them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from fracnet.data.augment import Augment
from fracnet.data.cache import ImageCache
from fracnet.data.imbalance import AugmentByClass
from fracnet.data.sampling import Draw

Batch = dict[str, torch.Tensor]
"""image: uint8 [B, 1, S, S], target: int64 [B], row: int64 [B] (row of the manifest)."""


class RadiographDataset(Dataset[Batch]):
    """Grey images from the cache, augmented by seed and draw where an `augment` is given."""

    def __init__(
        self,
        cache: ImageCache,
        targets: np.ndarray,
        *,
        seed: int,
        augment: Augment | AugmentByClass | None = None,
    ) -> None:
        """`targets`: int64 [N], class index of each row of the cache."""
        assert len(targets) == len(cache.images), (len(targets), len(cache.images))
        self.cache = cache
        self.targets = targets
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, draw: Draw) -> Batch:
        """One sample: image uint8 [1, S, S], target and row int64 scalars."""
        return {name: values[0] for name, values in self.__getitems__([draw]).items()}

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """A whole batch, written once into the tensors that leave: nothing is left to collate."""
        images = self.cache.images
        batch = np.empty((len(draws), 1, *images.shape[1:]), np.uint8)
        for place, draw in enumerate(draws):
            image = images[draw.row]
            if self.augment is not None:
                image = self.augment(image, seed=self.seed, **draw._asdict())
            batch[place, 0] = image
        rows = np.array([draw.row for draw in draws], dtype=np.int64)
        return {
            "image": torch.from_numpy(batch),
            "target": torch.from_numpy(self.targets[rows]),
            "row": torch.from_numpy(rows),
        }


class EpochLoader(DataLoader[Batch]):
    """A loader that asks its sampler for rows when the first batch is fetched, not before.

    Lightning makes the first iterator before it tells the sampler the epoch. Loader workers start
    fetching at that moment, and a resumed run would show them the rows of another epoch.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


def as_is(batch: Any) -> Any:
    """For `collate_fn`: the data set returns whole batches."""
    return batch
