"""A network with almost no cost, so that what surrounds it can be measured."""

from torch import Tensor, nn


class SmallNet(nn.Module):
    """Two strided convolutions and a linear layer: float32 [N, 3, S, S] to logits [N, C]."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        assert image_size >= 16, image_size
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 8, stride=8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 [N, C]."""
        logits: Tensor = self.layers(images)
        return logits
