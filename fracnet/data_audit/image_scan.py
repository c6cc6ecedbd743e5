"""Each image is decoded once: what the checks need of it is noted, then its pixels are let go."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from fracnet.data import dicom
from fracnet.data.image_features import FEATURE_NAMES, shortcut_features
from fracnet.data.image_io import BadImage, Grey, read_grey, strict

FEATURES = (*FEATURE_NAMES, "bits", "marker_area")
"""Those of the shortcut baseline, then bits a pixel in the file, and the share of bright marks."""

# Bits a pixel of Pillow's modes; what is not named here has 8.
BITS = {"1": 1, "LA": 16, "RGB": 24, "RGBA": 32, "CMYK": 32, "YCbCr": 24, "I": 32, "F": 32}
MARKER_SIDE = 512  # pixels of the longest side, where marks are looked for
BRIGHT = 235  # grey levels from which on a pixel may belong to a letter of lead
SMALLEST, LARGEST = 2e-5, 0.01  # of the picture, the area of one mark


@dataclass
class Looking:
    """Reads the images of a data set and notes what it sees, from any number of threads.

    features: float64 [N, F], `FEATURES`; NaN where a file cannot be read. bad: row -> reason.
    """

    files: Sequence[Path]
    features: npt.NDArray[np.float64] = field(init=False)
    bad: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.features = np.full((len(self.files), len(FEATURES)), np.nan)

    def __call__(self, row: int) -> Grey | None:
        """The pixels of an image, uint8 [H, W]; None where the file cannot be read."""
        path = self.files[row]
        try:
            image = read_grey(path)
            bits = bits_of(path)
            size = path.stat().st_size
        except BadImage as error:
            self.bad[row] = error.reason
            return None
        except OSError as error:  # gone since it was read
            self.bad[row] = error.strerror or str(error)
            return None
        self.features[row] = [*shortcut_features(image, size), bits, marker_area(image)]
        return image

    @property
    def good(self) -> npt.NDArray[np.int64]:
        """Rows that could be read, ascending."""
        return np.flatnonzero(~np.isnan(self.features[:, 0]))


def bits_of(path: Path) -> int:
    """Bits a pixel as the file has them, color and alpha counted; 16 for 16-bit grey."""
    with strict, path.open("rb") as file:
        if dicom.is_dicom(file.read(dicom.HEAD)):
            from pydicom import dcmread

            file.seek(0)
            head = dcmread(file, force=True, specific_tags=["BitsStored"], stop_before_pixels=True)
            return int(head.get("BitsStored") or 8)
        file.seek(0)
        with Image.open(file) as image:
            bits = 16 if image.mode.startswith("I;16") else BITS.get(image.mode, 8)
            # Pillow says RGB of color with 16 bits a channel as well.
            deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
            return 2 * bits if deep and bits >= 16 and not image.mode.startswith("I") else bits


def marker_area(image: Grey) -> float:
    """Share of the picture taken by small, bright, sharply bounded marks, such as letters of lead.

    image: uint8 [H, W]. Bright patches of `SMALLEST` to `LARGEST` of the picture count where their
    rim is much brighter than what surrounds it, as that of bone is not.
    """
    height, width = image.shape
    scale = MARKER_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    bright = (image >= BRIGHT).astype(np.uint8)
    n, patches, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    around = cv2.dilate(bright, np.ones((7, 7), np.uint8)) - cv2.dilate(
        bright, np.ones((3, 3), np.uint8)
    )
    dark = cv2.blur(np.where(around, image, 0).astype(np.float32), (9, 9))
    weight = cv2.blur(around.astype(np.float32), (9, 9))
    total = 0
    areas = stats[:, cv2.CC_STAT_AREA]
    for patch in range(1, n):
        if not SMALLEST * image.size <= areas[patch] <= LARGEST * image.size or areas[patch] < 4:
            continue
        x, y, w, h = (int(stats[patch, i]) for i in range(4))
        inside = np.s_[y : y + h, x : x + w]
        own = patches[inside] == patch
        known = weight[inside][own].sum()
        if known > 0 and dark[inside][own].sum() / known < BRIGHT / 2:
            total += int(areas[patch])
    return total / image.size
