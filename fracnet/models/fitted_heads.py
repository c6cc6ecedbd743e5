"""The heads `logistic` and `knn`, fitted to the features of a frozen network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fracnet.models.heads import KnnHead, find_heads
from fracnet.models.logistic import fit_logistic, log_loss
from fracnet.utils.progress import Progress


def fit_head(
    model: nn.Module,
    node: Mapping[str, Any],
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    class_weights: Sequence[float] | None,
    progress: Progress[Any],
) -> dict[str, Any]:
    """Fit the head `logistic` or `knn` of a network; validation chooses C or k by its log loss.

    train, val: features float32 [n, F] and targets int64 [n].

    Returns what was chosen, by which metric, and all candidates; plain values.
    """
    (head,) = find_heads(model, "model.head")
    if isinstance(head, KnnHead):
        return _fit_knn(head, node["head_k"], train, val, class_weights)
    assert isinstance(head, nn.Linear)
    fit = fit_logistic(*train, *val, node["head_C"], class_weights, progress, key="model.head_C")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fit.weights))
        head.bias.copy_(torch.from_numpy(fit.bias))
    return fit.selected


def _fit_knn(
    head: KnnHead,
    candidates: Sequence[int],
    train: tuple[np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    class_weights: Sequence[float] | None,
) -> dict[str, Any]:
    (x, targets), (x_val, targets_val) = train, val
    classes = head.votes.shape[1]
    weights = torch.tensor(class_weights or [1.0] * classes, dtype=torch.float32)
    head.features = functional.normalize(torch.from_numpy(np.asarray(x)), dim=1)
    head.votes = weights * functional.one_hot(torch.from_numpy(targets), classes)
    tried = []
    for k in sorted({min(k, len(x)) for k in candidates}):
        head.neighbors.fill_(k)
        with torch.inference_mode():
            logits = head(torch.from_numpy(np.asarray(x_val))).double().numpy()
        tried.append({"k": k, "val/loss": log_loss(logits, targets_val)})
    best = min(tried, key=lambda candidate: candidate["val/loss"])
    head.neighbors.fill_(best["k"])
    return {"k": best["k"], "by": "val/loss", "value": best["val/loss"], "tried": tried}
