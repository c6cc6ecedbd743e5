"""Changes of a training batch on its device: the size of its images, mixup and cutmix.

Validation and prediction are untouched: they always see whole images at full size.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

_STREAM = 0x313C  # separates these draws from others with the same seed


def size_of_epoch(sizes: Sequence[int], epoch: int, epochs: int) -> int:
    """The size of epoch 0 to `epochs` - 1: each size for an equal share of the epochs."""
    return sizes[min(len(sizes) - 1, epoch * len(sizes) // epochs)]


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 [N, 1, size, size] of uint8 [N, 1, S, S], bilinear with antialiasing."""
    if images.shape[-1] == size:
        return images
    resized = functional.interpolate(
        images.float(), size=(size, size), mode="bilinear", antialias=True
    )
    return resized.round_().clamp_(0, 255).to(torch.uint8)


class ImageSizes(Callback):
    """Trains with smaller images in early epochs, which take a fraction of the time.

    Progressive resizing, as in Tan and Le, EfficientNetV2, 2021, arXiv:2104.00298. The cache holds
    full-size images, so that a size costs neither a second cache nor a new loader.

    sizes: pixels per side, each for an equal share of the epochs.
    first: epochs before these, at full size: while the backbone is frozen, its features are those
        of whole images.
    """

    def __init__(self, sizes: Sequence[int], first: int = 0) -> None:
        self.sizes, self.first = list(sizes), first

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Resize the batch in place."""
        assert trainer.max_epochs is not None
        epoch, epochs = trainer.current_epoch - self.first, trainer.max_epochs - self.first
        if epoch >= 0:
            batch["image"] = resize(batch["image"], size_of_epoch(self.sizes, epoch, epochs))


class MixImages(Callback):
    """Mixes each image with another of its batch: mixup, cutmix, or one of both by chance.

    mixup (Zhang et al., 2018, arXiv:1710.09412) averages two images with weights from a
    Beta(alpha, alpha) distribution; cutmix (Yun et al., 2019, arXiv:1905.04899) replaces a
    rectangle. The draws are a function of (seed, epoch, batch) alone.

    The batch gets `other_target` int64 [N] and `share`, the weight of `target`: the loss is
    share * loss(target) + (1 - share) * loss(other_target).

    mixup, cutmix: alpha of each; 0 for not at all.
    """

    def __init__(self, seed: int, mixup: float, cutmix: float) -> None:
        assert mixup > 0 or cutmix > 0
        self.seed, self.mixup, self.cutmix = seed, mixup, cutmix

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Mix the batch in place."""
        entropy = [_STREAM, self.seed, trainer.current_epoch, batch_idx, trainer.global_rank]
        draw = np.random.default_rng(entropy)
        cut = self.cutmix > 0 and (self.mixup == 0 or draw.random() < 0.5)
        alpha = self.cutmix if cut else self.mixup
        share = float(draw.beta(alpha, alpha))
        own: float | Tensor = share  # of each pixel
        if cut:
            own, share = _outside_a_rectangle(batch["image"], share, draw)
        batch |= {
            "image": _mix(batch["image"], own),
            "other_target": batch["target"].flip(0),
            "share": share,
        }
        if "map" in batch:  # of the annotations
            batch["map"] = _mix(batch["map"][:, None], own)[:, 0]
            batch["known"] = batch["known"] & batch["known"].flip(0)


def _mix(images: Tensor, own: float | Tensor) -> Tensor:
    """uint8 [N, 1, h, w], each mixed with another; own: its weight, float [1, 1, H, W] or one."""
    if isinstance(own, Tensor):
        height, width = images.shape[-2:]
        own = functional.adaptive_avg_pool2d(own, (height, width))
    others = images.flip(0)  # the order of an epoch is random already
    return torch.lerp(others.float(), images.float(), own).round_().to(torch.uint8)


def _outside_a_rectangle(
    images: Tensor, share: float, draw: np.random.Generator
) -> tuple[Tensor, float]:
    """float32 [1, 1, H, W], 1 outside of a rectangle and 0 in it; the share of the area outside.

    The rectangle has 1 - share of the area, less what lies outside the image.
    """
    height, width = images.shape[-2:]
    side = math.sqrt(1 - share)
    top, bottom = _span(height, side, draw)
    left, right = _span(width, side, draw)
    own = images.new_ones((1, 1, height, width), dtype=torch.float32)
    own[..., top:bottom, left:right] = 0
    return own, 1 - (bottom - top) * (right - left) / (height * width)


def _span(length: int, share: float, draw: np.random.Generator) -> tuple[int, int]:
    """Start and end of a share of a length around a random place, cut off at the ends."""
    center, half = int(draw.integers(length)), round(share * length / 2)
    return max(0, center - half), min(length, center + half)
