"""Logits of cached images outside a training, with test-time augmentation or with features.

Test-time augmentation shows the network an image and its mirror images and averages their
probabilities.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fracnet.models.classifier import Classifier
from fracnet.models.heads import find_heads
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "hflip": lambda images: images.flip(-1),
    "vflip": lambda images: images.flip(-2),
    "rot180": lambda images: images.flip(-1, -2),
}


def predict_logits(
    model: Classifier,
    images: np.ndarray,
    rows: np.ndarray,
    *,
    tta: Sequence[str] = (),
    batch_size: int = 64,
    device: str = "cpu",
    progress: Progress[Any] = no_progress,
) -> np.ndarray:
    """Logits float64 [n, C] of `rows` int64 [n] of `images` uint8 [N, S, S].

    tta: names of `VIEWS` to predict in addition to the image itself. The logits then are the logs
        of the views' mean probabilities.
    device: float32 there, whatever precision the run was trained in.
    """
    model = model.eval().to(device)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    parts = [np.empty((0, len(model.classes)))]
    with torch.inference_mode():
        for batch in progress(batches, len(batches), "predicting"):
            pixels = torch.from_numpy(np.ascontiguousarray(images[batch]))[:, None].to(device)
            logits = model(pixels).double()
            if tta:
                views = [logits, *(model(VIEWS[name](pixels)).double() for name in tta)]
                # The log of a mean of exponentials: exact where a probability is near 0.
                stacked = torch.stack([view.log_softmax(dim=1) for view in views])
                logits = stacked.logsumexp(dim=0) - float(np.log(len(views)))
            parts.append(logits.cpu().numpy())
    return np.concatenate(parts)


LogitsAndFeatures = tuple[np.ndarray, np.ndarray | None]


def logits_and_features(
    model: Classifier, device: str = "cpu"
) -> Callable[[np.ndarray], LogitsAndFeatures]:
    """A function from uint8 [n, S, S] to logits float64 [n, C] and features float32 [n, F].

    Features are the input of the (first) head, averaged over positions where it has any; None for
    a network without a known head (`find_heads`). float32 throughout.
    """
    model = model.eval().to(device)
    head = feature_head(model)
    inputs: list[Tensor] = []

    def predict(images: np.ndarray) -> LogitsAndFeatures:
        # Only for this call: heatmaps may use the same network in between.
        hook = head and head.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(np.ascontiguousarray(images))[:, None].to(device)
                logits = model(pixels).double().cpu().numpy()
            return logits, pooled_features(inputs[0]).float().cpu().numpy() if inputs else None
        finally:
            inputs.clear()
            if hook:
                hook.remove()

    return predict


def feature_head(model: Classifier) -> nn.Module | None:
    """The layer whose input `logits_and_features` gives; None if unknown."""
    try:
        return find_heads(model.backbone, "features")[0]
    except UserError:
        return None


def pooled_features(features: Tensor) -> Tensor:
    """[n, F] of [n, F], [n, L, F] (tokens) or [n, F, h, w] (a head that is a convolution)."""
    if features.ndim == 4:
        return features.mean(dim=(2, 3))
    return features.flatten(1, -2).mean(dim=1) if features.ndim == 3 else features.flatten(1)
