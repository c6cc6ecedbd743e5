"""What a model must beat: the most common class, and a classifier that sees only shortcuts.

Both return a predictions table for the given rows, which `summarize` scores like a model's.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fracnet.evaluation.predictions import NEVER, assemble


def majority(train_targets: np.ndarray, rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Give every row the train split's prevalences as probabilities, so its most common class.

    `train_targets` is int[N], indices into `classes`; `rows` are the manifest rows to predict.
    """
    counts = np.bincount(train_targets, minlength=len(classes)).astype(np.float64)
    assert len(counts) == len(classes), counts
    assert counts.sum() > 0, counts
    logits = np.full(len(classes), NEVER)
    np.log(counts / counts.sum(), out=logits, where=counts > 0)
    return assemble(rows, classes, np.tile(logits, (len(rows), 1)))


def shortcut(
    train_features: np.ndarray,
    train_targets: np.ndarray,
    features: np.ndarray,
    rows: pd.DataFrame,
    classes: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """Logistic regression (C=1) on standardized shortcut features, fitted on the train split.

    `train_features` is float[N, F] with `train_targets` int[N]; `features` float[M, F] belongs to
    the M manifest `rows` to predict. A class absent from train gets probability 0.
    """
    present = np.unique(train_targets)
    logits = np.full((len(rows), len(classes)), NEVER)
    if len(present) == 1:
        logits[:, present[0]] = 0.0
        return assemble(rows, classes, logits)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=1.0, max_iter=10_000, random_state=seed)
    )
    model.fit(train_features, train_targets)
    logits[:, present] = model.predict_log_proba(features)
    return assemble(rows, classes, np.maximum(logits, NEVER))
