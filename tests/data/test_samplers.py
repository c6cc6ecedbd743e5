import numpy as np

from fracnet.data.samplers import EpochSampler

ROWS = np.arange(100, 150)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(ROWS, seed, shuffle=True)
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert {(draw.epoch, draw.copy) for draw in drawn} == {(epoch, 0)}
        return [draw.row for draw in drawn]

    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(sorted(one) == ROWS.tolist() for one in orders)
    assert len({tuple(one) for one in orders}) == 9
    assert order(1, 2) == orders[1 * 3 + 2]


def test_epochs_may_be_visited_in_any_order() -> None:
    sampler = EpochSampler(ROWS, 7, shuffle=True)
    sampler.set_epoch(4)
    late = list(sampler)
    sampler.set_epoch(0)
    list(sampler)
    sampler.set_epoch(4)
    assert list(sampler) == late


def test_without_shuffling_rows_keep_their_order_and_draws_are_plain_numbers() -> None:
    sampler = EpochSampler(ROWS, 0, shuffle=False)
    sampler.set_epoch(3)
    assert list(sampler) == [(3, row, 0) for row in range(100, 150)]
    assert len(sampler) == 50
    assert all(type(number) is int for draw in sampler for number in draw)
