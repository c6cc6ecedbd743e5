import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fracnet.evaluation.baselines import majority, shortcut
from fracnet.evaluation.predictions import Predictions
from fracnet.evaluation.summary import summarize

CLASSES = ("elbow", "fingers", "wrist")


def rows(labels: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(len(labels))],
            "split": "test",
            "label": [CLASSES[c] for c in labels],
        }
    )


def features(target: np.ndarray, seed: int) -> np.ndarray:
    """Sizes in thousands, a constant and noise, like real shortcut features."""
    rng = np.random.default_rng(seed)
    size = 500 + 400 * target + rng.normal(0, 100, len(target))
    return np.column_stack([size, np.full(len(target), 8.0), rng.normal(size=(len(target), 3))])


def test_majority_predicts_the_most_common_train_class_with_train_prevalences() -> None:
    table = majority(np.array([0, 1, 1, 1, 2, 1, 0, 2]), rows([0, 0, 0, 1]), CLASSES)
    Predictions(table)
    np.testing.assert_allclose(Predictions(table).probabilities, np.tile([0.25, 0.5, 0.25], (4, 1)))
    summary = summarize(Predictions(table))
    assert summary.metrics["accuracy"].value == 0.25
    assert summary.metrics["macro_auc"].value == 0.5
    assert summary.metrics["macro_auc"].low is None


def test_a_class_without_train_images_gets_probability_zero() -> None:
    target = np.array([0, 2] * 30)
    test = np.array([0, 1, 2] * 5)
    for table in (
        majority(target, rows(test.tolist()), CLASSES),
        shortcut(features(target, 0), target, features(test, 1), rows(test.tolist()), CLASSES),
    ):
        Predictions(table)
        assert (Predictions(table).probabilities[:, 1] == 0).all()
        assert np.isfinite(table.filter(like="logit_").to_numpy()).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_shortcut_is_a_standardized_logistic_regression(n_classes: int) -> None:
    target = np.random.default_rng(0).integers(0, n_classes, 300)
    test = np.random.default_rng(1).integers(0, n_classes, 60)
    train_x, test_x = features(target, 2), features(test, 3)
    classes = CLASSES[:n_classes]
    table = shortcut(train_x, target, test_x, rows(test.tolist()), classes)
    scaler = StandardScaler().fit(train_x)
    model = LogisticRegression(max_iter=5000).fit(scaler.transform(train_x), target)
    np.testing.assert_allclose(
        Predictions(table).probabilities, model.predict_proba(scaler.transform(test_x)), atol=1e-9
    )
    # Size reveals the class here, and the baseline detects it.
    assert summarize(Predictions(table)).metrics["accuracy"].value > 0.85


def test_a_single_train_class_needs_no_fit() -> None:
    target = np.ones(10, dtype=int)
    table = shortcut(features(target, 0), target, features(target, 1), rows([0, 1] * 5), CLASSES)
    assert (Predictions(table).probabilities == [0, 1, 0]).all()


def test_baselines_keep_the_columns_of_clusters() -> None:
    table = rows([0, 1, 2, 0]).assign(patient=["a", "a", "b", "b"])
    summary = summarize(Predictions(majority(np.array([0, 0, 1, 2]), table, CLASSES)))
    assert (summary.unit, summary.clusters) == ("patient", 2)
