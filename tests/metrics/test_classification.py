"""Classification metrics against scikit-learn and by hand."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as reference

from fracnet.metrics import classification
from fracnet.metrics.classification import FLOOR, brier_range, brier_rows, log_loss_rows


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities with 2 to 6 classes, every class present, and many ties."""
    rng = np.random.default_rng(seed)
    n_classes, n = int(rng.integers(2, 7)), int(rng.integers(12, 60))
    target = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    prob = rng.integers(1, 6, size=(n, n_classes)).astype(float)
    return target, prob / prob.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_scikit_learn(seed: int) -> None:
    target, prob = random_case(seed)
    n_classes = prob.shape[1]
    labels = np.arange(n_classes)
    predicted = classification.predict(prob)
    matrix = classification.confusion(target, predicted, n_classes)
    np.testing.assert_array_equal(
        matrix, reference.confusion_matrix(target, predicted, labels=labels)
    )
    assert classification.accuracy(matrix) == pytest.approx(
        reference.accuracy_score(target, predicted)
    )
    expected = reference.balanced_accuracy_score(target, predicted)
    assert classification.balanced_accuracy(matrix) == pytest.approx(expected)
    parts = reference.precision_recall_fscore_support(
        target, predicted, labels=labels, zero_division=np.nan
    )
    for ours, theirs in zip(
        (
            classification.precision(matrix),
            classification.sensitivity(matrix),
            classification.f1(matrix),
        ),
        parts[:3],
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs)
    for c in labels:
        rate = reference.recall_score(target != c, predicted != c)
        assert classification.specificity(matrix)[c] == pytest.approx(rate)
        unnamed = predicted != c
        right = (target != c)[unnamed].mean() if unnamed.any() else np.nan
        assert classification.npv(matrix)[c] == pytest.approx(right, nan_ok=True)
        area = reference.roc_auc_score(target == c, prob[:, c])
        assert classification.auc(target, prob)[c] == pytest.approx(area)
        area = reference.average_precision_score(target == c, prob[:, c])
        assert classification.average_precision(target, prob)[c] == pytest.approx(area)
    assert classification.kappa(matrix) == pytest.approx(
        reference.cohen_kappa_score(target, predicted)
    )
    assert classification.mcc(matrix) == pytest.approx(
        reference.matthews_corrcoef(target, predicted)
    )


def test_an_absent_class_is_undefined_and_left_out_of_the_average() -> None:
    # Perfect predictions with one of six classes absent: 5/6 where an absent class counts as 0.
    target = np.repeat(np.arange(5), 4)
    prob = np.eye(6)[target]
    matrix = classification.confusion(target, classification.predict(prob), 6)
    for values in (classification.sensitivity(matrix), classification.auc(target, prob)):
        assert np.isnan(values[5])
        assert (~np.isnan(values)).sum() == 5
        assert classification.macro(values) == 1.0
    assert classification.specificity(matrix)[5] == 1.0
    assert np.isnan(classification.precision(matrix)[5])
    assert np.isnan(classification.f1(matrix)[5])


def test_one_class_only_leaves_auc_and_its_specificity_undefined() -> None:
    target, prob = (
        np.zeros(4, dtype=int),
        np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]),
    )
    matrix = classification.confusion(target, classification.predict(prob), 2)
    assert np.isnan(classification.auc(target, prob)).all()
    assert np.isnan(classification.macro(classification.auc(target, prob)))
    np.testing.assert_array_equal(classification.sensitivity(matrix), [0.75, np.nan])
    np.testing.assert_array_equal(classification.specificity(matrix), [np.nan, 0.75])


def test_a_single_row_is_scored() -> None:
    matrix = classification.confusion(np.array([1]), np.array([1]), 3)
    assert classification.accuracy(matrix) == 1
    assert classification.balanced_accuracy(matrix) == 1
    assert (~np.isnan(classification.sensitivity(matrix))).sum() == 1


def test_a_majority_prediction_gets_no_credit() -> None:
    # Micro-averaged, the specificity of a constant prediction in six classes would be above 0.8.
    target = np.repeat(np.arange(6), (13, 22, 13, 14, 15, 6))
    matrix = classification.confusion(target, np.full(len(target), 1), 6)
    assert classification.macro(classification.sensitivity(matrix)) == pytest.approx(1 / 6)
    assert classification.macro(classification.specificity(matrix)) == pytest.approx(5 / 6)
    assert classification.accuracy(matrix) == pytest.approx(22 / 83)


def test_equal_scores_are_half_right_and_go_to_the_first_class() -> None:
    prob = np.full((6, 3), 1 / 3)
    target = np.array([0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(classification.auc(target, prob), [0.5, 0.5, 0.5])
    assert classification.predict(prob).tolist() == [0] * 6


@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_repeated_rows(seed: int) -> None:
    target, prob = random_case(seed)
    weights = np.random.default_rng(seed).integers(0, 4, size=(5, len(target)))
    n_classes, predicted = prob.shape[1], classification.predict(prob)
    matrices = classification.confusion(target, predicted, n_classes, weights)
    areas = classification.auc(target, prob, weights)
    precisions = classification.average_precision(target, prob, weights)
    for b, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(target)), weight)
        matrix = classification.confusion(target[rows], predicted[rows], n_classes)
        np.testing.assert_array_equal(matrices[b], matrix)
        np.testing.assert_allclose(
            areas[b], classification.auc(target[rows], prob[rows]), rtol=1e-12
        )
        for rate in (
            classification.f1,
            classification.npv,
            classification.mcc,
            classification.kappa,
        ):
            np.testing.assert_array_equal(rate(matrices)[b], rate(matrix))
        area = classification.average_precision(target[rows], prob[rows])
        np.testing.assert_allclose(precisions[b], area, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_order_of_rows_and_names_of_classes_do_not_matter(seed: int) -> None:
    target, prob = random_case(seed)
    rng = np.random.default_rng(seed)
    rows, swap = rng.permutation(len(target)), rng.permutation(prob.shape[1])
    np.testing.assert_array_equal(
        classification.auc(target[rows], prob[rows]), classification.auc(target, prob)
    )
    # Class c becomes class position[c]; its column moves along.
    position = np.argsort(swap)
    for area in (classification.auc, classification.average_precision):
        np.testing.assert_array_equal(
            area(position[target], prob[:, swap]), area(target, prob)[swap]
        )
    predicted = classification.predict(prob)
    matrix = classification.confusion(target, predicted, len(swap))
    renamed = classification.confusion(position[target], position[predicted], len(swap))
    for agreement in (classification.kappa, classification.mcc):
        assert agreement(renamed) == pytest.approx(agreement(matrix))


def test_agreement_with_a_constant_is_undefined_not_zero() -> None:
    # scikit-learn gives 0; a correlation with a constant does not exist.
    constant = classification.confusion(np.array([0, 0, 1, 1]), np.zeros(4, dtype=int), 2)
    assert np.isnan(classification.mcc(constant))
    assert classification.kappa(constant) == 0
    alone = classification.confusion(np.zeros(3, dtype=int), np.zeros(3, dtype=int), 2)
    assert np.isnan(classification.mcc(alone))
    assert np.isnan(classification.kappa(alone))
    np.testing.assert_array_equal(classification.npv(alone), [np.nan, 1.0])


def test_average_precision_of_extremes() -> None:
    target = np.array([1, 0, 1, 0, 0])
    prob = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    both = np.stack([1 - prob, prob], axis=1)
    # By hand: the first case heads the list, two of the first three are cases.
    assert classification.average_precision(target, both)[1] == pytest.approx((1 + 2 / 3) / 2)
    flat = np.full((5, 2), 0.5)
    np.testing.assert_allclose(classification.average_precision(target, flat), [0.6, 0.4])
    only = classification.average_precision(np.zeros(5, dtype=int), both)
    assert np.isnan(only).all(), "where all rows are cases there is nothing to rank"
    cases_alone = np.array([[2.0, 0, 1, 0, 0], [1, 1, 1, 1, 1]])
    average_precision = classification.average_precision(target, both, cases_alone)
    assert np.isnan(average_precision).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_losses_agree_with_scikit_learn(n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 30)])
    prob = rng.dirichlet(np.ones(n_classes), len(target))
    labels = np.arange(n_classes)
    loss = reference.log_loss(target, prob, labels=labels)
    assert log_loss_rows(target, prob).mean() == pytest.approx(loss)
    if n_classes == 2:
        expected = reference.brier_score_loss(target, prob[:, 1])
    else:
        expected = reference.brier_score_loss(target, prob, labels=labels, scale_by_half=False)
    assert brier_rows(target, prob).mean() == pytest.approx(expected)


def test_losses_reach_the_ends_of_their_ranges() -> None:
    target = np.array([0, 1])
    for n_classes in (2, 3):
        right, wrong = np.eye(n_classes)[target], np.eye(n_classes)[1 - target]
        best, worst = brier_range(n_classes)
        assert (brier_rows(target, right) == best).all()
        assert (brier_rows(target, wrong) == worst).all()


def test_a_probability_of_0_for_the_truth_gives_a_large_finite_loss() -> None:
    target, prob = np.array([0, 1]), np.array([[0.0, 1.0], [0.25, 0.75]])
    losses = log_loss_rows(target, prob)
    assert losses[0] == pytest.approx(36.04, abs=0.01)
    assert losses[0] == -np.log(FLOOR)
    theirs = reference.log_loss(target, prob, labels=[0, 1])
    assert losses.mean() == pytest.approx(theirs)


def test_one_row_and_one_class_are_scored() -> None:
    prob = np.array([[0.3, 0.7]])
    assert brier_rows(np.array([0]), prob).mean() == pytest.approx(0.49)
    assert log_loss_rows(np.array([0]), prob).mean() == pytest.approx(-np.log(0.3))


def test_refusing_a_class_costs_macro_precision() -> None:
    target, predicted = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 0, 1])
    matrix = classification.confusion(target, predicted, 3)
    assert np.isnan(classification.precision(matrix)[2])
    expected = reference.precision_score(target, predicted, average="macro", zero_division=0)
    assert classification.macro_precision(matrix) == pytest.approx(expected)
    wider = classification.confusion(target, predicted, 4)  # class 3: neither present nor predicted
    assert classification.macro_precision(wider) == pytest.approx(expected)
    weights = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    weighted = classification.confusion(target, predicted, 3, weights)
    assert classification.macro_precision(weighted) == pytest.approx([expected, 1.0])


@pytest.mark.parametrize("n_classes", [2, 5])
def test_log_odds_rank_as_probabilities_and_do_not_saturate(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    target, logits = rng.integers(n_classes, size=300), rng.normal(size=(300, n_classes))
    prob = softmax(logits, axis=1)
    odds = classification.log_odds(logits)
    np.testing.assert_allclose(odds, np.log(prob / (1 - prob)), atol=1e-9)
    np.testing.assert_array_equal(
        classification.auc(target, odds), classification.auc(target, prob)
    )
    large = classification.log_odds(400 * logits)
    assert np.isfinite(large).all()
    if n_classes == 2:
        first, second = classification.auc(target, large)
        assert first == second == classification.auc(target, odds)[0]
        saturated = classification.auc(target, softmax(400 * logits, axis=1))
        assert saturated[0] != saturated[1]
        constant = classification.average_precision(target, large)
        np.testing.assert_array_equal(constant, classification.average_precision(target, odds))
