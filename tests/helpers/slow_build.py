"""Builds the cache of a tiny dataset slowly and logs one line for each image it decodes.

Arguments: root of the images, log file, seconds per image, processes that start together.
"""

import sys
import time
from pathlib import Path

import numpy as np
from helpers.tiny import RESIZE, tiny_manifest

from fracnet.data import image_cache
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import read_grey
from fracnet.data.preprocess import Preprocess


def build_slowly(root: Path, log: Path, pause: float, together: int) -> None:
    def read_slowly(path: Path) -> np.ndarray:
        time.sleep(pause)
        with log.open("a") as lines:
            lines.write(f"{path.name}\n")
        return read_grey(path)

    with log.with_suffix(".ready").open("a") as ready:
        ready.write("ready\n")
    while len(log.with_suffix(".ready").read_text().splitlines()) < together:
        time.sleep(0.01)
    image_cache.read_grey = read_slowly  # type: ignore[assignment]
    cache = ImageCache.open_or_build(
        tiny_manifest(root), Preprocess(RESIZE, 32), on_bad_file="error", workers=1
    )
    print(cache.path)


if __name__ == "__main__":
    root, log, pause, together = sys.argv[1:]
    build_slowly(Path(root), Path(log), float(pause), int(together))
