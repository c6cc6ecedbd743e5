"""Losses of each row: their means are the Brier score and the log loss."""

import numpy as np

# A probability of 0 for what happened counts as this one, as in scikit-learn: a loss of 36.04.
FLOOR = float(np.finfo(np.float64).eps)


def brier_rows(target: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Squared error of each row's probabilities, float64[N]; 0 is perfect.

    Two classes: of the positive one's probability, range 0 to 1. More: summed over the classes,
    range 0 to 2 (Brier 1950, Mon Weather Rev 78:1).
    """
    happened = np.asarray(target)[:, None] == np.arange(prob.shape[1])
    if prob.shape[1] == 2:
        return np.asarray((prob[:, 1] - happened[:, 1]) ** 2)
    return np.asarray(((prob - happened) ** 2).sum(axis=1))


def log_loss_rows(target: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Minus the natural log of the true class's probability (at least `FLOOR`), float64[N]."""
    given = prob[np.arange(len(target)), target]
    return np.asarray(-np.log(np.maximum(given, FLOOR)))


def brier_range(n_classes: int) -> tuple[int, int]:
    """Best and worst Brier score that `brier_rows` can give."""
    return (0, 1) if n_classes == 2 else (0, 2)


def mean(rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean of losses float64[N]; float64[B] with `weights` [B, N]."""
    if weights is None:
        return np.asarray(rows.mean())
    total = weights.sum(axis=1)
    return np.asarray((weights @ rows) / total)
