"""Several processes show together what one shows: nothing left out, training steps in parallel."""

import numpy as np
import pytest

from fracnet.data.samplers import EpochSampler, Oversampler, Shard


def shares(whole: EpochSampler, world: int, batch_size: int, training: bool) -> list[list[int]]:
    return [
        [
            draw.row
            for draw in Shard(
                whole, rank=rank, world=world, batch_size=batch_size, training=training
            )
        ]
        for rank in range(world)
    ]


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_shares_are_equally_long_and_cover_the_epoch(n: int, world: int) -> None:
    whole = EpochSampler(np.arange(100, 100 + n), seed=1, shuffle=True)
    dealt = shares(whole, world, 4, training=True)
    assert len({len(share) for share in dealt}) == 1
    drawn = [row for share in dealt for row in share]
    assert set(drawn) == set(range(100, 100 + n))
    assert len(drawn) - n < world, "no more is repeated than it takes"


def test_first_step_of_two_processes_is_the_first_large_batch_of_one() -> None:
    whole = EpochSampler(np.arange(20), seed=1, shuffle=True)
    first, second = shares(whole, 2, 3, training=True)
    assert {*first[:3], *second[:3]} == set(whole.order(0)[:6].tolist())


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 13])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_elsewhere_whole_batches_are_dealt_out(n: int, world: int) -> None:
    size = 4
    whole = EpochSampler(np.arange(n), seed=1, shuffle=False)
    dealt = shares(whole, world, size, training=False)
    assert all(dealt), "a share is never empty"
    single = [list(range(i, min(i + size, n))) for i in range(0, n, size)]
    batches = [share[i : i + size] for share in dealt for i in range(0, len(share), size)]
    assert all(batch in single for batch in batches)
    assert {tuple(batch) for batch in batches} == {tuple(batch) for batch in single}


def test_epoch_and_number_of_the_copy_are_those_of_a_single_process() -> None:
    rows, targets = np.arange(7), np.array([0, 0, 0, 0, 0, 1, 1])
    whole = Oversampler(rows, targets, seed=3)
    parts = [Shard(whole, rank=r, world=2, batch_size=4, training=True) for r in range(2)]
    parts[0].set_epoch(5)
    drawn = [draw for part in parts for draw in part]
    whole.set_epoch(5)
    assert set(drawn) == set(whole)
    assert {draw.epoch for draw in drawn} == {5}
