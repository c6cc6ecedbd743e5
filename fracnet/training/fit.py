"""Lightning's Trainer as fracnet uses it, and the predictions of the selected checkpoint."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from fracnet.config import Config
from fracnet.data.datamodule import RadiographData
from fracnet.errors import UserError
from fracnet.evaluation.predictions import assemble
from fracnet.groups import mode
from fracnet.models.freeze import FreezeBackbone
from fracnet.models.module import Classifier
from fracnet.training.averaging import ExponentialAverage
from fracnet.training.callbacks import Curves, ProgressBar, ReseedEachEpoch
from fracnet.training.devices import SameBuffers, gather
from fracnet.training.resume import WholeCheckpoints, last
from fracnet.training.run_folder import RunFolder
from fracnet.words import counted


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


def accelerator(asked: str) -> str:
    """The device to use. Raises `UserError` where one was asked for that is not there."""
    there = {
        "gpu": torch.cuda.is_available(),
        "cpu": True,
    }
    if asked == "auto":
        return next(name for name, found in there.items() if found)
    if not there[asked]:
        found = ", ".join(["auto", *(name for name, here in there.items() if here)])
        raise UserError(f"trainer.accelerator={asked}: this machine has none; allowed: {found}.")
    return asked


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
