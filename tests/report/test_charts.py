"""Charts of a page: where things lie, what is left out, and what a chart says of itself."""

import math
import re

import pandas as pd
import pytest

from fracnet.report import tables
from fracnet.report.sweep_charts import MOST_CURVES, MOST_POINTS, Trial, overlaid, swept
from fracnet.report.tables import Reach, interval


def trial(number: int, value: float, settings: dict[str, object], **more: object) -> Trial:
    of = " ".join(f"{key}={told}" for key, told in settings.items())
    return Trial(f"job {number}", of, settings, value, **more)  # type: ignore[arg-type]


def followed(epochs: int, start: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame(
        {"epoch": range(1, epochs + 1), "val/loss": [start / e for e in range(1, epochs + 1)]}
    )


@pytest.mark.parametrize(
    ("values", "ends", "labels"),
    [
        ([0.61, 0.93], (0.6, 1.0), ["0.6", "0.7", "0.8", "0.9", "1.0"]),
        ([0.612, 0.619], (0.612, 0.62), ["0.612", "0.614", "0.616", "0.618", "0.620"]),
        ([0.0, 12.0], (0.0, 12.5), ["0.0", "2.5", "5.0", "7.5", "10.0", "12.5"]),
        ([-3.0, math.nan, 3.0], (-4.0, 4.0), ["-4", "-2", "0", "2", "4"]),
    ],
)
def test_an_axis_holds_its_values_between_round_ends(
    values: list[float], ends: tuple[float, float], labels: list[str]
) -> None:
    axis = tables.linear(values)
    assert (axis.low, axis.high) == pytest.approx(ends)
    assert [words for _, words in axis.ticks] == labels


def test_equal_values_still_have_an_axis() -> None:
    axis = tables.linear([0.5, 0.5])
    assert axis.low < 0.5 < axis.high
    assert axis.share(0.5) == pytest.approx(0.5, abs=0.2)


def test_points_lie_where_their_axes_say_and_words_are_escaped() -> None:
    chart = tables.Chart(tables.Axis(1, 100, "rate", log=True), tables.unit("<share>"))
    (left, bottom), (middle, half), (right, top) = (
        chart.at(x, y) for x, y in ((1, 0), (10, 0.5), (100, 1))
    )
    assert middle == pytest.approx((left + right) / 2)
    assert half == pytest.approx((top + bottom) / 2)
    chart.line([(1, 0), (10, 0.5), (50, math.nan), (100, 1)], "s1", "a & b")
    drawn = str(chart.drawn('of "x"'))
    assert f'd="M{left:.1f} {bottom:.1f} L{middle:.1f} {half:.1f} M{right:.1f} {top:.1f}"' in drawn
    assert "<title>a &amp; b</title>" in drawn
    assert "&lt;share&gt;" in drawn
    assert 'aria-label="of &#34;x&#34;"' in drawn


def test_a_bar_lies_at_its_share_of_the_scale() -> None:
    drawn = str(
        interval(Reach(0.75, 0.5, 1.0), tables.Axis(0, 1), guide=0.25, each=[0.6, math.nan])
    )
    assert 'class="range s0" x1="50.00%" x2="100.00%"' in drawn
    assert 'cx="75.00%"' in drawn
    assert 'class="axis" x1="25.00%"' in drawn
    assert drawn.count('class="each') == 1
    assert "<circle" not in str(interval(Reach(math.nan), tables.Axis(0, 1)))


def test_a_wide_range_of_rates_stands_on_a_logarithmic_axis() -> None:
    rates = ("1e-5", "1e-3", "0.1")
    (found,) = swept([trial(i, 0.5 + i / 10, {"lr": lr}) for i, lr in enumerate(rates)], "AUC")
    assert found.key == "lr"
    places = [float(x) for x in re.findall(r'class="dot s0 open" d="M([\d.]+)', str(found.chart))]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert "lr, logarithmic" in found.chart
    assert found.note == "", "a value each: there is no mean"


def test_words_are_categories_and_their_means_are_read_out() -> None:
    values = {"sgd": (0.5, 0.6), "adam": (0.7, 0.9), None: (0.4, 0.4)}
    trials = [trial(0, v, {"optim": name}) for name, pair in values.items() for v in pair]
    (found,) = swept(trials, "AUC")
    assert found.note == "Means (runs): sgd: 0.550 (2); adam: 0.800 (2); not given: 0.400 (2)."


def test_keys_that_vary_in_step_share_a_chart_and_say_so() -> None:
    rows = [("a", 18, 1), ("b", 50, 1), ("a", 18, 2)]
    trials = [
        trial(i, i / 10, {"model": model, "depth": depth, "lr": lr, "same": 1})
        for i, (model, depth, lr) in enumerate(rows)
    ]
    assert [(found.key, found.beside) for found in swept(trials, "AUC")] == [
        ("model", ["depth"]),
        ("lr", []),
    ]


def test_trials_without_a_figure_are_not_drawn() -> None:
    trials = [trial(0, 0.5, {"lr": 1}), trial(1, 0.6, {"lr": 2}), trial(2, math.nan, {"lr": 1e35})]
    (found,) = swept(trials, "AUC")
    assert str(found.chart).count('class="dot') == 2
    assert "1e+35" not in found.chart
    assert found.note == "Not drawn: 1 run without a figure, at 1e+35 (1)."
    assert swept(trials[1:], "AUC") == []


def test_curves_are_bounded_in_number_and_length() -> None:
    count, epochs = MOST_CURVES + 5, 3 * MOST_POINTS + 1
    trials = [
        trial(i, 0.5, {"lr": i % 9}, curves=followed(epochs, i + 1), selected=epochs)
        for i in range(count)
    ]
    found = overlaid(trials, "macro_auc", "macro AUC")
    ((title, chart),) = found.charts
    assert title == "loss on validation"
    lines = re.findall(r'<path class="line [^"]*" d="([^"]*)"', str(chart))
    assert len(lines) == MOST_CURVES
    assert max(line.count("L") + 1 for line in lines) <= MOST_POINTS
    assert [series.name for series in found.legend] == [*(f"lr={i}" for i in range(5)), "others"]
    assert f"Of {count} runs with curves the first {MOST_CURVES} are drawn." in found.notes
    assert any("4 further configurations" in note for note in found.notes)


def test_runs_without_curves_are_counted() -> None:
    trials = [trial(0, 0.5, {"lr": 1}, curves=followed(3)), trial(1, 0.5, {"lr": 1})]
    found = overlaid(trials, "macro_auc", "macro AUC")
    assert "1 run is without curves (metrics.csv)." in found.notes
    assert overlaid(trials[1:], "macro_auc", "macro AUC").charts == []
