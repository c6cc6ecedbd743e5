"""DICOM ids that are odd, and files that end within their pixels."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import dicom
from helpers.pictures import picture

from fracnet.data.image_io import BadImage, read_grey, read_ids

GREY = np.asarray(picture())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a\\b", "a\\b"),
        ("a\\b\\c", "a\\b\\c"),
        ("a\0b", "a b"),
        ("a\x07b\0\0", "a b"),
        ("\x1b\x01", None),
    ],
)
def test_an_id_of_several_values_or_with_control_characters_is_one_text(
    tmp_path: Path, written: str, read: str | None
) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom(GREY, PatientID=written))
    assert read_ids(path)[0] == read


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_that_ends_within_its_pixels_is_told_by_bytes(tmp_path: Path, deep: bool) -> None:
    pixels = GREY.astype(np.uint16) if deep else GREY
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom(pixels)[:-1000])
    told = f"the file is truncated: {pixels.nbytes - 1000} of {pixels.nbytes} bytes of pixels"
    with pytest.raises(BadImage, match=re.escape(told)):
        read_grey(path)
