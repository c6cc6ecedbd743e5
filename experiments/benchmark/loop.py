"""The overhead of Lightning's loop, against a bare loop over the same batch."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from experiments.benchmark.epochs import (
    RepeatedBatch,
    Stopwatch,
    bare_steps,
    now,
    plain_trainer,
    synthetic_batch,
)
from experiments.benchmark.images import jpegs, write_set
from experiments.benchmark.measurements import Measurement, spread
from experiments.benchmark.setting import SMALL, Setting, composed, prepared_data
from fracnet.config.schema import Config
from fracnet.data.datamodule import Batch
from fracnet.models.classifier import Classifier
from fracnet.runs.build import classifier_from
from fracnet.training.trainer import precision
from fracnet.utils.devices import accelerator

AT_MOST = 5.0  # % more time


class BareLoopTwin(Stopwatch):
    """After each Lightning epoch, as many steps of a bare loop on a twin of the network."""

    def __init__(self, config: Config, twin: Classifier, batch: Batch, steps: int) -> None:
        super().__init__()
        self.twin, self.batch, self.steps = twin, batch, steps
        self.optimizer = torch.optim.Optimizer.__new__(torch.optim.Optimizer)
        self.bare: list[float] = []
        kind = batch["image"].device.type
        mixed = str(precision(config)) == "bf16-mixed"
        self.autocast = partial(torch.autocast, kind, torch.bfloat16, enabled=mixed)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train the twin."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self.bare:
            created: Any = self.twin.configure_optimizers()
            self.optimizer = created["optimizer"] if isinstance(created, dict) else created
        start = now()
        bare_steps(self.twin, self.optimizer, self.batch, self.steps, self.autocast)
        self.bare.append(now() - start)
        self.restart()


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """The chosen network, and one with almost no cost, which shows the loop alone."""
    root = write_set(folder / "loop", jpegs(4, 64), {"train": 8, "val": 4, "test": 4})
    on = accelerator(setting.accelerator)
    steps = {"cpu": setting.pick(6, 2), "gpu": setting.pick(100, 20)}[on]
    pairs = setting.pick(5, 1)
    overrides = setting.overrides(root)
    large = _time_epochs([*overrides, *setting.network_overrides()], steps, pairs, folder)
    small_overrides = [*overrides, *SMALL, "image_size=32", "data.batch_size=4"]
    small = _time_epochs(small_overrides, setting.pick(500, 20), setting.pick(9, 1), folder)
    each = [
        1000 * (a - b) / small["steps"] for a, b in zip(small["loop"], small["bare"], strict=True)
    ]
    whole = [1000 * b / large["steps"] for b in large["bare"]]
    more = [100 * (a / b - 1) for a, b in zip(large["loop"], large["bare"], strict=True)]
    measurements: list[Measurement] = [
        spread(f"bare step of {setting.network}", whole, "ms"),
        spread("Lightning's loop takes longer by", more, "%", at_most=AT_MOST),
        spread("Lightning's loop itself, per step", each, "ms"),
    ]
    return {
        "measurements": measurements,
        "model": setting.network,
        "network": large,
        "small": small,
    }


def _time_epochs(overrides: list[str], steps: int, pairs: int, folder: Path) -> dict[str, Any]:
    """Seconds of each epoch of `steps` steps, Lightning's and the bare loop's."""
    config, data = composed(overrides), prepared_data(overrides)
    seed_everything(0, verbose=False)
    model = classifier_from(config, data)
    device = torch.device("cuda" if accelerator(config.trainer.accelerator) == "gpu" else "cpu")
    twin = copy.deepcopy(model).to(device).train()
    if config.trainer.compile:
        model.backbone.compile()
        twin.backbone.compile()
    batch = synthetic_batch(config, len(data.classes), device)
    watch = BareLoopTwin(config, twin, batch, steps)
    trainer = plain_trainer(config, 1 + pairs, [watch], folder)
    trainer.fit(model, RepeatedBatch(lambda: batch, steps), data.val_dataloader())
    return {"steps": steps, "loop": watch.seconds[1:], "bare": watch.bare[1:]}
