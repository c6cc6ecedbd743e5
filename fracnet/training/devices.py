"""One run on several devices: a process each, gradients averaged (data-parallel training)."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from fracnet.config import Config
from fracnet.errors import UserError


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
