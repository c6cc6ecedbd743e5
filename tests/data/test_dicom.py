"""The grey scale of DICOM: what the header says is what is shown."""

import numpy as np
import pytest
from helpers.dicom_files import dataset, dicom, encoded
from helpers.pictures import picture
from PIL import Image
from pydicom.dataset import Dataset

from fracnet.data.image_io import BadImage, image_size, read_grey, read_ids

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


def stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)


def test_eight_bits_without_a_window_stay_as_they_are(read):
    assert np.array_equal(read(GREY), GREY)
    assert np.array_equal(read(GREY, PhotometricInterpretation="MONOCHROME1"), 255 - GREY)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deep_pixels_without_a_window_are_read_as_a_png_of_them_is(read, tmp_path, bits):
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


TWINS = {
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


@pytest.mark.parametrize("kind", TWINS)
def test_monochrome1_and_its_inverted_monochrome2_twin_give_one_image(read, kind):
    header, of_twin = TWINS[kind]
    first = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}
    one = read(DEEP, **(first | header))
    other = read((4095 - DEEP).astype(np.uint16), **({"BitsStored": 12} | of_twin))
    assert np.array_equal(one, other)
    assert len(np.unique(one)) > 50


def test_a_window_is_linear_and_clips(read):
    expected = stretched(DEEP.astype(float), 1799.5 - 200, 1799.5 + 200)
    window = {"WindowCenter": 1800, "WindowWidth": 401}
    assert np.array_equal(read(DEEP, BitsStored=12, **window), expected)
    assert {0, 255} <= set(np.unique(expected))


def test_the_first_of_several_windows_counts(read):
    several = {"WindowCenter": [1800, 100], "WindowWidth": [1001, 50]}
    assert np.array_equal(read(DEEP, BitsStored=12, **several), read(DEEP, BitsStored=12, **WINDOW))


def test_the_window_is_in_the_units_of_the_rescaled_values(read):
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    window = {"WindowCenter": 2 * 1800 - 1000, "WindowWidth": 2001}
    expected = stretched(2.0 * DEEP - 1000, 2599.5 - 1000, 2599.5 + 1000)
    assert np.array_equal(read(DEEP, BitsStored=12, **rescale, **window), expected)


def test_a_negative_slope_turns_the_scale_round(read):
    turned = read(DEEP, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.array_equal(turned, 255 - read(DEEP, BitsStored=12))


def test_signed_pixels_in_all_their_widths(read):
    signed = DEEP.astype(np.int16) - 2048
    for bits in (12, 14, 16):
        assert np.array_equal(read(signed, BitsStored=bits), read(DEEP, BitsStored=12))
    below = (GREY.astype(int) - 128).astype(np.int8)
    assert np.array_equal(read(below), GREY)


def test_bits_above_those_stored_are_not_looked_at(read):
    with_overlay = DEEP | np.uint16(0x9000)
    assert np.array_equal(read(with_overlay, BitsStored=12), read(DEEP, BitsStored=12))


def test_a_voi_look_up_table_goes_before_the_window(read):
    entries = np.round(4095 * (np.arange(4000) / 3999) ** 2)
    grey = read(DEEP, BitsStored=12, VOILUTSequence=lut(entries, 100), **WINDOW)
    shown = entries[np.clip(DEEP.astype(int) - 100, 0, 3999)]
    assert np.abs(grey - shown / 4095 * 255).max() <= 0.51


def test_a_modality_look_up_table(read):
    entries = np.arange(4096)[::-1]
    turned = read(DEEP, BitsStored=12, ModalityLUTSequence=lut(entries, 0))
    assert np.array_equal(turned, 255 - read(DEEP, BitsStored=12))


def test_padding_is_black_and_leaves_the_range_alone(read):
    padded = DEEP.copy()
    padded[:10] = 65535 - 60000
    padded[10:12] = 65535 - 59990
    header = {"PixelPaddingValue": 5535, "PixelPaddingRangeLimit": 5545}
    grey = read(padded, **header)
    assert grey[:12].max() == 0
    inside = DEEP[12:].astype(float)
    assert np.array_equal(grey[12:], stretched(inside, inside.min(), inside.max()))
    white = read(padded, PhotometricInterpretation="MONOCHROME1", **header)
    assert white[:12].max() == 0


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (1638, 102), (4095, 255)])
def test_one_constant_value_keeps_its_place(read, value, grey):
    assert (read(np.full((5, 6), value, np.uint16), BitsStored=12) == grey).all()


def test_odd_sizes_big_endian_and_implicit_files(read):
    odd = GREY[:49, :69].copy()
    assert np.array_equal(read(odd), odd)
    made = dataset(DEEP, BitsStored=12)
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    assert np.array_equal(read(encoded(made)), read(DEEP, BitsStored=12))
    made = dataset(DEEP.astype(">u2"), BitsStored=12)
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    assert np.array_equal(read(encoded(made)), read(DEEP, BitsStored=12))


NONSENSE = [
    ({"WindowCenter": -5000, "WindowWidth": 10}, "shows all pixels in one grey"),
    ({"WindowCenter": 1800, "WindowWidth": 0}, "window width 0 is too small"),
    ({"WindowCenter": 1800}, "only one of center and width"),
    ({"WindowCenter": 1800, "WindowWidth": "1e12"}, "WindowWidth is 1000000000000"),
    (WINDOW | {"VOILUTFunction": "CUBIC"}, "'CUBIC' is unknown"),
    ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale slope is 0"),
    ({"VOILUTSequence": lut(np.full(4096, 9), 0)}, "makes one grey of all values"),
    ({"VOILUTSequence": lut(np.arange(9), 4000)}, "shows all pixels in one grey"),
]


@pytest.mark.parametrize(("header", "told"), NONSENSE, ids=lambda value: str(value)[:30])
def test_a_grey_scale_that_makes_no_sense_is_refused_and_not_shown_black(read, header, told):
    with pytest.raises(BadImage) as caught:
        read(DEEP, BitsStored=12, **header)
    assert told in str(caught.value)


def test_all_padding_is_refused(read):
    with pytest.raises(BadImage, match="all its pixels are padding"):
        read(np.full((8, 8), 7, np.uint16), PixelPaddingValue=7)


def test_ids_are_read_from_what_is_left_of_a_file_and_never_by_half(tmp_path):
    patient, study = "patient77", "1.2.840.123456.7.8"
    whole = dicom(GREY, PatientID=patient, StudyInstanceUID=study, Rows=None)
    ends = [whole.index(text.encode()) + len(text) for text in (patient, study)]
    path, seen = tmp_path / "image.dcm", set()
    for size in (*range(ends[0] - 9, ends[1] + 4), len(whole)):
        path.write_bytes(whole[:size])
        expected = (patient if size >= ends[0] else None, study if size >= ends[1] else None)
        try:
            found = tuple(read_ids(path))
        except BadImage:  # where it ends between two elements
            found = (None, None)
        assert found in (expected, (None, None))
        seen.add(found)
    assert seen == {(None, None), (patient, None), (patient, study)}
    assert found == (patient, study)
    with pytest.raises(BadImage, match="has no Rows"):
        image_size(path)
    path.write_bytes(whole[:100])
    assert read_ids(path) == (None, None)
