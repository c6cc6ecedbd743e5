"""fracnet's way and the others it is measured against do the same work."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from experiments.benchmark import alternative_pipelines
from experiments.benchmark.alternative_pipelines import MEAN, STD, lean, modern, published
from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.pipeline import Own
from experiments.benchmark.setting import Setting, ready

SIZE = 64
SETTING = Setting(True, "resnet18", SIZE, 8, "cpu", 0, False)


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    return jpegs(2, 128)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No way turns or scales."""
    monkeypatch.setattr(alternative_pipelines, "DEGREES", 1e-9)
    monkeypatch.setattr(alternative_pipelines, "SCALE", (1.0, 1.0))


def wanted(data: bytes) -> np.ndarray:
    """Plainly: CLAHE, resize, normalize; float32 [3, S, S]."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    image = cv2.createCLAHE(2.0, (8, 8)).apply(image)
    small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) / 255
    return np.stack([(small - mean) / std for mean, std in zip(MEAN, STD, strict=True)])


def flips(image: np.ndarray) -> list[np.ndarray]:
    return [image[:, ::y, ::x] for y in (1, -1) for x in (1, -1)]


@pytest.mark.parametrize("way", [published, lean, modern], ids=lambda way: way.__name__)
@pytest.mark.usefixtures("still")
def test_each_way_gives_the_same_normalised_picture(way: object, pictures: list[bytes]) -> None:
    batch = way(SIZE).batch(pictures)  # type: ignore[operator]
    assert batch.shape == (2, 3, SIZE, SIZE)
    assert batch.dtype == torch.float32
    for found, data in zip(batch.numpy(), pictures, strict=True):
        apart = [np.abs(found - flipped).mean() for flipped in flips(wanted(data))]
        # Grey levels in units of the norm's spread; lightness and luma are not quite the same.
        assert min(apart) < 0.15, apart
        assert sorted(apart)[1] > 2 * min(apart), apart


def test_fracnets_own_way_gives_it_from_the_cache(pictures: list[bytes], tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", pictures, {"train": 4, "val": 2, "test": 2})
    own = Own(ready([*SETTING.words(root), "augment=none"]))
    batch = own.batch(range(4), 1)
    assert batch.shape == (4, 3, SIZE, SIZE)
    expected = [wanted(data) for data in pictures]
    for found in batch.numpy():  # resized before CLAHE here, after it there
        assert min(np.abs(found - picture).mean() for picture in expected) < 0.4


def test_all_ways_draw_anew_each_time(pictures: list[bytes], tmp_path: Path) -> None:
    torch.manual_seed(0)
    for way in (published(SIZE), lean(SIZE), lean(SIZE, small_first=True), modern(SIZE)):
        assert not torch.equal(way.batch(pictures[:1]), way.batch(pictures[:1])), way.name
    root = write_set(tmp_path / "set", pictures, {"train": 4, "val": 2, "test": 2})
    own = Own(ready(SETTING.words(root)))
    assert not torch.equal(own.batch([0], 1), own.batch([0], 2))
    assert torch.equal(own.batch([0], 1), own.batch([0], 1))


def test_files_of_a_set_are_names_of_the_pictures(pictures: list[bytes], tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", pictures, {"train": 5, "val": 2, "test": 2})
    files = sorted((root / "train").rglob("*.jpg"))
    assert len(files) == 5
    assert {file.read_bytes() for file in files} == set(pictures)
    assert len({file.stat().st_ino for file in files}) == 2
