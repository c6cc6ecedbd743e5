"""Classification metrics from targets and probabilities. Undefined is NaN, never 0 or 1.

Every rate is computed from a confusion matrix `[..., C, C]` (rows: truth, columns: prediction), so
the same functions serve one sample and, with a leading axis, thousands of weighted resamples.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import logsumexp

from fracnet.config.fields import OVERALL_METRICS

OVERALL = (*OVERALL_METRICS, "calibration_error")
LOSSES = ("brier", "log_loss", "calibration_error")
"""Smaller is better; for all other metrics larger."""
FLOOR = float(np.finfo(np.float64).eps)
"""The smallest probability in the log loss, as in scikit-learn: a loss of 36.04."""


def predict(prob: np.ndarray) -> np.ndarray:
    """int64[N], the class of the highest probability; the first of several."""
    return np.asarray(np.argmax(prob, axis=1), dtype=np.int64)


def confusion(
    target: np.ndarray, predicted: np.ndarray, n_classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Counts int64[C, C], or float64[B, C, C] with `weights` [B, N] (how often each row counts)."""
    cell = np.asarray(target) * n_classes + np.asarray(predicted)
    if weights is None:
        return np.bincount(cell, minlength=n_classes**2).reshape(n_classes, n_classes)
    one_hot = np.zeros((len(cell), n_classes**2))
    one_hot[np.arange(len(cell)), cell] = 1.0
    return (weights @ one_hot).reshape(-1, n_classes, n_classes)


def accuracy(matrix: np.ndarray) -> np.ndarray:
    """Share of rows on the diagonal, [...]."""
    return _ratio(_diagonal(matrix).sum(axis=-1), matrix.sum(axis=(-2, -1)))


def sensitivity(matrix: np.ndarray) -> np.ndarray:
    """TP / (TP + FN) of each class, [..., C]; NaN for a class without cases."""
    return _ratio(_diagonal(matrix), matrix.sum(axis=-1))


def specificity(matrix: np.ndarray) -> np.ndarray:
    """TN / (TN + FP) of each class against the rest, [..., C]; NaN where every row is a case."""
    hit = _diagonal(matrix)
    total = matrix.sum(axis=(-2, -1))[..., None]
    negatives = total - matrix.sum(axis=-1)
    return _ratio(negatives - (matrix.sum(axis=-2) - hit), negatives)


def precision(matrix: np.ndarray) -> np.ndarray:
    """TP / (TP + FP) of each class, [..., C]; NaN for a class that was never predicted."""
    return _ratio(_diagonal(matrix), matrix.sum(axis=-2))


def precision_or_zero(matrix: np.ndarray) -> np.ndarray:
    """`precision`, but 0 for a class that has cases and was never predicted, [..., C].

    The convention of scikit-learn's `zero_division=0`: refusing a class is not free. NaN remains
    for a class that is neither present nor predicted.
    """
    refused = (matrix.sum(axis=-2) == 0) & (matrix.sum(axis=-1) > 0)
    return np.where(refused, 0.0, precision(matrix))


def macro_precision(matrix: np.ndarray) -> np.ndarray:
    """Mean of `precision_or_zero` over the classes where it is defined, [...]."""
    return macro(precision_or_zero(matrix))


def npv(matrix: np.ndarray) -> np.ndarray:
    """TN / (TN + FN) of each class against the rest, [..., C]; NaN where it is always predicted."""
    hit = _diagonal(matrix)
    negative = matrix.sum(axis=(-2, -1))[..., None] - matrix.sum(axis=-2)
    return _ratio(negative - (matrix.sum(axis=-1) - hit), negative)


def f1(matrix: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), [..., C]; NaN for a class neither present nor predicted."""
    return _ratio(2 * _diagonal(matrix), matrix.sum(axis=-1) + matrix.sum(axis=-2))


def kappa(matrix: np.ndarray) -> np.ndarray:
    """Cohen's kappa of truth and prediction, [...]; NaN where chance alone would always agree.

    (p_o - p_e) / (1 - p_e): agreement beyond what the margins give (Cohen 1960).
    """
    total = matrix.sum(axis=(-2, -1))
    by_chance = _ratio((matrix.sum(axis=-1) * matrix.sum(axis=-2)).sum(axis=-1), total**2)
    return _ratio(accuracy(matrix) - by_chance, 1 - by_chance)


def mcc(matrix: np.ndarray) -> np.ndarray:
    """Matthews' correlation of truth and prediction, [...]; NaN where either is constant.

    For any number of classes the R_K of Gorodkin 2004, Comput Biol Chem 28:367.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    truth, predicted, total = matrix.sum(axis=-1), matrix.sum(axis=-2), matrix.sum(axis=(-2, -1))
    top = _diagonal(matrix).sum(axis=-1) * total - (truth * predicted).sum(axis=-1)
    spread = (total**2 - (truth**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return _ratio(top, np.sqrt(spread))


def macro(values: np.ndarray) -> np.ndarray:
    """Plain mean over the classes where the value is defined, [..., C] -> [...].

    An absent class is left out, not counted as 0. NaN if none remains.
    """
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def balanced_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Mean sensitivity of the classes that have cases, [...]: the same as macro sensitivity."""
    return macro(sensitivity(matrix))


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Log-odds of each class against the rest, float64[N, C], from logits [N, C].

    They rank rows as the softmax does, without the ties of probabilities that round to 0 or 1. Of
    two classes they are the difference of the logits, so both classes have the same AUC.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape[1] == 2:
        return logits - logits[:, ::-1]
    rest = [logsumexp(np.delete(logits, c, axis=1), axis=1) for c in range(logits.shape[1])]
    odds = logits - np.column_stack(rest)
    # Sums in another order differ in the last digits, which must not break ties.
    return np.round(odds, 12)


def auc(target: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve of each class against the rest, float64[C] (or [B, C]).

    The chance that a case scores above a non-case, ties counted half (the Mann-Whitney form).
    NaN where a class is absent or is all there is. `weights` [B, N] counts rows as often as given.
    """
    return _against_rest(_binary_auc, target, score, weights)


def _binary_auc(case: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Mann-Whitney AUC of one class, float64[B]. Exact for integer weights."""
    cases, others = np.flatnonzero(case), np.flatnonzero(~case)
    others = others[np.argsort(score[others], kind="stable")]
    below = np.searchsorted(score[others], score[cases], side="left")
    not_above = np.searchsorted(score[others], score[cases], side="right")
    # Weight of non-cases up to each position, starting with none.
    running = np.zeros((len(weights), len(others) + 1))
    np.cumsum(weights[:, others], axis=1, out=running[:, 1:])
    wins = (running[:, below] + running[:, not_above]) / 2
    case_weights = weights[:, cases]
    total = case_weights.sum(axis=1) * running[:, -1]
    return _ratio((case_weights * wins).sum(axis=1), total)


def average_precision(
    target: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Area under the precision-recall curve of each class against the rest, [C] (or [B, C]).

    The mean, over the cases, of the precision among all rows that score at least as high: the
    step-wise sum without interpolation, as in scikit-learn. NaN where a class is absent or is all
    there is: there is nothing to rank.
    """
    return _against_rest(_binary_ap, target, score, weights)


def _binary_ap(case: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted average precision of one class, float64[B]."""
    others = weights[:, ~case].sum(axis=1)
    order = np.argsort(-score, kind="stable")
    falling, case = -score[order], case[order]
    cases = falling[case]
    everyone = np.cumsum(weights[:, order], axis=1)
    case_weights = weights[:, order[case]]
    hits = np.cumsum(case_weights, axis=1)
    # The last row, and the last case, that scores as high as the case.
    last = np.searchsorted(falling, cases, side="right") - 1
    last_case = np.searchsorted(cases, cases, side="right") - 1
    above = everyone[:, last]
    precise = hits[:, last_case] / np.where(above > 0, above, 1.0)
    return _ratio((case_weights * precise).sum(axis=1), np.where(others > 0, hits[:, -1], 0.0))


def _against_rest(
    area: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    target: np.ndarray,
    score: np.ndarray,
    weights: np.ndarray | None,
) -> np.ndarray:
    """`area`(case, score, weights) of each class against the rest, float64[C] (or [B, C])."""
    counts = np.ones((1, len(target))) if weights is None else np.asarray(weights, dtype=np.float64)
    areas = np.full((len(counts), score.shape[1]), np.nan)
    for c in range(score.shape[1]):
        case = np.asarray(target) == c
        if case.any() and not case.all():
            areas[:, c] = area(case, score[:, c], counts)
    return areas[0] if weights is None else areas


def _diagonal(matrix: np.ndarray) -> np.ndarray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Quotient with NaN, and no warning, where the denominator is 0."""
    top, bottom = np.broadcast_arrays(
        np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    )
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def brier_rows(target: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Squared error of each row's probabilities, float64[N]; 0 is perfect.

    Two classes: of the positive one's probability, range 0 to 1. More: summed over the classes,
    range 0 to 2 (Brier 1950, Mon Weather Rev 78:1).
    """
    truth = np.asarray(target)[:, None] == np.arange(prob.shape[1])
    if prob.shape[1] == 2:
        return np.asarray((prob[:, 1] - truth[:, 1]) ** 2)
    return np.asarray(((prob - truth) ** 2).sum(axis=1))


def log_loss_rows(target: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Minus the natural log of the true class's probability (at least `FLOOR`), float64[N]."""
    true = prob[np.arange(len(target)), target]
    return np.asarray(-np.log(np.maximum(true, FLOOR)))


def brier_range(n_classes: int) -> tuple[int, int]:
    """Best and worst Brier score that `brier_rows` can give."""
    return (0, 1) if n_classes == 2 else (0, 2)


Metric = Callable[..., np.ndarray]
RATES: dict[str, Metric] = {
    "sensitivity": sensitivity,
    "specificity": specificity,
    "precision": precision,
    "npv": npv,
    "f1": f1,
}
"""Of a confusion matrix, by class."""
AREAS: dict[str, Metric] = {"auc": auc, "average_precision": average_precision}
"""Of targets and scores, by class."""
PER_CLASS = (*RATES, *AREAS)
OF_MATRIX: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_precision": macro_precision,
    "kappa": kappa,
    "mcc": mcc,
}
"""Of a confusion matrix, over all classes; the other `macro_` metrics are means of `RATES`."""
ROW_LOSSES: dict[str, Metric] = {"brier": brier_rows, "log_loss": log_loss_rows}
"""Of targets and probabilities, by row."""


def of_matrix(name: str, matrix: np.ndarray) -> np.ndarray:
    """One of `OF_MATRIX`, or the mean of one of `RATES` (`macro_f1`): [...] of [..., C, C]."""
    if name in OF_MATRIX:
        return OF_MATRIX[name](matrix)
    return macro(RATES[name.removeprefix("macro_")](matrix))


def by_class(target: np.ndarray, score: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of `PER_CLASS`, each float64[C]; `score` [N, C] ranks the rows."""
    matrix = confusion(target, predicted, score.shape[1])
    rates = {name: rate(matrix) for name, rate in RATES.items()}
    return rates | {name: area(target, score) for name, area in AREAS.items()}


def overall(
    target: np.ndarray, prob: np.ndarray, predicted: np.ndarray, rates: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The metrics of `OVERALL` except the calibration error, each float64[].

    `rates` is the result of `by_class`.
    """
    matrix = confusion(target, predicted, prob.shape[1])
    return {
        **{f"macro_{name}": macro(rates[name]) for name in PER_CLASS if name != "npv"},
        **{name: metric(matrix) for name, metric in OF_MATRIX.items()},
        **{name: loss(target, prob).mean() for name, loss in ROW_LOSSES.items()},
    }
