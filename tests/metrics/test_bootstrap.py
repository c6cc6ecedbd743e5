import time

import numpy as np
import pytest
from helpers.predictions import draw_scores
from scipy.special import softmax

from fracnet.metrics import classification
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import bootstrap, percentile, score_bootstrap, wilson

VALUES = np.random.default_rng(0).normal(size=60)
IDS = np.arange(60) // 3
CLUSTERS = Clusters(IDS, 20, "patient")


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights @ values / weights.sum(axis=1))[:, None]


def limits(values: np.ndarray, clusters: Clusters, seed: int = 0) -> tuple[float, float]:
    interval = percentile(bootstrap(lambda w: mean(values, w), clusters, seed=seed)[:, 0], clusters)
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def test_whole_clusters_are_drawn_as_many_as_there_are() -> None:
    def statistic(weights: np.ndarray) -> np.ndarray:
        by_cluster = weights.reshape(len(weights), 20, 3)
        assert (by_cluster == by_cluster[:, :, :1]).all()
        assert (by_cluster[:, :, 0].sum(axis=1) == 20).all()
        return weights[:, ::3]

    # Each cluster is drawn once a resample on average.
    np.testing.assert_allclose(bootstrap(statistic, CLUSTERS).mean(axis=0), 1, atol=0.1)


def test_the_interval_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    order = np.random.default_rng(1).permutation(60)
    shuffled = Clusters(IDS[order], 20, "patient")
    assert limits(VALUES, CLUSTERS) == pytest.approx(limits(VALUES[order], shuffled))
    assert limits(VALUES, CLUSTERS) != limits(VALUES, CLUSTERS, seed=1)


def test_duplicating_rows_inside_clusters_does_not_narrow_a_bootstrap() -> None:
    doubled = Clusters(IDS.repeat(2), 20, "patient")
    assert limits(VALUES.repeat(2), doubled) == pytest.approx(limits(VALUES, CLUSTERS))


def test_the_spread_is_the_standard_error() -> None:
    rows = Clusters(np.arange(60), 60, "image")
    low, high = limits(VALUES, rows)
    assert (high - low) / 3.92 == pytest.approx(VALUES.std() / np.sqrt(60), rel=0.1)


def test_a_metric_that_vanishes_too_often_has_no_interval() -> None:
    values = np.linspace(0, 1, 1000)
    values[:50] = np.nan
    assert percentile(values, CLUSTERS).low is not None
    values[50] = np.nan
    interval = percentile(values, CLUSTERS)
    assert (interval.low, interval.note) == (None, "undefined in 51 of 1000 resamples")


def test_equal_resamples_are_degenerate() -> None:
    interval = percentile(np.ones(100), CLUSTERS)
    assert (interval.low, interval.high) == (None, None)
    assert interval.note.startswith("degenerate")


def test_the_score_interval_is_wilsons_of_the_effective_n() -> None:
    success = np.arange(60) < 48
    rows = Clusters(np.arange(60), 60, "image")
    resampled = bootstrap(lambda w: mean(success, w), rows, resamples=20_000)[:, 0]
    interval = score_bootstrap(0.8, resampled, rows)
    # The spread of resamples is sqrt(p (1 - p) / n); t instead of normal shrinks n a little.
    low, high = wilson(48, 60)
    assert interval.low == pytest.approx(low, abs=3e-3)
    assert interval.high == pytest.approx(high, abs=3e-3)
    assert interval.method == "score, bootstrap by image"
    # A metric from -1 to 1 is treated as a proportion of that range.
    twice = score_bootstrap(0.6, 2 * resampled - 1, rows, lowest=-1.0)
    assert (np.array([twice.low, twice.high]) + 1) / 2 == pytest.approx(
        [interval.low, interval.high]
    )


def test_a_score_without_spread_is_degenerate() -> None:
    assert score_bootstrap(1.0, np.ones(100), CLUSTERS).note == "degenerate: the value is 1"
    assert score_bootstrap(0.5, np.full(100, 0.5), CLUSTERS).note.startswith("degenerate")
    assert (
        score_bootstrap(0.5, np.full(100, np.nan), CLUSTERS).note
        == "undefined in 100 of 100 resamples"
    )


@pytest.mark.parametrize("n_classes", [2, 6])
def test_all_metrics_of_three_thousand_rows_are_resampled_in_seconds(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, n_classes, 3197)
    prob = softmax(draw_scores(rng, target, n_classes, 1.0), axis=1)
    predicted = classification.predict(prob)

    def statistic(weights: np.ndarray) -> np.ndarray:
        matrix = classification.confusion(target, predicted, n_classes, weights)
        values = [metric(matrix) for metric in classification.OF_MATRIX.values()]
        values += [rate(matrix) for rate in classification.RATES.values()]
        areas = [area(target, prob, weights) for area in classification.AREAS.values()]
        return np.column_stack([*values, *areas])

    start = time.process_time()
    resampled = bootstrap(statistic, Clusters(np.arange(3197) // 4, 800, "patient"))
    assert resampled.shape == (2000, 5 + 7 * n_classes)
    assert time.process_time() - start < 5
