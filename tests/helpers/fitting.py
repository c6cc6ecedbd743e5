"""Fit a LightningModule on a few random images, with networks for that purpose."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fracnet.models.classifier import Classifier


class NormNet(nn.Module):
    """TinyNet with batch normalization."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, kernel_size=3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.convolution(images)).relu().mean(dim=(2, 3))
        logits: Tensor = self.head(features)
        return logits


class Headless(nn.Module):
    """Nothing in it is a linear layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, num_classes, kernel_size=3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.convolution(images).mean(dim=(2, 3))
        return logits


NORM = {"_target_": "helpers.fitting.NormNet", "normalize": "half"}
HEADLESS = {"_target_": "helpers.fitting.Headless", "normalize": "half"}


def batches(count: int, seed: int, classes: int = 3) -> DataLoader[Any]:
    """`count` batches of four grey images of 16 pixels."""
    draw = torch.Generator().manual_seed(seed)
    parts = [
        {
            "image": torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8, generator=draw),
            "target": torch.randint(0, classes, (4,), generator=draw),
            "row": torch.arange(4) + 4 * place,
        }
        for place in range(count)
    ]
    return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


def fit_tiny(
    model: Classifier,
    folder: Path,
    epochs: int,
    callbacks: Sequence[Callback] = (),
    resume: Path | None = None,
) -> Trainer:
    """Three batches of training and two of validation an epoch, always the same ones."""
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=any(hasattr(c, "best_model_path") for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        log_every_n_steps=1,
    )
    trainer.fit(
        model,
        batches(3, seed=1),
        batches(2, seed=2),
        ckpt_path=None if resume is None else str(resume),
        weights_only=None if resume is None else True,
    )
    return trainer
