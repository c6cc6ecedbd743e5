"""DICOM files for tests, written by pydicom from any pixels, valid or not."""

import io
from typing import Any

import numpy as np
from pydicom import dcmread
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

    header: additional or changed elements by keyword; None omits an element.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result = Dataset()
    result.file_meta = meta
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
            setattr(result, name, value)
    if "PixelData" in result:
        result["PixelData"].VR = "OW"
    return result


def file_bytes(result: Dataset) -> bytes:
    """The bytes of the file."""
    buffer = io.BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicom(pixels: np.ndarray, **header: Any) -> bytes:
    """The bytes of an image with these pixels and header elements."""
    return file_bytes(dataset(pixels, **header))


def with_class(data: bytes, sop_class: str) -> bytes:
    """The bytes of the file with another SOP class."""
    result = dcmread(io.BytesIO(data))
    result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID = UID(sop_class)
    return file_bytes(result)


def compressed(pixels: np.ndarray, coded: bytes, syntax: str, **header: Any) -> bytes:
    """Like `dicom`, with `coded`, a codestream of the pixels, as its only frame."""
    result = dataset(pixels, **header)
    result.file_meta.TransferSyntaxUID = UID(syntax)
    result.PixelData = encapsulate([coded])
    result["PixelData"].VR = "OB"
    result["PixelData"].is_undefined_length = True
    return file_bytes(result)


def rle(pixels: np.ndarray, **header: Any) -> bytes:
    """Like `dicom`, run-length encoded."""
    result = dataset(pixels, **header)
    result.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return file_bytes(result)
