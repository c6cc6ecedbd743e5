"""Lightning's Trainer as fracnet uses it, and the predictions of the selected checkpoint."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn

from fracnet.config import Config
from fracnet.data.datamodule import RadiographData
from fracnet.errors import UserError
from fracnet.evaluation.predictions import assemble
from fracnet.models.module import Classifier
from fracnet.training.callbacks import Curves, ProgressBar, ReseedEachEpoch
from fracnet.training.run_folder import RunFolder


def mode(metric: str) -> str:
    """Whether a smaller or a larger figure is the better one."""
    return "min" if metric == "loss" else "max"


def checkpoint_callbacks(config: Config, folder: RunFolder) -> tuple[ModelCheckpoint, Callback]:
    """`best` holds weights only, chosen by validation; `last` all that a resumed run needs."""
    metric = config.callbacks.best.metric
    best = ModelCheckpoint(
        folder.checkpoints,
        filename="best",
        monitor=f"val/{metric}",
        mode=mode(metric),
        save_weights_only=True,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        folder.checkpoints,
        filename="last",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return best, last


def make_trainer(config: Config, folder: RunFolder) -> tuple[Trainer, ModelCheckpoint]:
    """A Trainer for one device, and the callback that will know the selected checkpoint."""
    best, last = checkpoint_callbacks(config, folder)
    callbacks: list[Callback] = [ReseedEachEpoch(config.seed), Curves(folder.curves, best)]
    if config.trainer.progress_bar and sys.stderr.isatty():
        callbacks.append(ProgressBar())
        progress_bar = True
    else:
        progress_bar = False
    stop = config.callbacks.early_stopping
    if stop is not None:
        callbacks.append(
            EarlyStopping(f"val/{stop.metric}", mode=mode(stop.metric), patience=stop.patience)
        )
    trainer = Trainer(
        accelerator=accelerator(config.trainer.accelerator),
        devices=1,
        precision=precision(config),
        max_epochs=config.trainer.max_epochs,
        gradient_clip_val=config.trainer.gradient_clip_val,
        callbacks=[*callbacks, best, last],
        deterministic="warn",
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=progress_bar,
        enable_model_summary=False,
        default_root_dir=folder.path,
    )
    return trainer, best


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
        "mps": torch.backends.mps.is_available(),
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
    kind = accelerator(config.trainer.accelerator)
    if kind == "gpu":
        name = torch.cuda.get_device_name()
    elif kind == "mps":
        name = "Apple GPU"
    else:
        name = f"CPU, {torch.get_num_threads()} threads"
        name += ", no GPU found" if config.trainer.accelerator == "auto" else ""
    return f"{name}, {precision(config)}"


def use_channels_last(model: nn.Module) -> None:
    """Convolutions follow the memory format of their weights, whatever that of the input."""
    model.to(memory_format=torch.channels_last)


def predict(trainer: Trainer, model: Classifier, data: RadiographData) -> pd.DataFrame:
    """The predictions table: a row an image of val and test (see `evaluation.predictions`)."""
    loaders = [data.loader("val"), data.loader("test")]
    found = trainer.predict(model, loaders)
    assert found is not None
    batches: list[Any] = [batch for batches in found for batch in batches]
    rows = torch.cat([batch["row"] for batch in batches]).numpy()
    logits = torch.cat([batch["logits"] for batch in batches]).numpy()
    assert len(np.unique(rows)) == len(rows)
    return assemble(data.manifest.table.iloc[rows], data.classes, logits)
