"""The same training as lightning-hydra-template has it: LightningModule, torchmetrics, Trainer.

python -m experiments.clock.lightning_template labels.csv EPOCHS SEED SIZE
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from experiments.clock.plain_loop import Radiographs, split_transforms
from fracnet.models.backbones import efficientnet_lite0


class Data(LightningDataModule):
    """Training and validation images, transformed by torchvision."""

    def __init__(self, labels: Path, size: int) -> None:
        super().__init__()
        table = pd.read_csv(labels)
        training, plain = split_transforms(size)
        self.train = Radiographs(table, "train", training)
        self.val = Radiographs(table, "val", plain)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled."""
        return DataLoader(
            self.train, batch_size=32, shuffle=True, num_workers=2, persistent_workers=True
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        return DataLoader(self.val, batch_size=32, num_workers=2, persistent_workers=True)


class Module(LightningModule):
    """Loss and accuracy as torchmetrics, Adam, the rate lowered on a plateau."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.net = efficientnet_lite0(classes)
        self.criterion = nn.CrossEntropyLoss()
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.best = MaxMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        images, targets = batch
        logits = self.net(images)
        loss: Tensor = self.criterion(logits, targets)
        self.train_loss(loss)
        self.train_accuracy(logits, targets)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/acc", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Update the metrics."""
        images, targets = batch
        logits = self.net(images)
        self.val_loss(self.criterion(logits, targets))
        self.val_accuracy(logits, targets)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True)
        self.log("val/acc", self.val_accuracy, on_step=False, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        """Log the best accuracy so far."""
        self.best(self.val_accuracy.compute())
        self.log("val/acc_best", self.best.compute(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Adam, and its rate."""
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=10)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"},
        }


def main(labels: Path, epochs: int, seed: int, size: int) -> None:
    """Train, and print the validation accuracy of each epoch."""
    seed_everything(seed, workers=True, verbose=False)
    data = Data(labels, size)

    def tell(trainer: Trainer, module: LightningModule) -> None:
        accuracy = float(trainer.callback_metrics["val/acc"])
        print(f"epoch {trainer.current_epoch + 1}/{epochs}  accuracy {accuracy:.4f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[
                ModelCheckpoint(folder, monitor="val/acc", mode="max", save_last=True),
                EarlyStopping("val/acc", mode="max", patience=100),
                LambdaCallback(on_train_epoch_end=tell),
            ],
        )
        trainer.fit(Module(len(data.train.classes)), data)


if __name__ == "__main__":
    path, *numbers = sys.argv[1:]
    main(Path(path), *map(int, numbers))
