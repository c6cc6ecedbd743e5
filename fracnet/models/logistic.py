"""Multinomial logistic regression with a quadratic penalty, chosen by validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fracnet.utils.progress import Progress

Logits = npt.NDArray[np.float64]
MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class LogisticFit:
    """weights float64 [C, F] and bias [C] of features as they are; what validation chose."""

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    selected: dict[str, Any]


def fit_logistic(
    x: np.ndarray,
    targets: np.ndarray,
    x_val: np.ndarray,
    targets_val: np.ndarray,
    candidates: Sequence[float],
    class_weights: Sequence[float] | None,
    progress: Progress[Any],
    *,
    key: str,
) -> LogisticFit:
    """Fit to standardized features once for each C; keep the lowest validation log loss.

    x, x_val: float32 [n, F]. targets, targets_val: int64 [n]; every class occurs in training.
    candidates: inverse penalty weights C. class_weights: one factor per class for the loss of its
    training images. key: of the candidates, for the note that they may not reach far enough.
    """
    scaler = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    regression = LogisticRegression(
        max_iter=MAX_ITERATIONS,
        warm_start=True,  # from the fit with the next stronger penalty
        class_weight=dict(enumerate(class_weights)) if class_weights else None,
    )
    tried: list[dict[str, float]] = []
    fits = []
    candidates = sorted(set(candidates))
    for strength in progress(candidates, len(candidates), "logistic regression"):
        regression.set_params(C=strength).fit(scaled, targets)
        fits.append(_unscaled(regression, scaler))
        weights, bias = fits[-1]
        loss = log_loss(x_val @ weights.T + bias, targets_val)
        tried.append({"C": strength, "val/loss": loss})
    best = min(tried, key=lambda candidate: candidate["val/loss"])
    selected = {"C": best["C"], "by": "val/loss", "value": best["val/loss"], "tried": tried}
    if len(tried) > 1 and best in (tried[0], tried[-1]):
        end = "smallest" if best is tried[0] else "largest"
        selected["note"] = f"the chosen C is the {end} candidate; another {key} may do better"
    return LogisticFit(*fits[tried.index(best)], selected)


def _unscaled(regression: LogisticRegression, scaler: StandardScaler) -> tuple[Logits, Logits]:
    """A fit to standardized features as one to the features themselves."""
    weights = regression.coef_.astype(np.float64) / scaler.scale_
    bias = regression.intercept_.astype(np.float64) - weights @ scaler.mean_
    if len(weights) == 1:  # two classes: the log odds of the second
        weights, bias = np.vstack([0 * weights, weights]), np.append(0 * bias, bias)
    return weights, bias


def log_loss(logits: Logits, targets: np.ndarray) -> float:
    """Mean of the negative log probability of the truth."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(targets)), targets].mean())
