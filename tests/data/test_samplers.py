"""Which rows an epoch draws, in which order, for which process, and how imbalance is handled."""

from collections import Counter
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from helpers.tiny import CLASSES, PUBLISHED, RESIZE, TinyDataset, picture
from sklearn.utils.class_weight import compute_class_weight

from fracnet.data.augment import build_augment
from fracnet.data.datamodule import RadiographData
from fracnet.data.manifest import Manifest
from fracnet.data.samplers import (
    IMBALANCE_METHODS,
    Draw,
    EpochSampler,
    Oversampler,
    ShardSampler,
    Undersampler,
    class_weights,
    earlier_occurrences,
)
from fracnet.utils.errors import UserError

FIFTY_ROWS = np.arange(100, 150)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(FIFTY_ROWS, seed, shuffle=True)
        sampler.set_epoch(epoch)
        draws = list(sampler)
        assert {(draw.epoch, draw.copy) for draw in draws} == {(epoch, 0)}
        return [draw.row for draw in draws]

    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(sorted(rows) == FIFTY_ROWS.tolist() for rows in orders)
    assert len({tuple(rows) for rows in orders}) == 9
    assert order(1, 2) == orders[1 * 3 + 2]


def test_epochs_can_be_visited_in_any_order() -> None:
    sampler = EpochSampler(FIFTY_ROWS, 7, shuffle=True)
    sampler.set_epoch(4)
    first_visit = list(sampler)
    sampler.set_epoch(0)
    list(sampler)
    sampler.set_epoch(4)
    assert list(sampler) == first_visit


def test_without_shuffling_rows_keep_their_order_and_draws_are_ints() -> None:
    sampler = EpochSampler(FIFTY_ROWS, 0, shuffle=False)
    sampler.set_epoch(3)
    assert list(sampler) == [(3, row, 0) for row in range(100, 150)]
    assert len(sampler) == 50
    assert all(type(number) is int for draw in sampler for number in draw)


# --- oversampling and undersampling


# 7 rows of class 0, 3 of class 1, 2 of class 2; numbers that are not positions.
ROWS = np.arange(100, 112)
TARGETS = np.array([0, 1, 0, 2, 0, 0, 1, 0, 2, 0, 1, 0])
CLASS_ROWS = [
    {row for row, target in zip(ROWS.tolist(), TARGETS, strict=True) if target == c}
    for c in range(3)
]


def draws_of(sampler: EpochSampler, epoch: int) -> list[Draw]:
    sampler.set_epoch(epoch)
    draws = list(sampler)
    assert len(draws) == len(sampler)
    assert all(draw.epoch == epoch for draw in draws)
    assert all(type(number) is int for draw in draws for number in draw)
    return draws


def test_oversampling_draws_each_class_as_often_as_the_largest() -> None:
    sampler = Oversampler(ROWS, TARGETS, seed=5)
    assert len(sampler) == 21
    for epoch in range(6):
        times = Counter(draw.row for draw in draws_of(sampler, epoch))
        for rows, least in zip(CLASS_ROWS, (1, 2, 3), strict=True):
            assert sum(times[row] for row in rows) == 7
            assert {times[row] for row in rows} <= {least, least + 1}, "distributed evenly"


def test_extra_draws_of_oversampling_change_from_epoch_to_epoch() -> None:
    sampler = Oversampler(ROWS, TARGETS, seed=5)
    extras = set()
    for epoch in range(30):
        times = Counter(draw.row for draw in draws_of(sampler, epoch))
        extras |= {row for row in CLASS_ROWS[1] | CLASS_ROWS[2] if times[row] in (3, 4)}
    assert extras == CLASS_ROWS[1] | CLASS_ROWS[2]


def test_draws_of_the_same_row_are_numbered_in_order() -> None:
    copies: dict[int, list[int]] = {}
    for draw in draws_of(Oversampler(ROWS, TARGETS, seed=5), 2):
        copies.setdefault(draw.row, []).append(draw.copy)
    assert set(copies) == set(ROWS.tolist())
    assert all(numbers == list(range(len(numbers))) for numbers in copies.values())


def test_undersampling_draws_each_class_as_rarely_as_the_smallest_and_no_row_twice() -> None:
    sampler = Undersampler(ROWS, TARGETS, seed=5)
    assert len(sampler) == 6
    for epoch in range(12):
        rows = [draw.row for draw in draws_of(sampler, epoch)]
        assert len(set(rows)) == 6
        assert [len(class_rows & set(rows)) for class_rows in CLASS_ROWS] == [2, 2, 2]


def test_undersampling_draws_all_rows_within_a_turn_and_shuffles_for_the_next() -> None:
    sampler = Undersampler(ROWS, TARGETS, seed=5)
    largest = [
        frozenset(CLASS_ROWS[0] & {draw.row for draw in draws_of(sampler, epoch)})
        for epoch in range(40)
    ]
    for start in range(0, 40, 4):  # 7 rows, 2 at a time
        assert frozenset().union(*largest[start : start + 4]) == CLASS_ROWS[0]
    assert len(set(largest)) > 12, "of 21 possible pairs"


@pytest.mark.parametrize("kind", [Oversampler, Undersampler])
def test_draws_are_a_function_of_seed_and_epoch(kind: Any) -> None:
    running = kind(ROWS, TARGETS, 5)
    run = [draws_of(running, epoch) for epoch in range(8)]
    assert len({tuple(draw[1:] for draw in draws) for draws in run}) == 8
    for epoch in (7, 0, 3):
        resumed = kind(ROWS, TARGETS, 5)
        assert draws_of(resumed, epoch) == run[epoch]
        assert draws_of(running, epoch) == run[epoch], "epochs can be visited in any order"
        assert draws_of(kind(ROWS, TARGETS, 6), epoch) != run[epoch]


def test_the_order_without_resampling_is_fixed() -> None:
    sampler = EpochSampler(np.arange(8), seed=1, shuffle=True)
    assert draws_of(sampler, 2) == [Draw(2, row, 0) for row in (4, 2, 7, 1, 6, 5, 3, 0)]


def test_earlier_occurrences_count_from_the_left() -> None:
    assert earlier_occurrences(np.array([7, 5, 7, 7, 5])).tolist() == [0, 0, 1, 2, 1]
    assert earlier_occurrences(np.array([], np.int64)).tolist() == []


class RandomPixels(A.ImageOnlyTransform):
    """Replaces the pixels by the random numbers of the draw."""

    def apply(self, img: np.ndarray, **params: object) -> np.ndarray:
        img[:] = self.random_generator.integers(256, size=img.shape)
        return img


def test_copies_look_different_and_the_first_does_not_depend_on_others() -> None:
    image = picture(0, 32, 32)
    augment = build_augment(PUBLISHED)
    keys = [(epoch, row, copy) for epoch in range(3) for row in range(3) for copy in range(4)]
    results = {k: augment(image, seed=7, epoch=k[0], row=k[1], copy=k[2]).tobytes() for k in keys}
    assert len(set(results.values())) == len(keys)
    for (epoch, row, copy), result in results.items():
        if copy == 0:
            assert augment(image, seed=7, epoch=epoch, row=row).tobytes() == result
    pixels = build_augment([RandomPixels(p=1)])(image, seed=7, epoch=1, row=2)
    assert pixels[0, :6].tolist() == [84, 115, 206, 87, 196, 178]


# --- shards: several processes draw together what one process draws


def shards(sampler: EpochSampler, world: int, batch_size: int, training: bool) -> list[list[int]]:
    return [
        [
            draw.row
            for draw in ShardSampler(
                sampler, rank=rank, world=world, batch_size=batch_size, training=training
            )
        ]
        for rank in range(world)
    ]


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_shards_have_equal_length_and_cover_the_epoch(n: int, world: int) -> None:
    sampler = EpochSampler(np.arange(100, 100 + n), seed=1, shuffle=True)
    shards_of_epoch = shards(sampler, world, 4, training=True)
    assert len({len(shard) for shard in shards_of_epoch}) == 1
    draws = [row for shard in shards_of_epoch for row in shard]
    assert set(draws) == set(range(100, 100 + n))
    assert len(draws) - n < world, "no more draws are repeated than necessary"


def test_the_first_step_of_two_processes_is_the_first_batch_of_twice_the_size() -> None:
    sampler = EpochSampler(np.arange(20), seed=1, shuffle=True)
    first, second = shards(sampler, 2, 3, training=True)
    assert {*first[:3], *second[:3]} == set(sampler.order(0)[:6].tolist())


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 13])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_other_shards_are_of_complete_batches(n: int, world: int) -> None:
    size = 4
    sampler = EpochSampler(np.arange(n), seed=1, shuffle=False)
    shards_of_epoch = shards(sampler, world, size, training=False)
    assert all(shards_of_epoch), "a shard is never empty"
    single = [list(range(i, min(i + size, n))) for i in range(0, n, size)]
    batches = [shard[i : i + size] for shard in shards_of_epoch for i in range(0, len(shard), size)]
    assert all(batch in single for batch in batches)
    assert {tuple(batch) for batch in batches} == {tuple(batch) for batch in single}


def test_epoch_and_copy_are_those_of_a_single_process() -> None:
    rows, targets = np.arange(7), np.array([0, 0, 0, 0, 0, 1, 1])
    sampler = Oversampler(rows, targets, seed=3)
    parts = [ShardSampler(sampler, rank=r, world=2, batch_size=4, training=True) for r in range(2)]
    parts[0].set_epoch(5)
    draws = [draw for part in parts for draw in part]
    sampler.set_epoch(5)
    assert set(draws) == set(sampler)
    assert {draw.epoch for draw in draws} == {5}


# --- imbalance methods in a data module


STRONG = [{"_target_": "albumentations.InvertImg", "p": 1.0}]
COUNTS = [18, 2, 1]


def imbalance_config(method: str) -> dict[str, Any]:
    return {"method": method, "transforms": STRONG if method == "augment_minority" else None}


class SkewedDataset(TinyDataset):
    """Of 21 train images, 18 are of the first class, 2 of the second and 1 of the third."""

    def manifest(self) -> Manifest:
        manifest = super().manifest()
        late = manifest.table["path"].map(lambda path: int(Path(path).stem)) >= 5
        manifest.table.loc[late, "label"] = CLASSES[0]
        return manifest


def skewed(folder: Path, method: str, **settings: Any) -> RadiographData:
    defaults = {"image_size": 32, "batch_size": 4, "seed": 3, "progress": False}
    data = RadiographData(
        SkewedDataset(root=str(folder / "images")),
        {"steps": list(RESIZE)},
        {"transforms": list(PUBLISHED)},
        imbalance=imbalance_config(method),
        **(defaults | settings),
    )
    data.prepare_data()
    return data


def draw_epochs(loader: Any, epochs: range) -> list[tuple[int, int, bytes]]:
    """(epoch, row, pixels) of all images of some epochs, in order."""
    draws = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            for row, image in zip(batch["row"], batch["image"], strict=True):
                draws.append((epoch, int(row), image.numpy().tobytes()))
    return draws


def test_class_weights_follow_the_formula_and_have_mean_one() -> None:
    counts = np.array([30, 10, 2])
    weights = class_weights(counts)
    assert weights.tolist() == [42 / (3 * 30), 42 / (3 * 10), 42 / (3 * 2)]
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    labels = np.repeat([0, 1, 2], counts)
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(weights, balanced)


@pytest.mark.parametrize("method", IMBALANCE_METHODS)
def test_weights_come_from_train_counts_and_only_for_class_weights(
    tmp_path: Path, method: str
) -> None:
    data = skewed(tmp_path, method)
    assert data.train_counts().tolist() == COUNTS
    expected = [21 / (3 * n) for n in COUNTS] if method == "class_weights" else None
    assert data.class_weights() == expected


@pytest.mark.parametrize("method", IMBALANCE_METHODS)
def test_validation_and_test_are_unaffected(tmp_path: Path, method: str) -> None:
    data = skewed(tmp_path, method)
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        rows = data.rows(split).tolist()
        expected = [(e, row, data.cache.images[row].tobytes()) for e in (0, 1) for row in rows]
        assert draw_epochs(loader, range(2)) == expected


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
def test_an_epoch_has_the_announced_counts(tmp_path: Path, method: str, counts: list[int]) -> None:
    data = skewed(tmp_path, method, batch_size=6)
    assert data.imbalance.epoch_counts(data.train_counts()).tolist() == counts
    targets = data.manifest.targets()
    loader = data.train_dataloader()
    draws = Counter(int(targets[row]) for _, row, _ in draw_epochs(loader, range(1)))
    assert [draws[c] for c in range(3)] == counts
    assert len(loader) == -(-sum(counts) // 6)


def test_copies_of_an_epoch_are_all_different_images(tmp_path: Path) -> None:
    data = skewed(tmp_path, "oversample")
    draws = draw_epochs(data.train_dataloader(), range(2))
    assert len({pixels for _, _, pixels in draws}) == len(draws) == 2 * 54


@pytest.mark.parametrize(
    ("method", "size", "expected"), [("oversample", 53, 53), ("undersample", 2, 2)]
)
def test_a_last_batch_of_one_image_is_skipped_in_a_resampled_epoch(
    tmp_path: Path, method: str, size: int, expected: int
) -> None:
    loader = skewed(tmp_path, method, batch_size=size).train_dataloader()
    assert len(draw_epochs(loader, range(1))) == expected == len(loader) * size


@pytest.mark.parametrize("method", ["oversample", "undersample", "augment_minority"])
def test_number_of_workers_changes_nothing(tmp_path: Path, method: str) -> None:
    expected = draw_epochs(skewed(tmp_path, method).train_dataloader(), range(3))
    for workers in (1, 4):
        loader = skewed(tmp_path, method, num_workers=workers).train_dataloader()
        assert draw_epochs(loader, range(3)) == expected


@pytest.mark.parametrize("method", IMBALANCE_METHODS)
def test_a_new_loader_continues_at_the_right_epoch(tmp_path: Path, method: str) -> None:
    complete = draw_epochs(skewed(tmp_path, method).train_dataloader(), range(4))
    resumed = draw_epochs(skewed(tmp_path, method).train_dataloader(), range(2, 4))
    assert resumed == [draw for draw in complete if draw[0] >= 2]
    assert resumed


def test_minority_classes_get_their_own_transforms(tmp_path: Path) -> None:
    data = skewed(tmp_path, "augment_minority")
    strong, published = build_augment(STRONG), build_augment(PUBLISHED)
    targets = data.manifest.targets()
    for epoch, row, pixels in draw_epochs(data.train_dataloader(), range(2)):
        augment = published if targets[row] == 0 else strong
        image = augment(data.cache.images[row], seed=3, epoch=epoch, row=row)
        assert image.tobytes() == pixels


def test_equal_classes_have_no_minority(tmp_path: Path) -> None:
    dataset = TinyDataset(root=str(tmp_path))
    steps, augment = {"steps": list(RESIZE)}, {"transforms": []}
    data = RadiographData(
        dataset,
        steps,
        augment,
        image_size=32,
        batch_size=4,
        imbalance=imbalance_config("augment_minority"),
    )
    data.prepare_data()
    for _, row, pixels in draw_epochs(data.train_dataloader(), range(1)):
        assert pixels == data.cache.images[row].tobytes()
    assert "no class" in data.imbalance.describe(data.train_counts(), data.classes)


def test_errors_in_minority_transforms_name_their_key(tmp_path: Path) -> None:
    resize = [{"_target_": "albumentations.Resize", "height": 8, "width": 8}]
    with pytest.raises(UserError, match=r"imbalance\.transforms turn an image .*\[8, 8\]"):
        RadiographData(
            TinyDataset(root=str(tmp_path)),
            {"steps": list(RESIZE)},
            image_size=32,
            batch_size=4,
            imbalance={"method": "augment_minority", "transforms": resize},
        )
