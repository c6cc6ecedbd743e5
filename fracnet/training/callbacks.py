"""What fracnet adds to Lightning's loop: repeatable epochs, curves, a line an epoch.

Train the head alone: for good, or for the first epochs.

Weights averaged over the steps of training (EMA).
"""

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fracnet.models.backbones import find_heads

COLUMNS = (
    "epoch",
    "train/loss",
    "val/loss",
    "val/accuracy",
    "val/macro_sensitivity",
    "val/macro_specificity",
    "val/macro_auc",
    "lr",
    "seconds",
    "images_per_second",
)


class ReseedEachEpoch(Callback):
    """Dropout and the like depend on (seed, epoch) alone: a resumed run equals an unbroken one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reseed torch on all devices."""
        entropy = [self.seed, trainer.current_epoch]
        if trainer.global_rank:  # several processes drop out different units
            entropy.append(trainer.global_rank)
        state = np.random.SeedSequence(entropy).generate_state(1)
        torch.manual_seed(int(state[0]))


class Curves(Callback):
    """Appends a row an epoch to metrics.csv, prints it and tells it to whoever else listens."""

    def __init__(
        self, path: Path, best: ModelCheckpoint, tell: Callable[[dict[str, Any]], None]
    ) -> None:
        self.path = path
        self.best = best
        self.tell = tell
        self._start = 0.0
        self._train_seconds = 0.0
        self._images = 0
        self._lr = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start, self._images = time.perf_counter(), 0
        # Before the scheduler's step at the epoch's end: the rate this epoch trains with.
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self._images += len(batch["target"])
        self._train_seconds = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's row and print it."""
        if not trainer.is_global_zero:
            return
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": trainer.current_epoch + 1,
            **{name: figures[name] for name in COLUMNS if name in figures},
            "lr": self._lr,
            "seconds": round(time.perf_counter() - self._start, 3),
            "images_per_second": round(trainer.world_size * self._images / self._train_seconds, 2),
        }
        line = self._line(row, trainer.max_epochs)
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.tell(row)
        Tqdm.write(line)
        sys.stdout.flush()  # a pipe or a file shows an epoch when it is over, too

    def _line(self, row: dict[str, Any], epochs: int | None) -> str:
        width = len(str(epochs))
        return (
            f"epoch {row['epoch']:>{width}}/{epochs}  "
            f"loss {row['train/loss']:.3f}  val: loss {row['val/loss']:.3f}  "
            f"accuracy {row['val/accuracy']:.3f}  AUC {row['val/macro_auc']:.3f}  "
            f"{row['images_per_second']:.0f} img/s{self._mark(row)}"
        )

    def _mark(self, row: dict[str, Any]) -> str:
        """A star on an epoch that is better than all before it, also those of a resumed run."""
        assert self.best.monitor is not None
        sign = 1 if self.best.mode == "min" else -1
        before: list[float] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                before = [sign * float(old[self.best.monitor]) for old in csv.DictReader(file)]
        return "  *" if all(sign * row[self.best.monitor] < value for value in before) else ""


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, gone when its epoch is over: the epoch's line takes its place."""

    def init_train_tqdm(self) -> Tqdm:
        """A bar that leaves nothing behind."""
        bar = super().init_train_tqdm()
        bar.leave = False
        return bar

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Only the running loss; the figures of the epoch stand in its line."""
        figures = super().get_metrics(trainer, pl_module)
        return {"loss": figures["train/loss"]} if "train/loss" in figures else {}


class FreezeBackbone(Callback):
    """Keeps all weights but the head's as they are, and the statistics of batch-norm layers.

    Args:
        epochs: so many epochs, then everything is trained; None for good.
    """

    def __init__(self, epochs: int | None) -> None:
        self.epochs = epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze before the weights are handed to the devices."""
        if stage != "fit":
            return
        # Data-parallel training fixes at its start which gradients are summed over devices.
        assert self.epochs is None or trainer.world_size == 1
        set_frozen(_backbone(pl_module), True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Thaw when the time has come; a resumed run finds the same state."""
        frozen = self.epochs is None or trainer.current_epoch < self.epochs
        set_frozen(_backbone(pl_module), frozen)
        keep_statistics(_backbone(pl_module), frozen)


def _backbone(pl_module: LightningModule) -> nn.Module:
    assert isinstance(pl_module.backbone, nn.Module)
    return pl_module.backbone


def set_frozen(model: nn.Module, frozen: bool) -> None:
    """Freeze or thaw all weights but the head's.

    Raises:
        UserError: the model has no head that could be found.
    """
    heads = find_heads(model, "model.freeze")
    kept = {id(weight) for head in heads for weight in head.parameters()}
    for weight in model.parameters():
        if id(weight) not in kept:
            weight.requires_grad_(not frozen)


def keep_statistics(model: nn.Module, keep: bool) -> None:
    """Whether batch-norm layers normalize with the statistics that came with the weights.

    They are in evaluation mode then and update nothing. Dropout goes on as in training.
    """
    for layer in model.modules():
        if isinstance(layer, _NormBase):
            layer.train(not keep)


def decay_after(updates: int, decay: float) -> float:
    """The share of the old average at an update: min(decay, (1 + n) / (10 + n)).

    A constant decay near 1 would hold on to the first steps for many epochs of a small data
    set; the growing one is that of TensorFlow's ExponentialMovingAverage.
    """
    return min(decay, (1 + updates) / (10 + updates))


class ExponentialAverage(WeightAveraging):
    """An exponential moving average of the weights is validated, selected, stored and used.

    Batch-norm statistics are averaged like the weights they belong to; integer buffers (the
    count of batches) are taken over as they are. The first step's weights start the average.

    `last.ckpt` holds both: the average as `state_dict`, the trained weights as
    `current_model_state`, the number of updates as `averaging_state`.

    Args:
        decay: the largest share that the old average keeps at a step.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._swapped = False
        super().__init__(multi_avg_fn=self._update)

    @torch.no_grad()
    def _update(self, averages: Any, current: Any, updates: Tensor | int) -> None:
        """Move tensors of one type and device towards the current ones, in place."""
        if averages[0].is_floating_point():
            share = 1 - decay_after(int(updates), self.decay)
            # Unlike a sum of two products, this leaves a weight that does not change as it is.
            torch._foreach_lerp_(averages, current, share)
        else:
            torch._foreach_copy_(averages, current)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the model to its device: Lightning makes the copy before it moves there."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place."""
        if self._average_model is not None:
            self._swap_models(pl_module)
            self._swapped = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave it there, where Lightning would take it out.

        The selected checkpoint is written between here and the next batch, and since it holds
        weights only, Lightning writes those that are in place and does not ask this callback.
        """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Training goes on with its own weights."""
        self._put_back(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The average is the result."""
        self._put_back(pl_module)
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A whole checkpoint (last.ckpt) holds both sets of weights, each under its own name."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            average = checkpoint["current_model_state"]
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            checkpoint["state_dict"] = average

    def _put_back(self, pl_module: LightningModule) -> None:
        if self._swapped:
            self._swap_models(pl_module)
            self._swapped = False
