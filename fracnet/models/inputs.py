"""The first layer of every model: from grey bytes to what the backbone was made for."""

import torch
from torch import Tensor, nn

from fracnet.errors import UserError
from fracnet.models.backbones import input_statistics

FIXED = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "half": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
}


class GreyInput(nn.Module):
    """Replicate to three channels, scale to 0..1, normalise; runs on the device.

    Maps uint8 [N, 1, H, W] to float32 [N, 3, H, W].
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        # Buffers travel with the checkpoint and with an exported model.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """float32 [N, 3, H, W] of uint8 [N, 1, H, W]."""
        assert images.dtype == torch.uint8, images.dtype
        # (x / 255 - mean) / std as one pass over the large result instead of three.
        scale, shift = 1 / (255 * self.std), -self.mean / self.std
        return torch.addcmul(shift, images.float(), scale)


def grey_input(backbone: nn.Module, normalise: str) -> GreyInput:
    """The input layer that `model.normalise` asks for.

    Args:
        backbone: asked for the statistics of its weights where `normalise` is `weights`.
        normalise: `weights`, `imagenet` or `half`.

    Raises:
        UserError: `weights`, but the backbone names none.
    """
    if normalise in FIXED:
        return GreyInput(*FIXED[normalise])
    found = input_statistics(backbone)
    if found is None:
        raise UserError(
            f"model.normalise={normalise}: {type(backbone).__name__} does not say which mean and "
            "standard deviation its weights expect; allowed for it: imagenet, half."
        )
    return GreyInput(*found)
