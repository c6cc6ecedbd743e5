"""What is measured in each image while it is decoded."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.dicom_files import dicom
from helpers.tiny import picture
from PIL import Image

from fracnet.data_audit.image_scan import FEATURES, ImageScan, storage


def test_records_features_and_reasons_and_returns_the_pixels(tmp_path: Path) -> None:
    image = picture(0)
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    scan = ImageScan([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "none.png"])
    assert np.array_equal(scan(0), image)
    assert scan(1) is None
    assert scan(2) is None
    assert sorted(scan.bad) == [1, 2]
    assert "does not exist" in scan.bad[2]
    assert scan.readable.tolist() == [0]
    features = dict(zip(FEATURES, scan.features[0], strict=True))
    assert features["width"] == image.shape[1]
    assert features["file_size"] == (tmp_path / "a.png").stat().st_size
    assert features["bits"] == 8


@pytest.mark.parametrize(
    ("array", "ending", "bits"),
    [
        (np.zeros((4, 4), np.uint8), "png", 8),
        (np.zeros((4, 4), np.uint8), "jpg", 8),
        (np.zeros((4, 4, 3), np.uint8), "png", 24),
        (np.zeros((4, 4, 4), np.uint8), "png", 32),
        (np.zeros((4, 4), np.uint16), "png", 16),
        (np.zeros((4, 4, 3), np.uint16), "png", 48),
    ],
)
def test_bits_per_pixel_are_those_of_the_file(
    array: np.ndarray, ending: str, bits: int, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(cv2.imencode(f".{ending}", array)[1].tobytes())
    assert storage(path)[0] == bits


def test_the_step_of_a_jpeg_tells_its_quality(tmp_path: Path) -> None:
    steps = {}
    for quality in (95, 60, 30):
        path = tmp_path / f"{quality}.jpg"
        encoded = cv2.imencode(".jpg", picture(0), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        path.write_bytes(encoded.tobytes())
        steps[quality] = storage(path)[1]
    assert 0 < steps[95] < steps[60] < steps[30]
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    assert storage(tmp_path / "a.png")[1] == 0


def test_bits_of_dicom_come_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    path.write_bytes(dicom(pixels, BitsStored=12, HighBit=11))
    assert storage(path) == (12, 0)
