"""The cluster permutation test: its level, what it equals where another test exists, the edges."""

import numpy as np
import pytest
from helpers.pairs import draw_pair, patients, rows_of
from scipy import stats

from fracnet.evaluation.comparison import permutation_test
from fracnet.evaluation.figure_of_merit import Figure, Sample


def named(target: np.ndarray, predicted: np.ndarray) -> Sample:
    return Sample(target, np.eye(2)[predicted], predicted)


def test_on_single_rows_accuracy_gives_the_exact_binomial_test() -> None:
    target = np.zeros(40, dtype=int)
    one, other = np.zeros(40, dtype=int), np.zeros(40, dtype=int)
    one[:2], other[2:11] = 1, 1
    rows = rows_of(np.arange(40), "image")
    found = permutation_test(
        Figure("accuracy", 2), named(target, one), named(target, other), rows, swaps=40_000
    )
    assert found.p == pytest.approx(stats.binomtest(2, 11).pvalue, rel=0.03)


def test_few_clusters_are_swapped_in_every_way() -> None:
    rng = np.random.default_rng(3)
    target, group = patients(rng, 8, 4)
    one, other = draw_pair(rng, target, group, 2, (0.5, 2.0))
    figure = Figure("kappa", 2)
    found = permutation_test(figure, one, other, rows_of(group))
    # By hand, over all 256 ways.
    observed, as_far = figure.value(one) - figure.value(other), 0
    for way in range(256):
        swap = (way >> group & 1).astype(bool)
        left = np.where(swap, other.predicted, one.predicted)
        right = np.where(swap, one.predicted, other.predicted)
        moved = figure.value(named(target, left)) - figure.value(named(target, right))
        as_far += not abs(moved) < abs(observed) - 1e-12  # an undefined one counts
    assert found.p == as_far / 256


def test_an_area_is_swapped_in_every_way_by_rank() -> None:
    rng = np.random.default_rng(5)
    target, group = patients(rng, 7, 3)
    one, other = draw_pair(rng, target, group, 2, (0.5, 2.0))
    figure = Figure("average_precision", 2, 1)
    found = permutation_test(figure, one, other, rows_of(group))
    # Scores on another scale, but in the same order, are the same model to it.
    bent = Sample(target, one.prob**3, one.predicted)
    assert permutation_test(figure, bent, other, rows_of(group)).p == found.p
    ranks = [stats.rankdata(own.prob[:, 1]) for own in (one, other)]
    observed, as_far = figure.value(one) - figure.value(other), 0
    for way in range(128):
        swap = (way >> group & 1).astype(bool)
        moved = 0.0
        for sign, (mine, rest) in ((1, ranks), (-1, ranks[::-1])):
            score = np.where(swap, rest, mine)
            moved += sign * figure.value(Sample(target, np.stack([-score, score], 1), target))
        as_far += not abs(moved) < abs(observed) - 1e-12
    assert found.p == as_far / 128


@pytest.mark.parametrize("name", ["accuracy", "sensitivity", "kappa", "f1", "log_loss"])
def test_two_equal_models_are_told_apart_in_five_of_a_hundred_draws(name: str) -> None:
    rng = np.random.default_rng(1)
    figure = Figure(name, 2, None if name in ("accuracy", "kappa", "log_loss") else 1)
    rejected, draws = 0, 500
    for seed in range(draws):
        target, group = patients(rng, 100, 3)
        one, other = draw_pair(rng, target, group, 2, (1.0, 1.0))
        found = permutation_test(figure, one, other, rows_of(group), swaps=199, seed=seed)
        assert found.method == "permutation by patient"
        assert found.p is not None
        rejected += found.p <= 0.05
    assert abs(rejected / draws - 0.05) < 3 * np.sqrt(0.05 * 0.95 / draws)


def test_a_difference_is_found_and_p_does_not_depend_on_the_order_of_rows_or_runs() -> None:
    rng = np.random.default_rng(2)
    target, group = patients(rng, 100, 3)
    one, other = draw_pair(rng, target, group, 2, (2.5, 0.5))
    figure = Figure("brier", 2)
    found = permutation_test(figure, one, other, rows_of(group), seed=7)
    assert found.p == 1 / 10_000
    assert permutation_test(figure, other, one, rows_of(group), seed=7).p == found.p
    order = rng.permutation(300)
    mixed = [Sample(target[order], s.prob[order], s.predicted[order]) for s in (one, other)]
    again = permutation_test(figure, mixed[0], mixed[1], rows_of(group[order]), seed=7)
    assert again.p == found.p


def test_an_undefined_figure_has_no_p() -> None:
    target = np.zeros(6, dtype=int)
    sample = named(target, target)
    found = permutation_test(Figure("sensitivity", 2, 1), sample, sample, rows_of(np.arange(6)))
    assert (found.p, found.note) == (None, "undefined")
