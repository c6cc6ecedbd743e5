"""What a comparison says in words."""

import io

import numpy as np
import pytest
from helpers.run_folders import table_of
from rich.console import Console

from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.report.comparison import print_comparison


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
    text = told(one_run_each(2.5, 0.3))
    assert "This model is better: m0, than m1, by 0." in text
    assert "p < 0.001" in text


def test_undecided_with_and_without_a_margin() -> None:
    without = told(one_run_each(1.0, 1.0))
    assert "It cannot be told with 60 patients which model is better" in without
    assert "would have shown in 8 of 10 such comparisons (margin=..." in without
    small = told(one_run_each(1.0, 1.0, margin=0.01))
    assert "a true difference of 0.01 would need about" in small
    large = told(one_run_each(1.0, 1.0, margin=0.9))
    assert "the whole interval lies within the margin of 0.9" in large


def test_many_undecided_pairs_share_a_sentence() -> None:
    text = told(one_run_each(1.0, 1.0, 1.0, 1.0, pairs="all", margin=0.01))
    assert text.count("It cannot be told") == 1
    assert "which model is better in 6 of the pairs; a true difference of 0.01 would need" in text
    assert "Holm corrects p" in text


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
