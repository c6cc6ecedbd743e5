"""Networks of which it is known what they look at."""

import torch
from torch import Tensor, nn


class Quadrants(nn.Module):
    """Class 0 is how bright the upper left quarter is, class 1 the lower right one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, num_classes, kernel_size=1, bias=False)
        self.weigh = nn.ReLU(inplace=True)
        self.head = nn.Linear(num_classes, num_classes, bias=False)
        nn.init.ones_(self.look.weight)
        nn.init.eye_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        seen = self.weigh(self.look(images))
        mask = torch.zeros_like(seen)
        mask[:, 0, :half, :half] = 1
        mask[:, 1, half:, half:] = 1
        logits: Tensor = self.head((seen * mask).mean(dim=(2, 3)))
        return logits


class AllOver(nn.Module):
    """Every class is how bright the whole image is."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 4, kernel_size=1)
        self.head = nn.Linear(4, num_classes)
        nn.init.ones_(self.look.weight)
        nn.init.ones_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.look(images).relu().mean(dim=(2, 3)))
        return logits


class Negative(nn.Module):
    """Every class is how dark the image is; what `look` has put out is then changed in place."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, num_classes, kernel_size=1, bias=False)
        nn.init.ones_(self.look.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.look(images).neg_().mean(dim=(2, 3))
