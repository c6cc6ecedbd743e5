"""Radiographs to measure with: phantoms, as JPEG files under as many names as are asked for."""

import os
import shutil
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

    Grey, because that is what decodes fastest: it favors whoever decodes in every epoch.
    """
    found = []
    for number in range(n):
        spec = Spec(REGIONS[number % len(REGIONS)], seed, number, 0, 0, bool(number % 2))
        image = render_visible(spec, "study", 1).image
        image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        assert ok
        found.append(np.asarray(data).tobytes())
    return found


def write_set(root: Path, pictures: list[bytes], counts: Mapping[str, int]) -> Path:
    """Class folders below `root`/train, val and test that hold `counts` files; `root`.

    Each picture is written once; the files of one picture are names of one file on the disk,
    which changes nothing for who reads them, and saves gigabytes.
    """
    kept = root.with_suffix(".pictures")
    kept.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        (kept / f"{number}.jpg").write_bytes(picture)
    for split, n in counts.items():
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
        for number in range(n):
            target = root / split / CLASSES[number % 2] / f"{number:06d}.jpg"
            _same(kept / f"{number % len(pictures)}.jpg", target)
    return root


def _same(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without links, or with too many of this file
        shutil.copyfile(file, name)
