"""What the pages of a comparison and of a sweep say."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from helpers.jobs import TEST, add_job
from helpers.pages import comparison, curves, text_of
from helpers.run_folders import table_of

from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.evaluation.predictions import Predictions
from fracnet.report.comparison_text import headline
from fracnet.runs.sweep_summary import collect


def compared(*skills: float, same: bool = False, **options: object) -> Comparison:
    candidates = [
        Candidate(f"m{i}", (Member(f"m{i}", Predictions(table_of(skill, 0 if same else i))),))
        for i, skill in enumerate(skills)
    ]
    return compare(candidates, "accuracy", resamples=100, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("skills", "options", "message"),
    [
        ((2.5, 0.3), {}, "m0 is better than m1."),
        ((1.0, 0.9), {}, "It is unclear which is better: m"),
        ((1.0, 0.9), {"margin": 0.5}, "differ by less than 0.5."),
        ((1.5, 1.5), {"same": True}, "perform identically."),
        ((2.5, 0.3, 0.4), {}, "m0 is better than both others."),
        ((2.5, 0.3, 2.4), {"reference": "m0"}, "m1; 1 of 2 others does not differ"),
        ((2.5, 0.3, 2.6), {"reference": "m1"}, "m1 is worse than both others."),
        ((1.0, 1.1, 0.9), {}, "Neither other differs significantly from m"),
        ((2.5, 0.3, 2.5), {"pairs": "all"}, "2 of 3 pairs differ significantly."),
        ((1.0, 1.1, 0.9), {"pairs": "all"}, "None of the 3 pairs differs significantly."),
    ],
)
def test_the_headline_claims_what_tests_and_intervals_show(
    skills: tuple[float, ...], options: dict[str, object], message: str
) -> None:
    comparison = compared(*skills, **options)  # type: ignore[arg-type]
    assert message in headline(comparison, comparison.models)


def test_a_comparison_shows_standings_differences_and_varied_keys(tmp_path: Path) -> None:
    html = comparison(tmp_path).read_text(encoding="utf-8")
    text = text_of(html)
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    first, second = content["standings"]
    for standing in (first, second):
        interval = "{value:.3f} ({low:.3f}-{high:.3f})".format(**standing)
        assert f"5 {standing['validation']:.3f} {interval}" in text
    assert "lr=0.01 is better than lr=0.1." in text
    assert text.index("Configurations, all runs of each") < text.index("Models, one run of each")
    assert "its validation metric is optimistic" in text
    means = ", ".join(f"{standing['validation']:.3f} (5)" for standing in (first, second))
    assert f"Means (runs): 0.01: {means.replace(', ', '; 0.1: ')}." in text
    titles = re.findall(r"<g><title>([^<]*)</title>", html)
    marks = [t for t in titles if re.search(r"a_rather_long\S+: 0\.\d+, 0\.\d{3}$", t)]
    assert len(marks) == 9, "a mark a run, but for the chosen one"
    assert f"{first['chosen']}, the best: {max(first['validations']):.3f}" in titles
    assert "1 of 1 difference significant" in text
    assert str(tmp_path) not in html, "no path of this machine"
    assert "Options: metric=macro_auc, level=image" in text


def test_a_job_with_a_page_of_its_own_is_linked(tmp_path: Path) -> None:
    for number in range(2):
        add_job(tmp_path, number, [f"optim.lr={number + 1}"], 0.5)
    (tmp_path / "1/report").mkdir()
    (tmp_path / "1/report/index.html").write_text("x")
    html = collected(tmp_path)
    assert '<a href="1/report/index.html">job 1</a>' in html, "of the table of runs"
    assert '<a href="1/report/index.html">1</a>' in html, "of the standings"
    assert "0/report/index.html" not in html


def sweep(root: Path, show_test: str = "best") -> str:
    for number, lr in enumerate(("1e-3", "1e-2", "1e35", "<b>")):
        overrides = [f"optim.lr={lr}", "model=tiny"]
        if lr == "1e35":
            add_job(root, number, overrides, status="diverged", reason="the loss is nan")
        else:
            add_job(root, number, overrides, 0.5 + number / 100, epochs=12)
    return collected(root, show_test)


def collected(root: Path, show_test: str = "best") -> str:
    collect(root, show_test)
    return (root / "index.html").read_text(encoding="utf-8")


def test_a_sweep_shows_all_jobs_and_the_test_metrics_of_the_chosen_one_alone(
    tmp_path: Path,
) -> None:
    text = text_of(sweep(tmp_path))
    assert "Validation chooses job 3 (lr=<b>): macro AUC 0.530." in text
    assert "3 of 4 jobs finished" in text
    assert "Job 2 diverged: the loss is nan" in text
    after = text[text.index("Test metrics Test split") :]
    accuracy = TEST["metrics"]["accuracy"]["value"]
    assert f"job 3 {accuracy:.3f} (" in after
    assert "job 1 0." not in after
    assert "does not beat the shortcut baseline: macro AUC" in text, "the same metrics"
    assert "Times the test metrics were viewed: 1" in text
    every = text_of(collected(tmp_path, "all"))
    assert f"job 1 {accuracy:.3f} (" in every
    assert "turns the test set into a second validation set" in every
    assert "Times the test metrics were viewed: 2" in every


def test_what_users_typed_is_text_on_the_page(tmp_path: Path) -> None:
    html = sweep(tmp_path)
    assert "<b>" not in html
    assert "lr=&lt;b&gt;" in html


def test_a_sweep_without_a_finished_job_has_a_page_that_says_so(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], status="failed", reason="no such thing")
    text = text_of(collected(tmp_path))
    assert "There is no best job." in text
    assert "0 of 1 job finished" in text
    assert "No job finished, so there is nothing to choose from." in text


def test_values_of_different_objectives_are_neither_ordered_nor_drawn(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["objective=loss"], 0.4, objective="loss")
    add_job(tmp_path, 1, ["objective=macro_auc"], 0.9)
    html = collected(tmp_path)
    text = text_of(html)
    assert "No best job: the jobs have different objectives (loss, macro_auc)." in text
    assert "0.400 loss no interval" in text
    assert text.index("0.400 loss") < text.index("0.900 macro AUC")
    assert 'class="dot"' not in html
    assert "Varied keys" not in text


def test_seeds_are_averaged_and_none_is_called_the_best(tmp_path: Path) -> None:
    for seed in range(3):
        add_job(tmp_path, seed, [f"seed={seed}"], 0.5 + seed / 10)
    text = text_of(collected(tmp_path))
    assert "Over 3 seeds, validation macro AUC is 0.600 on average." in text
    assert "SD 0.100, 95 % CI 0.352-0.848, range 0.500 to 0.700." in text
    assert 'class="tag ok"' not in collected(tmp_path)


def test_folds_of_one_setting_are_averaged_and_nothing_is_chosen(tmp_path: Path) -> None:
    for fold, value in enumerate((0.6, 0.7, 0.8)):
        add_job(tmp_path, fold, [f"data.fold={fold}"], value)
    text = text_of(collected(tmp_path))
    assert "Over 3 folds, validation macro AUC is 0.700 on average." in text
    assert 'class="tag ok"' not in collected(tmp_path)


def test_curves_of_all_jobs_share_a_chart(tmp_path: Path) -> None:
    for number in range(3):
        add_job(tmp_path, number, [f"optim.lr={10.0**-number}"], 0.5 + number / 10)
        curves(tmp_path / str(number), number)
    html = collected(tmp_path)
    for title in ("Macro AUC on validation", "Loss on validation", "Loss on train"):
        chart = html[html.index(f"<h4>{title}</h4>") :].partition("</svg>")[0]
        names = re.findall(r"<title>([^<]*)</title>", chart)
        assert sum(", epoch 2: " in name for name in names) == 3, "the selected epoch of each"
        assert len(names) == 6, "a line and a mark for each run"
    table = pd.read_csv(tmp_path / "2/metrics.csv")
    expected = table.loc[table["epoch"] == 2, "val/macro_auc"].item()
    assert f"job 2, epoch 2: {expected:.3f}" in html


def test_a_sweep_shows_all_metrics_and_the_command_that_repeats_the_best(tmp_path: Path) -> None:
    html = sweep(tmp_path)
    text = text_of(html)
    assert "Repeat job 3: python -m fracnet.train" in text
    assert "model=tiny" in text
    table = html[html.index("All validation metrics, 95 % intervals</span>") :]
    table = table.partition("</table>")[0]
    for title in ("accuracy", "Cohen&#39;s kappa", "Brier score", "calibration error"):
        assert f">{title}</th>" in table, title
    assert table.count("<tr") == 1 + 3, "the finished jobs"
    assert html.count("sortable") >= 3
