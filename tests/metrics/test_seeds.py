"""Configurations: the error of a mean over runs, and the level of their comparison."""

import numpy as np
import pytest
from helpers.pairs import patients, rows_of

from fracnet.evaluation.metric_selection import Metric, Sample
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.hypothesis_tests import spread_over_runs

ACCURACY = Metric("accuracy", 2)


def runs(
    rng: np.random.Generator, target: np.ndarray, shared: np.ndarray, skills: np.ndarray
) -> list[Sample]:
    """Runs of a configuration, each with its own skill; `shared` is what all see in an image."""
    found = []
    for skill in skills:
        score = skill * (2 * target - 1) + shared + 0.5 * rng.normal(size=len(target))
        prob = 1 / (1 + np.exp(-score))
        both = np.stack([1 - prob, prob], axis=1)
        found.append(Sample(target, both, both.argmax(axis=1)))
    return found


def hardness(rng: np.random.Generator, group: np.ndarray) -> np.ndarray:
    """Of images and, more so, of patients."""
    own = rng.normal(size=len(group))
    return 0.5 * own + 0.7 * rng.normal(size=int(group.max()) + 1)[group]


def figures(samples: list[Sample], rows: Clusters, seed: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([ACCURACY.value(sample) for sample in samples])
    drawn = [ACCURACY.resampled(sample, rows, 150, seed) for sample in samples]
    return values, np.column_stack(drawn)


def test_the_error_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    one, two = np.array([0.8, 0.83, 0.81]), np.array([0.7, 0.78])
    drawn = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5))
    found = spread_over_runs(one, drawn[:, :3], 80, two, drawn[:, 3:])
    covariance = np.cov(drawn.T)
    within = (covariance[0, 1] + covariance[0, 2] + covariance[1, 2]) / 3 + covariance[3, 4]
    between = covariance[:3, 3:].mean()
    of_seeds = one.var(ddof=1) / 3 + two.var(ddof=1) / 2
    of_patients = max(within - 2 * between, 0)
    assert found.value == pytest.approx(one.mean() - two.mean())
    assert found.error == pytest.approx(np.sqrt(of_seeds + of_patients))
    low, high = found.limits() or (0, 0)
    assert low < found.value < high


def test_runs_that_are_all_alike_and_change_nothing_have_no_error() -> None:
    same = np.full(5, 0.8)
    found = spread_over_runs(same, np.full((10, 5), 0.8), 80, same, np.full((10, 5), 0.8))
    assert (found.value, found.limits(), found.p()) == (0, None, None)


def test_limits_of_a_share_stay_within_0_and_1() -> None:
    values = np.array([0.99, 0.97, 1.0, 0.98, 0.999])
    found = spread_over_runs(values, np.random.default_rng(0).normal(0.98, 0.02, size=(300, 5)), 60)
    low, high = found.limits(share=True) or (0, 2)
    assert 0 < low < values.mean() < high < 1


@pytest.mark.parametrize("luck", [0.0, 0.3])
def test_equal_configurations_are_told_apart_in_five_of_a_hundred_draws(luck: float) -> None:
    """Seeds and patients are new in each draw, as in the statement that is made."""
    rng = np.random.default_rng(4)
    rejected = covered = 0
    draws = 200
    for seed in range(draws):
        target, group = patients(rng, 100, 3)
        rows, shared = rows_of(group), hardness(rng, group)
        one, two = (
            figures(runs(rng, target, shared, 1 + luck * rng.normal(size=5)), rows, seed)
            for _ in range(2)
        )
        found = spread_over_runs(one[0], one[1], rows.count, two[0], two[1])
        p, limits = found.p(), found.limits()
        assert p is not None
        assert limits is not None
        rejected += p < 0.05
        covered += limits[0] <= 0 <= limits[1]
    assert covered == draws - rejected
    # Three standard errors above 5 %; where seeds do not matter it keeps below, with few of them.
    assert rejected / draws < 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert rejected / draws > 0.005


def test_what_more_patients_would_not_shrink_is_the_spread_of_skills() -> None:
    rng = np.random.default_rng(1)
    skills = np.array([2.0, 0.6, 1.4, 0.8, 1.2]), np.array([0.5, 1.5, 1.0, 0.7, 1.3])
    found = []
    for count in (100, 1600):
        target, group = patients(rng, count, 3)
        rows, shared = rows_of(group), hardness(rng, group)
        one, two = (figures(runs(rng, target, shared, skill), rows, 0) for skill in skills)
        found.append(spread_over_runs(one[0], one[1], rows.count, two[0], two[1]))
    few, many = found
    # Of endless patients this is all that is left.
    assert many.of_seeds == pytest.approx(many.error, rel=0.05)
    assert few.of_seeds == pytest.approx(many.of_seeds, rel=0.3)
    assert few.error > few.of_seeds


def test_equal_skills_leave_nothing_that_more_patients_would_not_shrink() -> None:
    rng = np.random.default_rng(2)
    left = []
    for seed in range(20):
        target, group = patients(rng, 100, 3)
        rows, shared = rows_of(group), hardness(rng, group)
        one, two = (figures(runs(rng, target, shared, np.ones(5)), rows, seed) for _ in range(2))
        found = spread_over_runs(one[0], one[1], rows.count, two[0], two[1])
        left.append(found.of_seeds**2 / found.error**2)
    assert np.mean(left) < 0.3
