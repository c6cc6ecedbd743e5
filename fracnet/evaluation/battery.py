"""Every figure of merit at once, for one sample or for thousands of weighted resamples."""

from collections.abc import Mapping

import numpy as np

from fracnet.evaluation import metrics, scoring

OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "macro_sensitivity",
    "macro_specificity",
    "macro_precision",
    "macro_f1",
    "macro_auc",
    "macro_average_precision",
    "kappa",
    "mcc",
    "brier",
    "log_loss",
    "calibration_error",
)
PER_CLASS = ("sensitivity", "specificity", "precision", "npv", "f1", "auc", "average_precision")
# Smaller is better; of all others larger.
LOSSES = ("brier", "log_loss", "calibration_error")


def by_class(
    target: np.ndarray, prob: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The figures of `PER_CLASS`, each float64[C], or [B, C] with `weights` [B, N]."""
    matrix = metrics.confusion(target, predicted, prob.shape[1], weights)
    return {
        "sensitivity": metrics.sensitivity(matrix),
        "specificity": metrics.specificity(matrix),
        "precision": metrics.precision(matrix),
        "npv": metrics.npv(matrix),
        "f1": metrics.f1(matrix),
        "auc": metrics.auc(target, prob, weights),
        "average_precision": metrics.average_precision(target, prob, weights),
    }


def overall(
    target: np.ndarray,
    prob: np.ndarray,
    predicted: np.ndarray,
    weights: np.ndarray | None = None,
    per_class: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The figures of `OVERALL` but the calibration error, each float64[], or [B] with `weights`.

    `per_class` spares a second pass where `by_class` has been asked already.
    """
    matrix = metrics.confusion(target, predicted, prob.shape[1], weights)
    rates = per_class or by_class(target, prob, predicted, weights)
    averages = {f"macro_{name}": metrics.macro(rates[name]) for name in PER_CLASS if name != "npv"}
    return {
        "accuracy": metrics.accuracy(matrix),
        "balanced_accuracy": averages["macro_sensitivity"],
        **averages,
        "kappa": metrics.kappa(matrix),
        "mcc": metrics.mcc(matrix),
        "brier": scoring.mean(scoring.brier_rows(target, prob), weights),
        "log_loss": scoring.mean(scoring.log_loss_rows(target, prob), weights),
    }
