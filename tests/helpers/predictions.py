"""Predictions tables of known make-up, without a model or images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fracnet.evaluation.predictions import assemble

UPPER_LIMB = ("elbow", "fingers", "forearm", "humerus", "shoulder", "wrist")
# The test split of the six-class upper-limb dataset.
UPPER_LIMB_COUNTS = (13, 22, 13, 14, 15, 6)


def draw_scores(
    rng: np.random.Generator,
    target: np.ndarray,
    n_classes: int,
    separation: float,
    group: np.ndarray | None = None,
    correlation: float = 0.0,
) -> np.ndarray:
    """Normal scores [N, C]; the true class is `separation` higher, groups share a part."""
    scores = rng.normal(size=(len(target), n_classes))
    if group is not None:
        shared = rng.normal(size=(int(group.max()) + 1, n_classes))[group]
        scores = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * scores
    scores[np.arange(len(target)), target] += separation
    return scores


def make_table(
    counts: Sequence[int],
    separation: float = 2.0,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    views: int | None = None,
    split: str = "test",
) -> pd.DataFrame:
    """A table with `counts[c]` rows of class c; with `views`, as many rows a patient."""
    names = tuple(classes or UPPER_LIMB[: len(counts)])
    target = np.repeat(np.arange(len(counts)), counts)
    rows = pd.DataFrame(
        {
            "path": [f"{split}/{i:04d}.png" for i in range(len(target))],
            "split": split,
            "label": np.array(names)[target],
            "patient": None
            if views is None
            else [f"p{i // views:04d}" for i in range(len(target))],
            "study": None,
        }
    )
    scores = draw_scores(np.random.default_rng(seed), target, len(names), separation)
    return assemble(rows, names, scores)
