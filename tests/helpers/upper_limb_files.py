"""Small stand-ins for the upper-limb dataset on disk: 8x8 images with real-looking labels."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = (
    "elbow positive",
    "fingers positive",
    "forearm fracture",
    "humerus fracture",
    "humerus",
    "shoulder fracture",
    "wrist positive",
)
POLYGON = "0.25 0.25 0.75 0.25 0.5 0.75"


def jpeg(grey: int = 90, size: tuple[int, int] = (8, 8)) -> bytes:
    """The bytes of a small RGB JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), grey, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def add(base: Path, split: str, stem: str, label: str | None, image: bytes | None = None) -> Path:
    """One image and its label file (none at all for None); gives the image's path."""
    images, labels = base / split / "images", base / split / "labels"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    path = images / f"{stem}.jpg"
    path.write_bytes(jpeg() if image is None else image)
    if label is not None:
        (labels / f"{stem}.txt").write_bytes(label.encode())
    return path


def write_yaml(base: Path, names: Sequence[str] = NAMES) -> None:
    base.mkdir(parents=True, exist_ok=True)
    (base / "data.yaml").write_text(f"nc: {len(names)}\nnames: {list(names)}\n")


def write_yolo(base: Path, *, val: str = "valid", per_class: int = 1) -> Path:
    """Every one of the seven ids `per_class` times in each split; gives `base`."""
    write_yaml(base)
    for split in ("train", val, "test"):
        for class_id in range(7):
            for copy in range(per_class):
                add(base, split, f"{class_id}_{copy}_jpg.rf.{split}", f"{class_id} {POLYGON}\n")
    return base


def write_class_folders(base: Path, folders: Mapping[str, Sequence[str]], n: int = 1) -> Path:
    """Plain class folders: split folder -> class folders, `n` images in each; gives `base`."""
    for split, classes in folders.items():
        for name in classes:
            folder = base / split / name
            folder.mkdir(parents=True)
            for copy in range(n):
                (folder / f"{copy}.JPG").write_bytes(jpeg())
    return base
