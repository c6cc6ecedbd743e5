"""Images with a bright square that a box marks, and networks that do or do not look at it."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from fracnet.data.datamodule import RadiographData
from fracnet.data.datasets.base import Source
from fracnet.data.manifest import Manifest
from fracnet.models.classifier import Classifier

SIZE = 32
ADAM = {"_target_": "torch.optim.Adam", "lr": 0.01}


@dataclass(kw_only=True)
class MarkedSource(Source):
    """Two images a patient: one with a square, which a box marks, and one without."""

    name = "marked"
    classes = ("normal", "fracture")
    task = "binary"
    license = "none"
    citation = "none"
    groups = "patients"
    obtain = "Put them into {root}."
    phantom = "marked"

    patients: int = 12  # of each split
    marks_in: tuple[str, ...] = ("train", "val", "test")

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for row in self._rows():
            image = np.random.default_rng(row["seed"]).integers(0, 12, (SIZE, SIZE), np.uint8)
            if row["label"] == "fracture":
                # Stripes elsewhere have more edges, and are not as bright.
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
            if row["label"] == "fracture" and row["split"] in self.marks_in:
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


def marked_data(root: Path, mode: str = "squash", **settings: object) -> RadiographData:
    """Set up, at `SIZE` pixels."""
    data = RadiographData(
        MarkedSource(root=str(root), **settings),  # type: ignore[arg-type]
        {"steps": [{"name": "resize", "mode": mode}]},
        image_size=SIZE,
        batch_size=8,
        progress=False,
    )
    data.prepare_data()
    return data


class _Looking(nn.Module):
    """A map, and the logits (-mean, mean) of it; `unused` has weights that change nothing."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        assert num_classes == 2
        self.unused = nn.Conv2d(3, 1, kernel_size=1)
        self.map = nn.Identity()
        self.register_buffer("signs", torch.tensor([-1.0, 1.0]))

    def look(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        seen = self.map(self.look(images) + 0 * self.unused(images))
        return seen.mean(dim=(1, 2, 3))[:, None] * self.signs


class Seeing(_Looking):
    """Sees what is very bright, whatever its weights."""

    def look(self, images: Tensor) -> Tensor:
        return torch.relu(images[:, :1] - 0.5)


class Staring(_Looking):
    """Looks at the same corner of every image."""

    def look(self, images: Tensor) -> Tensor:
        corner = torch.zeros_like(images[:, :1])
        corner[:, :, -4:, -4:] = 1
        return corner


class Placed(_Looking):
    """Looks where its weights say."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.place = nn.Linear(SIZE, SIZE, bias=False)

    def look(self, images: Tensor) -> Tensor:
        return torch.relu(self.place.weight + 0.05 * images[:, :1])


def looking(kind: type[nn.Module]) -> Classifier:
    """A classifier of normal and fracture around one of the networks above."""
    torch.manual_seed(0)
    node = {"_target_": f"helpers.marked.{kind.__name__}", "normalize": "half"}
    return Classifier(node, ["normal", "fracture"], ADAM)
