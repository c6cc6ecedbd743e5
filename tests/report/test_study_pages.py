"""What the pages of a comparison and of a sweep say."""

import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from helpers.jobs import TEST, add_job
from helpers.pages import comparison, curves
from helpers.run_folders import table_of

from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.report.comparison_page import headline
from fracnet.runs.sweep_summary import collect


def text_of(html: str) -> str:
    """What a reader sees, in one line, without the titles that show under a pointer."""
    bare = re.sub(r"<(style|title)[^>]*>.*?</\1>", " ", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def compared(*skills: float, same: bool = False, **options: object) -> Comparison:
    made = [
        Candidate(f"m{i}", (Member(f"m{i}", table_of(skill, 0 if same else i)),))
        for i, skill in enumerate(skills)
    ]
    return compare(made, "accuracy", resamples=100, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("skills", "options", "words"),
    [
        ((2.5, 0.3), {}, "m0 is better than m1."),
        ((1.0, 0.9), {}, "It cannot be told which is better: m"),
        ((1.0, 0.9), {"margin": 0.5}, "differ by less than 0.5."),
        ((1.5, 1.5), {"same": True}, "do exactly the same."),
        ((2.5, 0.3, 0.4), {}, "m0 is better than both others."),
        ((2.5, 0.3, 2.4), {"reference": "m0"}, "m0 is better than m1; 1 of 2 others cannot"),
        ((2.5, 0.3, 2.6), {"reference": "m1"}, "m1 is worse than both others."),
        ((1.0, 1.1, 0.9), {}, "Neither other can be told from m"),
        ((2.5, 0.3, 2.5), {"pairs": "all"}, "2 of 3 pairs can be told apart."),
        ((1.0, 1.1, 0.9), {"pairs": "all"}, "None of the 3 pairs can be told apart."),
    ],
)
def test_the_headline_claims_what_tests_and_intervals_show(
    skills: tuple[float, ...], options: dict[str, object], words: str
) -> None:
    found = compared(*skills, **options)  # type: ignore[arg-type]
    assert words in headline(found, found.models)


def test_a_comparison_shows_standings_differences_and_what_was_varied(tmp_path: Path) -> None:
    html = comparison(tmp_path).read_text(encoding="utf-8")
    text = text_of(html)
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    first, second = content["standings"]
    for standing in (first, second):
        words = "{value:.3f} ({low:.3f}-{high:.3f})".format(**standing)
        assert f"5 {standing['validation']:.3f} {words}" in text
    assert "lr=0.01 is better than lr=0.1." in text
    assert text.index("Configurations, all runs of each") < text.index("Models, one run of each")
    assert "its validation figure is optimistic" in text
    means = ", ".join(f"{standing['validation']:.3f} (5)" for standing in (first, second))
    assert f"Means (runs): 0.01: {means.replace(', ', '; 0.1: ')}." in text
    assert html.count('<path class="dot s0 open"') == 9, "a mark a run, but for the chosen one"
    titles = re.findall(r"<title>([^<]*)</title></path>", html)
    assert f"{first['chosen']}, the best: {max(first['validations']):.3f}" in titles
    assert "1 of 1 difference shown" in text
    assert str(tmp_path) not in html, "no path of this machine"
    assert "Asked for: metric=macro_auc, level=image" in text


def test_a_job_with_a_page_of_its_own_is_linked(tmp_path: Path) -> None:
    for number in range(2):
        add_job(tmp_path, number, [f"optim.lr={number + 1}"], 0.5)
    (tmp_path / "1/report").mkdir()
    (tmp_path / "1/report/index.html").write_text("x")
    html = collected(tmp_path)
    assert '<a href="1/report/index.html">job 1</a>' in html
    assert html.count("report/index.html") == 1


def sweep(root: Path, show_test: str = "best") -> str:
    for number, lr in enumerate(("1e-3", "1e-2", "1e35", "<b>")):
        words = [f"optim.lr={lr}", "model=tiny"]
        if lr == "1e35":
            add_job(root, number, words, status="diverged", reason="the loss is nan")
        else:
            add_job(root, number, words, 0.5 + number / 100, epochs=12)
    return collected(root, show_test)


def collected(root: Path, show_test: str = "best") -> str:
    collect(root, show_test)
    return (root / "index.html").read_text(encoding="utf-8")


def test_a_sweep_shows_all_jobs_and_the_test_figures_of_the_chosen_one_alone(
    tmp_path: Path,
) -> None:
    text = text_of(sweep(tmp_path))
    assert "Validation chooses job 3 (lr=<b>): macro AUC 0.530." in text
    assert "3 of 4 jobs finished" in text
    assert "Job 2 diverged: the loss is nan" in text
    after = text[text.index("Test, of the jobs whose figures are shown") :]
    accuracy = TEST["metrics"]["accuracy"]["value"]
    assert f"job 3 {accuracy:.3f} (" in after
    assert "job 1 0." not in after
    assert "does not beat the shortcut baseline: macro AUC" in text, "the same figures"
    assert "Looks at test figures on record (1)" in text
    every = text_of(collected(tmp_path, "all"))
    assert f"job 1 {accuracy:.3f} (" in every
    assert "makes the test a second validation" in every
    assert "Looks at test figures on record (2)" in every


def test_what_users_typed_is_text_on_the_page(tmp_path: Path) -> None:
    html = sweep(tmp_path)
    assert "<b>" not in html
    assert "lr=&lt;b&gt;" in html


def test_a_sweep_without_a_finished_job_has_a_page_that_says_so(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["optim.lr=1"], status="failed", reason="no such thing")
    text = text_of(collected(tmp_path))
    assert "There is no best job to name." in text
    assert "0 of 1 job finished" in text
    assert "No job came to its end: there is nothing to choose from." in text


def test_figures_of_different_objectives_are_neither_ordered_nor_drawn(tmp_path: Path) -> None:
    add_job(tmp_path, 0, ["objective=loss"], 0.4, objective="loss")
    add_job(tmp_path, 1, ["objective=macro_auc"], 0.9)
    html = collected(tmp_path)
    text = text_of(html)
    assert "No best: the jobs have different objectives (loss, macro_auc)." in text
    assert "loss 0.400 (no interval)" in text
    assert "macro AUC 0.900 (no interval)" in text
    assert text.index("loss 0.400") < text.index("macro AUC 0.900")
    assert "<circle" not in html
    assert "What was varied" not in text


def test_a_swept_seed_is_called_chance(tmp_path: Path) -> None:
    for seed in range(3):
        add_job(tmp_path, seed, [f"seed={seed}"], 0.5 + seed / 10)
    assert "The seed was swept, too: which of equal jobs" in text_of(collected(tmp_path))


def test_folds_of_one_setting_are_averaged_and_nothing_is_chosen(tmp_path: Path) -> None:
    for fold, value in enumerate((0.6, 0.7, 0.8)):
        add_job(tmp_path, fold, [f"data.fold={fold}"], value)
    text = text_of(collected(tmp_path))
    assert "Over 3 folds, validation macro AUC is 0.700 on average." in text
    assert "best *" not in text


def test_curves_of_all_jobs_are_laid_over_one_another(tmp_path: Path) -> None:
    for number in range(3):
        add_job(tmp_path, number, [f"optim.lr={10.0**-number}"], 0.5 + number / 10)
        curves(tmp_path / str(number), number)
    html = collected(tmp_path)
    for title in ("Macro AUC on validation", "Loss on validation", "Loss on train"):
        chart = html[html.index(f"<h3>{title}</h3>") :].partition("</svg>")[0]
        assert chart.count('<path class="line ') == 3
        assert chart.count('<path class="dot ') == 3, "the kept epoch of each"
    table = pd.read_csv(tmp_path / "2/metrics.csv")
    kept = table.loc[table["epoch"] == 2, "val/macro_auc"].item()
    assert f"job 2, epoch 2: {kept:.3f}" in html
