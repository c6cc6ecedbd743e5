"""Every kind of image file becomes the right grey pixels."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.pictures import HEIGHT, WIDTH, color, encoded, picture
from PIL import Image

from fracnet.data.image_io import BadImage, image_size, read_grey


def read(tmp_path: Path, data: bytes) -> np.ndarray:
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    pixels = read_grey(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert image_size(path) == pixels.shape[::-1]
    return pixels


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_grey_is_kept_to_the_last_value(tmp_path, kind):
    grey = picture()
    assert np.array_equal(read(tmp_path, encoded(grey, kind)), np.asarray(grey))


def test_color_becomes_luma(tmp_path):
    red, green, blue = np.moveaxis(np.asarray(color(), dtype=float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.abs(read(tmp_path, encoded(color(), "PNG")) - luma).max() <= 1
    grey_as_rgb = picture().convert("RGB")
    assert np.array_equal(read(tmp_path, encoded(grey_as_rgb, "PNG")), np.asarray(picture()))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(tmp_path, mode, options):
    data = encoded(picture().convert(mode), "JPEG", quality=95, **options)
    assert np.abs(read(tmp_path, data).astype(int) - np.asarray(picture())).max() < 12


def test_palette_and_one_bit(tmp_path):
    palette = color().quantize(16)
    expected = np.asarray(palette.convert("RGB").convert("L"))
    for kind in ("PNG", "GIF"):
        assert np.array_equal(read(tmp_path, encoded(palette, kind)), expected)
    bits = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5
    for kind in ("PNG", "TIFF", "BMP"):
        pixels = read(tmp_path, encoded(Image.fromarray(bits), kind))
        assert np.array_equal(pixels, bits * np.uint8(255))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_lies_over_black(tmp_path, mode):
    image = picture(0).convert(mode)
    alpha = picture(1)
    image.putalpha(alpha)
    expected = np.asarray(picture(0), dtype=float) * np.asarray(alpha) / 255
    assert np.abs(read(tmp_path, encoded(image, "PNG")) - expected).max() <= 1


def test_transparent_palette_entries_and_key_colors_are_black(tmp_path):
    palette = Image.fromarray(np.tile(np.arange(8, dtype=np.uint8), (4, 1)), "P")
    palette.putpalette([40 + 20 * (i // 3) for i in range(24)])
    ramp = 40 + 20 * np.arange(8)
    for kind, transparency in (("PNG", 3), ("PNG", bytes([255] * 3 + [0])), ("GIF", 3)):
        pixels = read(tmp_path, encoded(palette, kind, transparency=transparency))
        assert pixels[0].tolist() == np.where(np.arange(8) == 3, 0, ramp).tolist()
    grey = Image.fromarray(np.tile(ramp.astype(np.uint8), (4, 1)))
    pixels = read(tmp_path, encoded(grey, "PNG", transparency=100))
    assert pixels[0].tolist() == np.where(ramp == 100, 0, ramp).tolist()
    bits = Image.fromarray(np.tile(np.array([True, False]), (4, 1)))
    assert read(tmp_path, encoded(bits, "PNG", transparency=255))[0].tolist() == [0, 0]


class TestMoreThanEightBits:
    def deep(self) -> np.ndarray:
        # 12 of 16 bits, not from zero: as detectors write them.
        return (np.asarray(picture()).astype(np.uint16) * 13 + 200).astype(np.uint16)

    def expected(self, values: np.ndarray) -> np.ndarray:
        low, high = float(values.min()), float(values.max())
        return np.rint((values - low) * 255 / (high - low)).astype(np.uint8)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_own_range_fills_the_grey_scale(self, tmp_path, kind):
        pixels = read(tmp_path, encoded(Image.fromarray(self.deep()), kind))
        assert np.array_equal(pixels, self.expected(self.deep()))
        assert (pixels.min(), pixels.max()) == (0, 255)

    def test_full_range_and_32_bits(self, tmp_path):
        full = np.linspace(0, 65535, 600).reshape(20, 30)
        for values in (full.astype(np.uint16), full.astype(np.int32) * 9, full.astype(np.float32)):
            pixels = read(tmp_path, encoded(Image.fromarray(values), "TIFF"))
            assert np.abs(pixels - full / 257).max() <= 1

    def test_zero_is_white_is_turned_round(self, tmp_path):
        data = encoded(Image.fromarray(self.deep()), "TIFF", tiffinfo={262: 0})
        turned = self.deep().max() - self.deep().astype(float)
        assert np.array_equal(read(tmp_path, data), self.expected(turned))
        data = encoded(picture(), "TIFF", tiffinfo={262: 0})
        assert np.array_equal(read(tmp_path, data), np.asarray(picture()))

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_deep_color_is_not_cut_to_its_upper_bits(self, tmp_path, suffix):
        values = np.dstack([self.deep()] * 3)
        pixels = read(tmp_path, cv2.imencode(suffix, values)[1].tobytes())
        assert np.array_equal(pixels, self.expected(self.deep()))

    def test_deep_color_channels_and_alpha(self, tmp_path):
        blue, green, red = (np.asarray(picture(seed)).astype(np.uint16) * 100 for seed in range(3))
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        data = cv2.imencode(".png", np.dstack([blue, green, red]))[1].tobytes()
        assert np.abs(read(tmp_path, data).astype(int) - self.expected(luma)).max() <= 1
        half = np.full_like(blue, 65535)
        half[:, : WIDTH // 2] = 0
        data = cv2.imencode(".png", np.dstack([blue, green, red, half]))[1].tobytes()
        assert read(tmp_path, data)[:, : WIDTH // 2].max() == 0

    @pytest.mark.parametrize(("value", "grey"), [(0, 0), (257 * 100, 100), (65535, 255)])
    def test_one_constant_value_keeps_its_place(self, tmp_path, value, grey):
        flat = Image.fromarray(np.full((5, 6), value, np.uint16))
        assert (read(tmp_path, encoded(flat, "PNG")) == grey).all()

    def test_values_that_are_not_finite_are_refused(self, tmp_path):
        values = np.ones((4, 4), np.float32)
        values[1, 1] = np.nan
        with pytest.raises(BadImage, match="not finite"):
            read(tmp_path, encoded(Image.fromarray(values), "TIFF"))


def test_a_whole_mid_grey_jpeg_is_read(tmp_path):
    for mode in ("L", "RGB"):
        image = picture().convert("RGB")
        image.paste((128, 128, 128), (0, 30, WIDTH, HEIGHT))
        pixels = read(tmp_path, encoded(image.convert(mode), "JPEG"))
        assert (pixels[-8:] == 128).all()


def test_headers_of_four_thousand_files_take_no_time(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(500)]
    data = encoded(picture(), "JPEG")
    for path in paths:
        path.write_bytes(data)
    start = time.process_time()
    for path in paths:
        image_size(path)
    # An eighth of the files in an eighth of two seconds, with room for a busy machine.
    assert time.process_time() - start < 1
