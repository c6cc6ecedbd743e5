import numpy as np
import pytest
from scipy import stats

from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import (
    clustered_error,
    f1_interval,
    logit_interval,
    mean_loss,
    score_bootstrap,
)


def grouped(n: int, size: int) -> Clusters:
    return Clusters(np.arange(n) // size, -(-n // size), "patient")


def test_the_spread_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=50)
    error, freedom = clustered_error((values - values.mean()) / 50, grouped(50, 1))
    assert error == pytest.approx(values.std() / np.sqrt(50))
    assert 30 < freedom <= 50
    one_decides = np.append(np.zeros(49), 1.0)
    assert clustered_error(one_decides, grouped(50, 1))[1] == 4


def test_the_mean_loss_has_the_t_interval_of_its_log() -> None:
    losses = np.random.default_rng(1).uniform(0.9, 1.1, 400)
    interval = mean_loss(losses, grouped(400, 1))
    assert interval.low is not None
    assert interval.high is not None
    # So little spread makes log and plain scale the same.
    low, high = stats.ttest_1samp(losses, 0).confidence_interval()
    assert (interval.low, interval.high) == (
        pytest.approx(low, abs=2e-4),
        pytest.approx(high, abs=2e-4),
    )
    assert interval.low * interval.high == pytest.approx(losses.mean() ** 2)


def test_the_interval_of_a_bounded_loss_ends_at_its_bound() -> None:
    losses = np.array([0.001, 0.999])
    assert (mean_loss(losses, grouped(2, 1)).high or 0) > 1
    assert mean_loss(losses, grouped(2, 1), most=1.0).high == 1


def test_a_mean_loss_by_patient_is_that_of_patients_of_equal_size() -> None:
    losses = np.random.default_rng(2).exponential(size=120)
    by_row = mean_loss(losses, grouped(120, 3))
    by_patient = mean_loss(losses.reshape(40, 3).mean(axis=1), grouped(40, 1))
    assert by_row.low == pytest.approx(by_patient.low)
    assert by_row.high == pytest.approx(by_patient.high)


def test_equal_losses_and_one_patient_have_no_interval() -> None:
    assert mean_loss(np.full(9, 0.3), grouped(9, 1)).note == "degenerate: equal in every row"
    assert mean_loss(np.zeros(9), grouped(9, 1)).note == "degenerate: no row has a loss"
    assert mean_loss(np.geomspace(1e-40, 1e-30, 9), grouped(9, 1)).low is None
    assert mean_loss(np.arange(9.0), grouped(9, 9)).note == "all rows come from one patient"


def test_f1_has_the_limits_of_its_jaccard_index() -> None:
    case, predicted = np.arange(40) < 20, (np.arange(40) >= 4) & (np.arange(40) < 22)
    # 16 true positives, 2 false ones, 4 missed: 16 of 22.
    share = stats.binomtest(16, 22).proportion_ci(method="wilson")
    interval = f1_interval(case, predicted, grouped(40, 1))
    assert interval.low == pytest.approx(2 * share.low / (1 + share.low))
    assert interval.high == pytest.approx(2 * share.high / (1 + share.high))
    assert f1_interval(case, case, grouped(40, 1)).high == 1.0
    nobody = np.zeros(40, dtype=bool)
    assert f1_interval(case, nobody, grouped(40, 1)).low == 0.0
    assert f1_interval(nobody, nobody, grouped(40, 1)).note.startswith("undefined")


def test_a_spread_of_rounding_errors_gives_no_interval() -> None:
    clusters = grouped(30, 1)
    moves = np.full(30, 1e-18)
    interval = logit_interval(0.5, moves, clusters, "logit", "AUC", 0.95)
    assert (interval.low, interval.note) == (None, "degenerate: no variance, as with equal scores")
    near = logit_interval(1 - 1e-16, np.full(30, 1e-3), clusters, "logit", "AUC", 0.95)
    assert near.note == "degenerate: the AUC is 1"
    assert logit_interval(0.5, np.full(30, 1e-3), clusters, "logit", "AUC", 0.95).low is not None
    nearly = np.tile([0.4, np.nextafter(0.4, 1)], 50)
    equal = score_bootstrap(0.4, nearly, clusters, lowest=-1.0)
    assert (equal.low, equal.note) == (None, "degenerate: equal in every resample")


@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e200])
def test_errors_scale_with_their_terms(scale: float) -> None:
    """Losses of a saturated network are so small that their fourth powers vanish."""
    values = np.random.default_rng(0).normal(size=50)
    error, freedom = clustered_error(values, grouped(50, 1))
    scaled, same = clustered_error(scale * values, grouped(50, 1))
    assert scaled == pytest.approx(scale * error)
    assert same == pytest.approx(freedom)
