"""Tests of models, their correction, planning, and several seeds."""

import numpy as np
import pytest
from helpers.pairs import draw_pair, patients, rows_of
from helpers.published import mra_readings
from scipy import stats

from fracnet.evaluation.metric_selection import Metric, Sample, permutation_test
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.hypothesis_tests import (
    area_difference,
    area_test,
    clusters_needed,
    detectable,
    holm,
    mcnemar,
    spread_over_runs,
)
from fracnet.metrics.intervals import freedom

# DeLong, DeLong and Clarke-Pearson 1988, ovarian cancer: total protein, K-G score, benefit; the
# 43 complete records. Printed with them (SAS/STAT, PROC LOGISTIC, example of ROCCONTRAST): areas
# 0.6478 and 0.7258, difference -0.0780, its standard error 0.1046, chi-squared 0.5554, p 0.4561.
PROTEIN = """5.8 6.3 6.8 4.8 5.8 4.0 5.7 5.6 5.7 6.7 5.4 6.6 6.6 5.7 7.0 6.7 4.4 7.6 6.6 5.8 6.8 4.7
7.4 7.4 6.6 8.2 7.0 6.5 5.1 4.7 6.8 4.0 6.1 6.3 7.7 6.2 5.7 4.8 6.2 7.0 5.7 6.9 6.6"""
SCORE = "10 5 3 6 3 5 8 5 5 6 4 6 5 5 4 4 6 4 6 6 7 8 5 5 6 6 5 4 5 6 6 7 5 7 6 5 9 7 8 7 6 5 5"
BENEFIT = "0110100111111110100110111111110011110101111"


def as_two_columns(score: np.ndarray) -> np.ndarray:
    return np.stack([-score, score], axis=1)


def test_delongs_paired_test_matches_the_published_example() -> None:
    protein = as_two_columns(np.array(PROTEIN.split(), dtype=float))
    score = as_two_columns(-np.array(SCORE.split(), dtype=float))
    target = np.array([int(digit) for digit in BENEFIT])
    difference = area_difference(target, protein, score, rows_of(np.arange(43), "image"), 1)
    assert difference.value == pytest.approx(-0.0780, abs=5e-5)
    assert difference.error == pytest.approx(0.1046, abs=5e-5)
    assert (difference.value / difference.error) ** 2 == pytest.approx(0.5554, abs=5e-5)
    # The published p is that of a normal; ours of a t, a little larger.
    test = area_test(difference, rows_of(np.arange(43), "image"))
    assert test.method == "DeLong, paired"
    assert test.p is not None
    assert 0.4561 < test.p < 0.48


def test_obuchowskis_paired_test_matches_the_published_example() -> None:
    patient, target, readings = mra_readings()
    left, right = as_two_columns(readings[:, 1]), as_two_columns(readings[:, 0])
    difference = area_difference(target, left, right, rows_of(patient), 1)
    assert difference.value == pytest.approx(0.0014, abs=5e-5)
    assert difference.error == pytest.approx(0.0066, abs=5e-5)
    assert 2 * stats.norm.sf(difference.value / difference.error) == pytest.approx(0.8271, abs=2e-4)
    assert area_test(difference, rows_of(patient)).method == "Obuchowski, paired"


def test_the_error_of_a_macro_difference_is_that_of_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1, 2], [12, 20, 15])
    left, right = draw_pair(rng, target, np.arange(47), 3, (1.0, 1.5), 0.0)
    difference = area_difference(target, left.prob, right.prob, rows_of(np.arange(47)))
    # DeLong's components of each class's difference, laid back onto rows and averaged by class.
    moves = np.zeros((47, 3))
    values = []
    for c in range(3):
        case = target == c
        wins = np.zeros((case.sum(), (~case).sum()))
        for sample, sign in ((left, 1), (right, -1)):
            positives, rest = sample.prob[case, c], sample.prob[~case, c]
            wins += sign * ((positives[:, None] > rest) + 0.5 * (positives[:, None] == rest))
        values.append(wins.mean())
        for rows, part in ((case, wins.mean(axis=1)), (~case, wins.mean(axis=0))):
            count = rows.sum()
            moves[rows, c] = (part - wins.mean()) / count * np.sqrt(count / (count - 1))
    assert difference.value == pytest.approx(np.mean(values))
    assert difference.error == pytest.approx(np.sqrt((moves.mean(axis=1) ** 2).sum()))


def test_mcnemar_is_the_mid_p_binomial_test() -> None:
    for only_left, only_right in ((1, 7), (15, 4), (0, 3), (60, 41)):
        left = np.repeat([True, False, True, False], [only_left, only_right, 20, 5])
        right = np.repeat([False, True, True, False], [only_left, only_right, 20, 5])
        n, k = only_left + only_right, min(only_left, only_right)
        exact = stats.binomtest(k, n).pvalue
        half_probability = stats.binom.pmf(k, n, 0.5)
        assert mcnemar(left, right).p == pytest.approx(exact - half_probability)
        assert mcnemar(right, left).p == mcnemar(left, right).p


def test_mcnemar_of_equal_splits_and_of_agreement_is_one() -> None:
    left = np.array([True, False, True, True])
    assert mcnemar(left, ~left).p == pytest.approx(stats.binomtest(1, 4).pvalue - 0.25)
    assert mcnemar(left[:2], ~left[:2]).p == 1
    same = mcnemar(left, left)
    assert (same.p, same.note) == (1, "right on the same rows")


def test_equal_score_orders_and_single_clusters_are_noted() -> None:
    target = np.array([0, 0, 1, 1])
    score = np.array([0.1, 0.4, 0.3, 0.9])
    rows = rows_of(np.arange(4))
    same = area_test(
        area_difference(target, as_two_columns(score), as_two_columns(score**2), rows, 1), rows
    )
    assert (same.p, same.note) == (1, "the same order of scores")
    single_clusters = rows_of(np.array([0, 1, 2, 2]))
    result = area_test(
        area_difference(target, as_two_columns(score), as_two_columns(-score), single_clusters, 1),
        single_clusters,
    )
    assert (result.p, result.note) == (None, "all cases, or all others, are one patient")
    every = area_difference(
        np.ones(4, dtype=int), as_two_columns(score), as_two_columns(-score), rows
    )
    assert np.isnan(every.value)


def test_few_influential_terms_give_few_degrees_of_freedom() -> None:
    rng = np.random.default_rng(0)
    assert freedom(rng.normal(size=5000)) == pytest.approx(5000, rel=0.05)
    lonely = np.zeros(200)
    lonely[0] = 1
    assert freedom(lonely) == 4


@pytest.mark.parametrize("views", [1, 3])
def test_equal_areas_differ_significantly_in_five_percent_of_draws(views: int) -> None:
    rng = np.random.default_rng(views)
    rejected, draws = 0, 600
    for _ in range(draws):
        target, group = patients(rng, 100, views)
        left, right = draw_pair(rng, target, group, 2, (1.0, 1.0))
        rows = rows_of(group)
        p = area_test(area_difference(target, left.prob, right.prob, rows, 1), rows).p
        assert p is not None
        rejected += p < 0.05
    # Three standard errors of 5 % in 600 draws.
    assert abs(rejected / draws - 0.05) < 3 * np.sqrt(0.05 * 0.95 / draws)


def test_treating_rows_as_clusters_rejects_too_often() -> None:
    rng = np.random.default_rng(0)
    rejected, draws = 0, 300
    for _ in range(draws):
        target, group = patients(rng, 60, 6)
        left, right = draw_pair(rng, target, group, 2, (1.0, 1.0), 0.8)
        rows = rows_of(np.arange(360))
        p = area_test(area_difference(target, left.prob, right.prob, rows, 1), rows).p
        rejected += p is not None and p < 0.05
    assert rejected / draws > 0.15


def test_holm_matches_a_worked_example() -> None:
    # Four hypotheses: 0.005 * 4, 0.01 * 3, then 0.03 * 2 and 0.04 * 1 not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_matches_stepping_down_by_hand() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.uniform(size=rng.integers(1, 9)) ** 3
        accepted, left = set(), len(p)
        for k in np.argsort(p):
            if p[k] > 0.05 / left:
                break
            accepted.add(int(k))
            left -= 1
        assert {k for k, value in enumerate(holm(list(p))) if value <= 0.05} == accepted


def test_holm_handles_one_none_and_equal_values() -> None:
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.5, 0.5, 1.0]) == [1.0, 1.0, 1.0]


ACCURACY = Metric("accuracy", 2)


def runs(
    rng: np.random.Generator, target: np.ndarray, shared: np.ndarray, skills: np.ndarray
) -> list[Sample]:
    """Runs of a configuration, each with its own skill; `shared` is what all see in an image."""
    p_values = []
    for skill in skills:
        score = skill * (2 * target - 1) + shared + 0.5 * rng.normal(size=len(target))
        prob = 1 / (1 + np.exp(-score))
        both = np.stack([1 - prob, prob], axis=1)
        p_values.append(Sample(target, both, both.argmax(axis=1), both))
    return p_values


def hardness(rng: np.random.Generator, group: np.ndarray) -> np.ndarray:
    """Of images and, more so, of patients."""
    image_noise = rng.normal(size=len(group))
    return 0.5 * image_noise + 0.7 * rng.normal(size=int(group.max()) + 1)[group]


def figures(samples: list[Sample], rows: Clusters, seed: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([ACCURACY.value(sample) for sample in samples])
    resampled = [ACCURACY.resampled(sample, rows, 150, seed) for sample in samples]
    return values, np.column_stack(resampled)


def test_the_error_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    left, right = np.array([0.8, 0.83, 0.81]), np.array([0.7, 0.78])
    resampled = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5))
    difference = spread_over_runs(left, resampled[:, :3], 80, right, resampled[:, 3:])
    covariance = np.cov(resampled.T)
    within = (covariance[0, 1] + covariance[0, 2] + covariance[1, 2]) / 3 + covariance[3, 4]
    between = covariance[:3, 3:].mean()
    of_seeds = left.var(ddof=1) / 3 + right.var(ddof=1) / 2
    of_patients = max(within - 2 * between, 0)
    assert difference.value == pytest.approx(left.mean() - right.mean())
    assert difference.error == pytest.approx(np.sqrt(of_seeds + of_patients))
    low, high = difference.limits() or (0, 0)
    assert low < difference.value < high


def test_identical_runs_have_no_error() -> None:
    same = np.full(5, 0.8)
    difference = spread_over_runs(same, np.full((10, 5), 0.8), 80, same, np.full((10, 5), 0.8))
    assert (difference.value, difference.limits(), difference.p()) == (0, None, None)


def test_limits_of_a_share_stay_within_0_and_1() -> None:
    values = np.array([0.99, 0.97, 1.0, 0.98, 0.999])
    difference = spread_over_runs(
        values, np.random.default_rng(0).normal(0.98, 0.02, size=(300, 5)), 60
    )
    low, high = difference.limits(share=True) or (0, 2)
    assert 0 < low < values.mean() < high < 1


@pytest.mark.parametrize("luck", [0.0, 0.3])
def test_equal_configurations_differ_significantly_in_five_percent_of_draws(luck: float) -> None:
    """Seeds and patients are new in each draw, as the claim assumes."""
    rng = np.random.default_rng(4)
    rejected = covered = 0
    draws = 200
    for seed in range(draws):
        target, group = patients(rng, 100, 3)
        rows, shared = rows_of(group), hardness(rng, group)
        left, right = (
            figures(runs(rng, target, shared, 1 + luck * rng.normal(size=5)), rows, seed)
            for _ in range(2)
        )
        difference = spread_over_runs(left[0], left[1], rows.count, right[0], right[1])
        p, limits = difference.p(), difference.limits()
        assert p is not None
        assert limits is not None
        rejected += p < 0.05
        covered += limits[0] <= 0 <= limits[1]
    assert covered == draws - rejected
    # Three standard errors above 5 %; where seeds do not matter it keeps below, with few of them.
    assert rejected / draws < 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert rejected / draws > 0.005


def test_the_error_that_more_patients_do_not_shrink_is_the_spread_over_seeds() -> None:
    rng = np.random.default_rng(1)
    skills = np.array([2.0, 0.6, 1.4, 0.8, 1.2]), np.array([0.5, 1.5, 1.0, 0.7, 1.3])
    spreads = []
    for count in (100, 1600):
        target, group = patients(rng, count, 3)
        rows, shared = rows_of(group), hardness(rng, group)
        left, right = (figures(runs(rng, target, shared, skill), rows, 0) for skill in skills)
        spreads.append(spread_over_runs(left[0], left[1], rows.count, right[0], right[1]))
    few, many = spreads
    # Of endless patients this is all that is left.
    assert many.of_seeds == pytest.approx(many.error, rel=0.05)
    assert few.of_seeds == pytest.approx(many.of_seeds, rel=0.3)
    assert few.error > few.of_seeds


def test_equal_seeds_leave_no_error_that_more_patients_would_not_shrink() -> None:
    rng = np.random.default_rng(2)
    shares = []
    for seed in range(20):
        target, group = patients(rng, 100, 3)
        rows, shared = rows_of(group), hardness(rng, group)
        left, right = (figures(runs(rng, target, shared, np.ones(5)), rows, seed) for _ in range(2))
        difference = spread_over_runs(left[0], left[1], rows.count, right[0], right[1])
        shares.append(difference.of_seeds**2 / difference.error**2)
    assert np.mean(shares) < 0.3


def test_the_normal_approximation_of_a_paired_comparison() -> None:
    # (1.960 + 0.842)^2 = 7.849: Machin et al., Sample Sizes for Clinical, Laboratory and
    # Epidemiology Studies, for 5 % two-sided and 80 %.
    assert detectable(1.0) ** 2 == pytest.approx(7.849, abs=5e-4)
    assert clusters_needed(0.1, 100, 0.1) == 785
    assert clusters_needed(0.1, 100, detectable(0.1)) == 100
    needed = [clusters_needed(0.1, 100, 0.1, alpha=alpha) for alpha in (0.05, 0.05 / 3)]
    assert needed[0] is not None
    assert needed[1] is not None
    assert needed[0] < needed[1]


def test_an_error_that_patients_do_not_shrink_can_make_a_difference_undetectable() -> None:
    assert clusters_needed(0.1, 100, 0.1, fixed=0.05) is None
    some = clusters_needed(0.1, 100, 0.1, fixed=0.02)
    assert some is not None
    # At that number both parts together leave just the error allowed.
    total = 0.02**2 + (0.1**2 - 0.02**2) * 100 / some
    assert detectable(np.sqrt(total)) == pytest.approx(0.1, rel=2e-3)


def test_the_computed_number_of_patients_gives_a_power_of_80_percent() -> None:
    rng = np.random.default_rng(0)
    metric = Metric("accuracy", 2)
    target, group = patients(rng, 4000, 3)
    left, right = draw_pair(rng, target, group, 2, (1.3, 0.9))
    margin = metric.value(left) - metric.value(right)
    # The error on a pilot of 150 patients, of which there happen to be many.
    correct = [(s.predicted == target).reshape(4000, 3).mean(axis=1) for s in (left, right)]
    error = float((correct[0] - correct[1]).std() / np.sqrt(150))
    needed = clusters_needed(error, 150, margin)
    assert needed is not None
    significant, draws = 0, 300
    for seed in range(draws):
        target, group = patients(rng, needed, 3)
        pair = draw_pair(rng, target, group, 2, (1.3, 0.9))
        p = permutation_test(metric, *pair, rows_of(group), swaps=199, seed=seed).p
        significant += p is not None and p <= 0.05
    low, high = stats.binomtest(significant, draws).proportion_ci(0.999)
    assert low < 0.8 < high
