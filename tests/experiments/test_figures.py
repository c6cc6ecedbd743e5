"""Figures, their limits, and measurements in turn."""

import pytest

from experiments.benchmark.figures import Figure, interleaved, ratios, spread
from experiments.benchmark.table import missed, plain, told


def test_a_limit_is_kept_at_the_very_value_and_missed_beyond_it() -> None:
    assert Figure("speed", 10.0, at_least=10.0).met is True
    assert Figure("speed", 9.999, at_least=10.0).met is False
    assert Figure("time", 5.0, at_most=5.0).met is True
    assert Figure("time", 5.001, at_most=5.0).met is False
    assert Figure("time", 5.0).met is None


def test_spread_is_median_and_quartiles() -> None:
    found = spread("x", [5, 1, 4, 2, 3])
    assert (found.low, found.value, found.high) == (2, 3, 4)


def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[tuple[str, int]] = []
    ticks = iter(range(1000))

    def side(name: str, cost: int) -> object:
        def work(number: int) -> None:
            order.append((name, number))
            for _ in range(cost):
                next(ticks)

        return work

    seconds = interleaved(
        {"quick": side("quick", 1), "slow": side("slow", 5)},  # type: ignore[dict-item]
        rounds=3,
        clock=lambda: float(next(ticks)),
    )
    assert seconds == {"quick": [2.0] * 3, "slow": [6.0] * 3}
    assert ratios(seconds, "slow", "quick").tolist() == [3.0] * 3
    assert [name for name, _ in order[2:]] == ["slow", "quick", "quick", "slow", "slow", "quick"]


@pytest.mark.parametrize("part", ["pipeline", "memory"])
def test_table_names_what_is_missed_and_fits_the_screen(part: str) -> None:
    figures = [
        spread("published way / fracnet", [1.0, 2.0, 3.0], "x", at_least=10.0),
        Figure("RssAnon, 40,000 images and some more words", 123456.0, "MiB", 0.5, 123456.0),
        Figure("growth an image", 0.001, "KiB", at_most=2.0),
    ]
    found = {part: {"figures": figures, "spent_ms": {"fracnet": {"normalize": 0.12}}}}
    text = told(part, found[part])
    assert max(map(len, text.splitlines())) <= 80, text
    assert "limit: at least 10 x: NOT MET" in text
    assert "limit: at most 2 KiB: met" in text
    assert missed(found) == ["published way / fracnet"]
    assert plain(found)[part]["figures"][0]["met"] is False
