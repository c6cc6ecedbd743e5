"""Bins of a reliability diagram: scikit-learn's points, and intervals that hold."""

import numpy as np
from sklearn.calibration import calibration_curve

from fracnet.metrics.calibration import reliability, score_and_hit
from fracnet.metrics.clusters import Clusters


def alone(n: int) -> Clusters:
    return Clusters(np.arange(n), n, "image")


def test_points_are_those_of_sklearn() -> None:
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
    one = reliability(score, hit, alone(300), n_bins=5)
    all_of = reliability(score, hit, Clusters(np.repeat(np.arange(100), 3), 100, "patient"), 5)
    np.testing.assert_array_equal(one.share, all_of.share)
    assert ((all_of.high - all_of.low) > 1.4 * (one.high - one.low)).all()


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


def test_two_classes_show_the_second_and_more_the_one_that_is_named() -> None:
    score, hit = score_and_hit(np.array([0, 1]), np.array([[0.8, 0.2], [0.6, 0.4]]))
    assert (score.tolist(), hit.tolist()) == ([0.2, 0.4], [False, True])
    score, hit = score_and_hit(np.array([0, 1]), np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2]]))
    assert (score.tolist(), hit.tolist()) == ([0.8, 0.5], [True, False])
