"""What is done about classes of unequal size: for the loss, the epoch and the transforms."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny import CLASSES, PUBLISHED, RESIZE, TinySource
from sklearn.utils.class_weight import compute_class_weight

from fracnet.data.augment import build_augment
from fracnet.data.datamodule import RadiographData
from fracnet.data.manifest import Manifest
from fracnet.data.samplers import METHODS, class_weights
from fracnet.utils.errors import UserError

STRONG = [{"_target_": "albumentations.InvertImg", "p": 1.0}]
COUNTS = [18, 2, 1]


def config(method: str) -> dict[str, Any]:
    return {"method": method, "transforms": STRONG if method == "augment_minority" else None}


class SkewedSource(TinySource):
    """Of 21 train images, 18 are the first class, 2 the second and 1 the third."""

    def manifest(self) -> Manifest:
        found = super().manifest()
        late = found.table["path"].map(lambda path: int(Path(path).stem)) >= 5
        found.table.loc[late, "label"] = CLASSES[0]
        return found


def skewed(folder: Path, method: str, **settings: Any) -> RadiographData:
    defaults = {"image_size": 32, "batch_size": 4, "seed": 3, "progress": False}
    data = RadiographData(
        SkewedSource(root=str(folder / "images")),
        {"steps": list(RESIZE)},
        {"transforms": list(PUBLISHED)},
        imbalance=config(method),
        **(defaults | settings),
    )
    data.prepare_data()
    return data


def seen(loader: Any, epochs: range) -> list[tuple[int, int, bytes]]:
    """(epoch, row, pixels) of all images of some epochs, in order."""
    found = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            for row, image in zip(batch["row"], batch["image"], strict=True):
                found.append((epoch, int(row), image.numpy().tobytes()))
    return found


def test_class_weights_are_those_of_the_formula_and_leave_the_mean_alone() -> None:
    counts = np.array([30, 10, 2])
    weights = class_weights(counts)
    assert weights.tolist() == [42 / (3 * 30), 42 / (3 * 10), 42 / (3 * 2)]
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    labels = np.repeat([0, 1, 2], counts)
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(weights, balanced)


@pytest.mark.parametrize("method", METHODS)
def test_weights_come_from_train_counts_and_for_one_method_only(
    tmp_path: Path, method: str
) -> None:
    data = skewed(tmp_path, method)
    assert data.train_counts().tolist() == COUNTS
    expected = [21 / (3 * n) for n in COUNTS] if method == "class_weights" else None
    assert data.class_weights() == expected


@pytest.mark.parametrize("method", METHODS)
def test_validation_and_test_are_left_alone(tmp_path: Path, method: str) -> None:
    data = skewed(tmp_path, method)
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        rows = data.rows(split).tolist()
        expected = [(e, row, data.cache.images[row].tobytes()) for e in (0, 1) for row in rows]
        assert seen(loader, range(2)) == expected


@pytest.mark.parametrize(
    ("method", "counts"),
    [
        ("none", COUNTS),
        ("class_weights", COUNTS),
        ("augment_minority", COUNTS),
        ("oversample", [18, 18, 18]),
        ("undersample", [1, 1, 1]),
    ],
)
def test_an_epoch_shows_what_the_header_promises(
    tmp_path: Path, method: str, counts: list[int]
) -> None:
    data = skewed(tmp_path, method, batch_size=6)
    assert data.imbalance.epoch_counts(data.train_counts()).tolist() == counts
    targets = data.manifest.targets()
    loader = data.train_dataloader()
    shown = Counter(int(targets[row]) for _, row, _ in seen(loader, range(1)))
    assert [shown[c] for c in range(3)] == counts
    assert len(loader) == -(-sum(counts) // 6)


def test_copies_of_an_epoch_are_all_different_images(tmp_path: Path) -> None:
    data = skewed(tmp_path, "oversample")
    shown = seen(data.train_dataloader(), range(2))
    assert len({pixels for _, _, pixels in shown}) == len(shown) == 2 * 54


@pytest.mark.parametrize(
    ("method", "size", "left"), [("oversample", 53, 53), ("undersample", 2, 2)]
)
def test_last_batch_of_one_image_is_left_out_of_a_resampled_epoch(
    tmp_path: Path, method: str, size: int, left: int
) -> None:
    loader = skewed(tmp_path, method, batch_size=size).train_dataloader()
    assert len(seen(loader, range(1))) == left == len(loader) * size


@pytest.mark.parametrize("method", ["oversample", "undersample", "augment_minority"])
def test_number_of_workers_changes_nothing(tmp_path: Path, method: str) -> None:
    expected = seen(skewed(tmp_path, method).train_dataloader(), range(3))
    for workers in (1, 4):
        loader = skewed(tmp_path, method, num_workers=workers).train_dataloader()
        assert seen(loader, range(3)) == expected


@pytest.mark.parametrize("method", METHODS)
def test_loader_made_anew_goes_on_where_another_stopped(tmp_path: Path, method: str) -> None:
    whole = seen(skewed(tmp_path, method).train_dataloader(), range(4))
    resumed = seen(skewed(tmp_path, method).train_dataloader(), range(2, 4))
    assert resumed == [one for one in whole if one[0] >= 2]
    assert resumed


def test_minority_gets_its_own_transforms_and_the_majority_the_ordinary_ones(
    tmp_path: Path,
) -> None:
    data = skewed(tmp_path, "augment_minority")
    own, ordinary = build_augment(STRONG), build_augment(PUBLISHED)
    targets = data.manifest.targets()
    for epoch, row, pixels in seen(data.train_dataloader(), range(2)):
        augment = ordinary if targets[row] == 0 else own
        image = augment(data.cache.images[row], seed=3, epoch=epoch, row=row)
        assert image.tobytes() == pixels


def test_equal_classes_have_no_minority(tmp_path: Path) -> None:
    source = TinySource(root=str(tmp_path))
    steps, augment = {"steps": list(RESIZE)}, {"transforms": []}
    data = RadiographData(
        source, steps, augment, image_size=32, batch_size=4, imbalance=config("augment_minority")
    )
    data.prepare_data()
    for _, row, pixels in seen(data.train_dataloader(), range(1)):
        assert pixels == data.cache.images[row].tobytes()
    assert "no class" in data.imbalance.in_words(data.train_counts(), data.classes)


def test_faulty_transforms_are_named_by_their_own_key(tmp_path: Path) -> None:
    crop = [{"_target_": "albumentations.Resize", "height": 8, "width": 8}]
    with pytest.raises(UserError, match=r"imbalance\.transforms turn an image .*\[8, 8\]"):
        RadiographData(
            TinySource(root=str(tmp_path)),
            {"steps": list(RESIZE)},
            image_size=32,
            batch_size=4,
            imbalance={"method": "augment_minority", "transforms": crop},
        )
