"""Other pipelines from a radiograph to the network, which decode and preprocess in every epoch.

All do the same work on a grey JPEG: CLAHE (clip limit 2, 8 x 8 tiles), a resize to S squared,
rotation by up to 15 degrees with scale 0.9 to 1.1, both flips, ImageNet's normalization.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEGREES, SCALE = 15.0, (0.9, 1.1)
CLIP, TILES = 2.0, (8, 8)

Step = tuple[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class Pipeline:
    """Named steps for one image, from the bytes of a JPEG to one item of a batch.

    collate: turns the items into float32 [B, 3, S, S].
    """

    name: str
    steps: Sequence[Step]
    collate: Step

    def batch(self, files: Sequence[bytes]) -> Tensor:
        """float32 [B, 3, S, S] of B files."""
        items = []
        for item in files:
            for _, step in self.steps:
                item = step(item)
            items.append(item)
        result: Tensor = self.collate[1](items)
        return result


def published(size: int) -> Pipeline:
    """As student code does it: PIL, CLAHE on the lightness of a color image, torchvision."""
    clahe = cv2.createCLAHE(CLIP, TILES)

    def decode(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    def preprocess(image: Image.Image) -> Image.Image:
        lab = cv2.cvtColor(cv2.cvtColor(np.array(image), cv2.COLOR_RGB2BGR), cv2.COLOR_BGR2LAB)
        lightness, a, b = cv2.split(lab)
        lab = cv2.merge((clahe.apply(lightness), a, b))
        return Image.fromarray(
            cv2.cvtColor(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR), cv2.COLOR_BGR2RGB)
        )

    # One warp for rotation and scale, with PIL's fastest interpolation, which is the default.
    geometric = v1.Compose(
        [v1.RandomAffine(DEGREES, scale=SCALE), v1.RandomHorizontalFlip(), v1.RandomVerticalFlip()]
    )
    return Pipeline(
        "published pipeline",
        [
            ("decode", decode),
            ("CLAHE", preprocess),
            ("resize", v1.Resize((size, size))),
            ("augment", geometric),
            ("tensor, normalize", v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD)])),
        ],
        ("batch", torch.stack),
    )


def lean(size: int, *, resize_first: bool = False) -> Pipeline:
    """OpenCV alone, as lean as possible: grey until the end, one warp for all geometry.

    resize_first: resize before CLAHE, which then has fewer pixels to work on.
    """
    clahe = cv2.createCLAHE(CLIP, TILES)
    draws = np.random.default_rng(0)
    mean = np.array(MEAN, np.float32).reshape(3, 1, 1)
    std = np.array(STD, np.float32).reshape(3, 1, 1)
    scale, shift = 1 / (255 * std), -mean / std

    def decode(data: bytes) -> np.ndarray:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        return image

    def resize(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)

    def augment(image: np.ndarray) -> np.ndarray:
        angle, zoom = draws.uniform(-DEGREES, DEGREES), draws.uniform(*SCALE)
        center = (size - 1) / 2
        matrix = cv2.getRotationMatrix2D((center, center), angle, zoom)
        for axis in (0, 1):
            if draws.random() < 0.5:
                matrix[axis] = -matrix[axis]
                matrix[axis, 2] += size - 1
        return cv2.warpAffine(image, matrix, (size, size))

    def normalize(image: np.ndarray) -> np.ndarray:
        return image.astype(np.float32) * scale + shift

    steps: list[Step] = [("CLAHE", clahe.apply), ("resize", resize)]
    steps = steps[::-1] if resize_first else steps
    return Pipeline(
        "lean OpenCV, resize first" if resize_first else "lean OpenCV",
        [("decode", decode), *steps, ("augment", augment), ("normalize", normalize)],
        ("batch", lambda items: torch.from_numpy(np.stack(items))),
    )


def modern(size: int) -> Pipeline:
    """torchvision's transforms v2 on grey tensors, with OpenCV's CLAHE inside."""
    clahe = cv2.createCLAHE(CLIP, TILES)

    def decode(data: bytes) -> Tensor:
        # By PIL, since torchvision is giving up its own decoders.
        image: Tensor = v2.functional.pil_to_tensor(Image.open(io.BytesIO(data)).convert("L"))
        return image

    def preprocess(image: Tensor) -> Tensor:
        return torch.from_numpy(clahe.apply(image[0].numpy()))[None]

    geometric = v2.Compose(
        [v2.RandomAffine(DEGREES, scale=SCALE), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    )
    finish = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Grayscale(3), v2.Normalize(MEAN, STD)]
    )
    return Pipeline(
        "torchvision v2",
        [
            ("decode", decode),
            ("CLAHE", preprocess),
            ("resize", v2.Resize((size, size))),
            ("augment", geometric),
            ("tensor, normalize", finish),
        ],
        ("batch", torch.stack),
    )
