"""Which rows an epoch draws, how often, and how the copies of one row differ."""

from collections import Counter
from typing import Any

import albumentations as A
import numpy as np
import pytest
from helpers.tiny import PUBLISHED, picture

from fracnet.data.augment import build_augment
from fracnet.data.samplers import Draw, EpochSampler, Oversampler, Undersampler, occurrences

# 7 rows of class 0, 3 of class 1, 2 of class 2; numbers that are no places.
ROWS = np.arange(100, 112)
TARGETS = np.array([0, 1, 0, 2, 0, 0, 1, 0, 2, 0, 1, 0])
OF_CLASS = [
    {row for row, target in zip(ROWS.tolist(), TARGETS, strict=True) if target == c}
    for c in range(3)
]


def drawn(sampler: EpochSampler, epoch: int) -> list[Draw]:
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    assert all(draw.epoch == epoch for draw in found)
    assert all(type(number) is int for draw in found for number in draw)
    return found


def test_oversampling_shows_each_class_as_often_as_the_largest() -> None:
    sampler = Oversampler(ROWS, TARGETS, seed=5)
    assert len(sampler) == 21
    for epoch in range(6):
        times = Counter(draw.row for draw in drawn(sampler, epoch))
        for rows, least in zip(OF_CLASS, (1, 2, 3), strict=True):
            assert sum(times[row] for row in rows) == 7
            assert {times[row] for row in rows} <= {least, least + 1}, "shared out evenly"


def test_what_oversampling_shows_once_more_changes_from_epoch_to_epoch() -> None:
    sampler = Oversampler(ROWS, TARGETS, seed=5)
    extras = set()
    for epoch in range(30):
        times = Counter(draw.row for draw in drawn(sampler, epoch))
        extras |= {row for row in OF_CLASS[1] | OF_CLASS[2] if times[row] in (3, 4)}
    assert extras == OF_CLASS[1] | OF_CLASS[2]


def test_draws_of_one_row_are_numbered_in_their_order() -> None:
    numbers: dict[int, list[int]] = {}
    for draw in drawn(Oversampler(ROWS, TARGETS, seed=5), 2):
        numbers.setdefault(draw.row, []).append(draw.copy)
    assert set(numbers) == set(ROWS.tolist())
    assert all(copies == list(range(len(copies))) for copies in numbers.values())


def test_undersampling_shows_each_class_as_rarely_as_the_smallest_and_no_row_twice() -> None:
    sampler = Undersampler(ROWS, TARGETS, seed=5)
    assert len(sampler) == 6
    for epoch in range(12):
        rows = [draw.row for draw in drawn(sampler, epoch)]
        assert len(set(rows)) == 6
        assert [len(of & set(rows)) for of in OF_CLASS] == [2, 2, 2]


def test_undersampling_shows_all_rows_within_a_turn_and_deals_anew_for_the_next() -> None:
    sampler = Undersampler(ROWS, TARGETS, seed=5)
    largest = [
        frozenset(OF_CLASS[0] & {draw.row for draw in drawn(sampler, epoch)}) for epoch in range(40)
    ]
    for start in range(0, 40, 4):  # 7 rows, 2 a time
        assert frozenset().union(*largest[start : start + 4]) == OF_CLASS[0]
    assert len(set(largest)) > 12, "of 21 possible pairs"


@pytest.mark.parametrize("kind", [Oversampler, Undersampler])
def test_draws_are_a_function_of_seed_and_epoch(kind: Any) -> None:
    running = kind(ROWS, TARGETS, 5)
    run = [drawn(running, epoch) for epoch in range(8)]
    assert len({tuple(draw[1:] for draw in one) for one in run}) == 8
    for epoch in (7, 0, 3):
        resumed = kind(ROWS, TARGETS, 5)
        assert drawn(resumed, epoch) == run[epoch]
        assert drawn(running, epoch) == run[epoch], "epochs may be visited in any order"
        assert drawn(kind(ROWS, TARGETS, 6), epoch) != run[epoch]


def test_without_resampling_the_order_is_what_it_always_was() -> None:
    sampler = EpochSampler(np.arange(8), seed=1, shuffle=True)
    assert drawn(sampler, 2) == [Draw(2, row, 0) for row in (4, 2, 7, 1, 6, 5, 3, 0)]


def test_occurrences_count_from_the_left() -> None:
    assert occurrences(np.array([7, 5, 7, 7, 5])).tolist() == [0, 0, 1, 2, 1]
    assert occurrences(np.array([], np.int64)).tolist() == []


class Lottery(A.ImageOnlyTransform):
    """Shows which numbers a draw is given."""

    def apply(self, img: np.ndarray, **params: object) -> np.ndarray:
        img[:] = self.random_generator.integers(256, size=img.shape)
        return img


def test_copies_look_different_and_the_first_as_if_there_were_no_others() -> None:
    image = picture(0, 32, 32)
    augment = build_augment(PUBLISHED)
    keys = [(epoch, row, copy) for epoch in range(3) for row in range(3) for copy in range(4)]
    looks = {k: augment(image, seed=7, epoch=k[0], row=k[1], copy=k[2]).tobytes() for k in keys}
    assert len(set(looks.values())) == len(keys)
    for (epoch, row, copy), look in looks.items():
        if copy == 0:
            assert augment(image, seed=7, epoch=epoch, row=row).tobytes() == look
    numbers = build_augment([Lottery(p=1)])(image, seed=7, epoch=1, row=2)
    assert numbers[0, :6].tolist() == [84, 115, 206, 87, 196, 178]
