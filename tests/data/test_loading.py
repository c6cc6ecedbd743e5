"""How many processes load images where the user does not say."""

from pathlib import Path

import pytest
import torch
from helpers.tiny_data import tiny_data

from fracnet.data import datamodule
from fracnet.data.datamodule import loader_workers


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
        (64, True, 1, datamodule.MOST),
    ],
)
def test_auto_follows_the_machine(
    cores: int, on_gpu: bool, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datamodule, "cores", lambda: cores)
    assert loader_workers("auto", on_gpu=on_gpu, processes=processes) == expected
    assert loader_workers(5, on_gpu=on_gpu, processes=processes) == 5


def test_the_machine_decides_no_batch(tmp_path: Path) -> None:
    batches = []
    for workers in (0, 1, 3):
        data = tiny_data(tmp_path / "images", num_workers=workers)
        data.prepare_data()
        loader = data.train_dataloader()
        assert loader.num_workers == workers
        batches.append(list(loader))
    for others in batches[1:]:
        for one, other in zip(batches[0], others, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_images_that_are_only_copied_keep_few_workers(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "images", num_workers=8)
    data.prepare_data()
    assert data.train_dataloader().num_workers == 8
    assert data.val_dataloader().num_workers == datamodule.UNCHANGED
