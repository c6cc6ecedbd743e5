import numpy as np
import pytest
from scipy.stats import binomtest

from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import (
    effective_n,
    mean_of_proportions,
    proportion,
    score_mean,
    wilson,
)


def image_clusters(n: int) -> Clusters:
    return Clusters(np.arange(n), n, "image")


def grouped(n: int, size: int) -> Clusters:
    return Clusters(np.arange(n) // size, -(-n // size), "patient")


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Newcombe 1998, Stat Med 17:857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_examples(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 7), (74, 83), (83, 83), (1600, 3197)])
def test_wilson_agrees_with_scipy(k: int, n: int) -> None:
    for level in (0.8, 0.95, 0.99):
        theirs = binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
        np.testing.assert_allclose(wilson(k, n, level), theirs, atol=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (2, 7), (6, 6), (74, 83), (300, 301)])
def test_the_score_interval_of_one_proportion_is_wilsons(k: int, n: int) -> None:
    np.testing.assert_allclose(score_mean(np.array([k]), np.array([n])), wilson(k, n), atol=1e-10)


def test_the_score_interval_inverts_its_test() -> None:
    # At the limit, no proportions of that mean are nearer than z standard errors (numerically)
    # over a grid of the likeliest proportions, for two classes.
    k, n = np.array([9.0, 4.0]), np.array([10.0, 8.0])
    for limit in score_mean(k, n):
        first = np.linspace(max(0, 2 * limit - 1) + 1e-9, min(1, 2 * limit) - 1e-9, 200_001)
        p = np.stack([first, 2 * limit - first])
        likelihood = (k[:, None] * np.log(p) + (n - k)[:, None] * np.log1p(-p)).sum(axis=0)
        best = p[:, np.argmax(likelihood)]
        error = np.sqrt((best * (1 - best) / n).sum()) / 2
        assert abs((k / n).mean() - limit) / error == pytest.approx(1.95996, abs=1e-3)


def test_the_score_interval_is_symmetric_and_never_of_zero_width() -> None:
    k, n = np.array([5, 9, 0]), np.array([6, 12, 4])
    low, high = score_mean(k, n)
    np.testing.assert_allclose(score_mean(n - k, n), (1 - high, 1 - low), atol=1e-10)
    # Of two perfect classes, one far larger, the mean can only be as low as the small one allows.
    perfect = score_mean(np.array([4, 100]), np.array([4, 100]))
    assert perfect == (pytest.approx(1 - (1 - wilson(4, 4)[0]) / 2, abs=1e-9), 1.0)


def test_rows_that_are_their_own_cluster_get_plain_wilson() -> None:
    success = np.arange(40) < 31
    interval = proportion(success, np.ones(40, dtype=bool), image_clusters(40))
    assert interval.method == "Wilson"
    assert (interval.low, interval.high) == pytest.approx(wilson(31, 40))


def test_duplicating_rows_inside_clusters_does_not_narrow() -> None:
    success = np.random.default_rng(3).random(60) < 0.7
    everyone = np.ones(60, dtype=bool)
    plain = proportion(success, everyone, image_clusters(60))
    tripled = proportion(success.repeat(3), everyone.repeat(3), grouped(180, 3))
    assert plain.low is not None
    assert plain.high is not None
    assert tripled.low is not None
    assert tripled.high is not None
    assert tripled.high - tripled.low >= plain.high - plain.low
    # Three equal copies are worth one row: n / 3, less the few degrees of freedom.
    worth = effective_n(success.repeat(3)[:, None], np.ones((180, 1), dtype=bool), grouped(180, 3))
    assert worth[0] == pytest.approx(60, rel=0.08)


def test_duplicating_every_patient_narrows_by_the_square_root() -> None:
    rng = np.random.default_rng(4)
    success = rng.random(300) < 0.6
    member = np.ones((300, 1), dtype=bool)
    once = effective_n(success[:, None], member, grouped(300, 3))
    twice = effective_n(np.tile(success, 2)[:, None], np.tile(member, (2, 1)), grouped(600, 3))
    assert twice[0] / once[0] == pytest.approx(2, rel=0.03)


def test_errors_that_strike_every_proportion_at_once_count_once() -> None:
    # Two proportions of the same rows: their mean knows no more than one of them.
    success = (np.arange(50) < 40)[:, None].repeat(2, axis=1)
    everyone = np.ones((50, 2), dtype=bool)
    interval = mean_of_proportions(success, everyone, image_clusters(50))
    assert (interval.low, interval.high) == pytest.approx(wilson(40, 50), abs=1e-9)


def test_perfectly_correlated_clusters_count_as_one_each() -> None:
    right = np.ones(12, dtype=bool)
    interval = proportion(right, right, grouped(12, 3))
    assert interval.high == 1.0
    assert interval.low is not None
    # Four patients, not twelve rows: even wider than Wilson's 4 of 4.
    assert interval.low < wilson(4, 4)[0]


def test_no_rows_and_one_cluster_have_no_interval() -> None:
    none = np.zeros(5, dtype=bool)
    assert proportion(none, none, image_clusters(5)).note == "undefined: no cases"
    interval = proportion(~none, ~none, Clusters(np.zeros(5, dtype=int), 1, "patient"))
    assert (interval.low, interval.note) == (None, "all cases come from one patient")


def test_a_mean_of_proportions_drops_columns_without_rows() -> None:
    member = np.zeros((20, 3), dtype=bool)
    member[:12, 0] = member[12:, 2] = True
    success = np.random.default_rng(0).random((20, 3)) < 0.8
    interval = mean_of_proportions(success, member, image_clusters(20))
    expected = score_mean((success & member).sum(axis=0)[[0, 2]], np.array([12, 8]))
    assert (interval.low, interval.high) == pytest.approx(expected)


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    success, member = rng.random((90, 4)) < 0.7, rng.random((90, 4)) < 0.5
    ids = grouped(90, 3).ids
    order = rng.permutation(90)
    interval = mean_of_proportions(success, member, Clusters(ids, 30, "patient"))
    shuffled = mean_of_proportions(
        success[order], member[order], Clusters(ids[order], 30, "patient")
    )
    assert (interval.low, interval.high) == (
        pytest.approx(shuffled.low),
        pytest.approx(shuffled.high),
    )


def test_score_limits_at_0_and_1_give_no_warning() -> None:
    # Rounding once made p (1 - p) of such rows negative, and its root a NaN.
    rng = np.random.default_rng(0)
    for n in rng.uniform(2, 60, (300, 2)):
        low, high = score_mean(np.array([n[0], 0.0]), n)
        assert 0 <= low < 0.5 < high <= 1
