"""Logits of cached images outside a training: a plain loop, with or without several views of each.

Test-time augmentation shows the network an image and its mirror images and averages their
probabilities.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fracnet.models.module import Classifier
from fracnet.progress import Show, unseen

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
    show: Show[Any] = unseen,
) -> np.ndarray:
    """Logits float64 [n, C] of `rows` int64 [n] of `images` uint8 [N, S, S].

    tta: names of `VIEWS` that are shown beside the image itself. The logits then are the logs of
        the views' mean probabilities.
    device: where to; float32 throughout, whatever the run was trained in.
    """
    model = model.eval().to(device)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    found = [np.empty((0, len(model.classes)))]
    with torch.inference_mode():
        for batch in show(batches, len(batches), "predicting"):
            pixels = torch.from_numpy(np.ascontiguousarray(images[batch]))[:, None].to(device)
            logits = model(pixels).double()
            if tta:
                views = [logits, *(model(VIEWS[name](pixels)).double() for name in tta)]
                # The log of a mean of exponentials: exact where a probability is near 0.
                stacked = torch.stack([view.log_softmax(dim=1) for view in views])
                logits = stacked.logsumexp(dim=0) - float(np.log(len(views)))
            found.append(logits.cpu().numpy())
    return np.concatenate(found)
