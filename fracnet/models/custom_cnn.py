"""The small CNN of the published six-class work, as its report describes it."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from fracnet.errors import UserError

WIDTHS = (32, 64, 128, 256)
HIDDEN = 1024


class CustomCNN(nn.Module):
    """Four 3x3 convolutions, two linear layers; 51,776,774 parameters for six classes at 224.

    Maps float32 [N, 3, S, S] to logits [N, num_classes]. Each convolution is followed by
    batch normalisation, ReLU and 2x2 max-pooling, the second and fourth by dropout as well.
    Weights start Kaiming uniform (fan out), biases at zero.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int = 224,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3,
    ) -> None:
        super().__init__()
        side = image_size // 2 ** len(WIDTHS)
        if side < 1:
            raise UserError(
                f"image_size={image_size} is too small for model=custom_cnn; allowed: "
                f"{2 ** len(WIDTHS)} and more."
            )
        layers: list[nn.Module] = []
        channels = 3
        for place, width in enumerate(WIDTHS, start=1):
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
            nn.Linear(channels * side * side, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, num_classes] of normalised images [N, 3, S, S]."""
        logits: Tensor = self.head(self.features(images))
        return logits
