"""Lightning's Trainer as fracnet uses it, and the predictions of the selected checkpoint.

One run on several devices: a process each, gradients averaged (data-parallel training).
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from fracnet.config.schema import Config, mode
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import assemble
from fracnet.models.classifier import Classifier
from fracnet.runs.run_folder import RunFolder
from fracnet.training.callbacks import (
    Curves,
    ExponentialAverage,
    FreezeBackbone,
    ProgressBar,
    ReseedEachEpoch,
)
from fracnet.training.resume import WholeCheckpoints, last
from fracnet.utils.devices import accelerator
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted


def check_devices(config: Config, kind: str) -> None:
    """Raise UserError where `trainer.devices` of a kind (cpu or gpu) cannot be had."""
    n = config.trainer.devices
    if n == 1:
        return
    key = f"trainer.devices={n}"
    if config.model.fit == "classical":
        raise UserError(f"{key}: a classical model is fitted on one; allowed: trainer.devices=1.")
    there = {"gpu": torch.cuda.device_count(), "cpu": n}[kind]
    if n > there:
        raise UserError(f"{key}: this machine has {there} of them; allowed: 1 to {there}.")


class SameBuffers(Callback):
    """All processes validate with the running statistics of number 0, which the checkpoint holds.

    Each process keeps the statistics of the images that it has seen.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand out those of number 0."""
        for buffer in pl_module.buffers():
            dist.broadcast(buffer, src=0)


def gather(rows: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [N] and logits [N, C] of all processes, each row once, by ascending row."""
    shares: list[Any] = [(rows, logits)]
    if dist.is_available() and dist.is_initialized():
        shares = [None] * dist.get_world_size()
        dist.all_gather_object(shares, (rows, logits))
    rows, first = np.unique(np.concatenate([share[0] for share in shares]), return_index=True)
    return rows, np.concatenate([share[1] for share in shares])[first]


def checkpoint_callbacks(config: Config, folder: RunFolder) -> tuple[ModelCheckpoint, Callback]:
    """`best` holds weights only, chosen by validation; `latest` all that a resumed run needs."""
    metric = config.callbacks.best.metric
    best = ModelCheckpoint(
        folder.checkpoints,
        filename="best",
        monitor=f"val/{metric}",
        mode=mode(metric),
        save_weights_only=True,
        enable_version_counter=False,
    )
    latest = ModelCheckpoint(
        folder.checkpoints,
        filename="last",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return best, latest


def make_trainer(
    config: Config, folder: RunFolder, tell: Callable[[dict[str, Any]], None]
) -> tuple[Trainer, ModelCheckpoint]:
    """The Trainer, and the callback that will know the selected checkpoint.

    `tell` is called with each epoch's row of metrics.csv.
    """
    best, latest = checkpoint_callbacks(config, folder)
    curves = Curves(folder.curves, best, tell)
    callbacks: list[Callback] = [ReseedEachEpoch(config.seed), curves]
    if config.trainer.progress_bar and sys.stderr.isatty():
        callbacks.append(ProgressBar())
        progress_bar = True
    else:
        progress_bar = False
    freeze = config.model.freeze
    if freeze != "none":
        callbacks.append(FreezeBackbone(epochs=None if isinstance(freeze, str) else freeze))
    if config.callbacks.ema is not None:
        callbacks.append(ExponentialAverage(config.callbacks.ema.decay))
    stop = config.callbacks.early_stopping
    if stop is not None:
        callbacks.append(
            EarlyStopping(f"val/{stop.metric}", mode=mode(stop.metric), patience=stop.patience)
        )
    several = config.trainer.devices > 1
    if several:  # after whatever puts other weights in place for validation
        callbacks.append(SameBuffers())
    trainer = Trainer(
        accelerator=accelerator(config.trainer.accelerator),
        devices=config.trainer.devices,
        strategy="ddp" if several else "auto",
        use_distributed_sampler=False,  # `data.shards` deals out the rows
        precision=precision(config),
        max_epochs=config.trainer.max_epochs,
        gradient_clip_val=config.trainer.gradient_clip_val,
        callbacks=[*callbacks, best, latest],
        plugins=[WholeCheckpoints()],
        deterministic="warn",
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        default_root_dir=folder.path,
    )
    return trainer, best


def fit_and_predict(
    model: Classifier,
    config: Config,
    data: RadiographData,
    folder: RunFolder,
    tell: Callable[[dict[str, Any]], None],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train, or go on with training; the selected checkpoint's predictions table, and its choice.

    Each process of a run calls it; number 0 alone writes.
    """
    trainer, best = make_trainer(config, folder, tell)
    if config.trainer.compile:
        model.backbone.compile()  # in place: names of weights stay, a checkpoint is the same
    if config.resume:
        trainer.fit(model, data, ckpt_path=last(folder), weights_only=True)
    else:
        trainer.fit(model, datamodule=data)
    chosen = Classifier.load_from_checkpoint(best.best_model_path, weights_only=True)
    return predict(trainer, chosen, data), selection(best)


def selection(best: ModelCheckpoint) -> dict[str, Any]:
    """Which epoch was selected (counted from 1), by which validation figure and with what value."""
    assert best.best_model_score is not None
    stored = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    return {
        "epoch": stored["epoch"] + 1,
        "by": best.monitor,
        "value": float(best.best_model_score),
    }


def precision(config: Config) -> Any:
    """`auto` is mixed where the device gains from it."""
    if config.trainer.precision != "auto":
        return config.trainer.precision
    on_gpu = accelerator(config.trainer.accelerator) == "gpu"
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def device_name(config: Config) -> str:
    """The device in words, with the precision."""
    if config.model.fit == "classical":
        return "CPU, scikit-learn"
    kind = accelerator(config.trainer.accelerator)
    if kind == "gpu":
        name = torch.cuda.get_device_name()
    else:
        name = f"CPU, {counted(torch.get_num_threads(), 'thread')}"
        name += ", no GPU found" if config.trainer.accelerator == "auto" else ""
    n = config.trainer.devices
    return f"{f'{n} processes, each on ' if n > 1 else ''}{name}, {precision(config)}"


def predict(trainer: Trainer, model: Classifier, data: RadiographData) -> pd.DataFrame:
    """The predictions table: a row an image of val and test (see `evaluation.predictions`)."""
    found = trainer.predict(model, datamodule=data)
    assert found is not None
    batches: list[Any] = [batch for batches in found for batch in batches]
    rows, logits = gather(
        torch.cat([batch["row"] for batch in batches]).numpy(),
        torch.cat([batch["logits"] for batch in batches]).numpy(),
    )
    order = np.concatenate([data.rows("val"), data.rows("test")])
    assert np.array_equal(rows, np.sort(order))
    logits = logits[np.searchsorted(rows, order)]
    return assemble(data.manifest.table.iloc[order], data.classes, logits)
