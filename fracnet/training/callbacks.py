"""What fracnet adds to Lightning's loop: repeatable epochs, curves, a line an epoch."""

import csv
import time
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
        state = np.random.SeedSequence([self.seed, trainer.current_epoch]).generate_state(1)
        torch.manual_seed(int(state[0]))


class Curves(Callback):
    """Appends a row an epoch to metrics.csv and prints it."""

    def __init__(self, path: Path, best: ModelCheckpoint) -> None:
        self.path = path
        self.best = best
        self._start = 0.0
        self._train_seconds = 0.0
        self._images = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._start, self._images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images."""
        self._images += len(batch["target"])
        self._train_seconds = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's row and print it."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": trainer.current_epoch + 1,
            **{name: figures[name] for name in COLUMNS if name in figures},
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.perf_counter() - self._start, 3),
            "images_per_second": round(self._images / self._train_seconds, 2),
        }
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        Tqdm.write(self._line(row, trainer.max_epochs))

    def _line(self, row: dict[str, Any], epochs: int | None) -> str:
        width = len(str(epochs))
        return (
            f"epoch {row['epoch']:>{width}}/{epochs}  "
            f"loss {row['train/loss']:.3f}  val: loss {row['val/loss']:.3f}  "
            f"accuracy {row['val/accuracy']:.3f}  AUC {row['val/macro_auc']:.3f}  "
            f"{row['images_per_second']:.0f} img/s{self._mark(row)}"
        )

    def _mark(self, row: dict[str, Any]) -> str:
        """A star on the epoch that the checkpoint callback is about to select."""
        assert self.best.monitor is not None
        value, so_far = row[self.best.monitor], self.best.best_model_score
        if so_far is None or np.isnan(value):
            return "  *" if so_far is None else ""
        better = value < float(so_far) if self.best.mode == "min" else value > float(so_far)
        return "  *" if better else ""


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
