"""Intervals of areas, ROC and precision-recall curves and their bands."""

import time
from typing import Any

import numpy as np
import pytest
from helpers.predictions import draw_scores
from helpers.published import ct_ratings, mra_readings
from scipy import stats
from sklearn import metrics as reference

from fracnet.metrics import classification, roc
from fracnet.metrics import roc as roc_module
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import bootstrap
from fracnet.metrics.roc import (
    GRID,
    Band,
    auc_intervals,
    average_precision_intervals,
    influence,
    precision_influence,
)


def scene(n: int, views: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Clusters]:
    group = np.arange(n) // views
    target = group % 3
    rng = np.random.default_rng(seed)
    scores = draw_scores(rng, target, 3, 1.0, group, correlation=0.5)
    return target, scores, Clusters(group, int(group.max()) + 1, "patient")


def test_without_clusters_the_variance_is_delongs() -> None:
    target, score, clusters = scene(60, 1)
    variance = (influence(target, score, clusters) ** 2).sum(axis=0)
    for c in range(3):
        case, rest = score[target == c, c], score[target != c, c]
        # DeLong's structural components from the matrix of all pairs.
        wins = (case[:, None] > rest) + 0.5 * (case[:, None] == rest)
        expected = wins.mean(axis=1).var(ddof=1) / len(case)
        expected += wins.mean(axis=0).var(ddof=1) / len(rest)
        assert variance[c] == pytest.approx(expected)


def test_with_clusters_the_variance_is_that_of_resampled_clusters() -> None:
    target, score, clusters = scene(1200, 3)
    moves = influence(target, score, clusters)
    sums = np.zeros((clusters.count, 3))
    np.add.at(sums, clusters.ids, moves)
    resampled = bootstrap(lambda w: classification.auc(target, score, w), clusters, resamples=1500)
    np.testing.assert_allclose(np.sqrt((sums**2).sum(axis=0)), resampled.std(axis=0), rtol=0.08)
    macro = np.sqrt((sums.mean(axis=1) ** 2).sum())
    assert macro == pytest.approx(resampled.mean(axis=1).std(), rel=0.08)


def test_limits_enclose_the_value_and_do_not_depend_on_the_order() -> None:
    target, score, clusters = scene(90, 3)
    intervals = auc_intervals(target, score, clusters)
    values = classification.auc(target, score)
    for interval, value in zip(intervals, [*values, values.mean()], strict=True):
        assert interval.method == "logit, Obuchowski"
        assert interval.low is not None
        assert interval.high is not None
        assert 0 < interval.low < value < interval.high < 1
    order = np.random.default_rng(1).permutation(90)
    shuffled = Clusters(clusters.ids[order], clusters.count, clusters.unit)
    for left, right in zip(
        intervals, auc_intervals(target[order], score[order], shuffled), strict=True
    ):
        assert (left.low, left.high) == (pytest.approx(right.low), pytest.approx(right.high))


def test_an_auc_that_depends_on_one_row_has_a_wide_interval() -> None:
    target = np.repeat([0, 1], 20)
    score = np.eye(2)[target].astype(float) + np.arange(40)[:, None] / 1000
    # One case falls below half of the others: a normal quantile would trust it like twenty.
    score[39, 1] = np.median(score[:20, 1])
    clusters = Clusters(np.arange(40), 40, "image")
    intervals = auc_intervals(target, score, clusters)[1]
    value = classification.auc(target, score)[1]
    error = np.sqrt((influence(target, score, clusters)[:, 1] ** 2).sum())
    assert intervals.low is not None
    half_width = np.log(value / (1 - value)) - np.log(intervals.low / (1 - intervals.low))
    assert 2.5 < half_width * value * (1 - value) / error < 3


def test_a_perfect_auc_has_an_exact_limit() -> None:
    target = np.repeat([0, 1], [12, 5])
    score = np.eye(2)[target]
    intervals = auc_intervals(target, score, Clusters(np.arange(17), 17, "image"))
    for interval in intervals:
        assert interval.low == pytest.approx(0.025 ** (1 / 5))  # Clopper-Pearson, 5 of 5
        assert interval.high == 1
        assert interval.method == "exact, Clopper-Pearson"
        assert interval.note == "the AUC is 1: exact limit from 5 independent pairs"
    worst = auc_intervals(target, 1 - score, Clusters(np.arange(17), 17, "image"))[1]
    assert (worst.low, worst.high) == (0, pytest.approx(1 - 0.025 ** (1 / 5)))


def test_the_exact_limit_counts_patients_and_no_pair_within_one() -> None:
    target = np.tile([0, 1], 12)  # each patient has a case and another row
    by_patient = Clusters(np.repeat(np.arange(12), 2), 12, "patient")
    assert auc_intervals(target, np.eye(2)[target], by_patient)[1].low == pytest.approx(
        0.025 ** (1 / 6)
    )


def test_equal_scores_are_degenerate() -> None:
    target = np.repeat([0, 1], 5)
    intervals = auc_intervals(target, np.full((10, 2), 0.5), Clusters(np.arange(10), 10, "image"))
    assert all(interval.low is None for interval in intervals)
    assert intervals[0].note.startswith("degenerate: no variance")


def test_absent_classes_and_single_cases_have_no_interval() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1, 3], [10, 10, 1])
    score = draw_scores(rng, target, 4, 0.5)
    intervals = auc_intervals(target, score, Clusters(np.arange(21), 21, "image"))
    assert intervals[0].low is not None
    assert intervals[2].note == "undefined: no cases"
    assert intervals[3].note == "there is only one case"
    assert intervals[4].low is None
    every = auc_intervals(np.zeros(4, dtype=int), score[:4], Clusters(np.arange(4), 4, "image"))
    assert every[0].note == "undefined: every row is a case"
    assert every[-1].note == "undefined: every row is of one class"


def as_two_columns(score: np.ndarray) -> np.ndarray:
    return np.stack([-score, score], axis=1)


def test_delongs_standard_error_matches_the_published_example() -> None:
    target, score = ct_ratings()
    assert classification.auc(target, as_two_columns(score))[1] == pytest.approx(0.8932, abs=5e-5)
    moves = influence(target, as_two_columns(score), Clusters(np.arange(109), 109, "patient"))[:, 1]
    error = np.sqrt((moves**2).sum())
    assert error == pytest.approx(0.0307, abs=5e-5)
    limits = classification.auc(target, as_two_columns(score))[1] + 1.959964 * error * np.array(
        [-1, 1]
    )
    np.testing.assert_allclose(limits, [0.83295, 0.95339], atol=5e-6)


@pytest.mark.parametrize(("reader", "area", "error"), [(0, 0.9837, 0.0108), (1, 0.9852, 0.0097)])
def test_obuchowskis_standard_errors_match_the_published_example(
    reader: int, area: float, error: float
) -> None:
    patient, target, score = mra_readings()
    clusters = Clusters(patient, 36, "patient")
    prob = as_two_columns(score[:, reader])
    assert classification.auc(target, prob)[1] == pytest.approx(area, abs=5e-5)
    sums = np.bincount(patient, weights=influence(target, prob, clusters)[:, 1])
    assert np.sqrt((sums**2).sum()) == pytest.approx(error, abs=5e-5)
    assert auc_intervals(target, prob, clusters)[1].method == "logit, Obuchowski"


def test_the_influence_on_average_precision_is_its_derivative() -> None:
    target, score, clusters = scene(24, 1)
    score = np.round(score, 1)  # with ties
    intervals = precision_influence(target, score, clusters)
    for c in range(3):
        cases = (target == c).sum()
        for row in range(24):
            step = np.ones((2, 24))
            step[:, row] += [1e-5, -1e-5]
            up, down = classification.average_precision(target, score, step)[:, c]
            scale = np.sqrt(cases / (cases - 1) if target[row] == c else 16 / 15)
            assert intervals[row, c] == pytest.approx((up - down) / 2e-5 * scale, abs=1e-6)


def test_with_clusters_average_precision_varies_as_over_resampled_clusters() -> None:
    target, score, clusters = scene(1200, 3)
    moves = precision_influence(target, score, clusters)
    sums = np.zeros((clusters.count, 3))
    np.add.at(sums, clusters.ids, moves)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return classification.average_precision(target, score, weights)

    resampled = bootstrap(statistic, clusters, resamples=1500)
    np.testing.assert_allclose(np.sqrt((sums**2).sum(axis=0)), resampled.std(axis=0), rtol=0.08)
    for interval, value in zip(
        average_precision_intervals(target, score, clusters),
        classification.average_precision(target, score),
        strict=False,
    ):
        assert interval.low is not None
        assert interval.high is not None
        assert 0 < interval.low < value < interval.high < 1


def test_average_precision_without_variance_has_no_interval() -> None:
    clusters = Clusters(np.arange(10), 10, "image")
    target = np.repeat([0, 1], 5)
    perfect = average_precision_intervals(target, np.eye(2)[target], clusters)
    assert {i.note for i in perfect} == {"degenerate: the average precision is 1"}
    alone = average_precision_intervals(np.zeros(10, dtype=int), np.eye(2)[target], clusters)
    assert alone[0].note == "undefined: every row is a case"
    assert alone[1].note == "undefined: no cases"
    assert alone[2].note == "undefined: every row is of one class"


@pytest.mark.parametrize("intervals", [auc_intervals, average_precision_intervals])
def test_equal_scores_have_no_interval_of_width_zero(intervals: Any) -> None:
    """Sums of floats leave a spread of about 1e-17, which must not give an interval."""
    rng = np.random.default_rng(0)
    clusters = Clusters(np.arange(180) // 3, 60, "patient")
    target = rng.integers(0, 2, 60)[clusters.ids]
    wrong = [] if intervals is auc_intervals else [np.eye(2)[1 - target]]  # an AUC of 0 has a limit
    for prob in (np.full((180, 2), 0.5), *wrong):
        macro = intervals(target, prob, clusters)[-1]
        assert (macro.low, macro.high) == (None, None)
        assert macro.note.startswith("degenerate: ")


def test_the_reason_names_what_comes_from_one_patient() -> None:
    clusters = Clusters(np.arange(12) // 3, 4, "patient")
    prob = np.random.default_rng(0).dirichlet([1, 1], 12)
    for case, group in ((clusters.ids == 0, "others"), (clusters.ids > 0, "cases")):
        intervals = auc_intervals((~case).astype(int), prob, clusters)
        assert intervals[1].note == f"all {group} come from one patient"
        assert intervals[2].note.startswith("a class without an interval: all ")


def alone(n: int) -> Clusters:
    return Clusters(np.arange(n), n, "image")


def draw(
    rng: np.random.Generator, patients: int, views: int, shift: float, correlation: float = 0.5
) -> tuple[np.ndarray, np.ndarray, Clusters]:
    """Normal scores, `shift` higher for the cases, who are four of ten images."""
    ids = np.repeat(np.arange(patients), views)
    case = rng.random(len(ids)) < 0.4
    noise = np.sqrt(1 - correlation) * rng.normal(size=len(ids))
    score = np.sqrt(correlation) * rng.normal(size=patients)[ids] + noise + shift * case
    return case, score, Clusters(ids, patients, "patient")


@pytest.mark.parametrize("kind", ["random", "ties", "constant", "perfect", "two rows"])
def test_corners_and_areas_match_scikit_learn(kind: str) -> None:
    rng = np.random.default_rng(3)
    case = np.array([True, False]) if kind == "two rows" else rng.random(60) < 0.3
    score = rng.random(len(case)) + case * (5.0 if kind == "perfect" else 0.4)
    if kind == "ties":
        score = score.round(1)
    if kind == "constant":
        score[:] = 0.5
    x, y, threshold = reference.roc_curve(case, score, drop_intermediate=False)
    intervals = roc.roc(case, score)
    np.testing.assert_allclose(intervals.x, x)
    np.testing.assert_allclose(intervals.y, y)
    np.testing.assert_array_equal(intervals.threshold, threshold)
    area = reference.roc_auc_score(case, score)
    assert float(np.trapezoid(intervals.y, intervals.x)) == pytest.approx(area)

    precision, recall, _ = reference.precision_recall_curve(case, score)
    intervals = roc.precision_recall(case, score)
    np.testing.assert_allclose(intervals.x, recall[::-1])
    np.testing.assert_allclose(intervals.y, precision[::-1])
    x, y = roc.steps(intervals)
    area = float((np.diff(x) * y[1:]).sum())
    assert area == pytest.approx(reference.average_precision_score(case, score))


def test_no_curve_and_no_band_without_both_kinds() -> None:
    for labels, why in (([], "no rows"), ([0, 0], "no cases"), ([1, 1], "every row is a case")):
        rows = np.array(labels, dtype=bool)
        assert roc.no_curve_reason(rows) == why
        band = roc.roc_band(rows, np.zeros(len(rows)), alone(len(rows)))
        assert (band.note, np.isnan(band.low).all()) == (why, True)
    case = np.array([True, True, False, False])
    clusters = Clusters(np.array([0, 0, 1, 2]), 3, "patient")
    band = roc.precision_recall_band(case, np.arange(4.0), clusters)
    assert band.note == "all cases, or all others, are one patient"


def test_a_perfect_classifier_is_not_known_to_be_perfect() -> None:
    case = np.arange(40) < 6
    for make in (roc.roc_band, roc.precision_recall_band):
        band = make(case, case.astype(float), alone(40), resamples=100)
        low = band.low[:80]
        assert ((low > 0.4) & (low < 0.6)).all(), "as Wilson has it for 6 of 6"
        np.testing.assert_allclose(band.high[:80], 1)


def test_band_depends_on_patients_and_not_on_the_order_of_rows() -> None:
    case, score, clusters = draw(np.random.default_rng(0), 50, 3, 1.5)
    band = roc.roc_band(case, score, clusters, resamples=200)
    order = np.random.default_rng(1).permutation(len(case))
    again_band = roc.roc_band(
        case[order], score[order], Clusters(clusters.ids[order], 50, "patient"), resamples=200
    )
    np.testing.assert_allclose(again_band.low, band.low, atol=1e-12)
    # Doubling rows within patients adds no information; doubling patients does.
    rows = roc.roc_band(
        np.tile(case, 2),
        np.tile(score, 2),
        Clusters(np.tile(clusters.ids, 2), 50, ""),
        resamples=200,
    )
    patients = roc.roc_band(
        np.tile(case, 2),
        np.tile(score, 2),
        Clusters(np.concatenate([clusters.ids, clusters.ids + 50]), 100, ""),
        resamples=200,
    )

    def width(band: Band) -> float:
        return float((band.high - band.low)[5:60].mean())

    assert width(rows) == pytest.approx(width(band), rel=0.02)
    assert width(patients) == pytest.approx(width(band) / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize(("patients", "views"), [(60, 3), (83, 1)])
def test_bands_hold_their_level_on_average(patients: int, views: int) -> None:
    """Pointwise, over the grid; the percentiles of the same resamples hold 77 to 83 %."""
    shift, correlation = 2.0, 0.0 if views == 1 else 0.5
    sensitivity = stats.norm.sf(stats.norm.isf(GRID[1:-1]) - shift)
    cut = np.linspace(-8, 8, 4001)[::-1]
    recall, alarms = stats.norm.sf(cut - shift), stats.norm.sf(cut)
    precision = np.interp(GRID[1:], recall, 0.4 * recall / (0.4 * recall + 0.6 * alarms))
    rng = np.random.default_rng(0)
    held = []
    for _ in range(120):
        sample = draw(rng, patients, views, shift, correlation)
        roc = roc_module.roc_band(*sample, resamples=60)
        recalled = roc_module.precision_recall_band(*sample, resamples=60)
        defined = ~np.isnan(recalled.low)
        inside = (recalled.low <= precision) & (precision <= recalled.high)
        held.append(
            (
                np.mean((roc.low[1:-1] <= sensitivity) & (sensitivity <= roc.high[1:-1])),
                np.mean(inside[defined]),
            )
        )
    covered = np.mean(held, axis=0)
    assert ((covered > 0.92) & (covered < 0.985)).all(), covered


def test_resampling_a_large_test_set_takes_seconds() -> None:
    sample = draw(np.random.default_rng(0), 1066, 3, 2.0)
    start = time.process_time()
    band = roc.roc_band(*sample, resamples=2000)
    assert time.process_time() - start < 5
    assert band.method == "pointwise, 2,000 resamples by patient"
