"""A tiny network, also as an example of a user's own class named by `_target_`."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn


class TinyNet(nn.Module):
    """One convolution and a linear layer; quick enough for every test."""

    def __init__(self, num_classes: int, width: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, kernel_size=3, stride=2)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.convolution(images)).mean(dim=(2, 3))
        logits: Tensor = self.head(self.dropout(features))
        return logits


class TinyNormNet(nn.Module):
    """As TinyNet, with batch normalization."""

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, width, kernel_size=3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.convolution(images))).mean(dim=(2, 3))
        logits: Tensor = self.head(features)
        return logits


class NormedHead(TinyNet):
    """Normalizes over nothing but the images of a batch."""

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__(num_classes, width)
        self.norm = nn.BatchNorm1d(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.norm(super().forward(images))
        return logits


TINY = {"_target_": "helpers.models.TinyNet", "normalize": "half"}
ADAM = {"_target_": "torch.optim.Adam", "lr": 0.01}


class Pretrained(TinyNet):
    """As TinyNet; `pretrained` stands for weights from elsewhere. flat: no map of the image."""

    def __init__(self, num_classes: int, pretrained: bool = False, flat: bool = False) -> None:
        super().__init__(num_classes)
        self.flat = flat
        if flat:
            del self.convolution

    def forward(self, images: Tensor) -> Tensor:
        if not self.flat:
            return super().forward(images)
        logits: Tensor = self.head(images.flatten(1)[:, : self.head.in_features])
        return logits


class TwoLogits(TinyNet):
    """Always gives two logits."""

    def __init__(self, num_classes: int, width: int = 4, dropout: float = 0.0) -> None:
        super().__init__(2, width, dropout)


class FixedSize(TinyNet):
    """Works at 32 pixels alone."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[-1] == 32, "images of 32 pixels"
        return super().forward(images)


class StopAfterFirstStep(Callback):
    """Writes the names of all imported modules to `path`, and interrupts the training."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def on_train_batch_end(self, *_: Any) -> None:
        self._path.write_text("\n".join(sys.modules), encoding="utf-8")
        raise KeyboardInterrupt
