import numpy as np
import pytest
from sklearn import metrics as reference

from fracnet.metrics.classification import FLOOR, brier_range, brier_rows, log_loss_rows, mean


@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn(n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 30)])
    prob = rng.dirichlet(np.ones(n_classes), len(target))
    labels = np.arange(n_classes)
    loss = reference.log_loss(target, prob, labels=labels)
    assert mean(log_loss_rows(target, prob)) == pytest.approx(loss)
    if n_classes == 2:
        expected = reference.brier_score_loss(target, prob[:, 1])
    else:
        expected = reference.brier_score_loss(target, prob, labels=labels, scale_by_half=False)
    assert mean(brier_rows(target, prob)) == pytest.approx(expected)


def test_the_ranges_are_reached() -> None:
    target = np.array([0, 1])
    for n_classes in (2, 3):
        right, wrong = np.eye(n_classes)[target], np.eye(n_classes)[1 - target]
        best, worst = brier_range(n_classes)
        assert (brier_rows(target, right) == best).all()
        assert (brier_rows(target, wrong) == worst).all()


def test_no_chance_for_the_truth_is_a_large_loss_not_an_infinite_one() -> None:
    target, prob = np.array([0, 1]), np.array([[0.0, 1.0], [0.25, 0.75]])
    losses = log_loss_rows(target, prob)
    assert losses[0] == pytest.approx(36.04, abs=0.01)
    assert losses[0] == -np.log(FLOOR)
    theirs = reference.log_loss(target, prob, labels=[0, 1])
    assert losses.mean() == pytest.approx(theirs)


def test_weights_count_rows_as_often_as_given() -> None:
    rows = np.array([0.1, 0.5, 0.9])
    weights = np.array([[1, 1, 1], [2, 0, 1]])
    np.testing.assert_allclose(mean(rows, weights), [0.5, (0.1 * 2 + 0.9) / 3])


def test_one_row_and_one_class_are_scored() -> None:
    prob = np.array([[0.3, 0.7]])
    assert mean(brier_rows(np.array([0]), prob)) == pytest.approx(0.49)
    assert mean(log_loss_rows(np.array([0]), prob)) == pytest.approx(-np.log(0.3))
