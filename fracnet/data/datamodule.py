"""The data set as training sees it: source, checked manifest, cache, loaders.

Samples and batches of a cached data set, and the loader that serves them.

How many processes load images: from the machine, where the user does not say.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fracnet.data import audit_record
from fracnet.data.augment import Augment, build_augment
from fracnet.data.datasets.base import Source
from fracnet.data.fingerprint import data_fingerprint, fingerprint
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import single_threaded
from fracnet.data.manifest import Manifest, without_rows
from fracnet.data.preprocess import Preprocess, build_preprocess
from fracnet.data.samplers import (
    AugmentByClass,
    Draw,
    EpochSampler,
    Imbalance,
    Shard,
    of_this_process,
)
from fracnet.data.split_file import deduplicated, folded, n_left_out
from fracnet.data.splits import SPLITS

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


MOST = 12  # on a machine that has cores for more, they would wait
UNCHANGED = 2  # of images that are only copied from the cache


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def loader_workers(asked: int | Literal["auto"], *, on_gpu: bool, processes: int = 1) -> int:
    """Worker processes of one training process; 0 loads in the training process itself.

    asked: a number, which is obeyed, or "auto". on_gpu: whether a GPU trains, so that the cores
    are free to load. processes: training processes that share this machine's cores.

    A GPU gets all cores but two (for the loop, and for handing over batches), at most `MOST`. On a
    CPU the network needs the cores: one worker loads the next batch while this one is trained on,
    and on a single core there is nothing to be had from a worker.
    """
    if asked != "auto":
        return asked
    share = cores() // processes
    if not on_gpu:
        return 1 if share > 1 else 0
    return max(1, min(share - 2, MOST))


log = logging.getLogger(__name__)


class RadiographData(LightningDataModule):
    """One data source, preprocessed once and augmented for training.

    preprocess: {"steps": [...]} as in conf/preprocess, or a ready pipeline.
    augment: {"transforms": [...]} as in conf/augment, a ready pipeline, or None; train only.
    imbalance: {"method": ...} as in conf/imbalance, or None; train only.
    seed: decides the order of rows and the augmentation, nothing else.
    folds, fold: so many folds for cross-validation, and the one that validates; None for the
        split that the source has.
    split: "official" as the source has it, or "deduplicated": without images that have a verified
        copy in a later split; folds then keep copies together. That needs an audit of the data.

    After `setup`: `manifest` (without unreadable files), `classes`, `task`, `cache`, `rows`.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Mapping[str, Any] | Preprocess,
        augment: Mapping[str, Any] | Augment | None = None,
        *,
        image_size: int,
        batch_size: int,
        num_workers: int = 0,
        seed: int = 0,
        progress: bool = True,
        imbalance: Mapping[str, Any] | None = None,
        folds: int | None = None,
        fold: int = 0,
        split: Literal["official", "deduplicated"] = "official",
    ) -> None:
        super().__init__()
        self.source = source
        self.preprocess = (
            preprocess
            if isinstance(preprocess, Preprocess)
            else build_preprocess(preprocess.get("steps", ()), image_size)
        )
        self.augment = (
            augment
            if isinstance(augment, Augment)
            else build_augment((augment or {}).get("transforms"))
        )
        assert self.preprocess.image_size == image_size, (self.preprocess.image_size, image_size)
        self.augment.check(image_size)
        self.imbalance = Imbalance(imbalance, image_size)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.progress = progress
        self.folds, self.fold = folds, fold
        self.split = split
        self._official: Manifest | None = None
        self._full: Manifest | None = None
        self._ready: tuple[Manifest, ImageCache] | None = None

    # --- Lightning's hooks; they may be called by hand before, and any number of times

    def prepare_data(self) -> None:
        """Make the files be there and build the cache; only one process of a machine calls it."""
        if self._ready is None:
            self.source.prepare()
            self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read and check the manifest and open the cache. Raises UserError for bad data."""
        if self._ready is not None:
            return
        full = self.source.manifest()
        full.check()
        self._official = full
        pairs = None
        if self.split == "deduplicated":
            pairs = audit_record.required(
                full, f"python -m fracnet.audit data={self.source.name}"
            ).pairs
            full = deduplicated(full, pairs, pooled=self.folds is not None)
            full.check()
        if self.folds is not None:
            full = folded(full, self.folds, self.fold, pairs)
            full.check()
        cache = ImageCache.open_or_build(
            full, self.preprocess, on_bad_file=self.source.on_bad_file, progress=self.progress
        )
        manifest = without_rows(full, cache.bad, "unreadable file")
        if cache.bad:
            manifest.check()
        self._ready = manifest, cache

    def train_dataloader(self) -> EpochLoader:
        """Shuffled and augmented, with the rows that `imbalance` asks for."""
        return self.loader("train", augment=True, shuffle=True)

    def val_dataloader(self) -> EpochLoader:
        """In the order of the manifest, as it is."""
        return self.loader("val")

    def test_dataloader(self) -> EpochLoader:
        """In the order of the manifest, as it is."""
        return self.loader("test")

    def predict_dataloader(self) -> list[EpochLoader]:
        """Validation, then test."""
        return [self.val_dataloader(), self.test_dataloader()]

    # --- what the rest of fracnet asks for

    @property
    def manifest(self) -> Manifest:
        """The manifest without unreadable files; row i is image i of the cache."""
        return self._opened()[0]

    @property
    def cache(self) -> ImageCache:
        """The open cache of preprocessed images."""
        return self._opened()[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.manifest.classes

    @property
    def task(self) -> str:
        """multiclass or binary."""
        return self.manifest.task

    @cached_property
    def audit(self) -> audit_record.Audit | None:
        """The audit of the data as the source has them, where one has been made."""
        assert self._official is not None, "call prepare_data() or setup() first"
        return audit_record.find(self._official)

    def about(self) -> dict[str, Any]:
        """Fingerprint of what is trained on, that of its source, and what an audit says of it."""
        assert self._official is not None, "call prepare_data() or setup() first"
        audit = self.audit
        left = n_left_out(self.manifest) if self.split == "deduplicated" else None
        return fingerprint(self.manifest, self.cache.features) | {
            "source": data_fingerprint(self._official),
            "audit": audit and audit.about(left),
        }

    def rows(self, split: str) -> np.ndarray:
        """Rows of the manifest that belong to a split, int64 [n], ascending."""
        assert split in SPLITS, split
        return np.flatnonzero((self.manifest.table["split"] == split).to_numpy())

    def train_counts(self) -> npt.NDArray[np.int64]:
        """Images of each class in the train split, int64 [C]."""
        targets = self.manifest.targets()[self.rows("train")]
        return np.bincount(targets, minlength=len(self.classes))

    def class_weights(self) -> list[float] | None:
        """One factor a class for the loss where `imbalance` asks for it; from train counts."""
        return self.imbalance.weights(self.train_counts())

    def loader(self, split: str, *, augment: bool = False, shuffle: bool = False) -> EpochLoader:
        """Loader of one split; batches as `dataset.Batch` describes them.

        With `shuffle` it shows the epochs of a training: order, and how often each row is drawn,
        follow `imbalance`. Without, each row once, in the order of the manifest.
        """
        single_threaded()
        rows = self.rows(split)
        workers = self.num_workers if augment else min(self.num_workers, UNCHANGED)
        targets = self.manifest.targets()
        sampler: EpochSampler | Shard
        if shuffle:
            sampler = self.imbalance.sampler(rows, targets[rows], self.seed)
        else:
            sampler = EpochSampler(rows, self.seed, shuffle=False)
        sampler = of_this_process(sampler, self.batch_size, training=shuffle)
        training = self.imbalance.augment(self.augment, self.rows("train"), targets)
        return EpochLoader(
            RadiographDataset(
                self.cache,
                targets,
                seed=self.seed,
                augment=training if augment else None,
            ),
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=as_is,
            num_workers=workers,
            # Otherwise a loader draws from the stream that dropout draws from, once an epoch
            # without workers and once a run with them.
            generator=torch.Generator(),
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Forked workers start at once and share what the parent has read. That is safe here
            # because they run a single thread each and touch no device.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            # BatchNorm cannot train on a batch of one image: that image, another one each epoch,
            # sits the epoch out. All other incomplete batches are shown.
            drop_last=shuffle and len(sampler) > 1 and len(sampler) % self.batch_size == 1,
        )

    def counts(self) -> pd.DataFrame:
        """Images by class (rows, then the total and each reason of exclusion) and split."""
        table, excluded = self.manifest.table, self.manifest.excluded
        by_class = table.groupby(["label", "split"]).size().unstack(fill_value=0)
        counted = by_class.reindex(index=list(self.classes), columns=list(SPLITS), fill_value=0)
        counted.loc["total"] = counted.sum()
        for reason, of in excluded.groupby("reason", sort=False):
            by_split = of.groupby("split")["n"].sum().reindex(list(SPLITS), fill_value=0)
            counted.loc[f"excluded: {reason}"] = by_split
        counted["all"] = counted.sum(axis=1)
        return counted.astype(int).rename_axis(index=None, columns=None)

    def _opened(self) -> tuple[Manifest, ImageCache]:
        assert self._ready is not None, "call prepare_data() or setup() first"
        return self._ready
