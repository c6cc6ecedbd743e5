"""DICOM files as tests need them: written by pydicom from any pixels, honest or not."""

import io
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)


def dataset(pixels: np.ndarray, **header: Any) -> Dataset:
    """A grey image of one frame; bits and signedness follow from the pixels' dtype.

    header: further or other elements by keyword; None leaves one out.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = Dataset()
    made.file_meta = meta
    bits = 8 * pixels.dtype.itemsize
    elements = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": header.get("BitsStored", bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + bytes(pixels.nbytes % 2),
    }
    for name, value in (elements | header).items():
        if value is not None:
            setattr(made, name, value)
    if "PixelData" in made:
        made["PixelData"].VR = "OW"
    return made


def encoded(made: Dataset) -> bytes:
    """The bytes of the file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(pixels: np.ndarray, **header: Any) -> bytes:
    """The bytes of an image with these pixels and header elements."""
    return encoded(dataset(pixels, **header))


def compressed(pixels: np.ndarray, coded: bytes, syntax: str, **header: Any) -> bytes:
    """The same with `coded`, a codestream of the pixels, as its only frame."""
    made = dataset(pixels, **header)
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.PixelData = encapsulate([coded])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return encoded(made)


def rle(pixels: np.ndarray, **header: Any) -> bytes:
    """The same, run-length coded."""
    made = dataset(pixels, **header)
    made.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return encoded(made)
