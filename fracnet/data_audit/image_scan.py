"""One pass over the files: each image is decoded once, measured, and released."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import dcmread

from fracnet.data import dicom_files
from fracnet.data.image_features import SHORTCUT_NAMES, shortcut_features
from fracnet.data.image_io import BadImage, Grey, read_grey, strict_decoding
from fracnet.data_audit.traces import TRACES, measure_traces

FEATURES = (*SHORTCUT_NAMES, "bits", "jpeg_step", *TRACES)
"""Those of the shortcut baseline, bits per pixel, the mean step of JPEG's table, and `TRACES`."""

# Bits per pixel of Pillow's modes; all others have 8.
BITS = {"1": 1, "LA": 16, "RGB": 24, "RGBA": 32, "CMYK": 32, "YCbCr": 24, "I": 32, "F": 32}


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
            bits, step = storage(path)
            size = path.stat().st_size
        except BadImage as error:
            self.bad[row] = error.reason
            return None
        except OSError as error:  # it disappeared after it was read
            self.bad[row] = error.strerror or str(error)
            return None
        self.features[row] = [*shortcut_features(image, size), bits, step, *measure_traces(image)]
        return image

    @property
    def readable(self) -> npt.NDArray[np.int64]:
        """Rows of readable files, ascending."""
        return np.flatnonzero(~np.isnan(self.features[:, 0]))


def storage(path: Path) -> tuple[int, float]:
    """Bits per pixel, including color and alpha (16 for 16-bit grey), and JPEG's mean step.

    The step is the mean of the first quantization table, the larger the lower the quality; 0 for
    other formats.
    """
    with strict_decoding, path.open("rb") as file:
        if dicom_files.is_dicom(file.read(dicom_files.HEADER_LENGTH)):
            file.seek(0)
            head = dcmread(file, force=True, specific_tags=["BitsStored"], stop_before_pixels=True)
            return int(head.get("BitsStored") or 8), 0.0
        file.seek(0)
        with Image.open(file) as image:
            bits = 16 if image.mode.startswith("I;16") else BITS.get(image.mode, 8)
            # Pillow also reports RGB for color with 16 bits per channel.
            deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
            doubled = deep and bits >= 16 and not image.mode.startswith("I")
            tables = getattr(image, "quantization", None) or {}
            step = float(np.mean(tables[0])) if 0 in tables else 0.0
            return bits * (1 + doubled), step
