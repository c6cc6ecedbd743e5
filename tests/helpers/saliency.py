"""Images with an annotated bright square, and networks with known attention."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fracnet.data.datamodule import RadiographData
from fracnet.data.datasets.base import Dataset
from fracnet.data.manifest import Manifest
from fracnet.models.classifier import Classifier

SIZE = 32
ADAM = {"_target_": "torch.optim.Adam", "lr": 0.01}


@dataclass(kw_only=True)
class AnnotatedDataset(Dataset):
    """Two images per patient: one with a square, annotated by a box, and one without."""

    name = "annotated"
    classes = ("normal", "fracture")
    task = "binary"
    license = "none"
    citation = "none"
    groups = "patients"
    how_to_get = "Put them into {root}."
    phantom = "annotated"

    patients: int = 12  # of each split
    annotated_splits: tuple[str, ...] = ("train", "val", "test")

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for row in self._rows():
            image = np.random.default_rng(row["seed"]).integers(0, 12, (SIZE, SIZE), np.uint8)
            if row["label"] == "fracture":
                # Stripes at another position have more edges but are less bright.
                x, y = ((place + SIZE // 2) % (SIZE - 10) for place in row["corner"])
                image[y : y + 10, x : x + 10 : 4] = image[y : y + 10, x + 1 : x + 10 : 4] = 170
                x, y = row["corner"]
                image[y : y + 6, x : x + 6] = 240
            cv2.imwrite(str(self.folder / row["path"]), image)

    def manifest(self) -> Manifest:
        rows = []
        for row in self._rows():
            x, y = row.pop("corner")
            del row["seed"]
            if row["label"] == "fracture" and row["split"] in self.annotated_splits:
                points = [[x / SIZE, y / SIZE], [(x + 6) / SIZE, (y + 6) / SIZE]]
                row["boxes"] = [{"label": "fracture", "points": points}]
            rows.append(row)
        return self.build(rows, self.folder)

    def _rows(self) -> list[dict]:
        rows = []
        rng = np.random.default_rng(0)
        for split in ("train", "val", "test"):
            for patient in range(self.patients):
                for label in self.classes:
                    name = f"{split}{patient}{label}"
                    rows.append(
                        {
                            "path": f"{name}.png",
                            "split": split,
                            "label": label,
                            "patient": f"{split}{patient}",
                            "corner": rng.integers(0, SIZE - 6, 2).tolist(),
                            "seed": len(rows),
                        }
                    )
        return rows


def annotated_data(root: Path, mode: str = "squash", **settings: object) -> RadiographData:
    """A prepared data module at `SIZE` pixels."""
    data = RadiographData(
        AnnotatedDataset(root=str(root), **settings),  # type: ignore[arg-type]
        {"steps": [{"name": "resize", "mode": mode}]},
        image_size=SIZE,
        batch_size=8,
        progress=False,
    )
    data.prepare_data()
    return data


class _KnownAttention(nn.Module):
    """A map and its logits (-mean, mean); the weights of `unused` change nothing."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        assert num_classes == 2
        self.unused = nn.Conv2d(3, 1, kernel_size=1)
        self.map = nn.Identity()
        self.register_buffer("signs", torch.tensor([-1.0, 1.0]))

    def attend(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        attention = self.map(self.attend(images) + 0 * self.unused(images))
        return attention.mean(dim=(1, 2, 3))[:, None] * self.signs


class BrightnessDetector(_KnownAttention):
    """Responds to what is very bright, whatever its weights."""

    def attend(self, images: Tensor) -> Tensor:
        return torch.relu(images[:, :1] - 0.5)


class CornerDetector(_KnownAttention):
    """Responds in the same corner of every image."""

    def attend(self, images: Tensor) -> Tensor:
        corner = torch.zeros_like(images[:, :1])
        corner[:, :, -4:, -4:] = 1
        return corner


class EdgeDetector(_KnownAttention):
    """Responds to horizontal steps of brightness, whatever its weights."""

    def attend(self, images: Tensor) -> Tensor:
        steps = (images[:, :1, :, 1:] - images[:, :1, :, :-1]).abs()
        return nn.functional.pad(steps, (0, 1))


class CenterBlob(_KnownAttention):
    """Responds at the center of every image; image and weights change hardly anything."""

    def __init__(self, num_classes: int, width: float = 8, noise: float = 0.02) -> None:
        super().__init__(num_classes)
        self.place = nn.Linear(SIZE, SIZE, bias=False)
        self.noise = noise
        squares = (torch.arange(SIZE) - (SIZE - 1) / 2) ** 2
        self.register_buffer("blob", torch.exp(-(squares + squares[:, None]) / (2 * width**2)))

    def attend(self, images: Tensor) -> Tensor:
        return torch.relu(self.blob + self.noise * (self.place.weight + images[:, :1]))


class WeightMap(_KnownAttention):
    """Responds where its weights are high."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.place = nn.Linear(SIZE, SIZE, bias=False)

    def attend(self, images: Tensor) -> Tensor:
        return torch.relu(self.place.weight + 0.05 * images[:, :1])


class ThreeLayers(nn.Module):
    """A convolutional network that learns the squares within seconds."""

    def __init__(self, num_classes: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (3, width, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if inputs == width else []
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images).mean(dim=(2, 3)))
        return logits


def known_classifier(kind: type[nn.Module], seed: int = 0, **arguments: object) -> Classifier:
    """A classifier of normal and fracture around one of the networks above."""
    torch.manual_seed(seed)
    target = {"_target_": f"helpers.saliency.{kind.__name__}", "normalize": "half"}
    node = target | arguments
    return Classifier(node, ["normal", "fracture"], ADAM)


class Quadrants(nn.Module):
    """Class 0 is the brightness of the upper left quarter, class 1 of the lower right one."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, kernel_size=1, bias=False)
        self.weigh = nn.ReLU(inplace=True)
        self.head = nn.Linear(num_classes, num_classes, bias=False)
        nn.init.ones_(self.conv.weight)
        nn.init.eye_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        weighted = self.weigh(self.conv(images))
        mask = torch.zeros_like(weighted)
        mask[:, 0, :half, :half] = 1
        mask[:, 1, half:, half:] = 1
        logits: Tensor = self.head((weighted * mask).mean(dim=(2, 3)))
        return logits


class WholeImage(nn.Module):
    """Every class is the brightness of the whole image."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=1)
        self.head = nn.Linear(4, num_classes)
        nn.init.ones_(self.conv.weight)
        nn.init.ones_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(images).relu().mean(dim=(2, 3)))
        return logits


class Negative(nn.Module):
    """Every class is the darkness of the image; the output of `conv` is then changed in place."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, kernel_size=1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).neg_().mean(dim=(2, 3))
