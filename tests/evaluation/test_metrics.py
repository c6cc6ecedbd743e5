import numpy as np
import pytest
from sklearn import metrics as reference

from fracnet.evaluation import metrics


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
    predicted = metrics.predict(prob)
    matrix = metrics.confusion(target, predicted, n_classes)
    np.testing.assert_array_equal(
        matrix, reference.confusion_matrix(target, predicted, labels=labels)
    )
    assert metrics.accuracy(matrix) == pytest.approx(reference.accuracy_score(target, predicted))
    expected = reference.balanced_accuracy_score(target, predicted)
    assert metrics.balanced_accuracy(matrix) == pytest.approx(expected)
    parts = reference.precision_recall_fscore_support(
        target, predicted, labels=labels, zero_division=np.nan
    )
    for ours, theirs in zip(
        (metrics.precision(matrix), metrics.sensitivity(matrix), metrics.f1(matrix)),
        parts[:3],
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs)
    for c in labels:
        rate = reference.recall_score(target != c, predicted != c)
        assert metrics.specificity(matrix)[c] == pytest.approx(rate)
        area = reference.roc_auc_score(target == c, prob[:, c])
        assert metrics.auc(target, prob)[c] == pytest.approx(area)


def test_an_absent_class_is_undefined_and_left_out_of_the_average() -> None:
    # Perfect predictions with one of six classes absent: 5/6 where an absent class counts as 0.
    target = np.repeat(np.arange(5), 4)
    prob = np.eye(6)[target]
    matrix = metrics.confusion(target, metrics.predict(prob), 6)
    for values in (metrics.sensitivity(matrix), metrics.auc(target, prob)):
        assert np.isnan(values[5])
        assert metrics.scored(values) == 5
        assert metrics.macro(values) == 1.0
    assert metrics.specificity(matrix)[5] == 1.0
    assert np.isnan(metrics.precision(matrix)[5])
    assert np.isnan(metrics.f1(matrix)[5])


def test_one_class_only_leaves_auc_and_its_specificity_undefined() -> None:
    target, prob = (
        np.zeros(4, dtype=int),
        np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]),
    )
    matrix = metrics.confusion(target, metrics.predict(prob), 2)
    assert np.isnan(metrics.auc(target, prob)).all()
    assert np.isnan(metrics.macro(metrics.auc(target, prob)))
    np.testing.assert_array_equal(metrics.sensitivity(matrix), [0.75, np.nan])
    np.testing.assert_array_equal(metrics.specificity(matrix), [np.nan, 0.75])


def test_one_row() -> None:
    matrix = metrics.confusion(np.array([1]), np.array([1]), 3)
    assert metrics.accuracy(matrix) == 1
    assert metrics.balanced_accuracy(matrix) == 1
    assert metrics.scored(metrics.sensitivity(matrix)) == 1


def test_the_majority_answer_is_not_flattered() -> None:
    # Micro-averaged, the specificity of a constant answer in six classes would be above 0.8.
    target = np.repeat(np.arange(6), (13, 22, 13, 14, 15, 6))
    matrix = metrics.confusion(target, np.full(len(target), 1), 6)
    assert metrics.macro(metrics.sensitivity(matrix)) == pytest.approx(1 / 6)
    assert metrics.macro(metrics.specificity(matrix)) == pytest.approx(5 / 6)
    assert metrics.accuracy(matrix) == pytest.approx(22 / 83)


def test_equal_scores_are_half_right_and_go_to_the_first_class() -> None:
    prob = np.full((6, 3), 1 / 3)
    target = np.array([0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(metrics.auc(target, prob), [0.5, 0.5, 0.5])
    assert metrics.predict(prob).tolist() == [0] * 6


@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_repeated_rows(seed: int) -> None:
    target, prob = random_case(seed)
    weights = np.random.default_rng(seed).integers(0, 4, size=(5, len(target)))
    n_classes, predicted = prob.shape[1], metrics.predict(prob)
    matrices = metrics.confusion(target, predicted, n_classes, weights)
    areas = metrics.auc(target, prob, weights)
    for b, weight in enumerate(weights):
        rows = np.repeat(np.arange(len(target)), weight)
        matrix = metrics.confusion(target[rows], predicted[rows], n_classes)
        np.testing.assert_array_equal(matrices[b], matrix)
        np.testing.assert_allclose(areas[b], metrics.auc(target[rows], prob[rows]), rtol=1e-12)
        np.testing.assert_array_equal(
            metrics.macro(metrics.f1(matrices))[b], metrics.macro(metrics.f1(matrix))
        )


@pytest.mark.parametrize("seed", range(4))
def test_order_of_rows_and_names_of_classes_do_not_matter(seed: int) -> None:
    target, prob = random_case(seed)
    rng = np.random.default_rng(seed)
    rows, swap = rng.permutation(len(target)), rng.permutation(prob.shape[1])
    np.testing.assert_array_equal(metrics.auc(target[rows], prob[rows]), metrics.auc(target, prob))
    # Class c becomes class position[c]; its column moves along.
    position = np.argsort(swap)
    np.testing.assert_array_equal(
        metrics.auc(position[target], prob[:, swap]), metrics.auc(target, prob)[swap]
    )
