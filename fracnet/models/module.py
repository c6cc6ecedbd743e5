"""The LightningModule that wraps any backbone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import CatMetric

from fracnet.errors import UserError
from fracnet.evaluation import metrics
from fracnet.models.inputs import grey_input
from fracnet.objects import build

Batch = Mapping[str, Tensor]


class Classifier(LightningModule):
    """Grey bytes in, logits out; trained with cross-entropy.

    Hyper-parameters are plain containers, so a checkpoint loads with `weights_only=True`.

    Args:
        model: `_target_` of the backbone and its arguments, and `normalise`.
        classes: class names in the order of the logits.
        optim: `_target_` of a torch optimiser and its arguments.
        scheduler: `_target_` of a torch scheduler and its arguments, or None.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        classes: Sequence[str],
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        arguments = {key: value for key, value in model.items() if key != "normalise"}
        self.backbone: nn.Module = build(arguments, "model", num_classes=len(classes))
        self.input = grey_input(self.backbone, str(model["normalise"]))
        self.classes = list(classes)
        self.loss = nn.CrossEntropyLoss()
        # A whole split is gathered before anything is divided: no figure is a mean over batches.
        self.val_logits = CatMetric(nan_strategy="disable")  # by default NaN is dropped unseen
        self.val_targets = CatMetric(nan_strategy="disable")
        # Whoever loads a checkpoint has its weights: nothing is to be fetched again.
        saved = dict(model)
        saved |= {"pretrained": False} if "pretrained" in saved else {}
        saved |= {"weights": None} if "weights" in saved else {}
        self.save_hyperparameters(
            {
                "model": saved,
                "classes": self.classes,
                "optim": dict(optim),
                "scheduler": dict(scheduler) if scheduler else None,
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits float [N, C] of uint8 [N, 1, H, W]."""
        logits: Tensor = self.backbone(self.input(images))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of one batch."""
        loss: Tensor = self.loss(self(batch["image"]), batch["target"])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["target"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Gather one batch of the validation split."""
        self.val_logits.update(self(batch["image"]).float())
        self.val_targets.update(batch["target"])

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the whole split under `val/`."""
        logits, target = self.val_logits.compute(), self.val_targets.compute().long()
        self.val_logits.reset()
        self.val_targets.reset()
        loss = float(cross_entropy(logits.double(), target))
        if not math.isfinite(loss):
            raise UserError(
                f"the validation loss is {loss} in epoch {self.current_epoch}: training has "
                f"diverged with optim.lr={self.hparams['optim']['lr']}; "
                "try a smaller optim.lr or trainer.gradient_clip_val=1."
            )
        probability = logits.double().softmax(dim=1).cpu().numpy()
        truth = target.cpu().numpy()
        matrix = metrics.confusion(truth, metrics.predict(probability), len(self.classes))
        figures: dict[str, Any] = {
            "loss": loss,
            "accuracy": metrics.accuracy(matrix),
            "macro_sensitivity": metrics.macro(metrics.sensitivity(matrix)),
            "macro_specificity": metrics.macro(metrics.specificity(matrix)),
            "macro_auc": metrics.macro(metrics.auc(truth, probability)),
        }
        self.log_dict({f"val/{name}": float(value) for name, value in figures.items()})

    def predict_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Row numbers int64 [N] of the manifest and float32 logits [N, C]."""
        return {"row": batch["row"], "logits": self(batch["image"]).float()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over all parameters and the schedule, stepped once an epoch."""
        optimiser = build(self.hparams["optim"], "optim", self.parameters())
        if self.hparams["scheduler"] is None:
            return optimiser
        schedule = build(self.hparams["scheduler"], "scheduler", optimiser)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "epoch", "monitor": "val/loss"},
        }
