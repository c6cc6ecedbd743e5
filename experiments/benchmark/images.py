"""Phantom radiographs as JPEG files, under as many file names as needed."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from fracnet.data.phantoms.render import Spec, render_visible

REGIONS = ("elbow", "fingers", "forearm", "humerus", "shoulder", "wrist")
CLASSES = ("normal", "fractured")
QUALITY = 90


def jpegs(n: int, side: int, seed: int = 0) -> list[bytes]:
    """n different grey JPEGs of `side` squared pixels.

    Grey JPEGs decode fastest, which favors pipelines that decode in every epoch.
    """
    result = []
    for number in range(n):
        spec = Spec(REGIONS[number % len(REGIONS)], seed, number, 0, 0, bool(number % 2))
        image = render_visible(spec, "study", 1).image
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        assert ok
        result.append(np.asarray(data).tobytes())
    return result


def write_set(root: Path, image_files: list[bytes], counts: Mapping[str, int]) -> Path:
    """Class folders below `root`/train, val and test that hold `counts` files; returns `root`.

    The images repeat, but every file is a copy of its own: fracnet reads a linked file only once.
    """
    for split, n in counts.items():
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
        for number in range(n):
            target = root / split / CLASSES[number % 2] / f"{number:06d}.jpg"
            target.write_bytes(image_files[number % len(image_files)])
    return root
