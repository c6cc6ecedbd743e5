"""DICOM: grey scale, compression, rejected files, and ids in headers."""

import io
import logging
import re
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from helpers.dicom_files import compressed, dataset, dicom, file_bytes, rle
from helpers.pictures import encoded, picture
from helpers.upper_limb_files import write_class_folders
from PIL import Image
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag

from fracnet.data import dicom as dicom_module
from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.data.dicom import NoDecoder
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import BadImage, class_without_image, image_size, read_grey, read_ids
from fracnet.data.preprocess import Preprocess
from fracnet.data.splits import group_overlap

# --- grey scale: pixels are displayed as the header says


GREY = np.asarray(picture())
DEEP = GREY.astype(np.uint16) * 13 + 200  # 12 of 16 bits, not from zero
WINDOW = {"WindowCenter": 1800, "WindowWidth": 1001}


@pytest.fixture
def read(tmp_path):
    def reader(pixels, **header) -> np.ndarray:
        path = tmp_path / "image.dcm"
        path.write_bytes(pixels if isinstance(pixels, bytes) else dicom(pixels, **header))
        grey = read_grey(path)
        assert grey.dtype == np.uint8
        assert grey.flags.c_contiguous
        assert grey.flags.writeable
        assert image_size(path) == grey.shape[::-1]
        return grey

    return reader


def to_grey(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)


def test_eight_bits_without_a_window_stay_unchanged(read):
    assert np.array_equal(read(GREY), GREY)
    assert np.array_equal(read(GREY, PhotometricInterpretation="MONOCHROME1"), 255 - GREY)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deep_pixels_without_a_window_match_a_png_of_them(read, tmp_path, bits):
    deep = GREY.astype(np.uint16) * (2**bits // 256 - 1) + 7
    Image.fromarray(deep).save(tmp_path / "same.png")
    grey = read(deep, BitsStored=bits)
    assert np.array_equal(grey, read_grey(tmp_path / "same.png"))
    assert (grey.min(), grey.max()) == (0, 255)


def lut(entries: np.ndarray, first: int) -> list[Dataset]:
    table = Dataset()
    table.add_new(0x00283002, "US", [len(entries), first, 12])
    table.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return [table]


INVERTED_TWINS = {
    "nothing": ({}, {}),
    "window": (WINDOW, {"WindowCenter": 4095 - 1800 + 1, "WindowWidth": 1001}),
    "even window": (
        {"WindowCenter": 1800, "WindowWidth": 1000},
        {"WindowCenter": 4095 - 1800 + 1, "WindowWidth": 1000},
    ),
    "exact": (
        WINDOW | {"VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 4095 - 1800, "WindowWidth": 1001, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    "sigmoid": (
        WINDOW | {"VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 4095 - 1800, "WindowWidth": 1001, "VOILUTFunction": "SIGMOID"},
    ),
    "rescaled": (
        {"RescaleSlope": 0.5, "RescaleIntercept": -100, "WindowCenter": 800, "WindowWidth": 501},
        {"RescaleSlope": 0.5, "RescaleIntercept": 0, "WindowCenter": 1148.5, "WindowWidth": 501},
    ),
    "padding": ({"PixelPaddingValue": 200}, {"PixelPaddingValue": 4095 - 200}),
}


@pytest.mark.parametrize("kind", INVERTED_TWINS)
def test_monochrome1_and_its_inverted_monochrome2_twin_give_one_image(read, kind):
    header, twin_header = INVERTED_TWINS[kind]
    first = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}
    first_grey = read(DEEP, **(first | header))
    twin_grey = read((4095 - DEEP).astype(np.uint16), **({"BitsStored": 12} | twin_header))
    assert np.array_equal(first_grey, twin_grey)
    assert len(np.unique(first_grey)) > 50


def test_a_window_is_linear_and_clips(read):
    expected = to_grey(DEEP.astype(float), 1799.5 - 200, 1799.5 + 200)
    window = {"WindowCenter": 1800, "WindowWidth": 401}
    assert np.array_equal(read(DEEP, BitsStored=12, **window), expected)
    assert {0, 255} <= set(np.unique(expected))


def test_the_first_of_several_windows_applies(read):
    several = {"WindowCenter": [1800, 100], "WindowWidth": [1001, 50]}
    assert np.array_equal(read(DEEP, BitsStored=12, **several), read(DEEP, BitsStored=12, **WINDOW))


def test_the_window_is_in_the_units_of_the_rescaled_values(read):
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    window = {"WindowCenter": 2 * 1800 - 1000, "WindowWidth": 2001}
    expected = to_grey(2.0 * DEEP - 1000, 2599.5 - 1000, 2599.5 + 1000)
    assert np.array_equal(read(DEEP, BitsStored=12, **rescale, **window), expected)


def test_a_negative_slope_inverts_the_scale(read):
    inverted = read(DEEP, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.array_equal(inverted, 255 - read(DEEP, BitsStored=12))


def test_signed_pixels_of_all_widths(read):
    signed = DEEP.astype(np.int16) - 2048
    for bits in (12, 14, 16):
        assert np.array_equal(read(signed, BitsStored=bits), read(DEEP, BitsStored=12))
    signed_bytes = (GREY.astype(int) - 128).astype(np.int8)
    assert np.array_equal(read(signed_bytes), GREY)


@pytest.mark.parametrize(
    "more",
    [
        np.uint16(0x9000),
        np.uint16([[0x1000], [0]] * 25),
        np.random.default_rng(0).integers(0, 16, (50, 70)) << 12,
    ],
    ids=["all", "rows", "noise"],
)
def test_bits_above_the_stored_ones_may_hold_anything(read, more):
    """An overlay, say, described or not: the standard leaves them undefined."""
    pixels = (DEEP & 4095) | more.astype(np.uint16)
    assert np.array_equal(read(pixels, BitsStored=12), read(DEEP & 4095, BitsStored=12))


def test_values_beyond_the_stored_bits_do_not_wrap(read):
    """The bright bone would become black, and the image would still look like a radiograph."""
    ramp = np.linspace(0, 4200, 70).astype(np.uint16) * np.ones((50, 1), np.uint16)
    bright = DEEP + np.uint16(4200 - DEEP.max())
    for pixels in (ramp, bright, ramp.astype(np.int16)):
        for data in (dicom(pixels, BitsStored=12), rle(pixels, BitsStored=12)):
            with pytest.raises(BadImage, match="have values of more than the 12 bits that"):
                read(data)


def test_negative_values_may_lack_the_sign_in_the_upper_bits(read):
    signed = DEEP.astype(np.int16) - 2048
    assert np.array_equal(read(signed & 4095, BitsStored=12), read(signed, BitsStored=12))


def test_a_voi_look_up_table_takes_precedence_over_the_window(read):
    entries = np.round(4095 * (np.arange(4000) / 3999) ** 2)
    grey = read(DEEP, BitsStored=12, VOILUTSequence=lut(entries, 100), **WINDOW)
    expected = entries[np.clip(DEEP.astype(int) - 100, 0, 3999)]
    assert np.abs(grey - expected / 4095 * 255).max() <= 0.51


def test_a_modality_look_up_table(read):
    entries = np.arange(4096)[::-1]
    inverted = read(DEEP, BitsStored=12, ModalityLUTSequence=lut(entries, 0))
    assert np.array_equal(inverted, 255 - read(DEEP, BitsStored=12))


def test_padding_is_black_and_does_not_affect_the_range(read):
    padded = DEEP.copy()
    padded[:10] = 65535 - 60000
    padded[10:12] = 65535 - 59990
    header = {"PixelPaddingValue": 5535, "PixelPaddingRangeLimit": 5545}
    grey = read(padded, **header)
    assert grey[:12].max() == 0
    image = DEEP[12:].astype(float)
    assert np.array_equal(grey[12:], to_grey(image, image.min(), image.max()))
    inverted = read(padded, PhotometricInterpretation="MONOCHROME1", **header)
    assert inverted[:12].max() == 0


def test_padding_beyond_the_stored_bits_hides_no_other_value(read):
    """65535 and 4095 have the same lower 12 bits, -32768 and 0 as well."""
    bright = DEEP.copy()
    bright[bright > bright.max() - 400] = 4095
    expected = read(bright, BitsStored=12)
    assert (expected == 255).any()
    assert np.array_equal(read(bright, BitsStored=12, PixelPaddingValue=65535), expected)
    padded = bright.copy()
    padded[:7] = 65535
    for data in (padded, rle(padded, BitsStored=12, PixelPaddingValue=65535)):
        grey = read(data, BitsStored=12, PixelPaddingValue=65535)
        assert grey[:7].max() == 0
        assert np.array_equal(grey[7:], read(bright[7:], BitsStored=12))
    signed = bright.astype(np.int16) - 2048
    signed[8] = 0
    expected = read(signed, BitsStored=12)
    assert np.array_equal(read(signed, BitsStored=12, PixelPaddingValue=-32768), expected)
    signed[:7] = -32768
    grey = read(signed, BitsStored=12, PixelPaddingValue=-32768)
    assert grey[:7].max() == 0
    assert np.array_equal(grey[7:], read(signed[7:], BitsStored=12))


@pytest.mark.parametrize("value", [-2000, 63536, 2096])
def test_padding_of_signed_pixels_may_be_written_as_unsigned(read, value):
    signed = DEEP.astype(np.int16) - 1900
    signed[:5] = -2000
    content = dataset(signed, BitsStored=12)
    content.add_new(0x00280120, "SS" if value < 0 else "US", value)
    grey = read(file_bytes(content))
    assert grey[:5].max() == 0
    assert np.array_equal(grey[5:], read(signed[5:], BitsStored=12))


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (1638, 102), (4095, 255)])
def test_constant_image_keeps_its_position_in_the_range(read, value, grey):
    assert (read(np.full((5, 6), value, np.uint16), BitsStored=12) == grey).all()


def test_odd_sizes_big_endian_and_implicit_files(read):
    odd = GREY[:49, :69].copy()
    assert np.array_equal(read(odd), odd)
    content = dataset(DEEP, BitsStored=12)
    content.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    assert np.array_equal(read(file_bytes(content)), read(DEEP, BitsStored=12))
    content = dataset(DEEP.astype(">u2"), BitsStored=12)
    content.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    assert np.array_equal(read(file_bytes(content)), read(DEEP, BitsStored=12))


INVALID_GREY_SCALES = [
    ({"WindowCenter": -5000, "WindowWidth": 10}, "maps all pixels to one grey"),
    ({"WindowCenter": 1800, "WindowWidth": 0}, "window width 0 is too small"),
    ({"WindowCenter": 1800}, "window lacks center or width"),
    ({"WindowCenter": b"40,5", "WindowWidth": 90}, "its WindowCenter '40,5' is not a number; deci"),
    ({"WindowCenter": 90, "WindowWidth": b"wide"}, "its WindowWidth 'wide' is not a number"),
    ({"RescaleSlope": b"0,5", "RescaleIntercept": 0}, "its RescaleSlope '0,5' is not a number"),
    ({"WindowCenter": 1800, "WindowWidth": "1e12"}, "WindowWidth is 1000000000000"),
    (WINDOW | {"VOILUTFunction": "CUBIC"}, "'CUBIC' is unknown"),
    ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale slope is 0"),
    ({"VOILUTSequence": lut(np.full(4096, 9), 0)}, "maps all values to one grey"),
    ({"VOILUTSequence": lut(np.arange(9), 4000)}, "maps all pixels to one grey"),
]


@pytest.mark.parametrize(
    ("header", "message"), INVALID_GREY_SCALES, ids=lambda value: str(value)[:30]
)
def test_an_invalid_grey_scale_is_rejected(read, header, message):
    raw = {name: value for name, value in header.items() if isinstance(value, bytes)}
    content = dataset(DEEP, BitsStored=12, **{k: v for k, v in header.items() if k not in raw})
    for name, value in raw.items():  # no numbers, which pydicom would not write
        content[name] = RawDataElement(Tag(name), "DS", len(value), value, 0, False, True)
    with pytest.raises(BadImage) as caught:
        read(file_bytes(content))
    assert message in str(caught.value)


def test_an_enhanced_image_has_its_window_in_sequences(read):
    def sequence(**elements) -> list[Dataset]:
        item = Dataset()
        for name, value in elements.items():
            setattr(item, name, value)
        return [item]

    rescaling = {"RescaleSlope": 0.5, "RescaleIntercept": -100}
    window = {"WindowCenter": 800, "WindowWidth": 501}
    expected = read(DEEP, BitsStored=12, **window, **rescaling)
    groups = {
        "SharedFunctionalGroupsSequence": sequence(
            PixelValueTransformationSequence=sequence(**rescaling)
        ),
        "PerFrameFunctionalGroupsSequence": sequence(FrameVOILUTSequence=sequence(**window)),
    }
    assert np.array_equal(read(DEEP, BitsStored=12, NumberOfFrames=1, **groups), expected)


def test_an_image_of_padding_only_is_rejected(read):
    with pytest.raises(BadImage, match="all of its pixels are padding"):
        read(np.full((8, 8), 7, np.uint16), PixelPaddingValue=7)


def test_ids_of_a_truncated_file_are_complete_or_missing(tmp_path):
    patient, study = "patient77", "1.2.840.123456.7.8"
    complete = dicom(GREY, PatientID=patient, StudyInstanceUID=study, Rows=None)
    ends = [complete.index(text.encode()) + len(text) for text in (patient, study)]
    path, seen = tmp_path / "image.dcm", set()
    for size in (*range(ends[0] - 9, ends[1] + 4), len(complete)):
        path.write_bytes(complete[:size])
        expected = (patient if size >= ends[0] else None, study if size >= ends[1] else None)
        try:
            ids = tuple(read_ids(path))
        except BadImage:  # if it ends between two elements
            ids = (None, None)
        assert ids in (expected, (None, None))
        seen.add(ids)
    assert seen == {(None, None), (patient, None), (patient, study)}
    assert ids == (patient, study)
    with pytest.raises(BadImage, match="has no Rows"):
        image_size(path)
    path.write_bytes(complete[:100])
    assert read_ids(path) == (None, None)


# --- files: compression, and what is rejected


TWELVE_BITS = {"BitsStored": 12, "WindowCenter": 1800, "WindowWidth": 2001}


def write(tmp_path, data: bytes):
    path = tmp_path / "image.dcm"
    path.write_bytes(data)
    return path


def rejection(tmp_path, data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        read_grey(write(tmp_path, data))
    message = str(caught.value)
    assert "image.dcm" in message
    assert "\n" not in message
    return message


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
    plain = read_grey(write(tmp_path, dicom(DEEP, **TWELVE_BITS)))
    path = write(tmp_path, compressed(DEEP, encode(DEEP), syntax, **TWELVE_BITS))
    assert np.array_equal(read_grey(path), plain)
    assert image_size(path) == (70, 50)


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_compression_gives_nearly_the_same_image(tmp_path, kind):
    syntax, encode = LOSSY[kind]
    plain = read_grey(write(tmp_path, dicom(DEEP, **TWELVE_BITS)))
    path = write(tmp_path, compressed(DEEP, encode(DEEP), syntax, **TWELVE_BITS))
    assert np.abs(read_grey(path).astype(int) - plain).max() <= 6


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("kind", ["baseline", "extended", "lossless"])
def test_a_codestream_that_ends_early_with_an_end_marker_is_refused(tmp_path, kind, share):
    """libjpeg fills in what is missing, without an error."""
    pixels, header = (GREY, {}) if kind == "baseline" else (DEEP, TWELVE_BITS)
    syntax, options = {
        "baseline": (uid.JPEGBaseline8Bit, {"level": 97}),
        "extended": (uid.JPEGExtended12Bit, {"level": 97, "bitspersample": 12}),
        "lossless": (uid.JPEGLosslessSV1, {"lossless": True, "bitspersample": 12}),
    }[kind]
    coded = imagecodecs.jpeg8_encode(pixels, **options)
    read_grey(write(tmp_path, compressed(pixels, coded, syntax, **header)))
    cut = coded[: int(share * len(coded))] + b"\xff\xd9"
    reason = rejection(tmp_path, compressed(pixels, cut, syntax, **header))
    assert "the lower part is missing" in reason


def test_a_codestream_of_fewer_bits_than_the_header_says(tmp_path):
    plain = read_grey(write(tmp_path, dicom(GREY.astype(np.uint16), BitsStored=12)))
    for syntax, coded in (
        (uid.JPEGLosslessSV1, imagecodecs.jpeg8_encode(GREY, lossless=True)),
        (uid.JPEGLSLossless, imagecodecs.jpegls_encode(GREY)),
    ):
        data = compressed(GREY.astype(np.uint16), coded, syntax, BitsStored=12)
        assert np.array_equal(read_grey(write(tmp_path, data)), plain)


def test_progressive_jpeg_of_every_transfer_syntax_is_read(tmp_path):
    coded = encoded(picture(), "JPEG", progressive=True, quality=95)
    expected = np.asarray(Image.open(io.BytesIO(coded)))
    for number in (50, 51, 53, 55):  # 53 and 55 are retired, and others wrote it as baseline
        data = compressed(GREY, coded, f"1.2.840.10008.1.2.4.{number}")
        assert np.abs(read_grey(write(tmp_path, data)).astype(int) - expected).max() <= 1


def test_constant_images_of_every_jpeg_are_read(tmp_path):
    """Nothing is missing, although all pixels are equal: they are no radiographs, but whole."""
    flat = np.full((40, 24), 128, np.uint8)
    flat[0, 0] = 90
    for syntax, options in (
        (uid.JPEGBaseline8Bit, {"level": 97}),
        (uid.JPEGLosslessSV1, {"lossless": True}),
    ):
        coded = imagecodecs.jpeg8_encode(flat, **options)
        assert read_grey(write(tmp_path, compressed(flat, coded, syntax))).shape == flat.shape


def test_rle_and_baseline_jpeg_need_no_extra_package(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_module, "imagecodecs", None)
    plain = read_grey(write(tmp_path, dicom(DEEP, **TWELVE_BITS)))
    assert np.array_equal(read_grey(write(tmp_path, rle(DEEP, **TWELVE_BITS))), plain)
    coded = imagecodecs.jpeg8_encode(GREY, level=97)
    path = write(tmp_path, compressed(GREY, coded, uid.JPEGBaseline8Bit))
    assert np.abs(read_grey(path).astype(int) - GREY).max() <= 6


def test_signed_pixels_in_jpeg_2000(tmp_path):
    signed = DEEP.astype(np.int16) - 2048
    header = {"BitsStored": 16, "WindowCenter": -248, "WindowWidth": 2001}
    path = write(tmp_path, compressed(signed, j2k(signed), uid.JPEG2000Lossless, **header))
    plain = read_grey(write(tmp_path / "..", dicom(signed, **header)))
    assert np.array_equal(read_grey(path), plain)


def test_signed_pixels_coded_as_unsigned_in_jpeg_2000_keep_their_sign(tmp_path):
    signed = DEEP.astype(np.int16) - 2048
    coded = j2k((signed & 0x1FFF).astype(np.uint16), bitspersample=13)
    plain = read_grey(write(tmp_path, dicom(signed, **WINDOW | {"WindowCenter": -248})))
    header = WINDOW | {"WindowCenter": -248}
    for bits in (13, 16):  # also where the header claims more bits than the codestream has
        data = compressed(signed, coded, uid.JPEG2000Lossless, BitsStored=bits, **header)
        assert np.array_equal(read_grey(write(tmp_path, data)), plain)


def test_jpeg_2000_with_more_bits_than_its_header_says_does_not_wrap(tmp_path):
    deep = (GREY.astype(np.uint16) * 64).astype(np.uint16)
    plain = read_grey(write(tmp_path, dicom(deep)))
    path = write(tmp_path, compressed(deep, j2k(deep), uid.JPEG2000Lossless, BitsStored=12))
    assert np.array_equal(read_grey(path), plain)


@pytest.mark.parametrize("tag", [b"\xfe\xff\xdd\xe0" + bytes(4), b"\xfe\xff\x00\xe0" + bytes(4)])
def test_dicom_tags_inside_compressed_data_are_not_read_as_tags(tmp_path, tag):
    """Fragments have a length: a delimiter or an item's tag among their bytes means nothing."""
    coded = j2k(DEEP)
    place = coded.index(b"\xff\x52")  # where a codestream may hold a comment
    comment = b"\xff\x64" + (4 + len(tag)).to_bytes(2) + bytes(2) + tag
    plain = read_grey(write(tmp_path, compressed(DEEP, coded, uid.JPEG2000, **TWELVE_BITS)))
    commented = coded[:place] + comment + coded[place:]
    path = write(tmp_path, compressed(DEEP, commented, uid.JPEG2000, **TWELVE_BITS))
    assert np.array_equal(read_grey(path), plain)


def test_values_of_lossy_compression_above_the_stored_bits_are_clipped(tmp_path):
    bright = np.where(GREY > 128, 1100, DEEP // 4).astype(np.uint16)
    coded = imagecodecs.jpeg8_encode(bright, level=99, bitspersample=12)
    plain = read_grey(write(tmp_path, dicom(np.minimum(bright, 1023), BitsStored=10)))
    data = compressed(bright, coded, uid.JPEGExtended12Bit, BitsStored=10)
    assert np.abs(read_grey(write(tmp_path, data)).astype(int) - plain).max() <= 6
    data = compressed(bright, lossless_jpeg(bright), uid.JPEGLosslessSV1, BitsStored=10)
    assert "are not 70x50 pixels of 10 bits" in rejection(tmp_path, data)


@pytest.mark.parametrize("padding", [b"\xff", b"\0", b"\xd9", b" \n", b"\xff" * 3, bytes(5000)])
@pytest.mark.parametrize("kind", ["JPEG", "JPEG-LS"])
def test_any_padding_after_the_end_of_an_image_is_legal(tmp_path, kind, padding):
    syntax, encode = LOSSLESS[kind]
    plain = read_grey(write(tmp_path, dicom(DEEP, **TWELVE_BITS)))
    coded = bytes(encode(DEEP))
    path = write(tmp_path, compressed(DEEP, coded + padding, syntax, **TWELVE_BITS))
    assert np.array_equal(read_grey(path), plain)
    for cut in (coded[:-2] + padding, coded[: len(coded) // 2] + padding):
        assert "truncated" in rejection(tmp_path, compressed(DEEP, cut, syntax, **TWELVE_BITS))


def test_a_missing_decoder_is_named_and_no_file_counts_as_bad(tmp_path, monkeypatch):
    base = write_class_folders(tmp_path, {s: ["elbow"] for s in ("train", "val", "test")}, 2)
    data = compressed(DEEP, lossless_jpeg(DEEP), uid.JPEGLosslessSV1, **TWELVE_BITS)
    for split in ("train", "val", "test"):
        for i in range(2):
            (base / split / "elbow" / f"{i}.JPG").write_bytes(data)
    manifest = UpperLimb(root=str(base), download=False).manifest()
    preprocess = Preprocess(({"name": "resize", "mode": "squash"},), 32)
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(dicom_module, "imagecodecs", None)
        with pytest.raises(NoDecoder) as caught:
            ImageCache.open_or_build(manifest, preprocess, on_bad_file="skip", progress=False)
    assert "JPEG Lossless" in str(caught.value)
    assert "pip install 'fracnet[dicom]'" in str(caught.value)
    assert not isinstance(caught.value, BadImage)
    # The images are not recorded as unreadable.
    cache = ImageCache.open_or_build(manifest, preprocess, progress=False)
    assert len(cache.images) == 6


REJECTED_HEADERS = [
    ({"NumberOfFrames": 3}, "has 3 frames; only single images"),
    ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "color image (RGB, 3 samples"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "color image (PALETTE COLOR"),
    ({"PhotometricInterpretation": None}, "has no PhotometricInterpretation, so whether bright"),
    ({"NumberOfFrames": 0, "Rows": 20}, "has 0 frames"),
    ({"PixelData": None}, "no pixel data"),
    ({"Rows": None}, "header has no Rows"),
    ({"Columns": 0}, "no pixels (0x50)"),
    ({"Rows": 65535, "Columns": 65535}, "its 65535x65535 pixels exceed the limit"),
    ({"Rows": 5000, "Columns": 5000}, "the file is truncated: 7000 of 50000000 bytes"),
    ({"BitsAllocated": 32}, "16 of 32 bits; 8 to 16 are supported"),
    ({"BitsStored": 17}, "17 of 16 bits"),
    ({"BitsStored": 4}, "4 of 16 bits"),
    ({"BitsStored": 12, "HighBit": 15}, "end at bit 15 instead of 11"),
    ({"PixelRepresentation": None}, "Pixel Representation"),
]


@pytest.mark.parametrize(("header", "message"), REJECTED_HEADERS, ids=lambda value: str(value)[:30])
def test_anything_but_a_single_grey_image_is_rejected_with_the_reason(tmp_path, header, message):
    assert message in rejection(tmp_path, dicom(DEEP, **header))


def test_no_frames_in_the_header_of_one_image_are_one(tmp_path):
    data = dicom(GREY, NumberOfFrames=0)
    assert np.array_equal(read_grey(write(tmp_path, data)), GREY)
    coded = imagecodecs.jpegls_encode(GREY)
    data = compressed(GREY, coded, uid.JPEGLSLossless, NumberOfFrames=0)
    assert np.array_equal(read_grey(write(tmp_path, data)), GREY)
    content = dataset(GREY, NumberOfFrames=0)
    content.file_meta.TransferSyntaxUID = uid.JPEGLSLossless
    content.PixelData = encapsulate([coded, coded])
    content["PixelData"].VR = "OB"
    content["PixelData"].is_undefined_length = True
    assert "has 0 frames" in rejection(tmp_path, file_bytes(content))


def test_compressed_data_that_contradict_the_header_are_rejected(tmp_path):
    large = np.zeros((2000, 3000), np.uint8)
    for data, message in (
        (imagecodecs.jpeg8_encode(large), "compressed data are 3000x2000, 1 channels"),
        (imagecodecs.jpeg8_encode(np.dstack([GREY] * 3)), "are 70x50, 3 channels"),
        (b"nothing of a kind.", "of unknown size"),
        (imagecodecs.jpeg8_encode(GREY)[:-400], "truncated"),
    ):
        assert message in rejection(tmp_path, compressed(GREY, data, uid.JPEGBaseline8Bit))
    assert "3000x2000" in rejection(tmp_path, compressed(GREY, j2k(large), uid.JPEG2000))
    message = rejection(tmp_path, compressed(GREY, b"\0" * 90, uid.MPEG2MPML))
    assert "MPEG2" in message
    assert "is not supported" in message
    runs = b"\x02" + bytes(63) + b"\x81\xff" * 90_000
    assert "longer than its pixels" in rejection(tmp_path, compressed(DEEP, runs, uid.RLELossless))


def test_a_file_that_is_deflated_as_a_whole_is_rejected(tmp_path):
    content = dataset(DEEP)
    content.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    assert "deflated as a whole" in rejection(tmp_path, file_bytes(content))


def test_dicom_without_its_preamble_is_read(tmp_path):
    """As devices before DICOM wrote files, and programs that store what a network brought."""
    content = dataset(DEEP, **TWELVE_BITS, PatientID="p7")
    plain = read_grey(write(tmp_path, file_bytes(content)))
    files = [file_bytes(content)[128 + 4 :]]
    for implicit in (True, False):
        buffer = io.BytesIO()
        del content.file_meta
        content.file_meta = FileMetaDataset()
        content.save_as(buffer, implicit_vr=implicit, little_endian=True)
        files.append(buffer.getvalue())
    for data in files:
        assert data[128:132] != b"DICM"
        path = write(tmp_path, data)
        assert np.array_equal(read_grey(path), plain)
        assert image_size(path) == (70, 50)
        assert read_ids(path).patient == "p7"
        assert class_without_image(path) is None
    coded = compressed(DEEP, lossless_jpeg(DEEP), uid.JPEGLosslessSV1, **TWELVE_BITS)
    start = coded.index(b"\x08\x00\x16\x00")  # the first element behind the meta information
    assert "names no transfer syntax" in rejection(tmp_path, coded[start:])
    assert "or DICOM image" in rejection(tmp_path, files[0][:12] + b"no DICOM" * 40)


def test_content_identifies_dicom_not_the_name(tmp_path):
    for name in ("IM000001", "1.2.840.113619.2.5", "image.jpg", "image.dcm"):
        (tmp_path / name).write_bytes(dicom(GREY))
        assert np.array_equal(read_grey(tmp_path / name), GREY)
    (tmp_path / "image.dcm").write_bytes(b"no DICOM")
    with pytest.raises(BadImage, match="or DICOM image"):
        read_grey(tmp_path / "image.dcm")


def test_an_odd_header_causes_no_log_or_warning(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    content = dataset(DEEP, BitsStored=12, PixelData=DEEP.tobytes() + bytes(40))
    with warnings.catch_warnings(action="ignore"):
        content.add_new(0x00100010, "PN", "x" * 90)
        content.add_new(0x00080020, "DA", "yesterday")
    caplog.clear()
    assert read_grey(write(tmp_path, file_bytes(content))).max() == 255
    assert not caplog.records


class TestIdsInHeaders:
    def test_ids_are_read_and_stripped(self, tmp_path):
        path = write(tmp_path, dicom(GREY, PatientID=" 007 ", StudyInstanceUID="1.2.3"))
        assert read_ids(path) == ("007", "1.2.3")
        assert read_ids(write(tmp_path, dicom(GREY, PatientID=""))) == (None, None)

    def dataset(self, root, patients: list[str | None]) -> UpperLimb:
        files = [(s, i) for s in ("train", "val", "test") for i in range(2)]
        for (split, i), patient in zip(files, patients, strict=True):
            folder = root / split / "elbow"
            folder.mkdir(parents=True, exist_ok=True)
            data = dicom(
                GREY, PatientID=patient, StudyInstanceUID=f"1.2.{len(split)}.{ord(split[0])}.{i}"
            )
            (folder / f"IM{i}").write_bytes(data)
        return UpperLimb(root=str(root), download=False)

    def test_a_dataset_without_ids_uses_them_and_says_so(self, tmp_path):
        manifest = self.dataset(tmp_path, ["a", "a", "b", "c", "d", "e"]).manifest()
        assert manifest.table["patient"].tolist() == ["a", "a", "b", "c", "d", "e"]
        assert manifest.table["study"].nunique() == 6
        assert manifest.table["width"].eq(70).all()
        assert manifest.groups == "DICOM headers"
        assert any("make sure that they identify nobody" in note for note in manifest.notes)

    def test_a_patient_in_two_splits_is_detected(self, tmp_path):
        manifest = self.dataset(tmp_path, ["a", "b", "c", "d", "a", "e"]).manifest()
        overlap = group_overlap(manifest.table)
        assert overlap[["unit", "group", "splits"]].values.tolist() == [
            ["patient", "a", "train, test"]
        ]

    def test_an_id_shared_by_all_files_is_ignored(self, tmp_path):
        manifest = self.dataset(tmp_path, ["ANON"] * 6).manifest()
        assert manifest.table["patient"].isna().all()
        assert manifest.table["study"].notna().all()
        assert manifest.groups == "DICOM headers"
        assert any("as anonymized files do" in note for note in manifest.notes)

    def test_groups_stay_unknown_without_a_usable_id(self, tmp_path):
        dataset = self.dataset(tmp_path, ["ANON"] * 6)
        for path in tmp_path.rglob("IM*"):
            path.write_bytes(dicom(GREY, PatientID="ANON"))
        assert dataset.manifest().groups == "unknown"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a\\b", "a\\b"),
        ("a\\b\\c", "a\\b\\c"),
        ("a\0b", "a b"),
        ("a\x07b\0\0", "a b"),
        ("\x1b\x01", None),
    ],
)
def test_an_id_with_several_values_or_control_characters_is_one_text(
    tmp_path: Path, written: str, expected: str | None
) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom(GREY, PatientID=written))
    assert read_ids(path)[0] == expected


@pytest.mark.parametrize("deep", [False, True])
def test_a_file_that_ends_within_its_pixels_is_rejected_with_byte_counts(
    tmp_path: Path, deep: bool
) -> None:
    pixels = GREY.astype(np.uint16) if deep else GREY
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom(pixels)[:-1000])
    message = f"the file is truncated: {pixels.nbytes - 1000} of {pixels.nbytes} bytes of pixels"
    with pytest.raises(BadImage, match=re.escape(message)):
        read_grey(path)
