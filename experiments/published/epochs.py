"""The second work's tables: train and test accuracy of each epoch.

Accuracy on the test split after each epoch is what must not choose a model. It is computed here to
show what it does when it chooses, and nowhere in fracnet itself.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import LightningModule, Trainer

from fracnet.evaluation.sweep_statistics import mean_interval
from fracnet.training.train_accuracy import TrainAccuracy, accuracy_on

FILE = "epochs.csv"
SPLITS = ("train", "val", "test")


class AccuracyByEpoch(TrainAccuracy):
    """Writes epochs.csv: the accuracy on each split after each epoch."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row."""
        super().on_validation_epoch_end(trainer, pl_module)
        path = Path(trainer.default_root_dir) / FILE
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["epoch", *SPLITS])
            values = [round(accuracy_on(split, trainer, pl_module), 6) for split in SPLITS]
            writer.writerow([trainer.current_epoch + 1, *values])


def summarize(curves: list[pd.DataFrame]) -> list[dict[str, Any]]:
    """A row for each tenth of the epochs (10 to 50 of 50), from the epochs.csv of each seed.

    The learning rate is constant, so the first k epochs of a training are a training of k epochs.
    Each row has the mean accuracies after k epochs; the test accuracy of the epoch that test, and
    of the one that validation chooses among the first k (the first of equals); and the mean
    difference of these two with its 95 % interval over seeds (Student's t), which is at least 0 in
    each seed by construction.
    """
    last = min(len(curve) for curve in curves)
    step = max(1, last // 5)
    rows = []
    for k in range(step, last + 1, step):
        parts = [curve.iloc[:k] for curve in curves]
        by_test = np.array([part["test"].max() for part in parts])
        by_val = np.array(
            [part["test"].iloc[int(part["val"].to_numpy().argmax())] for part in parts]
        )
        gap = list(by_test - by_val)
        low, high = mean_interval(gap)
        rows.append(
            {"epochs": k}
            | {split: float(np.mean([p[split].iloc[-1] for p in parts])) for split in SPLITS}
            | {
                "chosen by test": float(by_test.mean()),
                "chosen by validation": float(by_val.mean()),
                "difference": float(np.mean(gap)),
                "low": low,
                "high": high,
            }
        )
    return rows
