"""The LightningModule around any backbone, with its input layer and its optimizer."""

import copy
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import CatMetric

from fracnet.config.instantiate import build, locate
from fracnet.metrics import classification
from fracnet.models.heads import FITTED, find_heads, set_head
from fracnet.models.localizer import (
    AUTO_WEIGHT,
    Cells,
    Localizer,
    localization_loss,
    localization_scores,
)
from fracnet.models.losses import make_loss
from fracnet.models.schedules import REHEARSAL_STEPS, build_schedule, interval_of, rate_factors
from fracnet.utils.errors import Diverged, UserError
from fracnet.utils.shared import in_use, shared

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
        return torch.addcmul(shift, images.to(scale.dtype), scale)


def grey_input(backbone: nn.Module, normalize: str) -> GreyInput:
    """The input layer for `model.normalize`: `imagenet`, `half`, or `weights` for the backbone's.

    Raises UserError where the backbone names no statistics of its weights.
    """
    if normalize in FIXED:
        return GreyInput(*FIXED[normalize])
    config = getattr(backbone, "pretrained_cfg", None) or {}
    if "mean" not in config or "std" not in config:
        raise UserError(
            f"model.normalize={normalize}: {type(backbone).__name__} names no mean and "
            "standard deviation for its weights; allowed: imagenet, half."
        )
    return GreyInput(list(config["mean"]), list(config["std"]))


OPTIMIZER_OWN_KEYS = ("backbone_lr_factor", "layer_decay", "l1")

# Implementations of a step, of which torch allows one: a user who names one has chosen.
STEP_OPTIONS = ("fused", "foreach", "capturable", "differentiable")


def make_optimizer(
    node: Mapping[str, Any], module: nn.Module, backbone: nn.Module, *, fuse: bool = True
) -> torch.optim.Optimizer:
    """The optimizer that `optim._target_` names.

    With `optim.backbone_lr_factor` or `optim.layer_decay` there is a group of weights for each
    learning rate, the head's first (see `rate_factors`). Weight decay, schedule and the rest apply
    to all. Frozen weights are included: without a gradient they do not change.

    node: `_target_`, its arguments, and fracnet's own keys. module: everything that is trained.
    backbone: the part that maps images to logits. fuse: take a step in one pass over the weights
    where torch's optimizer can; on a CPU in about a third of the time of Adam's usual step.
    """
    arguments = {key: value for key, value in node.items() if key not in OPTIMIZER_OWN_KEYS}
    if fuse and _can_fuse(arguments, module):
        arguments["fused"] = True
    factors = rate_factors(node, backbone)
    trained: Any = module.parameters()
    if factors:
        groups: dict[float, list[nn.Parameter]] = {}
        for weight in trained:
            groups.setdefault(factors.get(weight, 1.0), []).append(weight)
        order = sorted(groups, key=lambda factor: (factor != 1.0, -factor))
        trained = [{"params": groups[factor], "lr": node["lr"] * factor} for factor in order]
    optimizer: torch.optim.Optimizer = build(arguments, "optim", trained)
    return optimizer


def _can_fuse(arguments: Mapping[str, Any], module: nn.Module) -> bool:
    target = str(arguments["_target_"])
    if not target.startswith("torch.optim.") or any(option in arguments for option in STEP_OPTIONS):
        return False
    kinds = {(weight.device.type, weight.is_floating_point()) for weight in module.parameters()}
    parameters = inspect.signature(locate(target, "optim")).parameters
    return "fused" in parameters and kinds <= {("cpu", True), ("cuda", True)}


def l1_penalty(module: nn.Module) -> Tensor:
    """Sum of the absolute values of the trained weights, as a scalar on their device.

    Matrices and convolution kernels count; biases, the scales of normalization layers and
    frozen weights do not.
    """
    parts = [w.abs().sum() for w in module.parameters() if w.requires_grad and w.ndim >= 2]
    return torch.stack(parts).sum() if parts else torch.zeros(())


Batch = Mapping[str, Tensor]
ExtraMetrics = Callable[[np.ndarray, np.ndarray], Mapping[str, float]]
"""From manifest rows int64 [N] and logits float64 [N, C] to values by name."""

HEAD_KEYS = ("pool", "head", "head_hidden", "head_C", "head_k", "head_dropout")
OWN_KEYS = ("normalize", "freeze", *HEAD_KEYS)  # of the model's node, not the backbone's
LOCALIZATION_METRICS = ("pointing_game", "energy_inside")
"""Logged where the auxiliary head is trained and validation images are annotated."""
DEFAULT_LOSS = {"_target_": "fracnet.models.losses.CrossEntropy"}


def without_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model's node for loading a checkpoint, which has the weights: nothing is downloaded."""
    random = {"pretrained": False, "weights": None}
    return dict(model) | {key: value for key, value in random.items() if key in model}


def build_model(node: Mapping[str, Any], num_classes: int, channels_last: bool = False) -> Any:
    """Call the `_target_` of a model's node with its arguments and `num_classes`.

    Any model accepts `pretrained: false`: one without pretrained weights starts at random anyway.
    channels_last: what the caller makes of the weights' layout.
    """
    arguments = {key: value for key, value in node.items() if key not in OWN_KEYS}
    pretrained = arguments.get("pretrained", False)
    if not pretrained:
        parameters = inspect.signature(locate(str(node["_target_"]), "model")).parameters
        if pretrained is None or "pretrained" not in parameters:
            arguments.pop("pretrained", None)

    def make() -> tuple[Any, dict[str, Any]]:
        return build(arguments, "model", num_classes=num_classes), _collect_rng_states()

    if node.get("freeze") != "backbone" or not in_use():
        return make()[0]
    # A copy of the network, and the generators as they were left, give what building it would.
    options = json.dumps([arguments, num_classes, node.get("pool"), channels_last])
    key = options, torch.get_rng_state().numpy().tobytes()
    network, states = shared("network", key, make)
    _set_rng_states(states)
    network.cpu()  # a job that failed may have left layers that it shares on a GPU
    kept: dict[int, Any] = {}
    if node.get("head") in FITTED:  # then nothing changes the other layers but a move to a GPU
        heads = set(find_heads(network, f"model.head={node['head']}"))
        kept = {
            id(layer): layer for layer in network.modules() if heads.isdisjoint(layer.modules())
        }
    return copy.deepcopy(network, kept)


def validation_metrics(truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The metrics of targets int64 [N] and logits float64 [N, C] that every run logs.

    An undefined metric is NaN.
    """
    matrix = classification.confusion(truth, classification.predict(logits), logits.shape[1])
    areas = classification.auc(truth, classification.log_odds(logits))
    metrics = {
        "accuracy": classification.accuracy(matrix),
        "macro_sensitivity": classification.macro(classification.sensitivity(matrix)),
        "macro_specificity": classification.macro(classification.specificity(matrix)),
        "macro_auc": classification.macro(areas),
    }
    return {name: float(value) for name, value in metrics.items()}


class Classifier(LightningModule):
    """Grey bytes in, logits out; trained with any loss, validated with plain cross-entropy.

    Hyper-parameters are plain containers, so a checkpoint loads with `weights_only=True`.

    Args:
        model: `_target_` of the backbone and its arguments, `normalize` and `HEAD_KEYS`.
            (`freeze` belongs to `fracnet.training.callbacks.FreezeBackbone`.)
        classes: class names in the order of the logits.
        optim: `_target_` of a torch optimizer and its arguments, and `OPTIMIZER_OWN_KEYS`.
        scheduler: `_target_` of a torch scheduler and its arguments, or None.
        loss: `_target_` of a loss and its arguments, and `localization`, the weight of the loss of
            the auxiliary head (`models.localizer`), `auto` for one wherever the backbone has a
            feature map; None for the cross-entropy.
        class_weights: one per class, passed to the loss as `weight`, or None.
        image_size: pixels per side, with which the auxiliary head finds its layer.
        channels_last: memory format of the weights, which convolutions follow whatever that of
            their input.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        classes: Sequence[str],
        optim: Mapping[str, Any],
        scheduler: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        class_weights: Sequence[float] | None = None,
        image_size: int = 224,
        *,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.backbone: nn.Module = build_model(model, len(classes), channels_last)
        self.extra_metrics: ExtraMetrics | None = None
        self.why_whole: str | None = None
        """Why no head trains on features, where one was to; "" where it does."""
        self._loss, self._seen = torch.zeros((), dtype=torch.float64), 0
        self._steps_before = 0  # that the schedule does not count
        set_head(self.backbone, model, len(classes))
        if model.get("freeze", "none") != "none":
            find_heads(self.backbone, f"model.freeze={model['freeze']}")
        rate_factors(optim, self.backbone)  # needs a head where rates differ
        self.input = grey_input(self.backbone, str(model["normalize"]))
        self.classes = list(classes)
        loss_node = dict(loss or DEFAULT_LOSS)
        localization = loss_node.pop("localization", 0.0)
        self.loss = make_loss(loss_node, self.classes, class_weights)
        self.localizer: Localizer | None = None
        self.localization = AUTO_WEIGHT if localization == "auto" else float(localization)
        if self.localization:
            key = f"loss.localization={self.localization:g}"
            try:
                self.localizer = Localizer(self.backbone, image_size, len(self.classes), key)
            except UserError:
                if localization != "auto":
                    raise
                self.localization = 0.0
        self.l1 = float(optim.get("l1", 0.0))
        # The whole split is gathered first: no metric is a mean over batches.
        self.val_logits = CatMetric(nan_strategy="disable")  # by default NaN is dropped
        self.val_targets = CatMetric(nan_strategy="disable")
        self.val_rows = CatMetric(nan_strategy="disable")
        self.val_places = CatMetric(nan_strategy="disable")
        self.save_hyperparameters(
            {
                "model": without_weights(model),
                "classes": self.classes,
                "optim": dict(optim),
                "scheduler": dict(scheduler) if scheduler else None,
                "loss": {**loss, "localization": self.localization} if loss else None,
                "class_weights": None if class_weights is None else list(class_weights),
                "image_size": image_size,
            },
            logger=False,  # loggers get the run's whole config, without private paths
        )
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits float [N, C] of uint8 [N, 1, H, W]."""
        logits: Tensor = self.backbone(self.input(images))
        return logits

    def logits_and_cells(self, images: Tensor) -> tuple[Tensor, Cells | None]:
        """Logits [N, C], and what the auxiliary head predicts where there is one."""
        if self.localizer is None:
            return self(images), None
        with self.localizer.watch(self.backbone):
            logits = self(images)
        return logits, self.localizer()

    def _outputs(self, batch: Batch) -> tuple[Tensor, Cells | None]:
        """As `logits_and_cells`, of a batch of whose images there may be the features alone."""
        if "features" not in batch:
            return self.logits_and_cells(batch["image"])
        return self._head[0](batch["features"]), None

    @cached_property
    def _head(self) -> list[nn.Module]:
        """The head; in a list, because a module would be registered, and saved, a second time."""
        return find_heads(self.backbone, "model.freeze")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The chosen loss of one batch, plus that of the auxiliary head and the L1 penalty."""
        logits, cells = self._outputs(batch)

        def loss_of(target: Tensor) -> Tensor:
            loss: Tensor = self.loss(logits, target)
            if cells is None:
                return loss
            return loss + self.localization * localization_loss(
                cells, batch["map"], batch["known"], target
            )

        loss = loss_of(batch["target"])
        if "other_target" in batch:  # mixed images, see `training.batch_callbacks.MixImages`
            share = batch["share"]
            loss = share * loss + (1 - share) * loss_of(batch["other_target"])
        if self.l1:
            loss = loss + self.l1 * l1_penalty(self.backbone)
        self._log_at_the_end(loss, len(batch["target"]))
        return loss

    def _log_at_the_end(self, loss: Tensor, n: int) -> None:
        """Log the epoch's mean loss per image, at its last batch.

        Logging each batch would take a good part of the time of Lightning's loop.
        """
        if self.trainer.fit_loop.epoch_loop.batch_progress.current.ready == 1:
            self._loss, self._seen = loss.new_zeros((), dtype=torch.float64), 0
        self._loss += n * loss.detach()
        self._seen += n
        if self.trainer.is_last_batch:
            mean, n = self._loss / self._seen, self._seen
            self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=n, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the sum of losses and the number of images of an epoch that is not over.

        And the number of steps before the schedule, see `on_load_checkpoint`.
        """
        checkpoint["epoch_loss"] = (self._loss, self._seen)
        checkpoint["steps_before"] = self._steps_before

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue that epoch's sum; start a schedule that is planned for all steps again.

        It starts again where a finished run is given more epochs, and is planned for these.
        """
        self._loss, self._seen = checkpoint.get("epoch_loss", (torch.zeros(()), 0))
        self._loss = self._loss.to(self.device)
        self._steps_before = checkpoint.get("steps_before", 0)
        node = self.hparams["scheduler"]
        if self._trainer is None or node is None or node.get("total_steps") != "auto":
            return
        states = checkpoint["callbacks"].values()
        planned = next((state["max_epochs"] for state in states if "max_epochs" in state), None)
        if planned not in (None, self.trainer.max_epochs):
            epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            steps = checkpoint["global_step"]
            self._steps_before = epochs if interval_of(node) == "epoch" else steps
            checkpoint["lr_schedulers"] = []

    def on_train_start(self) -> None:
        """A schedule that starts again gives the first rate, not the restored optimizer."""
        schedule: Any = self.lr_schedulers()
        if self._steps_before and schedule.last_epoch == 0:
            rates = schedule.get_last_lr()
            for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Gather one batch of the validation split."""
        logits, cells = self._outputs(batch)
        self.val_logits.update(logits.float())
        if cells is not None:
            self.val_places.update(localization_scores(cells.annotated, batch["map"]))
        self.val_targets.update(batch["target"])
        self.val_rows.update(batch["row"])

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole split under `val/`."""
        logits, target = self.val_logits.compute(), self.val_targets.compute().long()
        # Several processes may have processed a row twice to fill their shares.
        rows, first = np.unique(self.val_rows.compute().long().cpu().numpy(), return_index=True)
        logits, target = logits[first], target[first]
        places = self.val_places.compute()[first].nanmean(dim=0) if self.localizer else None
        for gathered in (self.val_logits, self.val_targets, self.val_rows, self.val_places):
            gathered.reset()
        # Neither weighted nor smoothed nor penalized, so that runs with different losses compare.
        loss = float(cross_entropy(logits.double(), target))
        if not math.isfinite(loss):
            raise Diverged(
                f"the validation loss is {loss} in epoch {self.current_epoch + 1}: training has "
                f"diverged with optim.lr={self.hparams['optim']['lr']}; "
                "try a smaller optim.lr or trainer.gradient_clip_val=1."
            )
        scores = logits.double().cpu().numpy()
        metrics = {"loss": loss} | validation_metrics(target.cpu().numpy(), scores)
        if self.extra_metrics is not None:
            metrics |= self.extra_metrics(rows, scores)
        if places is not None and not places.isnan().any():  # else no image is annotated
            metrics |= dict(zip(LOCALIZATION_METRICS, places.tolist(), strict=True))
        self.log_dict({f"val/{name}": value for name, value in metrics.items()})

    def predict_step(
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """Row numbers int64 [N] of the manifest and float32 logits [N, C]."""
        return {"row": batch["row"], "logits": self._outputs(batch)[0].float()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over all weights, and the schedule with its interval."""
        # Lightning refuses to clip gradients that a fused step would unscale itself.
        scaled = self._trainer is not None and self._trainer.precision == "16-mixed"
        optimizer = make_optimizer(self.hparams["optim"], self, self.backbone, fuse=not scaled)
        if self.hparams["scheduler"] is None:
            return optimizer
        node = self.hparams["scheduler"]
        schedule: Any = build_schedule(node, optimizer, self._schedule_steps())
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _schedule_steps(self) -> int:
        """How often the schedule is stepped from its start to the end of the training."""
        node = self.hparams["scheduler"]
        if node.get("total_steps") != "auto" or self._trainer is None:
            return REHEARSAL_STEPS
        by_epoch = interval_of(node) == "epoch"
        steps = self.trainer.max_epochs if by_epoch else self.trainer.estimated_stepping_batches
        return max(1, int(steps or 1) - self._steps_before)
