"""Charts of a page: positions, omissions and labels."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fracnet.report import plots
from fracnet.report.html import page
from fracnet.report.plots import BLUE, Chart, Figure, hover
from fracnet.report.sweep_charts import (
    MOST_CURVES,
    MOST_POINTS,
    Curves,
    Trial,
    learning_curves,
    swept_keys,
)
from fracnet.report.tables import Bar, Scale, Table, round_scale


def trial(number: int, value: float, settings: dict[str, object], **more: object) -> Trial:
    of = " ".join(f"{key}={value_}" for key, value_ in settings.items())
    return Trial(f"job {number}", of, settings, value, **more)  # type: ignore[arg-type]


def followed(epochs: int, start: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame(
        {"epoch": range(1, epochs + 1), "val/loss": [start / e for e in range(1, epochs + 1)]}
    )


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0.61, 0.93], (0.6, 1.0)),
        ([0.612, 0.619], (0.612, 0.62)),
        ([0.0, 12.0], (0.0, 12.5)),
        ([-3.0, math.nan, None, 3.0], (-4.0, 4.0)),
    ],
)
def test_a_scale_holds_its_values_between_round_ends(
    values: list[float | None], ends: tuple[float, float]
) -> None:
    scale = round_scale(values)
    assert (scale.low, scale.high) == pytest.approx(ends)
    assert str(scale) == f"{ends[0]:g} to {ends[1]:g}"


def test_equal_values_still_have_a_scale() -> None:
    scale = round_scale([0.5, 0.5])
    assert scale.low < 0.5 < scale.high
    assert scale.share(0.5) == pytest.approx(0.5, abs=0.2)


def drawing(draw: Callable[[Any], None], label: str = "a chart") -> Chart:
    return Chart("title", label, draw, size=(3.0, 2.0))


def test_points_lie_where_their_axes_say_and_text_is_escaped() -> None:
    def draw(axis: Any) -> None:
        (line,) = axis.plot([0, 1, 2], [0, 10, 0], color=BLUE)
        hover(line, 'a & "b"')
        axis.set(xlim=(0, 2), ylim=(0, 10), xlabel="<share>")

    svg = str(drawing(draw, 'of "x"').svg)
    points = re.search(r"<g><title>a &amp; \"b\"</title><path d=\"([^\"]*)\"", svg)
    assert points is not None
    left, bottom, middle, top, right, last = (float(n) for n in re.findall(r"[\d.]+", points[1]))
    assert middle - left == pytest.approx(right - middle, abs=0.2)
    assert right - left == pytest.approx(72 * 3.0, abs=0.2), "inches to points"
    assert bottom - top == pytest.approx(72 * 2.0, abs=0.2)
    assert bottom == last
    assert "&lt;share&gt;" in svg
    assert 'aria-label="of &#34;x&#34;"' in svg


def test_a_chart_of_a_page_has_the_page_s_colors_in_light_and_dark() -> None:
    def draw(axis: Any) -> None:
        axis.plot([0, 1], [0, 1], color=BLUE)

    svg = str(drawing(draw).svg)
    assert "var(--s0)" in svg
    assert not re.search(r"#[0-9a-fA-F]{6}", svg)
    templates = Path(plots.__file__).parent / "templates"
    names = ("colors.css", "base.html")
    style = "".join((templates / name).read_text(encoding="utf-8") for name in names)
    for variable in plots.ON_PAGE.values():
        assert style.count(f"{variable}:") == 3, f"{variable} in light, dark and print"


def test_a_color_unknown_to_a_page_is_an_error() -> None:
    def draw(axis: Any) -> None:
        axis.plot([0, 1], [0, 1], color="#123456")

    with pytest.raises(KeyError):
        drawing(draw).svg  # noqa: B018


def test_the_same_chart_twice_on_a_page_has_ids_of_its_own() -> None:
    def draw(axis: Any) -> None:
        axis.plot([0, 1], [0, 1], color=BLUE, marker="o")

    svg = drawing(draw).svg
    assert plots.SVG_ID in svg
    values = {"title": "t", "kind": "k", "name": "n", "made": "m", "severity": "ok", "tag": "t"}
    lists = dict.fromkeys(("sentences", "facts", "warnings", "standings_notes", "differences"), ())
    table = Table("c", ["a", "b"], [["1", "2"]])
    figure = Figure("f", "f", [drawing(draw), drawing(draw)])
    html = page(
        "runs.html",
        values
        | lists
        | {"headline": "h", "standings": table, "metrics": None, "no_configurations": ""}
        | {"test": None, "swept": figure, "swept_title": "x", "curves": Curves(figure, [])}
        | dict.fromkeys(("runs", "pareto", "importance", "data_curve", "configurations"))
        | dict.fromkeys(("left", "method"), ()),
    )
    ids = re.findall(r'<(?:path|clipPath) id="([^"]*)"', html)
    assert len(ids) == len(set(ids)) > 3
    assert set(re.findall(r'<use href="#([^"]*)"', html)) <= set(ids)
    assert plots.SVG_ID not in html


def test_a_bar_lies_at_its_share_of_the_scale() -> None:
    def bar(value: float, low: float | None = None, high: float | None = None) -> str:
        scale = Scale(0, 1)
        return Bar(value, low, high, scale, guide=0.25, ticks=[0.6, math.nan]).__html__()

    html = bar(0.75, 0.5, 1.0)
    assert '<i class="range" style="left:50.00%;width:50.00%">' in html
    assert '<i class="dot" style="left:75.00%">' in html
    assert '<i class="guide" style="left:25.00%">' in html
    assert html.count('class="tick"') == 1
    assert 'class="dot"' not in bar(math.nan)


def hovers(chart: Chart) -> list[str]:
    return re.findall(r"<title>([^<]*)</title>", str(chart.svg))


def marks(chart: Chart) -> dict[str, float]:
    """Horizontal position of each mark, by its tooltip."""
    groups = re.findall(r"<g><title>([^<]*)</title>.*?<use [^>]*x=\"([\d.]+)\"", str(chart.svg))
    return {title: float(x) for title, x in groups}


def test_a_wide_range_of_rates_gets_a_logarithmic_axis() -> None:
    rates = ("1e-5", "1e-3", "0.1")
    trials = [trial(i, 0.5 + i / 10, {"lr": lr}) for i, lr in enumerate(rates)]
    (chart,) = swept_keys(trials, "AUC").charts
    assert chart.title == "lr"
    places = [marks(chart)[f"job {i}: {lr}, 0.{5 + i}00"] for i, lr in enumerate(rates)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert "lr, logarithmic" in chart.svg
    assert chart.notes == [], "a value each: there is no mean"


def test_text_values_are_categories_and_their_means_are_labeled() -> None:
    values = {"sgd": (0.5, 0.6), "adam": (0.7, 0.9), None: (0.4, 0.4)}
    trials = [trial(0, v, {"optim": name}) for name, pair in values.items() for v in pair]
    (chart,) = swept_keys(trials, "AUC").charts
    assert chart.notes == ["Means (runs): sgd: 0.550 (2); adam: 0.800 (2); not set: 0.400 (2)."]
    assert "mean of 2: 0.800" in hovers(chart)


def test_overlapping_marks_are_moved_apart() -> None:
    trials = [trial(i, 0.5 + (i == 3), {"seed": i // 3 * 2}) for i in range(4)]
    (chart,) = swept_keys(trials, "AUC").charts
    titles = [f"job {i}: 0, 0.500" for i in range(3)]
    assert len({marks(chart)[title] for title in titles}) == 3


def test_keys_that_vary_together_share_a_labeled_chart() -> None:
    rows = [("a", 18, 1), ("b", 50, 1), ("a", 18, 2)]
    trials = [
        trial(i, i / 10, {"model": model, "depth": depth, "lr": lr, "same": 1})
        for i, (model, depth, lr) in enumerate(rows)
    ]
    first, second = swept_keys(trials, "AUC").charts
    assert (first.title, second.title) == ("model", "lr")
    tied = "Varies together with depth, so their effects cannot be separated."
    assert tied in first.notes
    assert not any("Varies together" in note for note in second.notes)


def test_trials_without_a_metric_are_not_drawn() -> None:
    trials = [trial(0, 0.5, {"lr": 1}), trial(1, 0.6, {"lr": 2}), trial(2, math.nan, {"lr": 1e35})]
    (chart,) = swept_keys(trials, "AUC").charts
    assert len(hovers(chart)) == 2
    assert "1e+35" not in chart.svg
    assert chart.notes == ["Not drawn: 1 run without a metric, at 1e+35 (1)."]
    assert swept_keys(trials[1:], "AUC").charts == []


def test_curves_are_bounded_in_number_and_length() -> None:
    count, epochs = MOST_CURVES + 5, 3 * MOST_POINTS + 1
    trials = [
        trial(i, 0.5, {"lr": i % 9}, curves=followed(epochs, i + 1), selected=epochs)
        for i in range(count)
    ]
    result = learning_curves(trials, "macro_auc", "macro AUC")
    (chart,) = result.figure.charts
    assert chart.title == "Loss on validation"
    lines = [name for name in hovers(chart) if ", epoch" not in name]
    assert len(lines) == MOST_CURVES
    paths = re.findall(r"<g><title>[^<]*</title><path d=\"([^\"]*)\"", str(chart.svg))
    assert max(path.count("L") + 1 for path in paths) <= MOST_POINTS
    assert [key.label for key in result.figure.keys] == [*(f"lr={i}" for i in range(5)), "others"]
    assert f"Of {count} runs with curves the first {MOST_CURVES} are drawn." in result.notes
    assert any("4 further configurations" in note for note in result.notes)


def test_runs_without_curves_are_counted() -> None:
    trials = [trial(0, 0.5, {"lr": 1}, curves=followed(3)), trial(1, 0.5, {"lr": 1})]
    result = learning_curves(trials, "macro_auc", "macro AUC")
    assert "1 run is without curves (metrics.csv)." in result.notes
    assert learning_curves(trials[1:], "macro_auc", "macro AUC").figure.charts == []
