"""ROC and precision-recall curves against scikit-learn, and what their bands are worth."""

import time

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from fracnet.metrics import roc
from fracnet.metrics import roc as roc_module
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.roc import GRID, Band


def alone(n: int) -> Clusters:
    return Clusters(np.arange(n), n, "image")


def draw(
    rng: np.random.Generator, patients: int, views: int, shift: float, correlation: float = 0.5
) -> tuple[np.ndarray, np.ndarray, Clusters]:
    """Normal scores, `shift` higher for the cases, who are four of ten images."""
    ids = np.repeat(np.arange(patients), views)
    case = rng.random(len(ids)) < 0.4
    own = np.sqrt(1 - correlation) * rng.normal(size=len(ids))
    score = np.sqrt(correlation) * rng.normal(size=patients)[ids] + own + shift * case
    return case, score, Clusters(ids, patients, "patient")


@pytest.mark.parametrize("kind", ["random", "ties", "constant", "perfect", "two rows"])
def test_corners_and_areas_are_those_of_sklearn(kind: str) -> None:
    rng = np.random.default_rng(3)
    case = np.array([True, False]) if kind == "two rows" else rng.random(60) < 0.3
    score = rng.random(len(case)) + case * (5.0 if kind == "perfect" else 0.4)
    if kind == "ties":
        score = score.round(1)
    if kind == "constant":
        score[:] = 0.5
    x, y, threshold = reference.roc_curve(case, score, drop_intermediate=False)
    found = roc.roc(case, score)
    np.testing.assert_allclose(found.x, x)
    np.testing.assert_allclose(found.y, y)
    np.testing.assert_array_equal(found.threshold, threshold)
    area = reference.roc_auc_score(case, score)
    assert float(np.trapezoid(found.y, found.x)) == pytest.approx(area)

    precision, recall, _ = reference.precision_recall_curve(case, score)
    found = roc.precision_recall(case, score)
    np.testing.assert_allclose(found.x, recall[::-1])
    np.testing.assert_allclose(found.y, precision[::-1])
    x, y = roc.steps(found)
    area = float((np.diff(x) * y[1:]).sum())
    assert area == pytest.approx(reference.average_precision_score(case, score))


def test_no_curve_and_no_band_without_both_kinds() -> None:
    for labels, why in (([], "no rows"), ([0, 0], "no cases"), ([1, 1], "every row is a case")):
        rows = np.array(labels, dtype=bool)
        assert roc.drawable(rows) == why
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
    again = roc.roc_band(
        case[order], score[order], Clusters(clusters.ids[order], 50, "patient"), resamples=200
    )
    np.testing.assert_allclose(again.low, band.low, atol=1e-12)
    # Each row twice within its patient tells nothing new; each patient twice does.
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
        known = ~np.isnan(recalled.low)
        inside = (recalled.low <= precision) & (precision <= recalled.high)
        held.append(
            (
                np.mean((roc.low[1:-1] <= sensitivity) & (sensitivity <= roc.high[1:-1])),
                np.mean(inside[known]),
            )
        )
    covered = np.mean(held, axis=0)
    assert ((covered > 0.92) & (covered < 0.985)).all(), covered


def test_two_thousand_resamples_of_a_large_test_set_take_seconds() -> None:
    sample = draw(np.random.default_rng(0), 1066, 3, 2.0)
    start = time.process_time()
    band = roc.roc_band(*sample, resamples=2000)
    assert time.process_time() - start < 5
    assert band.method == "pointwise, 2,000 resamples by patient"
