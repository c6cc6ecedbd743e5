"""A sweep over data.fraction: the learning curve of data and what a doubling would buy."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.jobs import add_job
from helpers.pages import text_of
from rich.console import Console

from fracnet.report.sweep_page import print_sweep
from fracnet.runs.run_folder import with_format
from fracnet.runs.sweep_summary import collect

FRACTIONS = ("0.1", "0.25", "0.5", "1")


def add_fractions(
    sweep: Path, noise: float, *, fractions: tuple[str, ...] = FRACTIONS, models: int = 1
) -> None:
    """Three seeds of each fraction of 800 images: accuracy 0.95 - 2 n^-0.5, and noise."""
    rng, number = np.random.default_rng(0), 0
    for model in range(models):
        for fraction in fractions:
            for seed in range(3):
                n = round(800 * float(fraction))
                value = 0.95 - 2 * n**-0.5 + float(rng.normal(0, noise)) - model / 10
                overrides = [f"data.fraction={fraction}", f"seed={seed}"]
                if models > 1:
                    overrides.append(f"model=m{model}")
                add_job(sweep, number, overrides, value, objective="accuracy")
                counts = {"train": {"elbow": n // 2, "wrist": n - n // 2}}
                provenance = with_format({"data": {"counts": counts}})
                (sweep / str(number) / "provenance.json").write_text(json.dumps(provenance))
                number += 1


def shown(sweep: Path) -> tuple[str, str]:
    """What the terminal prints, in one line, and what the page says."""
    text = io.StringIO()
    print_sweep(Console(file=text, width=80), collect(sweep), sweep)
    return " ".join(text.getvalue().split()), text_of((sweep / "index.html").read_text())


def test_a_clear_curve_says_what_a_doubling_buys(tmp_path: Path) -> None:
    add_fractions(tmp_path, 0.001)
    (curve,) = collect(tmp_path)["data_curves"]
    assert [point["images"] for point in curve["points"]] == [80, 200, 400, 800]
    true = 2 * (800**-0.5 - 1600**-0.5)
    assert curve["fit"]["gain"] == pytest.approx(true, abs=0.004)
    assert curve["fit"]["low"] < true < curve["fit"]["high"]
    for text in shown(tmp_path):
        assert "Validation accuracy by number of train images" in text
        assert (
            "Doubling the 800 train images is estimated to change validation accuracy by +0.0"
            in text
        )
        assert "(95 % CI +0.0" in text
    page = (tmp_path / "index.html").read_text()
    assert 'id="data-curve"' in page
    assert "Each mark is one run. Dashed: the fitted curve beyond the data." in page


def test_a_noisy_curve_cannot_be_told_and_gives_its_interval(tmp_path: Path) -> None:
    add_fractions(tmp_path, 0.08)
    for text in shown(tmp_path):
        assert "What a doubling of the train images would buy cannot be told: the change" in text
        assert "More seeds or more fractions" in text


def test_each_configuration_has_its_curve_and_two_fractions_have_none(tmp_path: Path) -> None:
    add_fractions(tmp_path / "models", 0.001, models=2)
    for text in shown(tmp_path / "models"):
        assert "model=m0: Doubling the 800" in text
        assert "model=m1: Doubling the 800" in text
    add_fractions(tmp_path / "two", 0.001, fractions=("0.5", "1"))
    for text in shown(tmp_path / "two"):
        assert "a curve takes 3 values of data.fraction with a result, and there are 2." in text


def test_a_sweep_of_other_keys_has_no_such_curve(tmp_path: Path) -> None:
    for number in range(3):
        add_job(tmp_path, number, [f"optim.lr={number + 1}"], 0.5)
    for text in shown(tmp_path):
        assert "train images" not in text
