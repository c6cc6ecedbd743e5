"""Properties that every primary interval must have, whatever its method."""

import numpy as np
import pytest
from helpers.predictions import draw_scores
from scipy.special import softmax

from fracnet.evaluation.summary import primary_intervals
from fracnet.metrics import classification
from fracnet.metrics.calibration import calibration_error
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import Interval

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def scene(patients: int, n_classes: int, separation: float = 1.2, seed: int = 0) -> Sample:
    """Target, probabilities and patient of two views each."""
    patient = np.arange(2 * patients) // 2
    target = patient % n_classes
    rng = np.random.default_rng(seed)
    scores = draw_scores(rng, target, n_classes, separation, patient, 0.5)
    return target, softmax(scores, axis=1), patient


def intervals(sample: Sample, predicted: np.ndarray | None = None) -> dict[str, Interval]:
    target, prob, patient = sample
    names, ids = np.unique(patient, return_inverse=True)
    clusters = Clusters(ids, len(names), "patient")
    if predicted is None:
        predicted = classification.predict(prob)
    overall, by_class = primary_intervals(target, prob, predicted, clusters, resamples=2000, seed=0)
    assert set(overall) == set(classification.OVERALL)
    assert tuple(by_class) == classification.PER_CLASS
    for name, limits in by_class.items():
        overall |= {f"{name} {c}": limit for c, limit in enumerate(limits)}
    return overall


def width(interval: Interval) -> float:
    assert interval.low is not None, interval
    assert interval.high is not None, interval
    return interval.high - interval.low


@pytest.mark.parametrize("n_classes", [2, 6])
def test_rows_doubled_within_their_patients_change_nothing(n_classes: int) -> None:
    target, prob, patient = scene(90, n_classes)
    once = intervals((target, prob, patient))
    twice = intervals((target.repeat(2), prob.repeat(2, axis=0), patient.repeat(2)))
    for name, interval in once.items():
        # An effective n is never above n: what that withholds by chance, the copies give back.
        error = 5e-3 if "effective n" in interval.method else 1e-9
        assert twice[name].low == pytest.approx(interval.low, abs=error), name
        assert twice[name].high == pytest.approx(interval.high, abs=error), name


@pytest.mark.parametrize("n_classes", [2, 6])
def test_doubling_the_patients_narrows_by_the_square_root_of_two(n_classes: int) -> None:
    target, prob, patient = scene(240, n_classes)
    once = intervals((target, prob, patient))
    twice = intervals(
        (np.tile(target, 2), np.tile(prob, (2, 1)), np.concatenate([patient, patient + 240]))
    )
    for name, interval in once.items():
        # The calibration error has no such rate: near 0 it is a mean of squares.
        if name == "calibration_error":
            assert width(twice[name]) < width(interval)
        else:
            ratio = width(interval) / width(twice[name])
            assert ratio == pytest.approx(np.sqrt(2), rel=0.08), name


def test_names_of_classes_and_of_patients_do_not_matter() -> None:
    target, prob, patient = scene(60, 3)
    swap = np.array([2, 0, 1])
    one = intervals((target, prob, patient))
    other = intervals((np.argsort(swap)[target], prob[:, swap], patient))
    for name in classification.OVERALL:
        assert other[name].low == pytest.approx(one[name].low), name
    for name in classification.PER_CLASS:
        for c in range(3):
            assert other[f"{name} {c}"].low == pytest.approx(one[f"{name} {swap[c]}"].low), name
    renamed = intervals((target, prob, 1000 + 7 * patient))
    assert renamed == one


@pytest.mark.parametrize("case", ["one row", "one class", "ties", "constant", "one patient"])
def test_degenerate_samples_are_answered_with_notes(case: str) -> None:
    target, prob, patient = scene(12, 3)
    if case == "one row":
        target, prob, patient = target[:1], prob[:1], patient[:1]
    elif case == "one class":
        target = np.zeros_like(target)
    elif case == "ties":
        prob = np.round(prob, 1) + 0.1
        prob /= prob.sum(axis=1, keepdims=True)
    elif case == "constant":
        prob = np.full_like(prob, 1 / 3)
    else:
        patient = np.zeros_like(patient)
    found = intervals((target, prob, patient))
    for name, interval in found.items():
        if interval.low is None or interval.high is None:
            assert interval.low is interval.high
            assert interval.note, name
        else:
            assert -1 <= interval.low < interval.high, name
            assert np.isfinite(interval.high)
    if case == "one patient":
        assert all(interval.low is None for interval in found.values())
    if case in ("ties", "constant"):
        # Equal scores say nothing about the order of rows, but the accuracy is what it is.
        assert found["accuracy"].low is not None
        assert found["macro_f1"].low is not None


@pytest.mark.parametrize("seed", range(4))
def test_limits_enclose_the_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(2, 7))
    target, prob, patient = scene(80, n_classes, float(rng.uniform(0.2, 2)), seed)
    # An operating point that is not the likeliest class.
    predicted = classification.predict(prob * rng.uniform(0.5, 2, n_classes))
    found = intervals((target, prob, patient), predicted)
    by_class = classification.by_class(target, prob, predicted)
    values = classification.overall(target, prob, predicted, per_class=by_class)
    clusters = Clusters(patient, 80, "patient")
    values["calibration_error"] = np.asarray(calibration_error(target, prob, clusters))
    for name, rates in by_class.items():
        values |= {f"{name} {c}": rate for c, rate in enumerate(rates)}
    for name, interval in found.items():
        if interval.low is not None and interval.high is not None:
            assert interval.low <= values[name] <= interval.high, name
