"""Train the head alone: for good, or for the first epochs."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fracnet.models.heads import find_heads


class FreezeBackbone(Callback):
    """Keeps all weights but the head's as they are, and the statistics of batch-norm layers.

    Args:
        epochs: so many epochs, then everything is trained; None for good.
    """

    def __init__(self, epochs: int | None) -> None:
        self.epochs = epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze before the weights are handed to the devices."""
        if stage != "fit":
            return
        # Data-parallel training fixes at its start which gradients are summed over devices.
        assert self.epochs is None or trainer.world_size == 1
        set_frozen(_backbone(pl_module), True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Thaw when the time has come; a resumed run finds the same state."""
        frozen = self.epochs is None or trainer.current_epoch < self.epochs
        set_frozen(_backbone(pl_module), frozen)
        keep_statistics(_backbone(pl_module), frozen)


def _backbone(pl_module: LightningModule) -> nn.Module:
    assert isinstance(pl_module.backbone, nn.Module)
    return pl_module.backbone


def set_frozen(model: nn.Module, frozen: bool) -> None:
    """Freeze or thaw all weights but the head's.

    Raises:
        UserError: the model has no head that could be found.
    """
    heads = find_heads(model, "model.freeze")
    kept = {id(weight) for head in heads for weight in head.parameters()}
    for weight in model.parameters():
        if id(weight) not in kept:
            weight.requires_grad_(not frozen)


def keep_statistics(model: nn.Module, keep: bool) -> None:
    """Whether batch-norm layers normalise with the statistics that came with the weights.

    They are in evaluation mode then and update nothing. Dropout goes on as in training.
    """
    for layer in model.modules():
        if isinstance(layer, _NormBase):
            layer.train(not keep)
