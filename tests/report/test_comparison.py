"""What a comparison prints."""

import io

import numpy as np
import pandas as pd
import pytest
from helpers.run_folders import table_of
from rich.console import Console

from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import Estimate
from fracnet.report.comparison_page import differences_table, print_comparison
from fracnet.report.tables import estimate_cell, estimate_text, print_table, wrap_name


def printed(result: Comparison) -> str:
    """Each line within 80 columns; as one line."""
    text = io.StringIO()
    print_comparison(Console(file=text, width=80, highlight=False), result)
    assert max(len(line) for line in text.getvalue().splitlines()) <= 80
    return " ".join(text.getvalue().split())


def candidate(name: str, *tables: pd.DataFrame) -> Candidate:
    """A configuration with a run of each table."""
    runs = [name] if len(tables) == 1 else [f"{name}{i}" for i in range(len(tables))]
    pairs = zip(runs, map(Predictions, tables), strict=True)
    return Candidate(name, tuple(Member(*pair) for pair in pairs))


def one_run_each(*skills: float, same: bool = False, **options: object) -> Comparison:
    candidates = [
        candidate(f"m{i}", table_of(skill, 0 if same else i)) for i, skill in enumerate(skills)
    ]
    metric = str(options.pop("metric", "accuracy"))
    return compare(candidates, metric, resamples=200, **options)  # type: ignore[arg-type]


def test_a_significant_difference_shows_its_size_and_p() -> None:
    result = one_run_each(2.5, 0.3)
    text = printed(result)
    (row,) = result.models
    assert row.low is not None
    assert row.high is not None
    size = f"{-row.value:.3f} ({-row.high:.3f} to {-row.low:.3f})"
    assert f"m0 is better than m1 by {size}; p < 0.001." in text
    several = printed(one_run_each(2.5, 0.3, 0.4))
    assert "; p (Holm) < 0.001." in several


def test_long_names_are_printed_once_and_then_stand_as_letters() -> None:
    names = ["optim.lr=0.001 data.batch_size=16", "optim.lr=0.0001 data.batch_size=32", "short"]
    candidates = [
        Candidate(name, (Member(f"sweep/{k}", Predictions(table_of(2.5 - 1.1 * k, k))),))
        for k, name in enumerate(names)
    ]
    text = printed(compare(candidates, "accuracy", resamples=200))
    assert [text.count(name) for name in names] == [1, 1, 1]
    for letter, name in zip("ABC", names, strict=True):
        assert f"{letter}: {name}" in text
    assert "A (sweep/0) is better than B (sweep/1) by " in text


@pytest.mark.parametrize(
    ("metric", "views", "seed", "parts"),
    [
        ("log_loss", 2, 11, ("the test finds a difference (p = 0.0", "to +0.424) includes 0")),
        (
            "balanced_accuracy",
            1,
            6,
            ("to -0.046) excludes 0", "the test finds no difference (p = 0.07"),
        ),
    ],
)
def test_a_disagreement_of_test_and_interval_is_stated(
    metric: str, views: int, seed: int, parts: tuple[str, ...]
) -> None:
    tables = {"a": table_of(1.6, seed, 40, views), "b": table_of(0.8, seed + 100, 40, views)}
    candidates = [candidate(name, table) for name, table in tables.items()]
    text = printed(compare(candidates, metric, resamples=200))
    assert "is better than" not in text
    assert "; test and interval disagree: " in text
    for part in parts:
        assert part in text
    # Where many pairs share a sentence, too.
    for i in range(5):
        candidates.append(candidate(f"c{i}", table_of(0.8, seed + 101 + i, 40, views)))
    result = compare(candidates, metric, resamples=200, reference="a")
    disagreeing = [row for row in result.models if row.agree is False]
    assert disagreeing
    assert printed(result).count("test and interval disagree: ") == len(disagreeing)


def test_a_difference_that_the_correction_removes_shows_both_p_values() -> None:
    result = one_run_each(1.9, 1.0, 1.0, 1.0, 1.0)
    text = printed(result)
    clear = [row for row in result.models if row.agree and row.leaves_out_0]
    undecided = [row for row in clear if row.verdict == "undecided"]
    assert undecided
    for row in undecided:
        assert f"p = {row.p:.3f} becomes p (Holm) = {row.holm:.3f} as one of several" in text


def test_undecided_pairs_with_and_without_a_margin() -> None:
    without = printed(one_run_each(1.0, 1.0))
    assert "With 60 patients, it is unclear which model is better" in without
    assert "would have shown in 8 of 10 such comparisons (margin=..." in without
    small = printed(one_run_each(1.0, 1.0, margin=0.01))
    assert "a true difference of 0.01 would need about" in small
    basis = "assume a power of 80 %, a two-sided alpha of 0.05 and the standard error observed"
    assert small.count(basis) == without.count(basis) == 1
    large = printed(one_run_each(1.0, 1.0, margin=0.9))
    assert "the whole interval lies within the margin of 0.9" in large
    assert "a power of" not in large


def test_many_undecided_pairs_share_a_sentence() -> None:
    text = printed(one_run_each(1.0, 1.0, 1.0, 1.0, pairs="all", margin=0.01))
    assert text.count("it is unclear") == 1
    assert "which model is better in 6 of the pairs; a true difference of 0.01 would need" in text
    assert "Holm's method corrects p" in text
    assert text.count("a two-sided alpha of 0.05 / 6 (for 6 differences)") == 1


def test_long_names_of_pairs_break_between_words() -> None:
    name = "sweep_7/2025-11-22_01-28-11_7fa"
    candidates = [candidate(f"{name}{i}", table_of(1.0, i)) for i in range(3)]
    text = io.StringIO()
    result = compare(candidates, "macro_auc", resamples=200, pairs="all")
    console = Console(file=text, width=80, highlight=False)
    print_table(console, differences_table(result, result.models))
    lines = [line.split("  ")[0].strip() for line in text.getvalue().splitlines()]
    ends = {(row.name[-1], row.reference[-1]) for row in result.models}
    assert len(ends) == 3
    for left, right in ends:
        time = "2025-11-22_01-28-11_7fa"
        expected = ["sweep_7/", f"{time}{left}", "minus sweep_7/", f"{time}{right}"]
        assert expected in [lines[i : i + 4] for i in range(len(lines))]


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("minus runs/a", 20, ["minus runs/a"]),
        ("minus runs/baseline", 14, ["minus runs/", "baseline"]),
        ("model=resnet34,lr=0.1 (runs/a0)", 24, ["model=resnet34,lr=0.1", "(runs/a0)"]),
        ("20251122_012811_7fa", 17, ["20251122_012811_", "7fa"]),
        ("2025-11-22", 8, ["2025-11-", "22"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
    ],
)
def test_a_name_breaks_at_its_best_position(name: str, width: int, lines: list[str]) -> None:
    assert wrap_name(name, width) == lines


def test_identical_predictions_and_ties_in_validation() -> None:
    text = printed(one_run_each(1.0, 1.0, same=True))
    assert "m1 and m0 make identical predictions: there is nothing to compare." in text
    assert "Equally good by validation: m1. The first is used." in text


def test_identical_decisions_give_no_difference_in_accuracy() -> None:
    table = table_of(1.0)
    warmer = table.copy()
    prob = table[["prob_normal", "prob_abnormal"]].to_numpy()
    soft = np.sqrt(prob) / np.sqrt(prob).sum(axis=1, keepdims=True)
    warmer[["prob_normal", "prob_abnormal"]] = soft
    warmer[["logit_normal", "logit_abnormal"]] /= 2
    candidates = [candidate(name, rows) for name, rows in (("a", table), ("b", warmer))]
    assert "make identical decisions" in printed(compare(candidates, "accuracy", resamples=200))
    assert "identical" not in printed(compare(candidates, "log_loss", resamples=200))


@pytest.mark.parametrize("seeds", [2, 5])
def test_configurations_are_compared_if_they_have_enough_runs(seeds: int) -> None:
    candidates = [
        candidate(name, *(table_of(skill, start + i) for i in range(5)))
        for name, skill, start in (("good", 1.8, 0), ("poor", 0.6, 5))
    ]
    candidates[1] = Candidate("poor", candidates[1].members[:seeds])
    text = printed(compare(candidates, "accuracy", resamples=200))
    assert ("good is better than poor by" in text) == (seeds == 5)
    assert ("Configurations are not compared" in text) == (seeds == 2)
    assert ("2 runs are too few for an interval of their mean" in text) == (seeds == 2)


def test_missing_validation_rows_and_few_cases_are_noted() -> None:
    candidates = []
    for i in range(2):
        table = table_of(1.0, i, count=12, views=1)
        candidates.append(candidate(f"m{i}", table[table["split"] == "test"]))
    text = printed(compare(candidates, "sensitivity", resamples=200))
    assert "There are no validation metrics, so nothing is chosen" in text
    assert "sensitivity (abnormal) is based on fewer than 10 cases (or non-cases): too few." in text


def test_a_limit_below_0_is_no_second_hyphen() -> None:
    for estimate, interval in (
        (Estimate(-0.9, -1.0, -0.8, "", 20), "-1.000 to -0.800"),
        (Estimate(0.1, -0.05, 0.25, "", 20), "-0.050 to 0.250"),
        (Estimate(0.9, 0.85, 0.95, "", 20), "0.850-0.950"),
    ):
        assert str(estimate_cell(estimate)) == f"{estimate.value:.3f} ({interval})"
        assert estimate_text(estimate) == f"{estimate.value:.3f} ({interval})"
