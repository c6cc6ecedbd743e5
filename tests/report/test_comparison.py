"""What a comparison says in words."""

import io

import numpy as np
import pytest
from helpers.run_folders import table_of
from rich.console import Console

from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.evaluation.summary import Estimate
from fracnet.report.comparison_page import broken, print_comparison
from fracnet.report.console import figure
from fracnet.report.plots import told as panel_label


def told(found: Comparison) -> str:
    """Each line within 80 columns; as one line."""
    text = io.StringIO()
    print_comparison(Console(file=text, width=80, highlight=False), found)
    assert max(len(line) for line in text.getvalue().splitlines()) <= 80
    return " ".join(text.getvalue().split())


def one_run_each(*skills: float, same: bool = False, **options: object) -> Comparison:
    made = [
        Candidate(f"m{i}", (Member(f"m{i}", table_of(skill, 0 if same else i)),))
        for i, skill in enumerate(skills)
    ]
    metric = str(options.pop("metric", "accuracy"))
    return compare(made, metric, resamples=200, **options)  # type: ignore[arg-type]


def test_better_with_its_size_and_p() -> None:
    found = one_run_each(2.5, 0.3)
    text = told(found)
    (row,) = found.models
    assert row.low is not None
    assert row.high is not None
    size = f"{-row.value:.3f} ({-row.high:.3f} to {-row.low:.3f})"
    assert f"This model is better: m0, than m1, by {size}; p < 0.001." in text
    several = told(one_run_each(2.5, 0.3, 0.4))
    assert "; p (Holm) < 0.001." in several


@pytest.mark.parametrize(
    ("metric", "views", "seed", "parts"),
    [
        ("log_loss", 2, 11, ("the test tells them apart (p = 0.0", "to +0.424) holds 0")),
        ("balanced_accuracy", 1, 6, ("to -0.046) leaves 0 out", "not tell them apart (p = 0.07")),
    ],
)
def test_a_test_at_odds_with_its_interval_is_said_to_be_so(
    metric: str, views: int, seed: int, parts: tuple[str, ...]
) -> None:
    drawn = {"a": table_of(1.6, seed, 40, views), "b": table_of(0.8, seed + 100, 40, views)}
    made = [Candidate(name, (Member(name, table),)) for name, table in drawn.items()]
    text = told(compare(made, metric, resamples=200))
    assert "is better:" not in text
    assert "; test and interval disagree: " in text
    for part in parts:
        assert part in text
    # Where many pairs share a sentence, too.
    for i in range(5):
        made.append(
            Candidate(f"c{i}", (Member(f"c{i}", table_of(0.8, seed + 101 + i, 40, views)),))
        )
    found = compare(made, metric, resamples=200, reference="a")
    at_odds = [row for row in found.models if row.agree is False]
    assert at_odds
    assert told(found).count("test and interval disagree: ") == len(at_odds)


def test_a_difference_that_the_correction_takes_away_shows_both_p() -> None:
    found = one_run_each(1.9, 1.0, 1.0, 1.0, 1.0)
    text = told(found)
    clear = [row for row in found.models if row.agree and row.leaves_out_0]
    lost = [row for row in clear if row.verdict == "undecided"]
    assert lost
    for row in lost:
        assert f"p = {row.p:.3f} is p (Holm) = {row.holm:.3f} as one of several" in text


def test_undecided_with_and_without_a_margin() -> None:
    without = told(one_run_each(1.0, 1.0))
    assert "It cannot be told with 60 patients which model is better" in without
    assert "would have shown in 8 of 10 such comparisons (margin=..." in without
    small = told(one_run_each(1.0, 1.0, margin=0.01))
    assert "a true difference of 0.01 would need about" in small
    basis = "are for a power of 80 %, a two-sided alpha of 0.05 and the standard error observed"
    assert small.count(basis) == without.count(basis) == 1
    large = told(one_run_each(1.0, 1.0, margin=0.9))
    assert "the whole interval lies within the margin of 0.9" in large
    assert "a power of" not in large


def test_many_undecided_pairs_share_a_sentence() -> None:
    text = told(one_run_each(1.0, 1.0, 1.0, 1.0, pairs="all", margin=0.01))
    assert text.count("It cannot be told") == 1
    assert "which model is better in 6 of the pairs; a true difference of 0.01 would need" in text
    assert "Holm corrects p" in text
    assert text.count("a two-sided alpha of 0.05 / 6 (for 6 differences)") == 1


def test_long_names_of_pairs_break_between_their_words() -> None:
    name = "sweep_7/2025-11-22_01-28-11_7fa"
    made = [Candidate(f"{name}{i}", (Member(f"{name}{i}", table_of(1.0, i)),)) for i in range(3)]
    text = io.StringIO()
    found = compare(made, "macro_auc", resamples=200, pairs="all")
    print_comparison(Console(file=text, width=80, highlight=False), found)
    lines = [line.split("  ")[0].strip() for line in text.getvalue().splitlines()]
    ends = {(row.name[-1], row.reference[-1]) for row in found.models}
    assert len(ends) == 3
    for one, two in ends:
        time = "2025-11-22_01-28-11_7fa"
        wanted = ["sweep_7/", f"{time}{one}", "less sweep_7/", f"{time}{two}"]
        assert wanted in [lines[i : i + 4] for i in range(len(lines))]


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("less runs/a", 20, ["less runs/a"]),
        ("less runs/baseline", 14, ["less runs/", "baseline"]),
        ("model=resnet34,lr=0.1 (runs/a0)", 24, ["model=resnet34,lr=0.1", "(runs/a0)"]),
        ("20251122_012811_7fa", 17, ["20251122_012811_", "7fa"]),
        ("2025-11-22", 8, ["2025-11-", "22"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
    ],
)
def test_a_name_breaks_at_the_best_place_it_has(name: str, width: int, lines: list[str]) -> None:
    assert broken(name, width) == lines


def test_identical_predictions_and_ties_in_validation() -> None:
    text = told(one_run_each(1.0, 1.0, same=True))
    assert "m1 and m0 make identical predictions: there is nothing to compare." in text
    assert "As good by validation: m1. The first is taken." in text


def test_decisions_that_are_all_alike_make_no_difference_in_accuracy() -> None:
    table = table_of(1.0)
    warmer = table.copy()
    prob = table[["prob_normal", "prob_abnormal"]].to_numpy()
    soft = np.sqrt(prob) / np.sqrt(prob).sum(axis=1, keepdims=True)
    warmer[["prob_normal", "prob_abnormal"]] = soft
    made = [Candidate(n, (Member(n, t),)) for n, t in (("a", table), ("b", warmer))]
    assert "make identical decisions" in told(compare(made, "accuracy", resamples=200))
    assert "identical" not in told(compare(made, "log_loss", resamples=200))


@pytest.mark.parametrize("seeds", [2, 5])
def test_what_can_be_said_of_configurations(seeds: int) -> None:
    made = [
        Candidate(name, tuple(Member(f"{name}{i}", table_of(skill, start + i)) for i in range(5)))
        for name, skill, start in (("good", 1.8, 0), ("poor", 0.6, 5))
    ]
    made[1] = Candidate("poor", made[1].members[:seeds])
    text = told(compare(made, "accuracy", resamples=200))
    assert ("This configuration is better: good, than poor" in text) == (seeds == 5)
    assert ("Nothing is said of configurations" in text) == (seeds == 2)
    assert ("2 runs are too few for an interval of their mean" in text) == (seeds == 2)


def test_no_validation_rows_and_few_cases() -> None:
    made = []
    for i in range(2):
        table = table_of(1.0, i, count=12, views=1)
        made.append(Candidate(f"m{i}", (Member(f"m{i}", table[table["split"] == "test"]),)))
    text = told(compare(made, "sensitivity", resamples=200))
    assert "There are no validation figures: nothing is chosen" in text
    assert "sensitivity (abnormal) rests on fewer than 10 cases (or others): too few." in text


def test_a_limit_below_0_is_no_second_hyphen() -> None:
    for estimate, words in (
        (Estimate(-0.9, -1.0, -0.8, "", 20), "-1.000 to -0.800"),
        (Estimate(0.1, -0.05, 0.25, "", 20), "-0.050 to 0.250"),
        (Estimate(0.9, 0.85, 0.95, "", 20), "0.850-0.950"),
    ):
        assert figure(estimate) == f"{estimate.value:.3f} {words}"
        assert panel_label(estimate) == f"{estimate.value:.3f} ({words})"
