"""fracnet's pipeline and the others it is measured against do the same work."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from experiments.benchmark import alternative_pipelines
from experiments.benchmark.alternative_pipelines import MEAN, STD, lean, modern, published
from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.pipeline import FracnetPipeline
from experiments.benchmark.setting import Setting, prepared_data

SIZE = 64
SETTING = Setting(True, "resnet18", SIZE, 8, "cpu", 0, False)


@pytest.fixture(scope="module")
def image_files() -> list[bytes]:
    return jpegs(2, 128)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pipeline turns or scales."""
    monkeypatch.setattr(alternative_pipelines, "DEGREES", 1e-9)
    monkeypatch.setattr(alternative_pipelines, "SCALE", (1.0, 1.0))


def expected_image(data: bytes) -> np.ndarray:
    """Plainly: CLAHE, resize, normalize; float32 [3, S, S]."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    image = cv2.createCLAHE(2.0, (8, 8)).apply(image)
    small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) / 255
    return np.stack([(small - mean) / std for mean, std in zip(MEAN, STD, strict=True)])


def flips(image: np.ndarray) -> list[np.ndarray]:
    return [image[:, ::y, ::x] for y in (1, -1) for x in (1, -1)]


@pytest.mark.parametrize(
    "pipeline", [published, lean, modern], ids=lambda pipeline: pipeline.__name__
)
@pytest.mark.usefixtures("still")
def test_all_pipelines_give_the_same_normalized_image(
    pipeline: object, image_files: list[bytes]
) -> None:
    batch = pipeline(SIZE).batch(image_files)  # type: ignore[operator]
    assert batch.shape == (2, 3, SIZE, SIZE)
    assert batch.dtype == torch.float32
    for result, data in zip(batch.numpy(), image_files, strict=True):
        apart = [np.abs(result - flipped).mean() for flipped in flips(expected_image(data))]
        # Grey levels in units of the norm's spread; lightness and luma are not quite the same.
        assert min(apart) < 0.15, apart
        assert sorted(apart)[1] > 2 * min(apart), apart


def test_fracnet_gives_the_same_image_from_the_cache(
    image_files: list[bytes], tmp_path: Path
) -> None:
    root = write_set(tmp_path / "set", image_files, {"train": 4, "val": 2, "test": 2})
    fracnet_pipeline = FracnetPipeline(prepared_data([*SETTING.overrides(root), "augment=none"]))
    batch = fracnet_pipeline.batch(range(4), 1)
    assert batch.shape == (4, 3, SIZE, SIZE)
    expected = [expected_image(data) for data in image_files]
    for result in batch.numpy():  # resized before CLAHE here, after it in the other
        assert min(np.abs(result - picture).mean() for picture in expected) < 0.4


def test_all_pipelines_augment_differently_each_time(
    image_files: list[bytes], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    for pipeline in (published(SIZE), lean(SIZE), lean(SIZE, resize_first=True), modern(SIZE)):
        assert not torch.equal(pipeline.batch(image_files[:1]), pipeline.batch(image_files[:1])), (
            pipeline.name
        )
    root = write_set(tmp_path / "set", image_files, {"train": 4, "val": 2, "test": 2})
    fracnet_pipeline = FracnetPipeline(prepared_data(SETTING.overrides(root)))
    assert not torch.equal(fracnet_pipeline.batch([0], 1), fracnet_pipeline.batch([0], 2))
    assert torch.equal(fracnet_pipeline.batch([0], 1), fracnet_pipeline.batch([0], 1))


def test_dataset_files_are_copies_of_their_own(image_files: list[bytes], tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", image_files, {"train": 5, "val": 2, "test": 2})
    files = sorted((root / "train").rglob("*.jpg"))
    assert len(files) == 5
    assert {file.read_bytes() for file in files} == set(image_files)
    assert len({file.stat().st_ino for file in files}) == 5
