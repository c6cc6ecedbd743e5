"""Accuracy on the train split after each epoch, for those who ask for it.

    fracnet train 'callbacks.train={_target_: fracnet.training.train_accuracy.TrainAccuracy}'

The images are not augmented and the network is in evaluation mode, as in validation, so the two
compare. It costs a forward pass over the train images per epoch.
"""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from fracnet.data.datamodule import RadiographData
from fracnet.training.callbacks import Curves

COLUMN = "train/accuracy"


class TrainAccuracy(Callback):
    """Logs `train/accuracy`, also to metrics.csv."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add the column to metrics.csv."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Curves) and COLUMN not in callback.columns:
                callback.columns.append(COLUMN)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log it, with the weights that are validated."""
        if not trainer.sanity_checking:
            pl_module.log(COLUMN, accuracy_on("train", trainer, pl_module), sync_dist=True)


def accuracy_on(split: str, trainer: Trainer, pl_module: LightningModule) -> float:
    """Share of a split's images whose class is the most probable one; on several devices of a part.

    The network must be in evaluation mode and record no gradients.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, RadiographData), "needs trainer.fit(datamodule=)"
    right = total = 0
    for batch in data.loader(split):
        logits = pl_module(batch["image"].to(pl_module.device))
        right += int((logits.argmax(dim=1).cpu() == batch["target"]).sum())
        total += len(batch["target"])
    assert not torch.is_grad_enabled()
    return right / total
