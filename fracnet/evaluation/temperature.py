"""Temperature scaling: one number, fitted on validation, by which all logits are divided.

C. Guo et al. 2017, On calibration of modern neural networks, ICML. It changes how sure a model
sounds and never which class it finds likeliest.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import softmax

from fracnet.evaluation.levels import TINY
from fracnet.evaluation.predictions import LOGIT, PROB, assemble, classes_of, probabilities, targets


@dataclass(frozen=True)
class Temperature:
    """Logits are divided by `value`; `note` says why it is 1 where it could not be fitted."""

    value: float
    note: str = ""


def fit(table: pd.DataFrame) -> Temperature:
    """The temperature with the least log loss on these rows, those of validation.

    1, with a note, where there is none: rows of one class only, every row right (the loss falls
    for ever as T nears 0), or scores that do not go with the labels (it falls for ever as T grows).
    """
    scores, target = logits(table), targets(table)
    if len(np.unique(target)) < 2:
        return Temperature(1.0, "not fitted: all validation images are of one class")
    scores = scores - scores.max(axis=1, keepdims=True)
    own = scores[np.arange(len(target)), target]

    def slope(beta: float) -> float:
        """Derivative of the log loss by beta = 1/T, in which it is convex."""
        return float(((softmax(beta * scores, axis=1) * scores).sum(axis=1) - own).mean())

    if slope(0.0) >= 0:
        return Temperature(1.0, "not fitted: the scores do not go with the labels of validation")
    if own.min() == 0:
        return Temperature(1.0, "not fitted: every validation image is right, so T would be 0")
    high = 1.0
    while slope(high) < 0:
        high *= 2
        # A row that is wrong by next to nothing; then T is next to 0, too.
        if high > 1e6:
            return Temperature(1.0, "not fitted: T would be under one millionth")
    beta = float(brentq(slope, 0.0, high, xtol=1e-15, rtol=1e-14))
    return Temperature(1 / beta)


def calibrated(table: pd.DataFrame, temperature: float) -> pd.DataFrame:
    """The table with logits divided by `temperature` and the probabilities that follow.

    With 1 it is the table itself, to the last digit.
    """
    if temperature == 1:
        return table
    kept = [c for c in table.columns if not str(c).startswith((PROB, LOGIT))]
    return assemble(table[kept], classes_of(table), logits(table) / temperature)


def logits(table: pd.DataFrame) -> np.ndarray:
    """float64[N, C]; the logs of the probabilities where the table holds no logits."""
    columns = [f"{LOGIT}{name}" for name in classes_of(table)]
    if set(columns) <= set(table.columns):
        return table[columns].to_numpy(dtype=np.float64)
    return np.log(np.maximum(probabilities(table), TINY))
