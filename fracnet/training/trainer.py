"""Lightning's Trainer as fracnet uses it, and the predictions of the selected checkpoint.

On several devices each has its own process, and gradients are averaged (data-parallel training).
"""

import copy
import io
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from fracnet.config.checks import mode_of, selecting_metrics
from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.data.feature_cache import HeadFeatures
from fracnet.evaluation.predictions import assemble
from fracnet.models import fitted_heads
from fracnet.models.classifier import LOCALIZATION_METRICS, Classifier
from fracnet.models.features import NetworkFeatures
from fracnet.models.validation import ValidationMetrics
from fracnet.runs.checkpoint import epochs_done, read_checkpoint, rebuild, run_device
from fracnet.runs.run_folder import RunFolder
from fracnet.training.batch_callbacks import ImageSizes, MixImages
from fracnet.training.callbacks import (
    Curves,
    ExponentialAverage,
    FreezeBackbone,
    LastCheckpoint,
    MovableCheckpoint,
    ProgressBar,
    ReseedEachEpoch,
)
from fracnet.training.classical import print_choice
from fracnet.training.resume import last_checkpoint
from fracnet.utils.devices import accelerator
from fracnet.utils.errors import UserError
from fracnet.utils.files import atomic_file
from fracnet.utils.progress import progress_bar
from fracnet.utils.text import counted, one_line

BEST = "best.ckpt"
PROFILERS = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


class AtomicCheckpoints(TorchCheckpointIO):
    """A checkpoint is complete or absent: a kill while writing leaves the one before.

    quick: epochs take less time than to write best.ckpt, which then waits for the next last.ckpt,
    from which a run is resumed, or for the end of the training.
    """

    def __init__(self, quick: bool = False) -> None:
        super().__init__()
        self._quick = quick
        self._waiting: tuple[dict[str, Any], Path] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write next to the path, then rename. Raises CannotWrite, for example on a full disk."""
        assert storage_options is None, storage_options
        if self._quick and Path(path).name == BEST:
            self._waiting = copy.deepcopy(checkpoint), Path(path)
            return
        self._write_waiting()
        write_checkpoint(checkpoint, Path(path))

    def teardown(self) -> None:
        """Called however the training ends."""
        self._write_waiting()

    def _write_waiting(self) -> None:
        if self._waiting is not None:
            write_checkpoint(*self._waiting)
            self._waiting = None


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write it atomically. Raises CannotWrite, for example on a full disk."""
    # Through memory, as Lightning does: torch hides a full disk behind an error of its own.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with atomic_file(path) as file:
        file.write(content.getbuffer())


class SameBuffers(Callback):
    """All processes validate with the running statistics of process 0, as the checkpoint has them.

    Each process keeps the statistics of the images that it has seen.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Broadcast those of process 0."""
        for buffer in pl_module.buffers():
            dist.broadcast(buffer, src=0)


def make_trainer(
    config: Config, folder: RunFolder, loggers: Sequence[Logger] = (), *, quick: bool = False
) -> tuple[Trainer, ModelCheckpoint]:
    """The Trainer, and the callback that knows the selected checkpoint.

    quick: see `AtomicCheckpoints`.

    Raises UserError for an argument that Lightning, or a class of the config's, rejects.
    """
    selecting = config.callbacks.best.metric
    best = MovableCheckpoint(
        folder.checkpoints,
        filename="best",
        monitor=f"val/{selecting}",
        mode=mode_of(config, selecting),
        save_weights_only=True,
        enable_version_counter=False,
    )
    # `best` holds weights alone.
    latest = LastCheckpoint(folder.checkpoints, config.callbacks.last.every_n_steps)
    bar = config.trainer.progress_bar and sys.stderr.isatty()
    given = {name: _built(v, name, folder) for name, v in config.trainer.passed_on.items()}
    plugins = given.pop("plugins", None) or []
    if overfit := given.pop("overfit_batches", 0):
        # Lightning would replace the sampler, which our loaders need; see `_loaders`.
        given |= {"limit_train_batches": overfit, "limit_val_batches": overfit}
    arguments: dict[str, Any] = {
        "accelerator": accelerator(config.trainer.accelerator),
        "devices": config.trainer.devices,
        "num_nodes": config.trainer.num_nodes,
        "strategy": "ddp" if config.trainer.processes > 1 else "auto",
        "precision": precision(config),
        "max_epochs": config.trainer.max_epochs,
        "gradient_clip_val": config.trainer.gradient_clip_val,
        "deterministic": "warn",
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
    }
    fixed: dict[str, Any] = {
        "callbacks": [*_callbacks(config, folder, best, bar), best, latest],
        "logger": list(loggers) or False,
        "plugins": [
            AtomicCheckpoints(quick),
            *(plugins if isinstance(plugins, list) else [plugins]),
        ],
        "use_distributed_sampler": False,  # the datamodule's loaders divide the rows
        "enable_progress_bar": bar,
        "default_root_dir": folder.path,
    }
    try:
        return Trainer(**(arguments | given | fixed)), best
    except UserError:
        raise
    except Exception as error:  # Lightning's own checks raise errors of many types
        given_text = ", ".join(f"trainer.{k}={v}" for k, v in config.trainer.passed_on.items())
        raise UserError(
            f"lightning.Trainer rejects its arguments{f' ({given_text})' if given_text else ''}: "
            f"{one_line(error)}"
        ) from error


def _loaders(config: Config, data: RadiographData) -> dict[str, Any]:
    """What `Trainer.fit` loads from; with `overfit_batches` the same batches in each epoch."""
    if not config.trainer.passed_on.get("overfit_batches"):
        return {"datamodule": data}
    return {"train_dataloaders": data.loader("train"), "val_dataloaders": data.val_dataloader()}


def _callbacks(
    config: Config, folder: RunFolder, best: ModelCheckpoint, progress_bar: bool
) -> list[Callback]:
    """fracnet's own callbacks and the user's, in the order in which they are called."""
    selecting = [name for name in selecting_metrics(config).values() if name != "loss"]
    localization = LOCALIZATION_METRICS if config.loss.localization else ()
    names = dict.fromkeys([*selecting, *config.metrics, *localization])
    columns = [f"val/{name}" for name in names]
    callbacks: list[Callback] = [
        ReseedEachEpoch(config.seed),
        Curves(folder.curves, best, columns),
    ]
    if progress_bar:
        callbacks.append(ProgressBar())
    freeze = config.model.freeze
    if freeze != "none":
        callbacks.append(FreezeBackbone(epochs=None if isinstance(freeze, str) else freeze))
    if config.trainer.image_sizes is not None:
        frozen = freeze if isinstance(freeze, int) else 0
        callbacks.append(ImageSizes(config.trainer.image_sizes, frozen))
    mixup, cutmix = config.augment.mixup, config.augment.cutmix
    if mixup or cutmix:
        callbacks.append(MixImages(config.seed, mixup, cutmix))
    if config.callbacks.ema is not None:
        callbacks.append(ExponentialAverage(config.callbacks.ema.decay))
    stop = config.callbacks.early_stopping
    if stop is not None:
        node = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", **(stop.model_extra or {})}
        node = {"mode": mode_of(config, stop.metric), "check_finite": False} | node
        monitor = f"val/{stop.metric}"
        callbacks.append(build(node, "callbacks.early_stopping", monitor, patience=stop.patience))
    for name, node in (config.callbacks.model_extra or {}).items():
        if node is not None:
            callbacks.append(_built(node, f"callbacks.{name}", folder))
    if config.trainer.processes > 1:  # after whatever puts other weights in place for validation
        callbacks.append(SameBuffers())
    return callbacks


def _built(node: Any, key: str, folder: RunFolder) -> Any:
    """The object that a config node names by `_target_`, itself or in a list; others unchanged."""
    if isinstance(node, list):
        return [_built(item, key, folder) for item in node]
    if key == "profiler" and isinstance(node, str) and node in PROFILERS:
        # By default a profiler's table goes to a log that nobody sees.
        return PROFILERS[node](dirpath=folder.path, filename="profile")
    if isinstance(node, Mapping) and "_target_" in node:
        arguments = {name: _built(value, key, folder) for name, value in node.items()}
        return build(arguments, key if "." in key else f"trainer.{key}")
    return node


def fit_and_predict(
    model: Classifier,
    config: Config,
    data: RadiographData,
    folder: RunFolder,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Train, or resume training; the selected checkpoint's predictions, and how it was selected.

    Each process of a run calls it; process 0 alone writes. callbacks: besides the config's.
    """
    if not config.model.by_epochs:
        return _fit_head_and_predict(model, config, data, folder)
    on_features = model.why_whole == ""
    quick = on_features and config.model.freeze == "backbone"
    trainer, best = make_trainer(config, folder, loggers, quick=quick)
    trainer.callbacks += callbacks  # type: ignore[attr-defined]
    model.extra_metrics = ValidationMetrics.requested(config, data)
    if on_features:
        data.features = head_features(model, config, data, folder)
    if config.trainer.compile:
        model.backbone.compile()  # in place: names of weights stay, a checkpoint is the same
    checkpoint = last_checkpoint(folder) if config.resume else None
    trainer.fit(model, **_loaders(config, data), ckpt_path=checkpoint, weights_only=True)
    if not best.best_model_path:
        raise UserError(
            "no epoch was trained and validated, so there is no selected checkpoint; see trainer."
            f"max_epochs={config.trainer.max_epochs} and the other keys of trainer."
        )
    path = folder.checkpoints / BEST
    stored = read_checkpoint(path)
    if quick:
        model.load_state_dict(stored["state_dict"])  # no callback can have changed the network
    else:
        # In a resumed run without a better epoch, the file is still that of the folder.
        model = rebuild(stored, config.trust or not config.resume, path)
    assert best.best_model_score is not None
    score = float(best.best_model_score)
    selected = {
        "epoch": stored["epoch"] + 1,  # counted from 1
        "by": best.monitor,
        "value": score if math.isfinite(score) else None,  # never defined
    }
    return predict(trainer, model, data), selected


def _fit_head_and_predict(
    model: Classifier, config: Config, data: RadiographData, folder: RunFolder
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fit the head to features in one go; the rest as `fit_and_predict`.

    It is fitted to the images as they are and to all their augmented copies. Building a Trainer
    would take longer than what is left to do.
    """
    features = data.features = head_features(model, config, data, folder)
    assert features is not None
    targets, train, val = data.manifest.targets(), data.rows("train"), data.rows("val")
    rows = np.concatenate([features.images[train], *features.views])
    selected = fitted_heads.fit_head(
        model.backbone,
        config.model.plain(),
        (rows, np.tile(targets[train], 1 + len(features.views))),
        (features.images[val], targets[val]),
        data.class_weights(),
        partial(progress_bar, visible=config.trainer.progress_bar),
    )
    print_choice(selected)
    if model.device.type != "cpu":  # it has computed the features there
        model.cpu()
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": model.state_dict(),
        model.CHECKPOINT_HYPER_PARAMS_KEY: dict(model.hparams),
    }
    model.on_save_checkpoint(checkpoint)
    write_checkpoint(checkpoint, folder.checkpoints / BEST)
    with torch.inference_mode():  # no head of this kind has a mode of evaluation
        loaders = data.predict_dataloader()
        batches = [model.predict_step(batch, 0) for loader in loaders for batch in loader]
    return assembled(batches, data), selected


def head_features(
    model: Classifier, config: Config, data: RadiographData, folder: RunFolder
) -> HeadFeatures | None:
    """What the head trains on in place of images; None where a resumed run has unfrozen the rest.

    Raises UserError for a last checkpoint that does not fit the network.
    """
    if config.resume:
        path = last_checkpoint(folder)
        stored = read_checkpoint(path)
        if isinstance(config.model.freeze, int) and epochs_done(path) >= config.model.freeze:
            return None
        # Frozen, but where training began: the features are those of the checkpoint's network.
        model.load_state_dict(rebuild(stored, True, path).state_dict())
    return NetworkFeatures(
        model, config, data, run_device(config), config.trainer.progress_bar
    ).for_training()


def precision(config: Config) -> Any:
    """`auto` is mixed where the device gains from it."""
    if config.trainer.precision != "auto":
        return config.trainer.precision
    # What is fitted to features in float32 is evaluated in float32.
    on_gpu = config.model.by_epochs and accelerator(config.trainer.accelerator) == "gpu"
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
    n = config.trainer.processes
    return f"{f'{n} processes, each on ' if n > 1 else ''}{name}, {precision(config)}"


def gather(rows: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 [N] and logits [N, C] of all processes, each row once, by ascending row."""
    shares: list[Any] = [(rows, logits)]
    if dist.is_available() and dist.is_initialized():
        shares = [None] * dist.get_world_size()
        dist.all_gather_object(shares, (rows, logits))
    rows, first = np.unique(np.concatenate([share[0] for share in shares]), return_index=True)
    return rows, np.concatenate([share[1] for share in shares])[first]


def predict(trainer: Trainer, model: Classifier, data: RadiographData) -> pd.DataFrame:
    """The predictions table of a network; see `assembled`."""
    of_loaders: Any = trainer.predict(model, datamodule=data)
    return assembled([batch for batches in of_loaders for batch in batches], data)


def assembled(batches: Sequence[Mapping[str, torch.Tensor]], data: RadiographData) -> pd.DataFrame:
    """The predictions table: a row an image of val and test (see `evaluation.predictions`).

    batches: what `Classifier.predict_step` returns, of this process.
    """
    rows, logits = gather(
        torch.cat([batch["row"] for batch in batches]).numpy(),
        torch.cat([batch["logits"] for batch in batches]).numpy(),
    )
    order = np.concatenate([data.rows("val"), data.rows("test")])
    assert np.array_equal(rows, np.sort(order))
    logits = logits[np.searchsorted(rows, order)]
    return assemble(data.table.iloc[order], data.classes, logits)
