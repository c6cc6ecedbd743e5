"""The LightningModule that wraps any backbone.

The first layer of every model: from grey bytes to what the backbone was made for.

The optimizer over a model's weights: rates of their own for backbone and head, and L1.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import CatMetric

from fracnet.config.instantiate import build, locate
from fracnet.metrics import classification
from fracnet.models.backbones import add_head_dropout, find_heads, input_statistics
from fracnet.models.losses import make_loss
from fracnet.utils.errors import Diverged, UserError

FIXED = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}


class GreyInput(nn.Module):
    """Replicate to three channels, scale to 0..1, normalize; runs on the device.

    Maps uint8 [N, 1, H, W] to float32 [N, 3, H, W].
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        # Buffers travel with the checkpoint and with an exported model.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, 3, H, W] of uint8 [N, 1, H, W]."""
        assert images.dtype == torch.uint8, images.dtype
        # (x / 255 - mean) / std as one pass over the large result instead of three.
        scale, shift = 1 / (255 * self.std), -self.mean / self.std
        return torch.addcmul(shift, images.float(), scale)


def grey_input(backbone: nn.Module, normalize: str) -> GreyInput:
    """The input layer that `model.normalize` asks for.

    Args:
        backbone: asked for the statistics of its weights where `normalize` is `weights`.
        normalize: `weights`, `imagenet` or `half`.

    Raises:
        UserError: `weights`, but the backbone names none.
    """
    if normalize in FIXED:
        return GreyInput(*FIXED[normalize])
    found = input_statistics(backbone)
    if found is None:
        raise UserError(
            f"model.normalize={normalize}: {type(backbone).__name__} does not say which mean and "
            "standard deviation its weights expect; allowed for it: imagenet, half."
        )
    return GreyInput(*found)


OPTIMIZER_OWN_KEYS = ("backbone_lr_factor", "l1")

# Other ways to take a step, of which torch allows one: a user who names one has chosen.
WAYS = ("fused", "foreach", "capturable", "differentiable")


def make_optimizer(
    node: Mapping[str, Any], module: nn.Module, backbone: nn.Module, *, fuse: bool = True
) -> torch.optim.Optimizer:
    """The optimizer that `optim._target_` names.

    Where `optim.backbone_lr_factor` is not 1 there are two groups of weights: first the head's
    with `optim.lr`, then all others with `optim.lr` times the factor. Everything else, weight
    decay and schedule too, holds for both. Frozen weights are in it as well: they have no
    gradient, so they stay until they are thawed.

    Args:
        node: `_target_`, its arguments, and the keys of fracnet's own.
        module: all that is trained.
        backbone: the part of it that maps images to logits.
        fuse: take a step in one pass over the weights, where torch's optimizer can: on a CPU
            that takes about a third of the time of Adam's usual step.
    """
    arguments = {key: value for key, value in node.items() if key not in OPTIMIZER_OWN_KEYS}
    if fuse and _can_be_fused(arguments, module):
        arguments["fused"] = True
    factor = float(node.get("backbone_lr_factor", 1.0))
    if factor == 1.0:
        optimizer: torch.optim.Optimizer = build(arguments, "optim", module.parameters())
        return optimizer
    heads = find_heads(backbone, f"optim.backbone_lr_factor={factor}")
    head = {id(weight): weight for layer in heads for weight in layer.parameters()}
    rest = [weight for weight in module.parameters() if id(weight) not in head]
    groups = [{"params": list(head.values())}, {"params": rest, "lr": node["lr"] * factor}]
    optimizer = build(arguments, "optim", groups)
    return optimizer


def _can_be_fused(arguments: Mapping[str, Any], module: nn.Module) -> bool:
    target = str(arguments["_target_"])
    if not target.startswith("torch.optim.") or any(way in arguments for way in WAYS):
        return False
    on = {(weight.device.type, weight.is_floating_point()) for weight in module.parameters()}
    known = inspect.signature(locate(target, "optim")).parameters
    return "fused" in known and on <= {("cpu", True), ("cuda", True)}


def l1_penalty(module: nn.Module) -> Tensor:
    """Sum of the absolute weights that are being trained, as a scalar on their device.

    Matrices and convolution kernels count; biases, the scales of normalization layers and
    frozen weights do not.
    """
    parts = [w.abs().sum() for w in module.parameters() if w.requires_grad and w.ndim >= 2]
    return torch.stack(parts).sum() if parts else torch.zeros(())


Batch = Mapping[str, Tensor]

OWN_KEYS = ("normalize", "freeze", "head_dropout")  # of the model's node, not the backbone's
PLAIN = {"_target_": "fracnet.models.losses.CrossEntropy"}


def without_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """The node for whoever loads a checkpoint: it has the weights, nothing is fetched again."""
    nothing = {"pretrained": False, "weights": None}
    return dict(model) | {key: value for key, value in nothing.items() if key in model}


def validation_figures(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """What is logged of int64 [N] and [N, C] beside the loss; an undefined figure is NaN."""
    matrix = classification.confusion(
        truth, classification.predict(probability), probability.shape[1]
    )
    figures = {
        "accuracy": classification.accuracy(matrix),
        "macro_sensitivity": classification.macro(classification.sensitivity(matrix)),
        "macro_specificity": classification.macro(classification.specificity(matrix)),
        "macro_auc": classification.macro(classification.auc(truth, probability)),
    }
    return {name: float(value) for name, value in figures.items()}


class Classifier(LightningModule):
    """Grey bytes in, logits out; trained with any loss, validated with plain cross-entropy.

    Hyper-parameters are plain containers, so a checkpoint loads with `weights_only=True`.

    Args:
        model: `_target_` of the backbone and its arguments, `normalize` and `head_dropout`.
            (`freeze` is the trainer's: see `fracnet.training.callbacks`.)
        classes: class names in the order of the logits.
        optim: `_target_` of a torch optimizer and its arguments, `backbone_lr_factor` and `l1`.
        scheduler: `_target_` of a torch scheduler and its arguments, or None.
        loss: `_target_` of a loss and its arguments, or None for the cross-entropy.
        class_weights: one a class, passed to the loss as `weight`, or None.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        classes: Sequence[str],
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        arguments = {key: value for key, value in model.items() if key not in OWN_KEYS}
        self.backbone: nn.Module = build(arguments, "model", num_classes=len(classes))
        if model.get("head_dropout"):
            add_head_dropout(self.backbone, float(model["head_dropout"]))
        if model.get("freeze", "none") != "none":
            find_heads(self.backbone, f"model.freeze={model['freeze']}")
        if optim.get("backbone_lr_factor", 1.0) != 1.0:
            find_heads(self.backbone, f"optim.backbone_lr_factor={optim['backbone_lr_factor']}")
        self.input = grey_input(self.backbone, str(model["normalize"]))
        self.classes = list(classes)
        self.loss = make_loss(loss or PLAIN, self.classes, class_weights)
        self.l1 = float(optim.get("l1", 0.0))
        # A whole split is gathered before anything is divided: no figure is a mean over batches.
        self.val_logits = CatMetric(nan_strategy="disable")  # by default NaN is dropped unseen
        self.val_targets = CatMetric(nan_strategy="disable")
        self.val_rows = CatMetric(nan_strategy="disable")
        self.save_hyperparameters(
            {
                "model": without_weights(model),
                "classes": self.classes,
                "optim": dict(optim),
                "scheduler": dict(scheduler) if scheduler else None,
                "loss": dict(loss) if loss else None,
                "class_weights": None if class_weights is None else list(class_weights),
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits float [N, C] of uint8 [N, 1, H, W]."""
        logits: Tensor = self.backbone(self.input(images))
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The chosen loss of one batch, plus the L1 penalty where one is asked for."""
        loss: Tensor = self.loss(self(batch["image"]), batch["target"])
        if self.l1:
            loss = loss + self.l1 * l1_penalty(self.backbone)
        self._log_at_the_end(loss, len(batch["target"]))
        return loss

    def _log_at_the_end(self, loss: Tensor, n: int) -> None:
        """Log the epoch's mean loss an image, with its last batch.

        To log each batch would take a good part of the time that Lightning's loop takes.
        """
        if self.trainer.fit_loop.epoch_loop.batch_progress.current.ready == 1:
            self._loss, self._shown = loss.new_zeros((), dtype=torch.float64), 0
        self._loss += n * loss.detach()
        self._shown += n
        if self.trainer.is_last_batch:
            mean, n = self._loss / self._shown, self._shown
            self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=n, sync_dist=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Gather one batch of the validation split."""
        self.val_logits.update(self(batch["image"]).float())
        self.val_targets.update(batch["target"])
        self.val_rows.update(batch["row"])

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the whole split under `val/`."""
        logits, target = self.val_logits.compute(), self.val_targets.compute().long()
        # Several processes may have shown a row twice to fill their shares.
        _, once = np.unique(self.val_rows.compute().long().cpu().numpy(), return_index=True)
        logits, target = logits[once], target[once]
        for gathered in (self.val_logits, self.val_targets, self.val_rows):
            gathered.reset()
        # Neither weighted nor smoothed nor penalized: runs with different losses compare by it.
        loss = float(cross_entropy(logits.double(), target))
        if not math.isfinite(loss):
            raise Diverged(
                f"the validation loss is {loss} in epoch {self.current_epoch + 1}: training has "
                f"diverged with optim.lr={self.hparams['optim']['lr']}; "
                "try a smaller optim.lr or trainer.gradient_clip_val=1."
            )
        probability = logits.double().softmax(dim=1).cpu().numpy()
        truth = target.cpu().numpy()
        figures = {"loss": loss} | validation_figures(truth, probability)
        self.log_dict({f"val/{name}": value for name, value in figures.items()})

    def predict_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Row numbers int64 [N] of the manifest and float32 logits [N, C]."""
        return {"row": batch["row"], "logits": self(batch["image"]).float()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over all weights and the schedule, stepped once an epoch."""
        # Lightning clips no gradients that such a step would scale back itself.
        scaled = self._trainer is not None and self._trainer.precision == "16-mixed"
        optimizer = make_optimizer(self.hparams["optim"], self, self.backbone, fuse=not scaled)
        if self.hparams["scheduler"] is None:
            return optimizer
        schedule = build(self.hparams["scheduler"], "scheduler", optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "epoch", "monitor": "val/loss"},
        }
