"""Measurements, their limits, and interleaved measuring."""

import pytest

from experiments.benchmark.measurements import Measurement, interleaved, ratios, spread
from experiments.benchmark.table import format_part, missed, plain


def test_a_limit_is_met_at_its_exact_value_and_missed_beyond_it() -> None:
    assert Measurement("speed", 10.0, at_least=10.0).met is True
    assert Measurement("speed", 9.999, at_least=10.0).met is False
    assert Measurement("time", 5.0, at_most=5.0).met is True
    assert Measurement("time", 5.001, at_most=5.0).met is False
    assert Measurement("time", 5.0).met is None


def test_spread_is_median_and_quartiles() -> None:
    result = spread("x", [5, 1, 4, 2, 3])
    assert (result.low, result.value, result.high) == (2, 3, 4)


def test_sides_alternate_and_the_first_round_does_not_count() -> None:
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
def test_the_table_marks_missed_limits_and_fits_80_columns(part: str) -> None:
    measurements = [
        spread("published pipeline / fracnet", [1.0, 2.0, 3.0], "x", at_least=10.0),
        Measurement("RssAnon, 40,000 images and some more words", 123456.0, "MiB", 0.5, 123456.0),
        Measurement("growth an image", 0.001, "KiB", at_most=2.0),
    ]
    result = {part: {"measurements": measurements, "spent_ms": {"fracnet": {"normalize": 0.12}}}}
    text = format_part(part, result[part])
    assert max(map(len, text.splitlines())) <= 80, text
    assert "limit: at least 10 x: NOT MET" in text
    assert "limit: at most 2 KiB: met" in text
    assert missed(result) == ["published pipeline / fracnet"]
    assert plain(result)[part]["measurements"][0]["met"] is False
