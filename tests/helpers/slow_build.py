"""Builds the cache of a tiny data set slowly, one line in a log for each image it decodes.

Arguments: root of the images, log file, seconds for an image, processes that begin together.
"""

import sys
import time
from pathlib import Path

import numpy as np
from helpers.tiny import RESIZE, tiny_manifest

from fracnet.data import image_io
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import read_grey
from fracnet.data.preprocess import build_preprocess


def main() -> None:
    root, log, pause, together = sys.argv[1:]
    build_slowly(Path(root), Path(log), float(pause), int(together))


def build_slowly(root: Path, log: Path, pause: float, together: int) -> None:

    def slowly(path: Path) -> np.ndarray:
        time.sleep(pause)
        with log.open("a") as lines:
            lines.write(f"{path.name}\n")
        return read_grey(path)

    with log.with_suffix(".ready").open("a") as ready:
        ready.write("ready\n")
    while len(log.with_suffix(".ready").read_text().splitlines()) < together:
        time.sleep(0.01)
    image_io.read_grey = slowly  # type: ignore[assignment]
    cache = ImageCache.open_or_build(
        tiny_manifest(root), build_preprocess(RESIZE, 32), on_bad_file="error", workers=1
    )
    print(cache.path)


if __name__ == "__main__":
    main()
