from typing import Any

import numpy as np
import pytest
from helpers.predictions import draw_scores
from helpers.published import ct_ratings, mra_readings

from fracnet.metrics import classification
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import bootstrap
from fracnet.metrics.roc import (
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
    drawn = bootstrap(lambda w: classification.auc(target, score, w), clusters, resamples=1500)
    np.testing.assert_allclose(np.sqrt((sums**2).sum(axis=0)), drawn.std(axis=0), rtol=0.08)
    macro = np.sqrt((sums.mean(axis=1) ** 2).sum())
    assert macro == pytest.approx(drawn.mean(axis=1).std(), rel=0.08)


def test_limits_enclose_the_value_and_do_not_depend_on_the_order() -> None:
    target, score, clusters = scene(90, 3)
    found = auc_intervals(target, score, clusters)
    values = classification.auc(target, score)
    for interval, value in zip(found, [*values, values.mean()], strict=True):
        assert interval.method == "logit, Obuchowski"
        assert interval.low is not None
        assert interval.high is not None
        assert 0 < interval.low < value < interval.high < 1
    order = np.random.default_rng(1).permutation(90)
    shuffled = Clusters(clusters.ids[order], clusters.count, clusters.unit)
    for one, two in zip(found, auc_intervals(target[order], score[order], shuffled), strict=True):
        assert (one.low, one.high) == (pytest.approx(two.low), pytest.approx(two.high))


def test_an_auc_that_hangs_on_one_row_is_given_a_wide_interval() -> None:
    target = np.repeat([0, 1], 20)
    score = np.eye(2)[target].astype(float) + np.arange(40)[:, None] / 1000
    # One case falls below half of the others: a normal quantile would trust it like twenty.
    score[39, 1] = np.median(score[:20, 1])
    clusters = Clusters(np.arange(40), 40, "image")
    found = auc_intervals(target, score, clusters)[1]
    value = classification.auc(target, score)[1]
    error = np.sqrt((influence(target, score, clusters)[:, 1] ** 2).sum())
    assert found.low is not None
    reach = np.log(value / (1 - value)) - np.log(found.low / (1 - found.low))
    assert 2.5 < reach * value * (1 - value) / error < 3


def test_a_perfect_auc_is_called_degenerate() -> None:
    target = np.repeat([0, 1], 5)
    found = auc_intervals(target, np.eye(2)[target], Clusters(np.arange(10), 10, "image"))
    for interval in found:
        assert (interval.low, interval.high) == (None, None)
        assert interval.note == "degenerate: the AUC is 1"


def test_equal_scores_are_called_degenerate() -> None:
    target = np.repeat([0, 1], 5)
    found = auc_intervals(target, np.full((10, 2), 0.5), Clusters(np.arange(10), 10, "image"))
    assert all(interval.low is None for interval in found)
    assert found[0].note.startswith("degenerate: no variance")


def test_absent_classes_and_lone_cases_have_no_interval_but_the_others_do() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1, 3], [10, 10, 1])
    score = draw_scores(rng, target, 4, 0.5)
    found = auc_intervals(target, score, Clusters(np.arange(21), 21, "image"))
    assert found[0].low is not None
    assert found[2].note == "undefined: no cases"
    assert found[3].note == "there is only one case"
    assert found[4].low is None
    every = auc_intervals(np.zeros(4, dtype=int), score[:4], Clusters(np.arange(4), 4, "image"))
    assert every[0].note == "undefined: every row is a case"
    assert every[-1].note == "undefined: every row is of one class"


def two(score: np.ndarray) -> np.ndarray:
    return np.stack([-score, score], axis=1)


def test_delongs_standard_error_is_the_published_one() -> None:
    target, score = ct_ratings()
    assert classification.auc(target, two(score))[1] == pytest.approx(0.8932, abs=5e-5)
    moves = influence(target, two(score), Clusters(np.arange(109), 109, "patient"))[:, 1]
    error = np.sqrt((moves**2).sum())
    assert error == pytest.approx(0.0307, abs=5e-5)
    limits = classification.auc(target, two(score))[1] + 1.959964 * error * np.array([-1, 1])
    np.testing.assert_allclose(limits, [0.83295, 0.95339], atol=5e-6)


@pytest.mark.parametrize(("reader", "area", "error"), [(0, 0.9837, 0.0108), (1, 0.9852, 0.0097)])
def test_obuchowskis_standard_errors_are_the_published_ones(
    reader: int, area: float, error: float
) -> None:
    patient, target, score = mra_readings()
    clusters = Clusters(patient, 36, "patient")
    prob = two(score[:, reader])
    assert classification.auc(target, prob)[1] == pytest.approx(area, abs=5e-5)
    sums = np.bincount(patient, weights=influence(target, prob, clusters)[:, 1])
    assert np.sqrt((sums**2).sum()) == pytest.approx(error, abs=5e-5)
    assert auc_intervals(target, prob, clusters)[1].method == "logit, Obuchowski"


def test_the_influence_on_average_precision_is_its_derivative() -> None:
    target, score, clusters = scene(24, 1)
    score = np.round(score, 1)  # with ties
    found = precision_influence(target, score, clusters)
    for c in range(3):
        cases = (target == c).sum()
        for row in range(24):
            step = np.ones((2, 24))
            step[:, row] += [1e-5, -1e-5]
            up, down = classification.average_precision(target, score, step)[:, c]
            scale = np.sqrt(cases / (cases - 1) if target[row] == c else 16 / 15)
            assert found[row, c] == pytest.approx((up - down) / 2e-5 * scale, abs=1e-6)


def test_with_clusters_average_precision_varies_as_over_resampled_clusters() -> None:
    target, score, clusters = scene(1200, 3)
    moves = precision_influence(target, score, clusters)
    sums = np.zeros((clusters.count, 3))
    np.add.at(sums, clusters.ids, moves)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return classification.average_precision(target, score, weights)

    drawn = bootstrap(statistic, clusters, resamples=1500)
    np.testing.assert_allclose(np.sqrt((sums**2).sum(axis=0)), drawn.std(axis=0), rtol=0.08)
    for interval, value in zip(
        average_precision_intervals(target, score, clusters),
        classification.average_precision(target, score),
        strict=False,
    ):
        assert interval.low is not None
        assert interval.high is not None
        assert 0 < interval.low < value < interval.high < 1


def test_average_precision_without_variance_has_no_interval() -> None:
    own = Clusters(np.arange(10), 10, "image")
    target = np.repeat([0, 1], 5)
    perfect = average_precision_intervals(target, np.eye(2)[target], own)
    assert {i.note for i in perfect} == {"degenerate: the average precision is 1"}
    alone = average_precision_intervals(np.zeros(10, dtype=int), np.eye(2)[target], own)
    assert alone[0].note == "undefined: every row is a case"
    assert alone[1].note == "undefined: no cases"
    assert alone[2].note == "undefined: every row is of one class"


@pytest.mark.parametrize("intervals", [auc_intervals, average_precision_intervals])
def test_equal_scores_have_no_interval_of_width_zero(intervals: Any) -> None:
    """Sums of floats leave a spread of some 1e-17, on which no limit may stand."""
    rng = np.random.default_rng(0)
    clusters = Clusters(np.arange(180) // 3, 60, "patient")
    target = rng.integers(0, 2, 60)[clusters.ids]
    for prob in (np.full((180, 2), 0.5), np.eye(2)[1 - target]):
        macro = intervals(target, prob, clusters)[-1]
        assert (macro.low, macro.high) == (None, None)
        assert macro.note.startswith("degenerate: ")


def test_the_reason_names_what_comes_from_one_patient() -> None:
    clusters = Clusters(np.arange(12) // 3, 4, "patient")
    prob = np.random.default_rng(0).dirichlet([1, 1], 12)
    for case, word in ((clusters.ids == 0, "others"), (clusters.ids > 0, "cases")):
        found = auc_intervals((~case).astype(int), prob, clusters)
        assert found[1].note == f"all {word} come from one patient"
        assert found[2].note.startswith("a class without an interval: all ")
