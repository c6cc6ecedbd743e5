"""The data module: samples, epochs, workers, resuming, unreadable files."""

import logging
from collections import namedtuple
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from helpers.tiny import TinyDataset
from helpers.tiny_data import tiny_data
from lightning.pytorch.callbacks import ModelCheckpoint

from fracnet.data import datamodule
from fracnet.data.datamodule import RadiographData, loader_workers
from fracnet.data.samplers import Draw
from fracnet.utils.errors import UserError

# Lightning's advice for a test without workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # torch's advice if there are fewer than four cores.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    # Python 3.12 and later; the workers run a single thread and take no lock of the parent.
    pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to deadlocks:DeprecationWarning"),
]

Records = list[tuple[int, int, int, int]]
"""(epoch of the trainer, row, sum of pixels weighted by position, target)"""


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))


class Watcher(pl.LightningModule):
    """Records its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_records: Records = []
        self.val_records: Records = []

    def _record(self, batch: dict[str, torch.Tensor], records: Records) -> None:
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].shape[1:] == (1, 32, 32)
        flat = batch["image"].flatten(1).long()
        sums = (flat * torch.arange(1, flat.shape[1] + 1)).sum(1)
        for row, total, target in zip(batch["row"], sums, batch["target"], strict=True):
            records.append((self.current_epoch, int(row), int(total), int(target)))

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        self._record(batch, self.train_records)
        return self.weight**2

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self._record(batch, self.val_records)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data: RadiographData, epochs: int, resume: Path | None = None, **settings: Any) -> Watcher:
    watcher = Watcher()
    trainer = pl.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": epochs,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        | settings
    )
    trainer.fit(watcher, datamodule=data, ckpt_path=resume, weights_only=True)
    return watcher


@pytest.fixture
def reference(tmp_path: Path) -> Watcher:
    return fit(tiny_data(tmp_path / "images"), 3)


def test_training_gets_each_row_once_per_epoch_augmented_differently(reference: Watcher) -> None:
    epochs = [[s for s in reference.train_records if s[0] == epoch] for epoch in range(3)]
    # 21 rows in batches of 4: the last would have one image, which is skipped.
    assert [len(epoch) for epoch in epochs] == [20, 20, 20]
    rows = [[row for _, row, _, _ in epoch] for epoch in epochs]
    assert all(len(set(epoch)) == 20 and set(epoch) <= set(range(21)) for epoch in rows)
    assert rows[0] != rows[1] != rows[2]
    assert len({total for _, _, total, _ in reference.train_records}) == 60
    assert all(target == row % 3 for _, row, _, target in reference.train_records)


def test_validation_gets_all_rows_in_order_and_unchanged(reference: Watcher) -> None:
    epochs = [[s[1:] for s in reference.val_records if s[0] == epoch] for epoch in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert [row for row, _, _ in epochs[0]] == list(range(21, 30))


@pytest.mark.parametrize("workers", [1, 4])
def test_number_of_workers_changes_nothing(
    tmp_path: Path, reference: Watcher, workers: int
) -> None:
    watcher = fit(tiny_data(tmp_path / "images", num_workers=workers), 3)
    assert watcher.train_records == reference.train_records
    assert watcher.val_records == reference.val_records


def test_seed_changes_order_and_augmentation(tmp_path: Path, reference: Watcher) -> None:
    other = fit(tiny_data(tmp_path / "images", seed=4), 1)
    first = {row: total for epoch, row, total, _ in reference.train_records if epoch == 0}
    assert [s[1] for s in other.train_records] != list(first)
    assert all(first.get(row) != total for _, row, total, _ in other.train_records)


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at_train_end", [True, False])
def test_resumed_fit_continues_with_the_right_epoch(
    tmp_path: Path, reference: Watcher, workers: int, at_train_end: bool
) -> None:
    folder = tmp_path / "run"
    saver = ModelCheckpoint(folder, "last", save_on_train_epoch_end=at_train_end)
    data = tiny_data(tmp_path / "images", num_workers=workers)
    fit(data, 2, enable_checkpointing=True, callbacks=[saver])
    resumed = fit(
        tiny_data(tmp_path / "images", num_workers=workers), 3, resume=folder / "last.ckpt"
    )
    assert resumed.train_records == [s for s in reference.train_records if s[0] == 2]


def test_limited_batches_do_not_shift_later_epochs(tmp_path: Path, reference: Watcher) -> None:
    limited = fit(tiny_data(tmp_path / "images", num_workers=2), 3, limit_train_batches=2)
    expected = [
        s for epoch in range(3) for s in reference.train_records[epoch * 20 : epoch * 20 + 8]
    ]
    assert limited.train_records == expected


def test_hooks_can_be_called_first_and_repeatedly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tiny_data(tmp_path / "images")
    data.prepare_data()
    data.setup()
    cache = data.cache
    monkeypatch.setattr(TinyDataset, "manifest", lambda self: pytest.fail("read twice"))
    data.prepare_data()
    data.setup("fit")
    assert data.cache is cache
    assert data.classes == ("elbow", "forearm", "wrist")
    assert data.task == "multiclass"
    assert capfd.readouterr() == ("", "")


def test_setup_alone_opens_what_another_process_prepared(tmp_path: Path) -> None:
    tiny_data(tmp_path / "images").prepare_data()
    other = tiny_data(tmp_path / "images")
    other.setup("test")
    assert len(other.cache.images) == 36
    assert other.rows("test").tolist() == list(range(30, 36))


def test_unreadable_files_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = ("train/1.png", "val/0.png")
    data = tiny_data(tmp_path / "images", on_bad_file="skip", truncate=bad)
    with caplog.at_level(logging.WARNING):
        data.prepare_data()
    assert "train/1.png" in caplog.text
    assert "2 of 36" in caplog.text
    table = data.manifest.table
    assert not set(bad) & set(table["path"])
    assert list(table.index) == list(range(34))
    counts = data.counts()
    assert counts.loc["excluded: unreadable file"].tolist() == [1, 1, 0, 2]
    assert counts.loc["excluded: no label"].tolist() == [2, 0, 0, 2]
    assert counts.loc["total"].tolist() == [20, 8, 6, 34]
    assert counts.loc["wrist"].tolist() == [7, 3, 2, 12]
    # Row i of the manifest is image i of the cache, also after the gaps.
    complete = tiny_data(tmp_path / "complete")
    complete.prepare_data()
    complete_row = complete.manifest.table["path"].tolist().index("test/5.png")
    row = table["path"].tolist().index("test/5.png")
    np.testing.assert_array_equal(data.cache.images[row], complete.cache.images[complete_row])


def test_split_that_loses_all_its_images_is_an_error(tmp_path: Path) -> None:
    data = tiny_data(
        tmp_path / "images",
        on_bad_file="skip",
        counts={"train": 3, "val": 1, "test": 1},
        truncate=("val/0.png",),
    )
    with pytest.raises(UserError, match="no labeled image in the split val"):
        data.prepare_data()


def test_samples_equal_the_rows_of_batches(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "images")
    data.prepare_data()
    dataset = data.train_dataloader().dataset
    batch = dataset.__getitems__([Draw(1, 3), Draw(1, 0)])  # type: ignore[attr-defined]
    for index, row in enumerate((3, 0)):
        sample = dataset[Draw(1, row)]  # type: ignore[index]
        assert sample["image"].shape == (1, 32, 32)
        assert sample["target"].dtype == sample["row"].dtype == torch.int64
        assert {name: values[index].tolist() for name, values in batch.items()} == {
            name: value.tolist() for name, value in sample.items()
        }


# --- number of loader workers


@pytest.mark.parametrize(
    ("cores", "on_gpu", "processes", "expected"),
    [
        (1, False, 1, 0),
        (2, False, 1, 1),
        (64, False, 1, 1),
        (4, False, 2, 1),
        (2, False, 2, 0),
        (2, True, 1, 1),
        (8, True, 1, 6),
        (8, True, 4, 1),
        (64, True, 1, datamodule.MAX_WORKERS),
    ],
)
def test_auto_workers_follow_the_machine(
    cores: int, on_gpu: bool, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datamodule, "available_cores", lambda: cores)
    assert loader_workers("auto", on_gpu=on_gpu, processes=processes) == expected
    assert loader_workers(5, on_gpu=on_gpu, processes=processes) == 5


def test_batches_do_not_depend_on_workers(tmp_path: Path) -> None:
    batches = []
    for workers in (0, 1, 3):
        data = tiny_data(tmp_path / "images", num_workers=workers)
        data.prepare_data()
        loader = data.train_dataloader()
        assert loader.num_workers == workers
        batches.append(list(loader))
    for others in batches[1:]:
        for left, right in zip(batches[0], others, strict=True):
            assert all(torch.equal(left[name], right[name]) for name in left)


def test_loaders_that_only_copy_use_few_workers(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "images", num_workers=8)
    data.prepare_data()
    assert data.train_dataloader().num_workers == 8
    assert data.val_dataloader().num_workers == datamodule.MAX_COPY_WORKERS


def test_small_shared_memory_loads_in_the_process_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = tiny_data(tmp_path / "images", num_workers=2)
    data.prepare_data()
    caplog.clear()
    assert data.train_dataloader().num_workers == 2
    total = namedtuple("total", "free")
    monkeypatch.setattr(datamodule.shutil, "disk_usage", lambda path: total(5_000))
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert loader.num_workers == 0
    assert len(next(iter(data.train_dataloader()))["row"])
    (record,) = caplog.records
    assert "/dev/shm has 0 MB free, but 2 loader workers would need" in record.message
    assert "--shm-size" in record.message


def test_shared_memory_is_enough_for_the_batches_in_flight() -> None:
    assert datamodule.shared_memory_lacks(1, 8, 1) is None
    assert datamodule.shared_memory_lacks(1 << 20, 4096, 12) is not None
