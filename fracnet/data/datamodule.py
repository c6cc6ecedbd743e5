"""The data as training sees them: checked manifest, image cache, samples, batches, loaders."""

import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fracnet.data import audit_record
from fracnet.data.annotations import AnnotationMaps
from fracnet.data.augment import Augment, build_augment
from fracnet.data.datasets.base import Dataset
from fracnet.data.feature_cache import HeadFeatures
from fracnet.data.fingerprint import data_fingerprint, describe_data
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import limit_opencv_threads
from fracnet.data.manifest import Manifest, without_rows
from fracnet.data.preprocess import Preprocess
from fracnet.data.samplers import (
    AugmentByClass,
    Draw,
    EpochSampler,
    Imbalance,
    ShardSampler,
    shard_for_process,
)
from fracnet.data.split_file import (
    apply_fold,
    apply_fraction,
    count_left_out,
    deduplicate,
    name_pictures,
)
from fracnet.data.splits import SPLITS
from fracnet.utils.shared import shared
from fracnet.utils.text import counted

Batch = dict[str, torch.Tensor]
"""image: uint8 [B, 1, S, S], target: int64 [B], row: int64 [B] (row of the manifest).

While a head trains on features, these take the image's place: features, float32 [B, F].

With `localize`, also map: uint8 [B, g, g], the annotated share of each cell in 255ths, and known:
bool [B], whether the map of an image is known (`AnnotationMaps`).
"""

MAX_WORKERS = 12  # more would wait for the GPU
MAX_COPY_WORKERS = 2  # for images that are only copied from the cache
SHARED_MEMORY = Path("/dev/shm")  # through which workers hand over batches

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Opened:
    """The images of a training, read and checked, and what follows from them alone.

    official: the dataset's own manifest, before folds, copies and unreadable files.

    Jobs of a sweep that see the same data share one object (see `utils.shared`).
    """

    official: Manifest
    manifest: Manifest
    cache: ImageCache

    def rows(self, split: str) -> np.ndarray:
        """Rows of the manifest that belong to a split, int64 [n], ascending."""
        assert split in SPLITS, split
        return np.flatnonzero((self.manifest.table["split"] == split).to_numpy())

    @cached_property
    def audit(self) -> audit_record.AuditRecord | None:
        """See `RadiographData.audit`; this one and the next two are kept."""
        return audit_record.find_audit(self.official)

    @cached_property
    def table(self) -> pd.DataFrame:
        """See `RadiographData.table`."""
        rows = np.concatenate([self.rows("val"), self.rows("test")])
        return mark_copies(self.manifest.table, rows, self.cache, self.audit)

    @cached_property
    def description(self) -> dict[str, Any]:
        """Summary of the images, and hash of the whole dataset."""
        own = describe_data(self.manifest, self.cache.features)
        return own | {"dataset": data_fingerprint(self.official)}


def mark_copies(
    table: pd.DataFrame,
    rows: npt.NDArray[np.int64],
    cache: ImageCache,
    audit: audit_record.AuditRecord | None,
) -> pd.DataFrame:
    """The table with a column `copies`, if some of `rows` (those to evaluate) repeat others.

    It names the picture that several of the rows show, by their pixels or as verified by an audit
    of the dataset; it is missing in other rows. table: a row per image of the cache.
    """
    paths = table["path"].to_numpy(str)
    pairs = [(paths[a], paths[b]) for a, b in cache.same_pixels(rows)]
    pictures = name_pictures(table, [*pairs, *(audit.pairs if audit else ())]).iloc[rows]
    repeated = pictures[pictures.notna() & pictures.duplicated(keep=False)]
    return table.assign(copies=repeated) if len(repeated) else table


@dataclass(eq=False)
class RadiographDataset(TorchDataset[Batch]):
    """Grey images from the cache; with `augment`, augmented as a function of seed and draw.

    targets: class index of each row of the cache.
    features: take the place of images in the epochs of which they say so; `train` tells whether
    these are of the training.
    maps: of the annotations, which then go with the images, augmented in the same way.
    """

    cache: ImageCache
    targets: npt.NDArray[np.int64]
    _: KW_ONLY
    seed: int
    augment: Augment | AugmentByClass | None = None
    features: HeadFeatures | None = None
    train: bool = False
    maps: AnnotationMaps | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, draw: Draw) -> Batch:
        """One sample: image uint8 [1, S, S], target and row int64 scalars."""
        return {name: values[0] for name, values in self.__getitems__([draw]).items()}

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        """A whole batch, written directly into its tensors: there is nothing to collate."""
        rows = np.array([draw.row for draw in draws], dtype=np.int64)
        labels = {"target": torch.from_numpy(self.targets[rows]), "row": torch.from_numpy(rows)}
        if self.features is not None and self.features.used_in(draws[0].epoch):
            return {
                "features": torch.from_numpy(self.features.of(draws, train=self.train)),
                **labels,
            }
        images = self.cache.images
        batch = np.empty((len(draws), 1, *images.shape[1:]), np.uint8)
        shrunk = []
        for index, draw in enumerate(draws):
            image = images[draw.row]
            mask = None if self.maps is None else self.maps.mask(draw.row)
            if self.augment is not None:
                image, mask = self.augment.with_mask(image, mask, seed=self.seed, **draw._asdict())
            batch[index, 0] = image
            if self.maps is not None and mask is not None:
                shrunk.append(self.maps.shrink(mask))
        result = {"image": torch.from_numpy(batch), **labels}
        if self.maps is not None:
            known = [self.maps.is_known(draw.row, m) for draw, m in zip(draws, shrunk, strict=True)]
            result["map"] = torch.from_numpy(np.stack(shrunk))
            result["known"] = torch.tensor(known)
        return result


class EpochLoader(DataLoader[Batch]):
    """A loader that asks its sampler for rows only when the first batch is fetched.

    Lightning creates the first iterator before it sets the sampler's epoch. Workers start fetching
    at that moment, so a resumed run would get the rows of another epoch.
    """

    _done, _first = 0, 0  # batches of the epoch that have been used; of one that is continued

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        first, self._first = self._first, 0
        if first:
            assert isinstance(self.sampler, EpochSampler)
            assert self.batch_size is not None
            self.sampler.skipped = first * self.batch_size
        for number, batch in enumerate(super().__iter__(), first + 1):
            self._done = number
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Called by Lightning when it saves a checkpoint: how far the epoch is; 0 at its end."""
        return {"done": self._done % len(self)}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Called by Lightning where an epoch is continued: its next batch follows."""
        self._first = state_dict["done"]


def _identity(batch: Any) -> Any:
    """The `collate_fn`: the dataset returns whole batches."""
    return batch


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def loader_workers(requested: int | Literal["auto"], *, on_gpu: bool, processes: int = 1) -> int:
    """Worker processes of one training process; 0 loads in the training process itself.

    requested: a number, used unchanged, or "auto". on_gpu: whether a GPU trains, so that the cores
    are free to load. processes: training processes that share this machine's cores.

    With a GPU: all cores but two (for the loop and for handing over batches), at most
    `MAX_WORKERS`. On a CPU the network needs the cores: one worker loads the next batch while the
    network trains on this one; on a single core a worker gains nothing.
    """
    if requested != "auto":
        return requested
    share = available_cores() // processes
    if not on_gpu:
        return 1 if share > 1 else 0
    return max(1, min(share - 2, MAX_WORKERS))


def shared_memory_lacks(batch_size: int, image_size: int, workers: int) -> str | None:
    """Why these workers cannot hand over their batches, in a sentence; None if they can.

    Each loader holds two batches per worker, and the one in use; training and validation overlap.
    Where shared memory is full, workers stop without a word, as in a container with 64 MB.
    """
    if not SHARED_MEMORY.is_dir():
        return None
    batches = 2 * (workers + min(workers, MAX_COPY_WORKERS)) + 2
    needed = batches * batch_size * (image_size**2 + 16)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed <= free:
        return None
    return (
        f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free, but {counted(workers, 'loader worker')} "
        f"would need {needed / 1e6:.0f} MB: images are loaded in the training process, which is "
        "slower. Enlarge it (docker run --shm-size=2g), or choose a smaller data.num_workers."
    )


class RadiographData(LightningDataModule):
    """One dataset, preprocessed once and augmented for training.

    preprocess: {"steps": [...]} as in conf/preprocess.
    augment: {"transforms": [...]} as in conf/augment, or None; train only.
    imbalance: {"method": ...} as in conf/imbalance, or None; train only.
    seed: determines the order of rows, the augmentation and the choice of `fraction`.
    folds, fold: number of cross-validation folds and the one that validates; None for the
        dataset's own split.
    split: "official" for the dataset's own, or "deduplicated": without images that have a verified
        copy in a later split; folds then keep copies together. Requires an audit of the data.
    fraction: share of the train images to train on, by patient; see `apply_fraction`.
    localize: add maps of the annotations to the batches of training and validation.
    key: equal where all that `setup` reads is equal, so that jobs of a sweep share it; None: never.

    After `setup`: opened, what it has read; manifest, without unreadable files: row i is image i of
    the open cache; classes in the order of the logits; task, multiclass or binary.
    """

    opened: Opened
    manifest: Manifest
    cache: ImageCache
    classes: tuple[str, ...]
    task: str

    def __init__(
        self,
        dataset: Dataset,
        preprocess: Mapping[str, Any],
        augment: Mapping[str, Any] | None = None,
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
        fraction: float = 1.0,
        localize: bool = False,
        key: str | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.preprocess = Preprocess(preprocess["steps"], image_size)
        self.augment = build_augment((augment or {}).get("transforms"))
        self.augment.check(image_size)
        self.imbalance = Imbalance(imbalance, image_size)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.progress = progress
        self.folds, self.fold = folds, fold
        self.split = split
        self.features: HeadFeatures | None = None
        """Set where a head trains on features."""
        self.fraction = fraction
        self.localize = localize
        self.key = key

    # --- Lightning's hooks; callers may also call them first, and any number of times

    def prepare_data(self) -> None:
        """Provide the files and build the cache; only one process per machine calls it."""
        if not hasattr(self, "opened"):
            self.dataset.prepare()
            self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read and check the manifest and open the cache. Raises UserError for invalid data."""
        if not hasattr(self, "opened"):
            self.opened = shared("data", self.key, self._open)
            self.manifest, self.cache = self.opened.manifest, self.opened.cache
            self.classes, self.task = self.manifest.classes, self.manifest.task

    def _open(self) -> Opened:
        official = full = self.dataset.manifest()
        full.check()
        pairs = None
        if self.split == "deduplicated":
            pairs = audit_record.require_audit(
                full, f"python -m fracnet.audit data={self.dataset.name}"
            ).pairs
            full = deduplicate(full, pairs, pooled=self.folds is not None)
            full.check()
        if self.folds is not None:
            full = apply_fold(full, self.folds, self.fold, pairs)
            full.check()
        cache = ImageCache.open_or_build(
            full, self.preprocess, on_bad_file=self.dataset.on_bad_file, progress=self.progress
        )
        manifest = without_rows(full, cache.bad, "unreadable file")
        if cache.bad:
            manifest.check()
        if self.fraction < 1:
            manifest = apply_fraction(manifest, self.fraction, self.seed, pairs)
        return Opened(official, manifest, cache)

    def train_dataloader(self) -> EpochLoader:
        """Shuffled and augmented, with rows sampled according to `imbalance`."""
        return self.loader("train", augment=True, shuffle=True, features=self.features)

    def val_dataloader(self) -> EpochLoader:
        """In the order of the manifest, not augmented."""
        return self.loader("val", features=self.features)

    def test_dataloader(self) -> EpochLoader:
        """In the order of the manifest, not augmented."""
        return self.loader("test")

    def predict_dataloader(self) -> list[EpochLoader]:
        """Validation, then test; features stand for images where only the head was trained."""
        whole = self.features is None or self.features.epochs is not None
        features = None if whole else self.features
        return [self.loader(split, features=features) for split in ("val", "test")]

    # --- what the rest of fracnet uses

    @property
    def audit(self) -> audit_record.AuditRecord | None:
        """The stored audit of the dataset's own split, if there is one."""
        return self.opened.audit

    def metadata(self) -> dict[str, Any]:
        """Summary of the training data, hash of the whole dataset, and its audit's verdict."""
        left_out = count_left_out(self.manifest) if self.split == "deduplicated" else None
        part = {"fraction": self.fraction} if self.fraction < 1 else {}
        audit = {"audit": self.audit and self.audit.metadata(left_out)}
        return self.opened.description | part | audit

    def rows(self, split: str) -> np.ndarray:
        """Rows of the manifest that belong to a split, int64 [n], ascending."""
        return self.opened.rows(split)

    @property
    def table(self) -> pd.DataFrame:
        """The manifest's table as predictions need it: with the column of `mark_copies`."""
        return self.opened.table

    def train_counts(self) -> npt.NDArray[np.int64]:
        """Images of each class in the train split, int64 [C]."""
        targets = self.manifest.targets()[self.rows("train")]
        return np.bincount(targets, minlength=len(self.classes))

    def class_weights(self) -> list[float] | None:
        """One loss weight per class, from the train counts, or None; see `imbalance`."""
        return self.imbalance.weights(self.train_counts())

    def loader(
        self,
        split: str,
        *,
        augment: bool = False,
        shuffle: bool = False,
        features: HeadFeatures | None = None,
    ) -> EpochLoader:
        """Loader of one split; yields `Batch`es.

        With `shuffle`, order and number of draws of each row follow `imbalance` and the epoch;
        without, each row comes once, in the order of the manifest.
        """
        rows = self.rows(split)
        targets = self.manifest.targets()
        sampler: EpochSampler | ShardSampler
        if shuffle:
            sampler = self.imbalance.sampler(rows, targets[rows], self.seed)
        else:
            sampler = EpochSampler(rows, self.seed, shuffle=False)
        sampler = shard_for_process(sampler, self.batch_size, training=shuffle)
        maps = None
        if self.localize and split != "test":
            maps = AnnotationMaps(self.manifest, rows, self.preprocess)
        return self._loader(self.images_of(augment, features, maps), sampler, shuffle=shuffle)

    def row_loader(self, rows: np.ndarray, epoch: int | None = None) -> EpochLoader:
        """Loader of the images of rows int64 [n] in this order, in any process all of them.

        epoch: augmented as in this one, counted from 0; None: not augmented.
        """
        sampler = EpochSampler(rows, self.seed, shuffle=False)
        sampler.set_epoch(epoch or 0)
        return self._loader(self.images_of(epoch is not None), sampler, shuffle=False)

    def images_of(
        self,
        augmented: bool,
        features: HeadFeatures | None = None,
        maps: AnnotationMaps | None = None,
    ) -> RadiographDataset:
        """All rows as samples, with or without the augmentation of the training."""
        targets = self.manifest.targets()
        training = self.imbalance.augment(self.augment, self.rows("train"), targets)
        return RadiographDataset(
            self.cache,
            targets,
            seed=self.seed,
            augment=training if augmented else None,
            features=features,
            train=augmented,
            maps=maps,
        )

    def _loader(
        self, samples: RadiographDataset, sampler: EpochSampler | ShardSampler, *, shuffle: bool
    ) -> EpochLoader:
        limit_opencv_threads()
        workers = self._workers()
        if samples.augment is None:
            workers = min(workers, MAX_COPY_WORKERS)
        if samples.features is not None and samples.features.epochs is None:
            workers = 0  # a batch of features takes less time than to hand it over
        return EpochLoader(
            samples,
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=_identity,
            num_workers=workers,
            # Otherwise the loader draws from the same stream as dropout: once per epoch without
            # workers, once per run with them.
            generator=torch.Generator(),
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Forked workers start at once and share what the parent has read. This is safe
            # because each runs a single thread and touches no device.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            # BatchNorm cannot train on a batch of one image: that image, a different one each
            # epoch, is skipped. All other incomplete batches are used.
            drop_last=shuffle and len(sampler) > 1 and len(sampler) % self.batch_size == 1,
        )

    def _workers(self) -> int:
        """`num_workers`, or 0, with one line that says why, if shared memory is too small."""
        if self.num_workers:
            why = shared_memory_lacks(self.batch_size, self.preprocess.image_size, self.num_workers)
            if why is not None:
                log.warning(why)
                self.num_workers = 0
        return self.num_workers

    def counts(self) -> pd.DataFrame:
        """Images per class (rows, then the total and each reason for exclusion) and split."""
        table, excluded = self.manifest.table, self.manifest.excluded
        by_class = table.groupby(["label", "split"]).size().unstack(fill_value=0)
        counts = by_class.reindex(index=list(self.classes), columns=list(SPLITS), fill_value=0)
        counts.loc["total"] = counts.sum()
        for reason, rows in excluded.groupby("reason", sort=False):
            by_split = rows.groupby("split")["n"].sum().reindex(list(SPLITS), fill_value=0)
            counts.loc[f"excluded: {reason}"] = by_split
        counts["all"] = counts.sum(axis=1)
        return counts.astype(int).rename_axis(index=None, columns=None)
