"""Coverage of the interval of a difference, and what widens it."""

import numpy as np
import pytest
from helpers.pairs import draw_pair, patients, rows_of
from helpers.predictions import UPPER_LIMB_COUNTS
from scipy import stats

from fracnet.evaluation.comparison import area_interval, difference_interval, stretch
from fracnet.evaluation.metric_selection import Metric, Sample
from fracnet.metrics.hypothesis_tests import area_difference

RESAMPLES = 300


def interval_of(metric: Metric, left: Sample, right: Sample, group: np.ndarray, seed: int) -> tuple:
    rows = rows_of(group)
    if metric.is_area:
        areas = area_difference(left.target, left.prob, right.prob, rows, metric.index)
        result = area_interval(areas, rows)
        return result.low, result.high
    resampled = [metric.resampled(sample, rows, RESAMPLES, seed) for sample in (left, right)]
    result = difference_interval(metric, left, right, resampled[0] - resampled[1], rows)
    return result.low, result.high


def test_coverage_with_patients_of_three_views() -> None:
    check_coverage("patients", ("sensitivity", "kappa", "f1", "brier"), 300)


def test_coverage_in_six_classes_of_few_images() -> None:
    names = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
    check_coverage("upper limb", names, 300)


@pytest.mark.parametrize("scene", ["patients", "upper limb"])
def test_coverage_of_areas(scene: str) -> None:
    check_coverage(scene, ("macro_auc",), 600)


def test_coverage_of_average_precision() -> None:
    check_coverage("patients", ("macro_average_precision",), 100)


def test_an_area_interval_ends_where_areas_end() -> None:
    target = np.repeat([0, 1], 6)
    good, bad = (np.r_[np.arange(6), np.arange(6) + shift] for shift in (5.5, -4.5))
    rows = rows_of(np.arange(12), "image")
    left, right = (np.stack([-score, score], axis=1) for score in (good, bad))
    result = area_interval(area_difference(target, left, right, rows, 1), rows)
    assert result.high == 1
    assert result.low is not None
    assert 0 < result.low < 0.99


def check_coverage(scene: str, names: tuple[str, ...], draws: int) -> None:
    """Of right models that are equally good, so that the true difference is 0."""
    rng = np.random.default_rng(0)
    classes = 2 if scene == "patients" else 6
    metrics = [
        Metric(name, classes, 1 if name in ("sensitivity", "f1", "auc") else None) for name in names
    ]
    held = dict.fromkeys(names, 0)
    for seed in range(draws):
        target = np.repeat(np.arange(6), UPPER_LIMB_COUNTS)
        group = np.arange(len(target))
        if scene == "patients":
            target, group = patients(rng)
        separation = (1.0, 1.0) if scene == "patients" else (2.0, 2.0)
        pair = draw_pair(rng, target, group, classes, separation)
        for metric in metrics:
            low, high = interval_of(metric, *pair, group, seed)
            held[metric.name] += low is not None and low <= 0 <= high
    for name, count in held.items():
        # 93 to 97 % of all draws; of so few, chance adds right standard errors.
        slack = 2 * np.sqrt(0.95 * 0.05 / draws)
        assert 0.93 - slack < count / draws < 0.97 + slack, (name, count / draws)


def test_a_class_of_six_cases_widens_it_and_many_rows_do_not() -> None:
    rng = np.random.default_rng(1)
    metric = Metric("balanced_accuracy", 2)
    for counts, widened in (((200, 5), True), ((1000, 1000), False)):
        target = np.repeat([0, 1], counts)
        rows = rows_of(np.arange(len(target)), "image")
        left, right = draw_pair(rng, target, np.arange(len(target)), 2, (0.5, 0.5), 0.0)
        resampled = [metric.resampled(sample, rows, 4000) for sample in (left, right)]
        result = stretch(metric, left, right, resampled[0] - resampled[1], rows)
        # The bootstrap's own error is a per cent.
        assert (result > 1.05 * stats.norm.ppf(0.975)) == widened
        assert result > stats.norm.ppf(0.975)


def test_both_models_are_scored_in_the_same_resamples() -> None:
    rng = np.random.default_rng(2)
    target, group = patients(rng, 60, 3)
    left, right = draw_pair(rng, target, group, 2, (1.0, 1.2))
    shifted = Sample(target, right.prob, np.where(rng.random(180) < 0.03, 1, left.predicted))
    metric = Metric("accuracy", 2)
    low, high = interval_of(metric, left, shifted, group, 0)
    apart = metric.resampled(left, rows_of(group), RESAMPLES, 1)
    unpaired = np.ptp(np.quantile(apart - apart[::-1], [0.025, 0.975]))
    assert high - low < unpaired / 2
