import numpy as np
import pytest

from fracnet.metrics.calibration import (
    BINS,
    bins_of,
    calibration_error,
    calibration_interval,
    squared_error,
)
from fracnet.metrics.clusters import Clusters


def own(n: int, views: int = 1) -> Clusters:
    return Clusters(np.arange(n) // views, -(-n // views), "image")


def draw(n: int, power: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and whether right; calibrated where `power` is 1, too sure above."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, n)
    return confidence, rng.random(n) < confidence**power


def two(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Target and probabilities with that confidence in the class 0."""
    return (~right).astype(np.int64), np.stack([confidence, 1 - confidence], axis=1)


@pytest.mark.parametrize("n", [150, 301, 3000])
def test_without_clusters_it_is_kumars_estimator(n: int) -> None:
    confidence, right = draw(n, 2.0)
    bins = bins_of(confidence, own(n))
    assert np.ptp(np.bincount(bins)) <= 1
    expected = 0.0
    for b in range(BINS):
        rows = bins == b
        a, size = right[rows].mean(), rows.sum()
        gap = confidence[rows].mean() - a
        expected += size / n * (gap**2 - a * (1 - a) / (size - 1))
    assert squared_error(confidence, right, bins, own(n)) == pytest.approx(expected)
    target, prob = two(confidence, right)
    assert calibration_error(target, prob, own(n)) == pytest.approx(np.sqrt(expected))


def test_by_hand() -> None:
    # One bin of four rows, three right, confidence 0.9: gap 0.15, variance 0.75 * 0.25 / 3.
    found = squared_error(
        np.full(4, 0.9), np.array([1, 1, 1, 0]), np.zeros(4, dtype=np.int64), own(4)
    )
    assert found == pytest.approx(0.15**2 - 0.75 * 0.25 / 3)
    target, prob = two(np.full(4, 0.9), np.array([True, True, True, False]))
    assert calibration_error(target, prob, own(4)) == 0  # what is below 0 is 0


def test_debiasing_takes_away_what_chance_gives() -> None:
    found = []
    for seed in range(200):
        confidence, right = draw(90, 1.0, seed)
        found.append(squared_error(confidence, right, bins_of(confidence, own(90)), own(90)))
    # Six rows a bin: without debiasing the mean would be about 0.03.
    assert abs(np.mean(found)) < 0.003


def test_equal_confidences_share_a_bin_and_bins_hold_two_clusters() -> None:
    confidence = np.repeat([0.5, 0.6, 0.9], [40, 2, 3])
    bins = bins_of(confidence, own(45))
    assert [len(np.unique(bins[confidence == c])) for c in (0.5, 0.6, 0.9)] == [1, 1, 1]
    rng = np.random.default_rng(0)
    for n in (2, 3, 7, 31, 90):
        confidence, clusters = rng.random(n), own(n, 3)
        bins = bins_of(confidence, clusters)
        assert sorted(set(bins)) == list(range(bins.max() + 1))
        if clusters.count > 1:
            assert all(len(np.unique(clusters.ids[bins == b])) > 1 for b in set(bins))


def test_rows_doubled_within_their_patients_change_nothing() -> None:
    confidence, right = draw(120, 3.0)
    target, prob = two(confidence, right)
    once, doubled = own(120, 2), Clusters(np.arange(240) // 4, 60, "patient")
    value = calibration_error(target, prob, once)
    assert value > 0
    again = calibration_error(target.repeat(2), prob.repeat(2, axis=0), doubled)
    assert again == pytest.approx(value)
    low, high = limits(target, prob, once)
    assert limits(target.repeat(2), prob.repeat(2, axis=0), doubled) == pytest.approx((low, high))


def limits(target: np.ndarray, prob: np.ndarray, clusters: Clusters) -> tuple[float, float]:
    found = calibration_interval(target, prob, clusters)
    assert found.low is not None, found
    assert found.high is not None, found
    return found.low, found.high


def test_the_interval_encloses_the_error_and_tells_a_bad_model_from_a_good_one() -> None:
    for n, seed in ((100, 0), (3000, 1)):
        target, prob = two(*draw(n, 3.0, seed))
        low, high = limits(target, prob, own(n))
        assert 0 < low < calibration_error(target, prob, own(n)) < high < 0.6
    # Of a calibrated model it reaches down to 0, but for one in forty.
    found = [limits(*two(*draw(1500, 1.0, seed)), own(1500)) for seed in range(20)]
    assert sum(low == 0 for low, _ in found) >= 17
    assert all(0 < high < 0.08 for _, high in found)


def test_what_cannot_be_known_is_said() -> None:
    confidence, right = draw(60, 1.0)
    few = calibration_interval(*two(confidence, np.arange(60) > 3), own(60))
    assert (few.low, few.note) == (None, "4 wrong answers are too few for an interval")
    one = Clusters(np.zeros(60, dtype=int), 1, "patient")
    target, prob = two(confidence, right)
    assert np.isnan(calibration_error(target, prob, one))
    assert calibration_interval(target, prob, one).note.startswith("undefined")
    assert np.isnan(calibration_error(target[:1], prob[:1], own(1)))
    # A constant that is right as often as it says.
    flat = two(np.full(60, 0.5), np.arange(60) % 2 == 0)
    assert calibration_error(*flat, own(60)) == 0
    found = calibration_interval(*flat, own(60))
    assert found.low is None
    assert found.note.startswith("degenerate")
