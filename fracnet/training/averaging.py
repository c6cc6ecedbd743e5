"""Weights averaged over the steps of training (EMA)."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


def decay_after(updates: int, decay: float) -> float:
    """The share of the old average at an update: min(decay, (1 + n) / (10 + n)).

    A constant decay near 1 would hold on to the first steps for many epochs of a small data
    set; the growing one is that of TensorFlow's ExponentialMovingAverage.
    """
    return min(decay, (1 + updates) / (10 + updates))


class ExponentialAverage(WeightAveraging):
    """An exponential moving average of the weights is validated, selected, stored and used.

    Batch-norm statistics are averaged like the weights they belong to; integer buffers (the
    count of batches) are taken over as they are. The first step's weights start the average.

    `last.ckpt` holds both: the average as `state_dict`, the trained weights as
    `current_model_state`, the number of updates as `averaging_state`.

    Args:
        decay: the largest share that the old average keeps at a step.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._swapped = False
        super().__init__(multi_avg_fn=self._update)

    @torch.no_grad()
    def _update(self, averages: Any, current: Any, updates: Tensor | int) -> None:
        """Move tensors of one type and device towards the current ones, in place."""
        if averages[0].is_floating_point():
            share = 1 - decay_after(int(updates), self.decay)
            # Unlike a sum of two products, this leaves a weight that does not change as it is.
            torch._foreach_lerp_(averages, current, share)
        else:
            torch._foreach_copy_(averages, current)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the model to its device: Lightning makes the copy before it moves there."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in place."""
        if self._average_model is not None:
            self._swap_models(pl_module)
            self._swapped = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave it there, where Lightning would take it out.

        The selected checkpoint is written between here and the next batch, and since it holds
        weights only, Lightning writes those that are in place and does not ask this callback.
        """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Training goes on with its own weights."""
        self._put_back(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The average is the result."""
        self._put_back(pl_module)
        super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A whole checkpoint (last.ckpt) holds both sets of weights, each under its own name."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped:
            average = checkpoint["current_model_state"]
            checkpoint["current_model_state"] = checkpoint["state_dict"]
            checkpoint["state_dict"] = average

    def _put_back(self, pl_module: LightningModule) -> None:
        if self._swapped:
            self._swap_models(pl_module)
            self._swapped = False
