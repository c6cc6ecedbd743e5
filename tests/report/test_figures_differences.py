"""Differences between runs: drawn with sides, margin and reasons, and readable."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.figures import check_pair, has_color, refuse_collisions, text_of

from fracnet.evaluation.comparison import Difference
from fracnet.report import plots
from fracnet.report.comparison_page import differences_figure
from fracnet.report.plots import Figure, save


def row(
    name: str,
    value: float,
    low: float | None,
    high: float | None,
    holm: float | None = None,
    note: str = "",
) -> Difference:
    end: tuple[Any, ...] = ((5, 5), value, low, high, "", holm, "", note, 0.1)
    return Difference(name, "resnet18", "configuration", *end, holm=holm)


ROWS = [
    row("better", 0.031, 0.012, 0.05, 0.004),
    row("the same, of a name that takes more than one line of text", 0.01, -0.02, 0.04),
    row("worse", -0.21, -0.28, -0.15, 0.00001),
    row("twin", 0.0, None, None, None, "identical predictions"),
    row("none", float("nan"), None, None, None, "undefined: no cases"),
]


def drawn(
    rows: Sequence[Difference], metric: str = "macro AUC", larger: bool = True, name: str = "diff"
) -> Figure:
    clusters: Any = SimpleNamespace(trivial=True)
    of: Any = SimpleNamespace(title=metric, larger_is_better=larger)
    result: Any = SimpleNamespace(metric=of, margin=0.02, n=547, level="image", clusters=clusters)
    return differences_figure(result, rows, name)


def test_each_line_has_its_digits_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_collisions(monkeypatch)
    paths = save(drawn(ROWS), tmp_path)
    image = check_pair(paths, "diff")
    for color in (plots.BLUE, plots.VERMILION, plots.MUTED, plots.EMPTY):
        assert has_color(image, color)
    text = text_of(paths[1])
    for phrase in (
        "+0.031 (+0.012 to +0.050)  p (Holm) = 0.004",
        "p (Holm) < 0.001",
        "0.000 (no interval)\nidentical predictions",
        "difference in macro AUC from resnet18",
        "within ±0.02",
        "547 images.",
    ):
        assert phrase in text


def test_lower_is_better_for_a_loss(tmp_path: Path) -> None:
    paths = save(drawn(ROWS[:1], "log loss", larger=False, name="losses"), tmp_path)
    image = check_pair(paths, "losses")
    assert has_color(image, plots.VERMILION)
    assert not has_color(image, plots.BLUE)
    assert "← better" in text_of(paths[1])


def test_an_interval_that_contains_zero_has_a_hollow_mark(tmp_path: Path) -> None:
    image = check_pair(save(drawn(ROWS[1:2], "accuracy"), tmp_path), "diff")
    assert not has_color(image, plots.BLUE)
    assert has_color(image, plots.MUTED)
