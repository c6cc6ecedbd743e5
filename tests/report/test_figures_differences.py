"""Differences between runs: drawn with sides, margin and reasons, and readable."""

from pathlib import Path

import pytest
from helpers.figures import check_pair, has_color, refuse_collisions, text_of

from fracnet.report import plots
from fracnet.report.forest_plots import DifferenceRow, differences
from fracnet.report.plots import save

ROWS = [
    DifferenceRow("better", 0.031, 0.012, 0.05, 0.004),
    DifferenceRow("the same, of a name that takes more than one line of text", 0.01, -0.02, 0.04),
    DifferenceRow("worse", -0.21, -0.28, -0.15, 0.00001),
    DifferenceRow("twin", 0.0, None, None, None, "identical predictions"),
    DifferenceRow("none", float("nan"), None, None, None, "undefined: no cases"),
]


def test_each_line_has_its_digits_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_collisions(monkeypatch)
    figure = differences(
        ROWS, metric="macro AUC", reference="resnet18", margin=0.02, note="Holm over 4."
    )
    paths = save(figure, tmp_path)
    image = check_pair(paths, "differences")
    for color in (plots.BLUE, plots.VERMILION, plots.MUTED, plots.EMPTY):
        assert has_color(image, color)
    text = text_of(paths[1])
    for phrase in (
        "+0.031 (+0.012 to +0.050)  p = 0.004",
        "p < 0.001",
        "0.000 (no interval)\nidentical predictions",
        "n/a\nundefined: no cases",
        "difference in macro AUC from resnet18",
        "within ±0.02",
        "Holm over 4.",
    ):
        assert phrase in text


def test_lower_is_better_for_a_loss(tmp_path: Path) -> None:
    figure = differences(ROWS[:1], metric="log loss", higher_is_better=False, name="losses")
    paths = save(figure, tmp_path)
    image = check_pair(paths, "losses")
    assert has_color(image, plots.VERMILION)
    assert not has_color(image, plots.BLUE)
    assert "← better" in text_of(paths[1])


def test_an_interval_that_contains_zero_has_a_hollow_mark(tmp_path: Path) -> None:
    image = check_pair(save(differences(ROWS[1:2], metric="accuracy"), tmp_path), "differences")
    assert not has_color(image, plots.BLUE)
    assert has_color(image, plots.MUTED)
