"""One pass over the files: each image is decoded once, measured, and released."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from fracnet.data import dicom
from fracnet.data.image_features import SHORTCUT_NAMES, shortcut_features
from fracnet.data.image_io import BadImage, Grey, read_grey, strict_decoding

FEATURES = (*SHORTCUT_NAMES, "bits", "marker_area")
"""Those of the shortcut baseline, then bits per pixel in the file and the area of bright marks."""

# Bits per pixel of Pillow's modes; all others have 8.
BITS = {"1": 1, "LA": 16, "RGB": 24, "RGBA": 32, "CMYK": 32, "YCbCr": 24, "I": 32, "F": 32}
MARKER_SIDE = 512  # pixels of the longest side, where marks are detected
BRIGHT = 235  # lowest grey level of a lead letter
SMALLEST, LARGEST = 2e-5, 0.01  # area of one mark, as a share of the image


@dataclass
class ImageScan:
    """Reads and measures the images of a dataset; safe to call from several threads.

    features: float64 [N, F], `FEATURES`; NaN where a file cannot be read. bad: row -> reason.
    """

    files: Sequence[Path]
    features: npt.NDArray[np.float64] = field(init=False)
    bad: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.features = np.full((len(self.files), len(FEATURES)), np.nan)

    def __call__(self, row: int) -> Grey | None:
        """The pixels of an image, uint8 [H, W]; None if the file cannot be read."""
        path = self.files[row]
        try:
            image = read_grey(path)
            bits = bits_per_pixel(path)
            size = path.stat().st_size
        except BadImage as error:
            self.bad[row] = error.reason
            return None
        except OSError as error:  # it disappeared after it was read
            self.bad[row] = error.strerror or str(error)
            return None
        self.features[row] = [*shortcut_features(image, size), bits, marker_area(image)]
        return image

    @property
    def readable(self) -> npt.NDArray[np.int64]:
        """Rows of readable files, ascending."""
        return np.flatnonzero(~np.isnan(self.features[:, 0]))


def bits_per_pixel(path: Path) -> int:
    """Bits per pixel in the file, including color and alpha; 16 for 16-bit grey."""
    with strict_decoding, path.open("rb") as file:
        if dicom.is_dicom(file.read(dicom.HEADER_LENGTH)):
            from pydicom import dcmread  # a third of a second that other files need not pay

            file.seek(0)
            head = dcmread(file, force=True, specific_tags=["BitsStored"], stop_before_pixels=True)
            return int(head.get("BitsStored") or 8)
        file.seek(0)
        with Image.open(file) as image:
            bits = 16 if image.mode.startswith("I;16") else BITS.get(image.mode, 8)
            # Pillow also reports RGB for color with 16 bits per channel.
            deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
            return 2 * bits if deep and bits >= 16 and not image.mode.startswith("I") else bits


def marker_area(image: Grey) -> float:
    """Area of small, bright, sharply bounded marks such as lead letters, as a share of the image.

    image: uint8 [H, W]. A bright region of `SMALLEST` to `LARGEST` of the image counts if its rim
    is much brighter than its surroundings, which is not the case for bone.
    """
    height, width = image.shape
    scale = MARKER_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    bright = (image >= BRIGHT).astype(np.uint8)
    n, regions, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    around = cv2.dilate(bright, np.ones((7, 7), np.uint8)) - cv2.dilate(
        bright, np.ones((3, 3), np.uint8)
    )
    dark = cv2.blur(np.where(around, image, 0).astype(np.float32), (9, 9))
    weight = cv2.blur(around.astype(np.float32), (9, 9))
    total = 0
    areas = stats[:, cv2.CC_STAT_AREA]
    for region in range(1, n):
        if not SMALLEST * image.size <= areas[region] <= LARGEST * image.size or areas[region] < 4:
            continue
        x, y, w, h = (int(stats[region, i]) for i in range(4))
        inside = np.s_[y : y + h, x : x + w]
        mask = regions[inside] == region
        total_weight = weight[inside][mask].sum()
        if total_weight > 0 and dark[inside][mask].sum() / total_weight < BRIGHT / 2:
            total += int(areas[region])
    return total / image.size
