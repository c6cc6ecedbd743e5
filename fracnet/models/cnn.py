"""The CNNs of two published works: `CustomCNN` (six classes) and `MuraCNN` (fracture or none).

The paper behind `MuraCNN` states an input of 150x150 scaled to [-1, 1], several convolutional
layers with filters of several sizes in parallel, ReLU, max-pooling, dense layers and softmax,
without a table of layers. Where it is silent, these choices are made:

1. Filters of 3x3, 5x5 and 7x7 in parallel, their outputs concatenated.
2. Four such layers, of 16, 32, 64 and 64 filters of each size.
3. Stride 1 and padding that keeps the size; each layer ends in ReLU and 2x2 max-pooling.
4. Two hidden dense layers of 256 and 128 units with ReLU, then the layer of the classes.
5. No batch normalization and no dropout, as none is mentioned (`model.head_dropout` adds it).
6. Weights start Glorot uniform, biases at zero. (Kaiming's larger ones make the loss jump to 40
   at the first step with the published rate of 0.001.)
7. Logits: the loss applies the softmax. One logit per class, also for two classes.
8. Three equal channels from the grey image, as for every model here.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from fracnet.utils.errors import UserError

CUSTOM_WIDTHS = (32, 64, 128, 256)
CUSTOM_HIDDEN = 1024


def _last_side(image_size: int, halvings: int, model: str) -> int:
    """Side of the last feature map; UserError if there is none."""
    if image_size < 2**halvings:
        raise UserError(
            f"image_size={image_size} is too small for model={model}; allowed: {2**halvings} and "
            "more."
        )
    return image_size // 2**halvings


def _initialize(model: nn.Module, initialize: Callable[[Tensor], Tensor]) -> None:
    """The weights by this rule, biases at zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            initialize(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


class CustomCNN(nn.Module):
    """Four 3x3 convolutions, two linear layers; 51,776,774 parameters for six classes at 224.

    Maps float32 [N, 3, S, S] to logits [N, num_classes]. Each convolution is followed by
    batch normalization, ReLU and 2x2 max-pooling, the second and fourth by dropout as well.
    Weights start Kaiming uniform (fan out), biases at zero.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int = 224,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3,
    ) -> None:
        super().__init__()
        side = _last_side(image_size, len(CUSTOM_WIDTHS), "custom_cnn")
        layers: list[nn.Module] = []
        channels = 3
        for place, width in enumerate(CUSTOM_WIDTHS, start=1):
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
            ]
            if place % 2 == 0:
                layers.append(nn.Dropout(dropout))
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * side * side, CUSTOM_HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(CUSTOM_HIDDEN, num_classes),
        )
        kaiming = partial(nn.init.kaiming_uniform_, mode="fan_out", nonlinearity="relu")
        _initialize(self, kaiming)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes] of normalized images [N, 3, S, S]."""
        logits: Tensor = self.head(self.features(images))
        return logits


FILTER_SIZES = (3, 5, 7)
MURA_WIDTHS = (16, 32, 64, 64)
MURA_HIDDEN = (256, 128)


class ParallelFilters(nn.Module):
    """Convolutions of several sizes on the same input, then ReLU and 2x2 max-pooling.

    Maps float32 [N, C, H, W] to [N, len(FILTER_SIZES) * width, H // 2, W // 2].
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.filters = nn.ModuleList(
            nn.Conv2d(channels, width, size, padding=size // 2) for size in FILTER_SIZES
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        """The filters' outputs, concatenated."""
        features = torch.cat([filters(images) for filters in self.filters], dim=1)
        pooled: Tensor = self.pool(features.relu())
        return pooled


class MuraCNN(nn.Module):
    """Four layers of parallel filters, three dense ones; see the module for the choices.

    Maps float32 [N, 3, S, S] to logits [N, num_classes]; 5,676,578 parameters for two classes
    at 150. image_size: pixels per side, 16 or more.
    """

    def __init__(self, num_classes: int, image_size: int = 150) -> None:
        super().__init__()
        side = _last_side(image_size, len(MURA_WIDTHS), "mura_cnn")
        inputs = (3, *(len(FILTER_SIZES) * width for width in MURA_WIDTHS))
        self.features = nn.Sequential(
            *(
                ParallelFilters(channels, width)
                for channels, width in zip(inputs[:-1], MURA_WIDTHS, strict=True)
            )
        )
        units = (inputs[-1] * side * side, *MURA_HIDDEN)
        dense: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(units[:-1], MURA_HIDDEN, strict=True):
            dense += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        self.head = nn.Sequential(*dense, nn.Linear(units[-1], num_classes))
        _initialize(self, nn.init.xavier_uniform_)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes] of normalized images [N, 3, S, S]."""
        logits: Tensor = self.head(self.features(images))
        return logits
