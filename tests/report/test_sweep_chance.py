"""The verdict of a comparison or sweep is limited by its data and its runs."""

from pathlib import Path
from typing import Any

import pytest
from helpers.jobs import TEST, add_job
from helpers.run_folders import table_of

from fracnet.evaluation.comparison import Candidate, Member, compare
from fracnet.evaluation.predictions import Predictions
from fracnet.report.comparison_page import comparison_page
from fracnet.report.sweep_charts import Trial
from fracnet.report.sweep_tables import runs_table
from fracnet.report.verdict import none_above_chance
from fracnet.runs.sweep_summary import collect

SOUND = {"severity": "ok", "verdict": "Nothing was found."}
NEITHER = "Neither run is shown to do better than chance (0.5) on test."


def page(*skills: float, warnings: tuple[str, ...] = (), **of_data: Any) -> str:
    """Of a comparison of one run of each skill, on data that are real and sound."""
    folders = [
        Candidate(f"m{i}", (Member(f"m{i}", Predictions(table_of(skill, i))),))
        for i, skill in enumerate(skills)
    ]
    comparison = compare(folders, "macro_auc", resamples=100)
    trials = [Trial("m", "m", {}, 0.5, **({"data": "mura", "audit": SOUND} | of_data))]
    return comparison_page(
        comparison, trials, options={}, skipped=[], warnings=warnings, date="today"
    )


def severity(html: str) -> str:
    return html.partition('<section class="verdict ')[2].partition('"')[0]


def test_a_significant_difference_on_sound_data_is_no_fault() -> None:
    html = page(2.5, 0.3)
    assert severity(html) == "ok"
    assert "better than chance" not in html


@pytest.mark.parametrize(
    "doubt",
    [{"audit": {}}, {"audit": None}, {"data": "x_phantom"}, {"warnings": ("Two versions.",)}],
)
def test_doubtful_data_withdraw_the_claim(doubt: dict[str, Any]) -> None:
    assert severity(page(2.5, 0.3, **doubt)) == "hint"


def test_runs_no_better_than_chance_are_a_warning() -> None:
    html = page(-2.5, 0.0)
    assert severity(html) == "warning", "although the difference between them is shown"
    assert NEITHER in html
    assert NEITHER not in page(2.5, 0.0)


def test_an_unknown_interval_is_not_a_failure() -> None:
    assert none_above_chance([0.2, 0.5])
    assert not none_above_chance([0.2, None])
    assert not none_above_chance([])


def test_a_sweep_warns_about_jobs_with_displayed_test_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_job(tmp_path / "good", 0, ["optim.lr=1"], 0.6)
    monkeypatch.setitem(TEST["metrics"]["macro_auc"], "low", 0.4)
    add_job(tmp_path / "poor", 0, ["optim.lr=1"], 0.6)
    pages = {}
    for name in ("good", "poor"):
        collect(tmp_path / name, "best")
        pages[name] = (tmp_path / name / "index.html").read_text(encoding="utf-8")
    assert "Job 0 is not shown to do better than chance (0.5) on test." in pages["poor"]
    assert severity(pages["poor"]) == "warning"
    assert "better than chance" not in pages["good"]


def test_what_is_the_same_in_all_runs_stands_below_their_table() -> None:
    facts = [{"seed": "0", "time": f"{n} s"} for n in range(2)]
    trials = [Trial(f"job {n}", "m", {}, 0.5, facts=facts[n]) for n in range(2)]
    table = runs_table(trials)
    assert table is not None
    assert (table.heads, table.note) == (["run", "time"], "The same in all runs: seed 0.")
    one = runs_table(trials[:1])
    assert one is not None
    assert one.heads == ["run", "seed", "time"]
