"""The first layer: grey bytes to three normalized channels."""

import pytest
import timm
import torch
from torch import nn

from fracnet.models.classifier import grey_input
from fracnet.utils.errors import UserError

GREY = torch.tensor([[[[0, 51], [102, 255]]]], dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "normalize", "mean", "std"),
    [
        ("resnet18", "imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet18", "half", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        # These weights were trained with other statistics than ImageNet's.
        ("tf_efficientnet_lite0", "weights", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("resnet18", "weights", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_normalization_follows_the_config(
    name: str, normalize: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    layer = grey_input(timm.create_model(name), normalize)
    output = layer(GREY)
    assert output.shape == (1, 3, 2, 2)
    assert output.dtype == torch.float32
    for channel in range(3):
        expected = (GREY[0, 0].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(output[0, channel].double(), expected, rtol=0, atol=1e-6)


def test_statistics_travel_with_the_weights() -> None:
    assert set(grey_input(nn.Identity(), "half").state_dict()) == {"mean", "std"}


def test_a_backbone_without_statistics_needs_them_named() -> None:
    with pytest.raises(UserError, match=r"model.normalize=weights.*imagenet, half"):
        grey_input(nn.Identity(), "weights")
