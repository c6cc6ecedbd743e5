"""Timed epochs of Lightning's loop, with batches from files or one batch repeated."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from fracnet.config.schema import Config
from fracnet.data.datamodule import Batch, EpochLoader
from fracnet.training.callbacks import ReseedEachEpoch
from fracnet.training.trainer import precision
from fracnet.utils.devices import accelerator


def synthetic_batch(config: Config, classes: int, device: torch.device) -> Batch:
    """A synthetic batch on the device, with the keys and shapes of a real one."""
    n, side = config.data.batch_size, config.image_size
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, side, side), dtype=torch.uint8, generator=stream)
    batch = {
        "image": images,
        "target": torch.arange(n) % classes,
        "row": torch.arange(n),
    }
    return {name: values.to(device) for name, values in batch.items()}


class AlternatingLoader:
    """Alternates an epoch from files and an epoch of as many copies of one batch."""

    def __init__(self, files: EpochLoader, same: Callable[[], Batch]) -> None:
        self.files, self.same = files, same
        self.sampler = files.sampler  # Lightning sets its epoch
        self.turn = 0

    def __iter__(self) -> Iterator[Any]:
        self.turn += 1
        if self.turn % 2:
            yield from self.files
        else:
            batch = self.same()
            for _ in range(len(self.files)):
                yield batch

    def __len__(self) -> int:
        return len(self.files)


class RepeatedBatch:
    """One batch, repeated `steps` times."""

    def __init__(self, same: Callable[[], Batch], steps: int) -> None:
        self.same, self.steps = same, steps

    def __iter__(self) -> Iterator[Any]:
        batch = self.same()
        for _ in range(self.steps):
            yield batch

    def __len__(self) -> int:
        return self.steps


class Stopwatch(Callback):
    """Seconds of each epoch, including the delay of its first batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def restart(self) -> None:
        """Start counting now."""
        self._start = now()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting the first epoch."""
        self.restart()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the epoch."""
        self.seconds.append(now() - self._start)
        self.restart()


def now() -> float:
    """Seconds of the clock, once all that the device was told to do is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def plain_trainer(
    config: Config, epochs: int, callbacks: Sequence[Callback], root: Any, **extra: Any
) -> Trainer:
    """Lightning's Trainer as in a training, without validation and checkpoints."""
    return Trainer(
        accelerator=accelerator(config.trainer.accelerator),
        devices=1,
        precision=precision(config),
        max_epochs=epochs,
        callbacks=[ReseedEachEpoch(config.seed), *callbacks],
        deterministic="warn",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=root,
        **extra,
    )


def bare_steps(
    model: Any, optimizer: torch.optim.Optimizer, batch: Batch, steps: int, autocast: Any
) -> Tensor:
    """Training steps in a bare loop; the loss of the last one."""
    assert steps > 0, steps
    for _ in range(steps):
        optimizer.zero_grad()
        with autocast():
            loss: Tensor = model.loss(model(batch["image"]), batch["target"])
        loss.backward()
        optimizer.step()
    return loss.detach()
