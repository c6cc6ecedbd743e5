"""Tests of two models against worked examples, brute force, and their level under no difference."""

import numpy as np
import pytest
from helpers.pairs import draw_pair, patients, rows_of
from helpers.published import mra_readings
from scipy import stats

from fracnet.metrics.hypothesis_tests import area_difference, area_test, mcnemar
from fracnet.metrics.intervals import freedom

# DeLong, DeLong and Clarke-Pearson 1988, ovarian cancer: total protein, K-G score, benefit; the
# 43 complete records. Printed with them (SAS/STAT, PROC LOGISTIC, example of ROCCONTRAST): areas
# 0.6478 and 0.7258, difference -0.0780, its standard error 0.1046, chi-squared 0.5554, p 0.4561.
PROTEIN = """5.8 6.3 6.8 4.8 5.8 4.0 5.7 5.6 5.7 6.7 5.4 6.6 6.6 5.7 7.0 6.7 4.4 7.6 6.6 5.8 6.8 4.7
7.4 7.4 6.6 8.2 7.0 6.5 5.1 4.7 6.8 4.0 6.1 6.3 7.7 6.2 5.7 4.8 6.2 7.0 5.7 6.9 6.6"""
SCORE = "10 5 3 6 3 5 8 5 5 6 4 6 5 5 4 4 6 4 6 6 7 8 5 5 6 6 5 4 5 6 6 7 5 7 6 5 9 7 8 7 6 5 5"
BENEFIT = "0110100111111110100110111111110011110101111"


def two(score: np.ndarray) -> np.ndarray:
    return np.stack([-score, score], axis=1)


def test_delongs_paired_test_is_the_published_one() -> None:
    protein = two(np.array(PROTEIN.split(), dtype=float))
    score = two(-np.array(SCORE.split(), dtype=float))
    target = np.array([int(digit) for digit in BENEFIT])
    found = area_difference(target, protein, score, rows_of(np.arange(43), "image"), 1)
    assert found.value == pytest.approx(-0.0780, abs=5e-5)
    assert found.error == pytest.approx(0.1046, abs=5e-5)
    assert (found.value / found.error) ** 2 == pytest.approx(0.5554, abs=5e-5)
    # The published p is that of a normal; ours of a t, a little larger.
    test = area_test(found, rows_of(np.arange(43), "image"))
    assert test.method == "DeLong, paired"
    assert test.p is not None
    assert 0.4561 < test.p < 0.48


def test_obuchowskis_paired_test_is_the_published_one() -> None:
    patient, target, readings = mra_readings()
    one, other = two(readings[:, 1]), two(readings[:, 0])
    found = area_difference(target, one, other, rows_of(patient), 1)
    assert found.value == pytest.approx(0.0014, abs=5e-5)
    assert found.error == pytest.approx(0.0066, abs=5e-5)
    assert 2 * stats.norm.sf(found.value / found.error) == pytest.approx(0.8271, abs=2e-4)
    assert area_test(found, rows_of(patient)).method == "Obuchowski, paired"


def test_the_error_of_a_macro_difference_is_that_of_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1, 2], [12, 20, 15])
    one, other = draw_pair(rng, target, np.arange(47), 3, (1.0, 1.5), 0.0)
    found = area_difference(target, one.prob, other.prob, rows_of(np.arange(47)))
    # DeLong's components of each class's difference, laid back onto rows and averaged by class.
    moves = np.zeros((47, 3))
    values = []
    for c in range(3):
        case = target == c
        wins = np.zeros((case.sum(), (~case).sum()))
        for sample, sign in ((one, 1), (other, -1)):
            mine, rest = sample.prob[case, c], sample.prob[~case, c]
            wins += sign * ((mine[:, None] > rest) + 0.5 * (mine[:, None] == rest))
        values.append(wins.mean())
        for rows, part in ((case, wins.mean(axis=1)), (~case, wins.mean(axis=0))):
            count = rows.sum()
            moves[rows, c] = (part - wins.mean()) / count * np.sqrt(count / (count - 1))
    assert found.value == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(np.sqrt((moves.mean(axis=1) ** 2).sum()))


def test_mcnemar_is_the_binomial_test_less_half_of_what_was_seen() -> None:
    for only_one, only_other in ((1, 7), (15, 4), (0, 3), (60, 41)):
        one = np.repeat([True, False, True, False], [only_one, only_other, 20, 5])
        other = np.repeat([False, True, True, False], [only_one, only_other, 20, 5])
        n, k = only_one + only_other, min(only_one, only_other)
        exact = stats.binomtest(k, n).pvalue
        seen = stats.binom.pmf(k, n, 0.5)
        assert mcnemar(one, other).p == pytest.approx(exact - seen)
        assert mcnemar(other, one).p == mcnemar(one, other).p


def test_mcnemar_of_equal_splits_and_of_agreement_is_one() -> None:
    one = np.array([True, False, True, True])
    assert mcnemar(one, ~one).p == pytest.approx(stats.binomtest(1, 4).pvalue - 0.25)
    assert mcnemar(one[:2], ~one[:2]).p == 1
    same = mcnemar(one, one)
    assert (same.p, same.note) == (1, "right on the same rows")


def test_equal_orders_of_scores_and_lone_clusters_are_said_to_be_so() -> None:
    target = np.array([0, 0, 1, 1])
    score = np.array([0.1, 0.4, 0.3, 0.9])
    rows = rows_of(np.arange(4))
    same = area_test(area_difference(target, two(score), two(score**2), rows, 1), rows)
    assert (same.p, same.note) == (1, "the same order of scores")
    lone = rows_of(np.array([0, 1, 2, 2]))
    found = area_test(area_difference(target, two(score), two(-score), lone, 1), lone)
    assert (found.p, found.note) == (None, "all cases, or all others, are one patient")
    every = area_difference(np.ones(4, dtype=int), two(score), two(-score), rows)
    assert np.isnan(every.value)


def test_few_terms_that_decide_are_worth_few_degrees_of_freedom() -> None:
    rng = np.random.default_rng(0)
    assert freedom(rng.normal(size=5000)) == pytest.approx(5000, rel=0.05)
    lonely = np.zeros(200)
    lonely[0] = 1
    assert freedom(lonely) == 4


@pytest.mark.parametrize("views", [1, 3])
def test_two_equal_areas_are_told_apart_in_five_of_a_hundred_draws(views: int) -> None:
    rng = np.random.default_rng(views)
    rejected, draws = 0, 600
    for _ in range(draws):
        target, group = patients(rng, 100, views)
        one, other = draw_pair(rng, target, group, 2, (1.0, 1.0))
        rows = rows_of(group)
        p = area_test(area_difference(target, one.prob, other.prob, rows, 1), rows).p
        assert p is not None
        rejected += p < 0.05
    # Three standard errors of 5 % in 600 draws.
    assert abs(rejected / draws - 0.05) < 3 * np.sqrt(0.05 * 0.95 / draws)


def test_rows_taken_for_clusters_would_be_told_apart_too_often() -> None:
    rng = np.random.default_rng(0)
    rejected, draws = 0, 300
    for _ in range(draws):
        target, group = patients(rng, 60, 6)
        one, other = draw_pair(rng, target, group, 2, (1.0, 1.0), 0.8)
        rows = rows_of(np.arange(360))
        p = area_test(area_difference(target, one.prob, other.prob, rows, 1), rows).p
        rejected += p is not None and p < 0.05
    assert rejected / draws > 0.15
