"""Logits together with what the head sees: the features of an image, for comparing images."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fracnet.errors import UserError
from fracnet.models.heads import find_heads
from fracnet.models.module import Classifier

Seen = tuple[np.ndarray, np.ndarray | None]


def watched(model: Classifier, device: str = "cpu") -> Callable[[np.ndarray], Seen]:
    """A function from uint8 [n, S, S] to logits float64 [n, C] and features float32 [n, F].

    Features are the input of the (first) head, averaged over places where it has any; None for a
    network without a head that can be told (`heads.find_heads`). float32 throughout.
    """
    model = model.eval().to(device)
    head = _head(model)
    held: list[Tensor] = []

    def look(images: np.ndarray) -> Seen:
        # Listens no longer than this: heatmaps may be made by the same network in between.
        hook = head and head.register_forward_pre_hook(lambda _, given: held.append(given[0]))
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(np.ascontiguousarray(images))[:, None].to(device)
                logits = model(pixels).double().cpu().numpy()
            return logits, _averaged(held[0]).float().cpu().numpy() if held else None
        finally:
            held.clear()
            if hook:
                hook.remove()

    return look


def _head(model: Classifier) -> nn.Module | None:
    try:
        return find_heads(model.backbone, "features")[0]
    except UserError:  # no head to be told: then there are no features, which callers can say
        return None


def _averaged(given: Tensor) -> Tensor:
    """[n, F] of [n, F], [n, L, F] (tokens) or [n, F, h, w] (a head that is a convolution)."""
    if given.ndim == 4:
        return given.mean(dim=(2, 3))
    return given.flatten(1, -2).mean(dim=1) if given.ndim == 3 else given.flatten(1)
