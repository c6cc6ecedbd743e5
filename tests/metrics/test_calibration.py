"""The calibration error, its interval, and the bins of a reliability diagram."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from fracnet.metrics.calibration import (
    BINS,
    bins_of,
    calibration_error,
    calibration_interval,
    reliability,
    score_and_hit,
    squared_error,
)
from fracnet.metrics.clusters import Clusters


def image_clusters(n: int, views: int = 1) -> Clusters:
    return Clusters(np.arange(n) // views, -(-n // views), "image")


def draw(n: int, power: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and whether right; calibrated where `power` is 1, too sure above."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, n)
    return confidence, rng.random(n) < confidence**power


def targets_and_probs(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Target and probabilities with that confidence in the class 0."""
    return (~right).astype(np.int64), np.stack([confidence, 1 - confidence], axis=1)


@pytest.mark.parametrize("n", [150, 301, 3000])
def test_without_clusters_the_calibration_error_is_kumars_estimator(n: int) -> None:
    confidence, right = draw(n, 2.0)
    bins = bins_of(confidence, image_clusters(n))
    assert np.ptp(np.bincount(bins)) <= 1
    expected = 0.0
    for b in range(BINS):
        rows = bins == b
        a, size = right[rows].mean(), rows.sum()
        gap = confidence[rows].mean() - a
        expected += size / n * (gap**2 - a * (1 - a) / (size - 1))
    assert squared_error(confidence, right, bins, image_clusters(n)) == pytest.approx(expected)
    target, prob = targets_and_probs(confidence, right)
    assert calibration_error(target, prob, image_clusters(n)) == pytest.approx(np.sqrt(expected))


def test_the_calibration_error_matches_a_hand_computation() -> None:
    # One bin of four rows, three right, confidence 0.9: gap 0.15, variance 0.75 * 0.25 / 3.
    error = squared_error(
        np.full(4, 0.9), np.array([1, 1, 1, 0]), np.zeros(4, dtype=np.int64), image_clusters(4)
    )
    assert error == pytest.approx(0.15**2 - 0.75 * 0.25 / 3)
    target, prob = targets_and_probs(np.full(4, 0.9), np.array([True, True, True, False]))
    assert calibration_error(target, prob, image_clusters(4)) == 0  # what is below 0 is 0


def test_debiasing_removes_the_error_due_to_chance() -> None:
    errors = []
    for seed in range(200):
        confidence, right = draw(90, 1.0, seed)
        errors.append(
            squared_error(
                confidence, right, bins_of(confidence, image_clusters(90)), image_clusters(90)
            )
        )
    # Six rows a bin: without debiasing the mean would be about 0.03.
    assert abs(np.mean(errors)) < 0.003


def test_equal_confidences_share_a_bin_and_bins_hold_two_clusters() -> None:
    confidence = np.repeat([0.5, 0.6, 0.9], [40, 2, 3])
    bins = bins_of(confidence, image_clusters(45))
    assert [len(np.unique(bins[confidence == c])) for c in (0.5, 0.6, 0.9)] == [1, 1, 1]
    rng = np.random.default_rng(0)
    for n in (2, 3, 7, 31, 90):
        confidence, clusters = rng.random(n), image_clusters(n, 3)
        bins = bins_of(confidence, clusters)
        assert sorted(set(bins)) == list(range(bins.max() + 1))
        if clusters.count > 1:
            assert all(len(np.unique(clusters.ids[bins == b])) > 1 for b in set(bins))


def test_rows_doubled_within_their_patients_change_nothing() -> None:
    confidence, right = draw(120, 3.0)
    target, prob = targets_and_probs(confidence, right)
    once, doubled = image_clusters(120, 2), Clusters(np.arange(240) // 4, 60, "patient")
    value = calibration_error(target, prob, once)
    assert value > 0
    doubled_error = calibration_error(target.repeat(2), prob.repeat(2, axis=0), doubled)
    assert doubled_error == pytest.approx(value)
    low, high = limits(target, prob, once)
    assert limits(target.repeat(2), prob.repeat(2, axis=0), doubled) == pytest.approx((low, high))


def limits(target: np.ndarray, prob: np.ndarray, clusters: Clusters) -> tuple[float, float]:
    interval = calibration_interval(target, prob, clusters)
    assert interval.low is not None, interval
    assert interval.high is not None, interval
    return interval.low, interval.high


def test_the_interval_encloses_the_error_and_separates_bad_from_good_models() -> None:
    for n, seed in ((100, 0), (3000, 1)):
        target, prob = targets_and_probs(*draw(n, 3.0, seed))
        low, high = limits(target, prob, image_clusters(n))
        assert 0 < low < calibration_error(target, prob, image_clusters(n)) < high < 0.6
    # Of a calibrated model it reaches down to 0, but for one in forty.
    intervals = [
        limits(*targets_and_probs(*draw(1500, 1.0, seed)), image_clusters(1500))
        for seed in range(20)
    ]
    assert sum(low == 0 for low, _ in intervals) >= 17
    assert all(0 < high < 0.08 for _, high in intervals)


def test_undefined_calibration_is_explained() -> None:
    confidence, right = draw(60, 1.0)
    few = calibration_interval(
        *targets_and_probs(confidence, np.arange(60) > 3), image_clusters(60)
    )
    assert (few.low, few.note) == (None, "4 wrong predictions are too few for an interval")
    single_patient = Clusters(np.zeros(60, dtype=int), 1, "patient")
    target, prob = targets_and_probs(confidence, right)
    assert np.isnan(calibration_error(target, prob, single_patient))
    assert calibration_interval(target, prob, single_patient).note.startswith("undefined")
    assert np.isnan(calibration_error(target[:1], prob[:1], image_clusters(1)))
    # A constant prediction that is correct as often as its confidence.
    flat = targets_and_probs(np.full(60, 0.5), np.arange(60) % 2 == 0)
    assert calibration_error(*flat, image_clusters(60)) == 0
    interval = calibration_interval(*flat, image_clusters(60))
    assert interval.low is None
    assert interval.note.startswith("degenerate")


def alone(n: int) -> Clusters:
    return Clusters(np.arange(n), n, "image")


def test_reliability_points_match_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(1000)
    hit = rng.random(1000) < score**2
    bins = reliability(score, hit, alone(1000), n_bins=10)
    share, mean = calibration_curve(hit, score, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(bins.share, share)
    np.testing.assert_allclose(bins.score, mean)
    assert (bins.n == 100).all()


def test_intervals_hold_the_share_of_calibrated_scores() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(150):
        score = rng.random(300)
        bins = reliability(score, rng.random(300) < score, alone(300), n_bins=10)
        held.append((bins.low <= bins.score) & (bins.score <= bins.high))
    assert 0.93 < np.mean(held) < 0.985


def test_views_of_one_patient_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    score, hit = np.repeat(rng.random(100), 3), np.repeat(rng.random(100) < 0.5, 3)
    curve = reliability(score, hit, alone(300), n_bins=5)
    all_of = reliability(score, hit, Clusters(np.repeat(np.arange(100), 3), 100, "patient"), 5)
    np.testing.assert_array_equal(curve.share, all_of.share)
    assert ((all_of.high - all_of.low) > 1.4 * (curve.high - curve.low)).all()


def test_small_tables_have_fewer_bins() -> None:
    rng = np.random.default_rng(0)
    bins = reliability(rng.random(83), rng.random(83) < 0.5, alone(83))
    assert len(bins.n) == 8
    assert (bins.n >= 10).all()
    assert len(reliability(np.full(90, 0.5), np.ones(90, dtype=bool), alone(90)).n) == 1
    single = reliability(np.array([0.7]), np.array([True]), alone(1))
    assert (single.score[0], single.share[0], single.n[0]) == (0.7, 1.0, 1)
    one_patient = Clusters(np.zeros(4, dtype=np.int64), 1, "patient")
    assert np.isnan(reliability(rng.random(4), np.ones(4, dtype=bool), one_patient).low).all()


def test_two_classes_use_the_second_and_more_classes_the_predicted_one() -> None:
    score, hit = score_and_hit(np.array([0, 1]), np.array([[0.8, 0.2], [0.6, 0.4]]))
    assert (score.tolist(), hit.tolist()) == ([0.2, 0.4], [False, True])
    score, hit = score_and_hit(np.array([0, 1]), np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2]]))
    assert (score.tolist(), hit.tolist()) == ([0.8, 0.5], [True, False])
