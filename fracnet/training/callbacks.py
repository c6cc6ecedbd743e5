"""Lightning callbacks: repeatable epochs, curves, a frozen backbone, averaged weights (EMA)."""

import csv
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fracnet.models.heads import find_heads
from fracnet.utils import processes
from fracnet.utils.files import append_to, disk_faults

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


SECONDS_BETWEEN_SAVES = 10.0


class ReseedEachEpoch(Callback):
    """Dropout depends on (seed, epoch) alone, so a resumed run equals an uninterrupted one.

    A checkpoint from within an epoch holds the state of the generators as well.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """States of torch's generators, uint8 each: of the CPU and of every GPU."""
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "gpus": gpus}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them for the first batch, before which others draw."""
        self._restored = state_dict

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restore the states in an epoch that is continued; a new one has been reseeded."""
        if self._restored is not None and batch_idx > 0:
            torch.set_rng_state(self._restored["cpu"].cpu())
            if len(self._restored["gpus"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._restored["gpus"]])
        self._restored = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reseed torch on all devices."""
        entropy = [self.seed, trainer.current_epoch]
        if trainer.global_rank:  # processes drop out different units
            entropy.append(trainer.global_rank)
        state = np.random.SeedSequence(entropy).generate_state(1)
        torch.manual_seed(int(state[0]))


class MovableCheckpoint(ModelCheckpoint):
    """Also resumed in a run folder that was moved, where Lightning would forget the best score."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Look for all files in the folder of this run."""
        assert self.dirpath is not None
        folder = Path(self.dirpath)

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        paths = {name: here(state_dict.get(name, "")) for name in names}
        models = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        moved = {"dirpath": self.dirpath, "best_k_models": models}
        super().load_state_dict(state_dict | paths | moved)


class LastCheckpoint(MovableCheckpoint):
    """last.ckpt, all that a resumed run needs: after each epoch, every n steps, and on preemption.

    A cluster's SIGTERM or SIGUSR1 waits until the current step, or a validation, is over; then the
    training is saved and ends by `Terminated`.
    """

    def __init__(self, folder: Path, every_n_steps: int | None) -> None:
        super().__init__(
            folder,
            filename="last",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self._every_n_steps = every_n_steps
        self._planned: int | None = None  # epochs; None in a run that is not resumed
        self._max_epochs: int | None = None
        self._done = 0  # batches of an epoch that is not over
        self._saved = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Add the number of epochs that the run was to have, and how far the current one is."""
        return super().state_dict() | {"max_epochs": self._max_epochs, "done": self._done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them for the start of the training."""
        self._planned = state_dict.get("max_epochs")
        self._done = state_dict.get("done", 0)
        super().load_state_dict(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits; not with several processes, of which one alone knows it."""
        self._max_epochs, self._saved = trainer.max_epochs, time.monotonic()
        if self._done:  # Lightning does this itself, unless a schedule has asked for the steps
            assert trainer.train_dataloader is not None
            trainer.train_dataloader.load_state_dict({"done": self._done})
        stopped = [each for each in _early(trainer) if each.wait_count >= max(1, each.patience)]
        if self._planned == trainer.max_epochs:  # Lightning does not remember that it had stopped
            trainer.should_stop = trainer.should_stop or bool(stopped)
        else:  # epochs were added
            for early in stopped:
                early.wait_count = 0
        if trainer.world_size == 1:
            processes.preemption.wait()
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch, where nothing else is half done."""
        done = batch_idx + 1
        between_steps = done % trainer.accumulate_grad_batches == 0
        validates = isinstance(trainer.val_check_batch, int) and done % trainer.val_check_batch == 0
        if trainer.world_size > 1 or trainer.is_last_batch or validates or not between_steps:
            return
        stop = processes.preemption.received
        n = self._every_n_steps
        if stop is not None or (n and trainer.global_step % n == 0):
            self._done = done
            self._save_checkpoint(trainer, str(Path(str(self.dirpath), "last.ckpt")))
        if stop is not None:
            raise stop

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and end if that was asked for.

        Epochs on features take less time than to save the network: they are saved now and then.
        """
        self._done = 0
        features = getattr(trainer.datamodule, "features", None)  # type: ignore[attr-defined]
        quick = features is not None and features.used_in(trainer.current_epoch)
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        soon = time.monotonic() < self._saved + SECONDS_BETWEEN_SAVES
        if not (quick and soon) or ends or processes.preemption.received is not None:
            super().on_train_epoch_end(trainer, pl_module)
            self._saved = time.monotonic()
        if processes.preemption.received is not None:
            raise processes.preemption.received

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """From here on a signal raises at once."""
        processes.preemption.wait_no_longer()


def _early(trainer: Trainer) -> list[EarlyStopping]:
    return [each for each in trainer.early_stopping_callbacks if isinstance(each, EarlyStopping)]


class Curves(Callback):
    """Appends one row per epoch to metrics.csv, logs its speed and prints it."""

    def __init__(self, path: Path, best: ModelCheckpoint, columns: Sequence[str] = ()) -> None:
        """`columns`: metrics besides `COLUMNS`."""
        self.path = path
        self.best = best
        self.columns = [*COLUMNS, *(name for name in columns if name not in COLUMNS)]
        self._start = 0.0
        self._train_seconds = 0.0
        self._images = 0
        self._lr = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What is known of the current epoch, for one that is continued."""
        return {
            "seconds": time.perf_counter() - self._start,
            "train_seconds": self._train_seconds,
            "images": self._images,
            "lr": self._lr,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the clock as if it had stood still since."""
        self._start = time.perf_counter() - state_dict["seconds"]
        self._train_seconds = state_dict["train_seconds"]
        self._images, self._lr = state_dict["images"], state_dict["lr"]

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
        speed = {
            "seconds": round(time.perf_counter() - self._start, 3),
            "images_per_second": round(trainer.world_size * self._images / self._train_seconds, 2),
        }
        epoch = trainer.current_epoch + 1
        if trainer.loggers:
            logged = {f"train/{name}": value for name, value in (("lr", self._lr), *speed.items())}
            pl_module.log_dict({"epoch": float(epoch), **logged})
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": epoch,
            **{name: metrics[name] for name in self.columns if name in metrics and "/" in name},
            "lr": self._lr,
            **speed,
        }
        line = self._line(row, trainer.max_epochs)
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (
            disk_faults(self.path),
            os.fdopen(append_to(self.path), "a", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        Tqdm.write(line)
        sys.stdout.flush()  # a pipe or a file shows an epoch as soon as it ends

    def _line(self, row: dict[str, Any], epochs: int | None) -> str:
        width = len(str(epochs))
        parts = [f"epoch {row['epoch']:>{width}}/{epochs}"]
        parts += [f"loss {row['train/loss']:.3f}"] if "train/loss" in row else []
        if "val/loss" in row:
            monitor = str(self.best.monitor)
            parts += [
                f"val: loss {row['val/loss']:.3f}",
                f"accuracy {row['val/accuracy']:.3f}",
                f"AUC {row['val/macro_auc']:.3f}",
            ]
            if monitor not in COLUMNS:
                parts.append(f"{monitor.removeprefix('val/')} {row[monitor]:.3f}")
        else:  # trainer.check_val_every_n_epoch
            parts.append("not validated")
        return "  ".join([*parts, f"{row['images_per_second']:.0f} img/s{self._mark(row)}"])

    def _mark(self, row: dict[str, Any]) -> str:
        """A star on an epoch that is better than all before it, also those of a resumed run."""
        monitor = self.best.monitor
        assert monitor is not None
        if monitor not in row:
            return ""
        sign = 1 if self.best.mode == "min" else -1
        before: list[float] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                before = [sign * float(r[monitor]) for r in csv.DictReader(file) if r[monitor]]
        return "  *" if all(sign * row[monitor] < value for value in before) else ""


class ProgressBar(TQDMProgressBar):
    """Lightning's bar, which disappears after its epoch, when the epoch's line is printed."""

    def init_train_tqdm(self) -> Tqdm:
        """A bar that leaves nothing behind."""
        bar = super().init_train_tqdm()
        bar.leave = False
        return bar

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The running loss alone; the epoch's line has the metrics."""
        metrics = super().get_metrics(trainer, pl_module)
        return {"loss": metrics["train/loss"]} if "train/loss" in metrics else {}


class FreezeBackbone(Callback):
    """Freezes all weights except the head's, and the statistics of batch-norm layers.

    epochs: how many epochs; None for all of them.
    """

    def __init__(self, epochs: int | None) -> None:
        self.epochs = epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze before the weights move to the devices."""
        if stage != "fit":
            return
        # Data-parallel training fixes at its start which gradients it sums over devices.
        assert self.epochs is None or trainer.world_size == 1
        set_frozen(_backbone(pl_module), True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In an epoch that is continued there is no start of one."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unfreeze after `epochs`; a resumed run gets the same state."""
        frozen = self.epochs is None or trainer.current_epoch < self.epochs
        set_frozen(_backbone(pl_module), frozen)
        for layer in _backbone(pl_module).modules():
            # In evaluation mode they normalize with the statistics that came with the weights, and
            # update nothing; dropout works as in training.
            if isinstance(layer, _NormBase):
                layer.train(not frozen)


def _backbone(pl_module: LightningModule) -> nn.Module:
    assert isinstance(pl_module.backbone, nn.Module)
    return pl_module.backbone


def set_frozen(model: nn.Module, frozen: bool) -> None:
    """Freeze or unfreeze all weights except the head's.

    Raises UserError for a model without a known head.
    """
    heads = find_heads(model, "model.freeze")
    trained = {id(weight) for head in heads for weight in head.parameters()}
    for weight in model.parameters():
        if id(weight) not in trained:
            weight.requires_grad_(not frozen)


def decay_after(updates: int, decay: float) -> float:
    """The weight of the old average at update n: min(decay, (1 + n) / (10 + n)).

    With a constant decay near 1 the first steps would dominate for many epochs of a small dataset.
    The growing one is that of TensorFlow's ExponentialMovingAverage.
    """
    return min(decay, (1 + updates) / (10 + updates))


class ExponentialAverage(WeightAveraging):
    """Validates, selects, saves and uses an exponential moving average of the weights.

    Batch-norm statistics are averaged like the weights; integer buffers (the count of batches) are
    copied. The first step's weights start the average.

    `last.ckpt` holds both: the average as `state_dict`, the trained weights as
    `current_model_state`, the number of updates as `averaging_state`.

    Args:
        decay: the largest weight of the old average at a step.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._swapped = False
        super().__init__(multi_avg_fn=self._update)

    @torch.no_grad()
    def _update(self, averages: Any, current: Any, updates: Tensor | int) -> None:
        """Move averages of one type and device towards the current values, in place."""
        if averages[0].is_floating_point():
            share = 1 - decay_after(int(updates), self.decay)
            # Unlike a sum of two products, this does not alter a constant weight.
            torch._foreach_lerp_(averages, current, share)
        else:
            torch._foreach_copy_(averages, current)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the model's device: Lightning copies the model before it moves."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Swap the average in."""
        if self._average_model is not None:
            self._swap_models(pl_module)
            self._swapped = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the average in place, unlike Lightning.

        The selected checkpoint is written between here and the next batch. It holds weights alone,
        so Lightning writes those in place without calling this callback.
        """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Continue training with its own weights."""
        self._restore(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The average is the result."""
        self._restore(pl_module)
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save both sets of weights in a full checkpoint (last.ckpt), each under its own name."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            average = checkpoint["current_model_state"]
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            checkpoint["state_dict"] = average

    def _restore(self, pl_module: LightningModule) -> None:
        if self._swapped:
            self._swap_models(pl_module)
            self._swapped = False
