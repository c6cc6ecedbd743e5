"""The cluster permutation test: its level, what it equals where another test exists, the edges."""

import numpy as np
import pytest
from helpers.pairs import draw_pair, patients, rows_of
from scipy import stats

from fracnet.evaluation.comparison import permutation_test
from fracnet.evaluation.metric_selection import Metric, Sample


def sample(target: np.ndarray, predicted: np.ndarray) -> Sample:
    return Sample(target, np.eye(2)[predicted], predicted)


def test_on_single_rows_accuracy_gives_the_exact_binomial_test() -> None:
    target = np.zeros(40, dtype=int)
    first, second = np.zeros(40, dtype=int), np.zeros(40, dtype=int)
    first[:2], second[2:11] = 1, 1
    rows = rows_of(np.arange(40), "image")
    result = permutation_test(
        Metric("accuracy", 2), sample(target, first), sample(target, second), rows, swaps=40_000
    )
    assert result.p == pytest.approx(stats.binomtest(2, 11).pvalue, rel=0.03)


def test_few_clusters_are_swapped_in_every_way() -> None:
    rng = np.random.default_rng(3)
    target, group = patients(rng, 8, 4)
    first, second = draw_pair(rng, target, group, 2, (0.5, 2.0))
    metric = Metric("kappa", 2)
    result = permutation_test(metric, first, second, rows_of(group))
    # By hand, over all 256 ways.
    observed, as_far = metric.value(first) - metric.value(second), 0
    for way in range(256):
        swap = (way >> group & 1).astype(bool)
        left = np.where(swap, second.predicted, first.predicted)
        right = np.where(swap, first.predicted, second.predicted)
        moved = metric.value(sample(target, left)) - metric.value(sample(target, right))
        as_far += not abs(moved) < abs(observed) - 1e-12  # an undefined one counts
    assert result.p == as_far / 256


def test_an_area_is_swapped_in_every_way_by_rank() -> None:
    rng = np.random.default_rng(5)
    target, group = patients(rng, 7, 3)
    first, second = draw_pair(rng, target, group, 2, (0.5, 2.0))
    metric = Metric("average_precision", 2, 1)
    result = permutation_test(metric, first, second, rows_of(group))
    # Scores on another scale, but in the same order, are the same model to it.
    bent = Sample(target, first.prob**3, first.predicted)
    assert permutation_test(metric, bent, second, rows_of(group)).p == result.p
    ranks = [stats.rankdata(own.prob[:, 1]) for own in (first, second)]
    observed, as_far = metric.value(first) - metric.value(second), 0
    for way in range(128):
        swap = (way >> group & 1).astype(bool)
        moved = 0.0
        for sign, (mine, rest) in ((1, ranks), (-1, ranks[::-1])):
            score = np.where(swap, rest, mine)
            moved += sign * metric.value(Sample(target, np.stack([-score, score], 1), target))
        as_far += not abs(moved) < abs(observed) - 1e-12
    assert result.p == as_far / 128


@pytest.mark.parametrize("name", ["accuracy", "sensitivity", "kappa", "f1", "log_loss"])
def test_two_equal_models_differ_in_five_of_a_hundred_draws(name: str) -> None:
    rng = np.random.default_rng(1)
    metric = Metric(name, 2, None if name in ("accuracy", "kappa", "log_loss") else 1)
    rejected, draws = 0, 500
    for seed in range(draws):
        target, group = patients(rng, 100, 3)
        first, second = draw_pair(rng, target, group, 2, (1.0, 1.0))
        result = permutation_test(metric, first, second, rows_of(group), swaps=199, seed=seed)
        assert result.method == "permutation by patient"
        assert result.p is not None
        rejected += result.p <= 0.05
    assert abs(rejected / draws - 0.05) < 3 * np.sqrt(0.05 * 0.95 / draws)


def test_a_difference_is_found_and_p_does_not_depend_on_the_order_of_rows_or_runs() -> None:
    rng = np.random.default_rng(2)
    target, group = patients(rng, 100, 3)
    first, second = draw_pair(rng, target, group, 2, (2.5, 0.5))
    metric = Metric("brier", 2)
    result = permutation_test(metric, first, second, rows_of(group), seed=7)
    assert result.p == 1 / 10_000
    assert permutation_test(metric, second, first, rows_of(group), seed=7).p == result.p
    order = rng.permutation(300)
    mixed = [Sample(target[order], s.prob[order], s.predicted[order]) for s in (first, second)]
    again = permutation_test(metric, mixed[0], mixed[1], rows_of(group[order]), seed=7)
    assert again.p == result.p


def test_an_undefined_metric_has_no_p() -> None:
    target = np.zeros(6, dtype=int)
    same = sample(target, target)
    result = permutation_test(Metric("sensitivity", 2, 1), same, same, rows_of(np.arange(6)))
    assert (result.p, result.note) == (None, "undefined")
