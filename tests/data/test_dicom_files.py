"""DICOM files: compressed ones, what is refused and why, and ids in headers."""

import builtins
import logging
import warnings

import imagecodecs
import numpy as np
import pytest
from helpers.dicom_files import compressed, dataset, dicom, encoded, rle
from helpers.pictures import picture
from helpers.upper_limb_files import write_class_folders
from pydicom import uid

from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.data.dicom import NoDecoder
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import BadImage, image_size, read_grey, read_ids
from fracnet.data.preprocess import build_preprocess
from fracnet.data.splits import group_overlap

GREY = np.asarray(picture())
DEEP = GREY.astype(np.uint16) * 13 + 200
TWELVE = {"BitsStored": 12, "WindowCenter": 1800, "WindowWidth": 2001}


def write(tmp_path, data: bytes):
    path = tmp_path / "image.dcm"
    path.write_bytes(data)
    return path


def refused(tmp_path, data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        read_grey(write(tmp_path, data))
    told = str(caught.value)
    assert "image.dcm" in told
    assert "\n" not in told
    return told


def j2k(pixels: np.ndarray, **options) -> bytes:
    options = {"level": 0, "reversible": True, "codecformat": "j2k"} | options
    return imagecodecs.jpeg2k_encode(pixels, **options)


def lossless_jpeg(pixels: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=12)


LOSSLESS = {
    "JPEG": (uid.JPEGLosslessSV1, lossless_jpeg),
    "JPEG, any selection value": (uid.JPEGLossless, lossless_jpeg),
    "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode),
    "JPEG 2000": (uid.JPEG2000Lossless, j2k),
}
LOSSY = {
    "JPEG of 12 bits": (
        uid.JPEGExtended12Bit,
        lambda pixels: imagecodecs.jpeg8_encode(pixels, level=97, bitspersample=12),
    ),
    "JPEG-LS": (uid.JPEGLSNearLossless, lambda p: imagecodecs.jpegls_encode(p, level=2)),
    "JPEG 2000": (uid.JPEG2000, lambda p: j2k(p, level=80, reversible=False)),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_compression_gives_the_same_image(tmp_path, kind):
    syntax, encode = LOSSLESS[kind]
    plain = read_grey(write(tmp_path, dicom(DEEP, **TWELVE)))
    path = write(tmp_path, compressed(DEEP, encode(DEEP), syntax, **TWELVE))
    assert np.array_equal(read_grey(path), plain)
    assert image_size(path) == (70, 50)


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_compression_gives_nearly_the_same_image(tmp_path, kind):
    syntax, encode = LOSSY[kind]
    plain = read_grey(write(tmp_path, dicom(DEEP, **TWELVE)))
    path = write(tmp_path, compressed(DEEP, encode(DEEP), syntax, **TWELVE))
    assert np.abs(read_grey(path).astype(int) - plain).max() <= 6


def test_run_lengths_and_baseline_jpeg_need_no_extra(tmp_path, monkeypatch):
    forget_decoders(monkeypatch)
    plain = read_grey(write(tmp_path, dicom(DEEP, **TWELVE)))
    assert np.array_equal(read_grey(write(tmp_path, rle(DEEP, **TWELVE))), plain)
    coded = imagecodecs.jpeg8_encode(GREY, level=97)
    path = write(tmp_path, compressed(GREY, coded, uid.JPEGBaseline8Bit))
    assert np.abs(read_grey(path).astype(int) - GREY).max() <= 6


def test_signed_pixels_in_jpeg_2000(tmp_path):
    signed = DEEP.astype(np.int16) - 2048
    header = {"BitsStored": 16, "WindowCenter": -248, "WindowWidth": 2001}
    path = write(tmp_path, compressed(signed, j2k(signed), uid.JPEG2000Lossless, **header))
    plain = read_grey(write(tmp_path / "..", dicom(signed, **header)))
    assert np.array_equal(read_grey(path), plain)


def forget_decoders(monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object):
        if name == "imagecodecs":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def test_a_missing_decoder_is_told_and_is_no_fault_of_the_file(tmp_path, monkeypatch):
    base = write_class_folders(tmp_path, {s: ["elbow"] for s in ("train", "val", "test")}, 2)
    data = compressed(DEEP, lossless_jpeg(DEEP), uid.JPEGLosslessSV1, **TWELVE)
    for split in ("train", "val", "test"):
        for i in range(2):
            (base / split / "elbow" / f"{i}.JPG").write_bytes(data)
    manifest = UpperLimb(root=str(base), download=False).manifest()
    preprocess = build_preprocess(({"name": "resize", "mode": "squash"},), 32)
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        forget_decoders(patch)
        with pytest.raises(NoDecoder) as caught:
            ImageCache.open_or_build(manifest, preprocess, on_bad_file="skip", progress=False)
    assert "JPEG Lossless" in str(caught.value)
    assert "pip install 'fracnet[dicom]'" in str(caught.value)
    assert not isinstance(caught.value, BadImage)
    # Nothing remembers the images as unreadable.
    cache = ImageCache.open_or_build(manifest, preprocess, progress=False)
    assert len(cache.images) == 6


REFUSED = [
    ({"NumberOfFrames": 3}, "holds 3 frames; only single images"),
    ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "color image (RGB, 3 samples"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "color image (PALETTE COLOR"),
    ({"PhotometricInterpretation": None}, "color image (None"),
    ({"PixelData": None}, "no pixel data"),
    ({"Rows": None}, "header has no Rows"),
    ({"Columns": 0}, "no pixels (0x50)"),
    ({"Rows": 65535, "Columns": 65535}, "65535x65535 pixels are more than the allowed"),
    ({"Rows": 5000, "Columns": 5000}, "the file is truncated: 7000 of 50000000 bytes"),
    ({"BitsAllocated": 32}, "16 of 32 bits; read are 8 to 16"),
    ({"BitsStored": 17}, "17 of 16 bits"),
    ({"BitsStored": 4}, "4 of 16 bits"),
    ({"BitsStored": 12, "HighBit": 15}, "do not end at bit 11, but at 15"),
    ({"PixelRepresentation": None}, "Pixel Representation"),
]


@pytest.mark.parametrize(("header", "told"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_is_no_single_grey_image_is_refused_with_its_reason(tmp_path, header, told):
    assert told in refused(tmp_path, dicom(DEEP, **header))


def test_compressed_data_that_are_not_what_the_header_says_are_refused(tmp_path):
    large = np.zeros((2000, 3000), np.uint8)
    for data, told in (
        (imagecodecs.jpeg8_encode(large), "compressed data say 3000x2000, 1 channels"),
        (imagecodecs.jpeg8_encode(np.dstack([GREY] * 3)), "say 70x50, 3 channels"),
        (b"nothing of a kind.", "say nothing"),
        (imagecodecs.jpeg8_encode(GREY)[:-400], "truncated"),
    ):
        assert told in refused(tmp_path, compressed(GREY, data, uid.JPEGBaseline8Bit))
    assert "3000x2000" in refused(tmp_path, compressed(GREY, j2k(large), uid.JPEG2000))
    told = refused(tmp_path, compressed(GREY, b"\0" * 90, uid.MPEG2MPML))
    assert "MPEG2" in told
    assert "is not read" in told
    runs = b"\x02" + bytes(63) + b"\x81\xff" * 90_000
    assert "longer than its pixels" in refused(tmp_path, compressed(DEEP, runs, uid.RLELossless))


def test_a_file_that_is_deflated_as_a_whole_is_refused(tmp_path):
    made = dataset(DEEP)
    made.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    assert "deflated as a whole" in refused(tmp_path, encoded(made))


def test_a_file_is_dicom_by_its_bytes_whatever_its_name(tmp_path):
    for name in ("IM000001", "1.2.840.113619.2.5", "image.jpg", "image.dcm"):
        (tmp_path / name).write_bytes(dicom(GREY))
        assert np.array_equal(read_grey(tmp_path / name), GREY)
    (tmp_path / "image.dcm").write_bytes(b"no DICOM")
    with pytest.raises(BadImage, match="or DICOM image"):
        read_grey(tmp_path / "image.dcm")


def test_nothing_is_logged_or_warned_about_an_odd_header(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    made = dataset(DEEP, BitsStored=12, PixelData=DEEP.tobytes() + bytes(40))
    with warnings.catch_warnings(action="ignore"):
        made.add_new(0x00100010, "PN", "x" * 90)
        made.add_new(0x00080020, "DA", "yesterday")
    caplog.clear()
    assert read_grey(write(tmp_path, encoded(made))).max() == 255
    assert not caplog.records


class TestIds:
    def test_they_come_from_the_header(self, tmp_path):
        path = write(tmp_path, dicom(GREY, PatientID=" 007 ", StudyInstanceUID="1.2.3"))
        assert read_ids(path) == ("007", "1.2.3")
        assert read_ids(write(tmp_path, dicom(GREY, PatientID=""))) == (None, None)

    def source(self, root, patients: list[str | None]) -> UpperLimb:
        files = [(s, i) for s in ("train", "val", "test") for i in range(2)]
        for (split, i), patient in zip(files, patients, strict=True):
            folder = root / split / "elbow"
            folder.mkdir(parents=True, exist_ok=True)
            data = dicom(
                GREY, PatientID=patient, StudyInstanceUID=f"1.2.{len(split)}.{ord(split[0])}.{i}"
            )
            (folder / f"IM{i}").write_bytes(data)
        return UpperLimb(root=str(root), download=False)

    def test_a_source_without_ids_takes_them_and_says_so(self, tmp_path):
        manifest = self.source(tmp_path, ["a", "a", "b", "c", "d", "e"]).manifest()
        assert manifest.table["patient"].tolist() == ["a", "a", "b", "c", "d", "e"]
        assert manifest.table["study"].nunique() == 6
        assert manifest.table["width"].eq(70).all()
        assert manifest.groups == "DICOM headers"
        assert any("be sure that they name nobody" in note for note in manifest.notes)

    def test_a_patient_in_two_splits_is_found(self, tmp_path):
        manifest = self.source(tmp_path, ["a", "b", "c", "d", "a", "e"]).manifest()
        found = group_overlap(manifest.table)
        assert found[["unit", "group", "splits"]].values.tolist() == [
            ["patient", "a", "train, test"]
        ]

    def test_an_id_that_all_share_is_that_of_an_anonymizer(self, tmp_path):
        manifest = self.source(tmp_path, ["ANON"] * 6).manifest()
        assert manifest.table["patient"].isna().all()
        assert manifest.table["study"].notna().all()
        assert manifest.groups == "DICOM headers"
        assert any("as anonymized files do" in note for note in manifest.notes)

    def test_where_no_id_is_of_use_groups_stay_unknown(self, tmp_path):
        source = self.source(tmp_path, ["ANON"] * 6)
        for path in tmp_path.rglob("IM*"):
            path.write_bytes(dicom(GREY, PatientID="ANON"))
        assert source.manifest().groups == "unknown"
