"""A dataset of a few small images that is written in milliseconds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fracnet.data.datasets.base import Dataset
from fracnet.data.manifest import Manifest

CLASSES = ("elbow", "forearm", "wrist")
COUNTS = {"train": 21, "val": 9, "test": 6}
RESIZE = ({"name": "resize", "mode": "squash"},)
PUBLISHED = (
    {"_target_": "albumentations.HorizontalFlip", "p": 0.5},
    {"_target_": "albumentations.VerticalFlip", "p": 0.5},
    {
        "_target_": "albumentations.Affine",
        "rotate": [-15, 15],
        "scale": [0.9, 1.1],
        "keep_ratio": True,
        "p": 1.0,
    },
)


def picture(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """Smooth grey noise, uint8 [height, width], another one for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    return cv2.GaussianBlur(noise, (5, 5), 0)


@dataclass(kw_only=True)
class TinyDataset(Dataset):
    """Noise images of three classes; `truncate` names files that are cut in half."""

    name = "tiny"
    classes = CLASSES
    task = "multiclass"
    license = "none"
    citation = "none"
    groups = "unknown"
    how_to_get = "Put them into {root}."
    phantom = "tiny"

    counts: Mapping[str, int] = field(default_factory=lambda: dict(COUNTS))
    truncate: tuple[str, ...] = ()

    def prepare(self) -> None:
        seed = 0
        for split, count in self.counts.items():
            (self.folder / split).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                path = self.folder / split / f"{i}.png"
                seed += 1
                if not path.exists():
                    data = cv2.imencode(".png", picture(seed))[1].tobytes()
                    half = f"{split}/{i}.png" in self.truncate
                    path.write_bytes(data[: len(data) // 2] if half else data)

    def manifest(self) -> Manifest:
        rows = [
            {"path": f"{split}/{i}.png", "split": split, "label": CLASSES[i % 3]}
            for split, count in self.counts.items()
            for i in range(count)
        ]
        return self.build(rows, self.folder, excluded={("train", "no label"): 2})


def tiny_manifest(root: Path, **settings: object) -> Manifest:
    """Written, and read."""
    dataset = TinyDataset(root=str(root), **settings)  # type: ignore[arg-type]
    dataset.prepare()
    return dataset.manifest()
