"""The number of patients that a difference needs, against the number that shows it."""

import numpy as np
import pytest
from helpers.pairs import draw_pair, patients, rows_of
from scipy import stats

from fracnet.evaluation.comparison import permutation_test
from fracnet.evaluation.metric_selection import Metric
from fracnet.metrics.hypothesis_tests import clusters_needed, detectable


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


def test_what_patients_do_not_shrink_can_hide_a_difference_for_good() -> None:
    assert clusters_needed(0.1, 100, 0.1, fixed=0.05) is None
    some = clusters_needed(0.1, 100, 0.1, fixed=0.02)
    assert some is not None
    # At that number both parts together leave just the error allowed.
    total = 0.02**2 + (0.1**2 - 0.02**2) * 100 / some
    assert detectable(np.sqrt(total)) == pytest.approx(0.1, rel=2e-3)


def test_so_many_patients_show_the_difference_in_eight_of_ten_draws() -> None:
    rng = np.random.default_rng(0)
    metric = Metric("accuracy", 2)
    target, group = patients(rng, 4000, 3)
    one, other = draw_pair(rng, target, group, 2, (1.3, 0.9))
    margin = metric.value(one) - metric.value(other)
    # The error on a pilot of 150 patients, of which there happen to be many.
    right = [(s.predicted == target).reshape(4000, 3).mean(axis=1) for s in (one, other)]
    error = float((right[0] - right[1]).std() / np.sqrt(150))
    needed = clusters_needed(error, 150, margin)
    assert needed is not None
    found, draws = 0, 300
    for seed in range(draws):
        target, group = patients(rng, needed, 3)
        pair = draw_pair(rng, target, group, 2, (1.3, 0.9))
        p = permutation_test(metric, *pair, rows_of(group), swaps=199, seed=seed).p
        found += p is not None and p <= 0.05
    low, high = stats.binomtest(found, draws).proportion_ci(0.999)
    assert low < 0.8 < high
