"""What fracnet adds to Lightning's loop: repeatable epochs, curves, a line an epoch."""

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

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
