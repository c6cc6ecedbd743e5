"""Builds the cache of a tiny data set slowly, one line in a log for each image it decodes.

Arguments: root of the images, log file, seconds for an image.
"""

import sys
import time
from pathlib import Path

import numpy as np
from helpers.tiny import RESIZE, tiny_manifest

from fracnet.data import build
from fracnet.data.cache import ImageCache
from fracnet.data.enhance import build_enhance
from fracnet.data.reading import read_grey


def main() -> None:
    root, log, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

    def slowly(path: Path) -> np.ndarray:
        time.sleep(pause)
        with log.open("a") as lines:
            lines.write(f"{path.name}\n")
        return read_grey(path)

    build.read_grey = slowly  # type: ignore[assignment]
    cache = ImageCache.open_or_build(
        tiny_manifest(root), build_enhance(RESIZE, 32), on_bad_file="error", workers=1
    )
    print(cache.path)


if __name__ == "__main__":
    main()
