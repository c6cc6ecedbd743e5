"""A verdict rests on interval and test together: neither alone calls a model better."""

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.pairs import draw_pair, patients, rows_of
from helpers.run_folders import table_of

from fracnet.evaluation.comparison import (
    Candidate,
    Comparison,
    Difference,
    Member,
    compare,
    compare_models,
    with_verdicts,
)
from fracnet.evaluation.metric_selection import Metric, Sample
from fracnet.evaluation.predictions import Predictions
from fracnet.metrics.hypothesis_tests import area_difference, area_test, clusters_needed, detectable

ROWS = rows_of(np.arange(100))
ROW = Difference(
    name="a",
    reference="b",
    kind="model",
    runs=("a", "b"),
    value=-0.03,
    low=-0.06,
    high=-0.01,
    method="bootstrap by patient",
    p=0.01,
    test="permutation by patient",
    note="",
    error=0.015,
)


def of_seed(metric: str, views: int, seed: int, **options: object) -> Comparison:
    tables = {"a": table_of(1.6, seed, 40, views), "b": table_of(0.8, seed + 100, 40, views)}
    candidates = [
        Candidate(name, (Member(name, Predictions(table)),)) for name, table in tables.items()
    ]
    return compare(candidates, metric, resamples=200, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict", "agree"),
    [
        (-0.06, -0.01, 0.01, "worse", True),
        (-0.063, 0.003, 0.044, "undecided", False),
        (-0.06, 0.0, 0.044, "undecided", False),
        (-0.06, -0.01, 0.07, "undecided", False),
        (-0.06, 0.01, 0.07, "undecided", True),
        (None, None, 0.01, "undecided", None),
        (-0.06, 0.01, None, None, None),
        # An interval on the other side of 0 than the value is none of this difference.
        (0.001, 0.06, 0.01, "undecided", False),
    ],
)
def test_one_is_better_only_where_test_and_interval_say_so(
    low: float | None, high: float | None, p: float | None, verdict: str | None, agree: bool | None
) -> None:
    (row,) = with_verdicts([replace(ROW, low=low, high=high, p=p)], ROWS, True, None)
    assert (row.verdict, row.agree) == (verdict, agree)


def test_a_difference_lost_to_the_correction_is_no_disagreement() -> None:
    rows = [replace(ROW, p=p) for p in (0.03, 0.2, 0.001)]
    first, _, last = with_verdicts(rows, ROWS, False, None)
    assert (first.holm, first.verdict, first.agree) == (pytest.approx(0.06), "undecided", True)
    assert last.verdict == "better"


def test_interval_and_p_of_an_area_come_from_one_error() -> None:
    """So they say the same of 0 in every draw, and the interval is no bootstrap's."""
    rng = np.random.default_rng(0)
    metric, counts = Metric("auc", 2, 1), {True: 0, False: 0}
    for _ in range(60):
        target, group = patients(rng, 80, 3)
        left, right = draw_pair(rng, target, group, 2, (1.0, 1.25))
        rows = rows_of(group)
        row = of_areas(metric, left, right, group)
        areas = area_difference(target, left.prob, right.prob, rows, 1)
        assert row.error == areas.error
        assert row.method == row.test == "Obuchowski, paired"
        assert row.low is not None
        assert row.high is not None
        assert (row.low + row.high) / 2 == pytest.approx(row.value)
        assert row.p is not None
        assert row.p == area_test(areas, rows).p
        assert (row.p < 0.05) == row.leaves_out_0
        counts[row.leaves_out_0] += 1
    assert min(counts.values()) > 5


def of_areas(metric: Metric, left: Sample, right: Sample, group: np.ndarray) -> Difference:
    """With resamples that would give another interval, were they looked at."""
    noise = np.random.default_rng(1).normal(0.5, 0.1, (2, 100))
    return compare_models(
        metric, ("a", "b"), ("a", "b"), (left, right), (noise[0], noise[1] - 1), rows_of(group)
    )


def test_an_area_without_variance_has_neither_interval_nor_verdict() -> None:
    target = np.array([0, 0, 1, 1] * 5)
    score = np.linspace(0.1, 0.4, 20) + 0.5 * target
    left, right = (Sample(target, np.stack([1 - s, s], axis=1), target) for s in (score, score**2))
    row = of_areas(Metric("auc", 2, 1), left, right, np.arange(20))
    assert (row.value, row.p, row.low, row.note) == (0, 1, None, "the same order of scores")
    upside = Sample(target, left.prob[:, ::-1], 1 - target)
    (row,) = with_verdicts(
        [of_areas(Metric("auc", 2, 1), left, upside, np.arange(20))], ROWS, True, None
    )
    assert (row.value, row.low, row.verdict) == (1, None, None)
    assert row.note == "degenerate: no variance"


@pytest.mark.parametrize(
    ("metric", "views", "seed", "p_below"),
    [("log_loss", 2, 11, True), ("balanced_accuracy", 1, 6, False)],
)
def test_runs_on_which_they_disagree(metric: str, views: int, seed: int, p_below: bool) -> None:
    (row,) = of_seed(metric, views, seed).models
    assert row.p is not None
    assert (row.p < 0.05, row.leaves_out_0) == (p_below, not p_below)
    assert (row.verdict, row.agree) == ("undecided", False)


def test_what_numbers_of_patients_rest_on_is_kept() -> None:
    result = of_seed("accuracy", 2, 0, margin=0.01)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    planning, (row,) = content["planning"], content["models"]
    assert planning["power"] == 0.8
    assert planning["alpha"] == row["alpha"] == 0.05
    needed = clusters_needed(row["error"], 40, 0.01, alpha=row["alpha"], power=planning["power"])
    assert row["needed"] == needed
    three = with_verdicts([ROW, replace(ROW, p=0.2), replace(ROW, p=0.3)], ROWS, True, 0.01)
    for row in three:
        assert row.alpha is not None
        assert row.alpha == pytest.approx(0.05 / 3)
        assert row.detectable == detectable(row.error, row.alpha)
