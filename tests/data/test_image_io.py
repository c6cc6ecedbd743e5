"""Image files become the right grey pixels or are rejected by name; nothing is filled in."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers import fuzz_reading
from helpers.pictures import HEIGHT, WIDTH, color, encoded, picture
from PIL import Image, ImageFile, TiffImagePlugin

from fracnet.data import image_io
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
def test_grey_values_are_exact(tmp_path, kind):
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
def test_alpha_is_put_on_black(tmp_path, mode):
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
        # 12 of 16 bits, not from zero: as from a detector.
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

    def test_zero_is_white_is_inverted(self, tmp_path):
        data = encoded(Image.fromarray(self.deep()), "TIFF", tiffinfo={262: 0})
        inverted = self.deep().max() - self.deep().astype(float)
        assert np.array_equal(read(tmp_path, data), self.expected(inverted))
        data = encoded(picture(), "TIFF", tiffinfo={262: 0})
        assert np.array_equal(read(tmp_path, data), np.asarray(picture()))

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_deep_color_keeps_its_lower_bits(self, tmp_path, suffix):
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
    def test_constant_image_keeps_its_position_in_the_range(self, tmp_path, value, grey):
        flat = Image.fromarray(np.full((5, 6), value, np.uint16))
        assert (read(tmp_path, encoded(flat, "PNG")) == grey).all()

    def test_values_that_are_not_finite_are_rejected(self, tmp_path):
        values = np.ones((4, 4), np.float32)
        values[1, 1] = np.nan
        with pytest.raises(BadImage, match="not finite"):
            read(tmp_path, encoded(Image.fromarray(values), "TIFF"))


def test_a_complete_mid_grey_jpeg_is_read(tmp_path):
    for mode in ("L", "RGB"):
        image = picture().convert("RGB")
        image.paste((128, 128, 128), (0, 30, WIDTH, HEIGHT))
        pixels = read(tmp_path, encoded(image.convert(mode), "JPEG"))
        assert (pixels[-8:] == 128).all()


def test_reading_sizes_from_headers_is_fast(tmp_path):
    paths = [tmp_path / f"{i}.jpg" for i in range(500)]
    data = encoded(picture(), "JPEG")
    for path in paths:
        path.write_bytes(data)
    start = time.process_time()
    for path in paths:
        image_size(path)
    # An eighth of the files in an eighth of two seconds, with room for a busy machine.
    assert time.process_time() - start < 1


# --- files that are rejected


FRACATLAS = Path(
    os.environ.get("FRACATLAS_ROOT")
    or Path(__file__).resolve().parents[3] / "shared" / "data" / "fracatlas_sample"
)

FILES = {
    "grey jpeg": lambda: encoded(picture(), "JPEG"),
    "color jpeg": lambda: encoded(color(), "JPEG"),
    "progressive jpeg": lambda: encoded(color(), "JPEG", progressive=True),
    "jpeg with restarts": lambda: encoded(color(), "JPEG", restart_marker_rows=1),
    "grey png": lambda: encoded(picture(), "PNG"),
    "16-bit png": lambda: encoded(Image.fromarray(np.asarray(picture()) * np.uint16(99)), "PNG"),
    "color png": lambda: encoded(color(), "PNG"),
    "gif": lambda: encoded(picture(), "GIF"),
    "tiff": lambda: encoded(picture(), "TIFF"),
    "lzw tiff": lambda: encoded(picture(), "TIFF", compression="tiff_lzw"),
    "bmp": lambda: encoded(color(), "BMP"),
}


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_rejected_or_complete(tmp_path, kind, lenient, monkeypatch, capfd):
    """Wherever a file is cut: an error, or all pixels as in the complete file."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = FILES[kind]()
    path = tmp_path / "cut"
    path.write_bytes(data)
    complete = read_grey(path)
    cuts = {*range(0, len(data), 1 + len(data) // 150), *range(len(data) - 40, len(data))}
    rejected = 0
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        try:
            pixels = read_grey(path)
        except BadImage:
            rejected += 1
        else:
            assert np.array_equal(pixels, complete), cut
    assert rejected > 140
    assert lenient is ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_an_end_marker_after_the_cut_does_not_hide_it(tmp_path, mode):
    data = encoded(picture().convert(mode), "JPEG")
    start = data.index(b"\xff\xda") + 16
    for cut in range(start, len(data) - 40, 5):
        (tmp_path / "cut.jpg").write_bytes(data[:cut] + b"\xff\xd9")
        with pytest.raises(BadImage, match="truncated"):
            read_grey(tmp_path / "cut.jpg")


@pytest.mark.parametrize("kind", FILES)
def test_damaged_bytes_raise_nothing_but_bad_image(tmp_path, kind, capfd):
    data = np.frombuffer(FILES[kind](), np.uint8)
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for _ in range(60):
        damaged = data.copy()
        damaged[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            pixels = read_grey(path)
        except BadImage:
            continue
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 2


class TestNotAnImage:
    def assert_rejected(self, path: Path, reason: str) -> None:
        for function in (read_grey, image_size):
            with pytest.raises(BadImage) as caught:
                function(path)
            assert str(path) in str(caught.value)
            assert reason in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_missing_file_and_folder(self, tmp_path):
        self.assert_rejected(tmp_path / "gone.jpg", "the file does not exist")
        self.assert_rejected(tmp_path, "it is a folder")

    def test_text_and_other_formats(self, tmp_path):
        path = tmp_path / "a.jpg"
        path.write_text("<html>Not Found</html>")
        self.assert_rejected(path, "not a complete JPEG")
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
        self.assert_rejected(path, "not a complete JPEG")

    def test_empty_file(self, tmp_path):
        path = tmp_path / "a.jpg"
        path.touch()
        self.assert_rejected(path, "empty (0 bytes)")

    def test_no_pixels(self, tmp_path):
        data = bytearray(encoded(picture(), "BMP"))
        data[18:22] = bytes(4)
        (tmp_path / "a.bmp").write_bytes(data)
        self.assert_rejected(tmp_path / "a.bmp", "")

    def test_too_many_pixels(self, tmp_path, monkeypatch):
        path = tmp_path / "a.png"
        path.write_bytes(encoded(picture(), "PNG"))
        monkeypatch.setattr(image_io, "MAX_PIXELS", WIDTH * HEIGHT - 1)
        self.assert_rejected(path, "its 70x50 pixels exceed the limit")
        monkeypatch.undo()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 3)
        self.assert_rejected(path, "decompression bomb")

    def test_too_much_memory_by_channels_and_depth(self, tmp_path, monkeypatch):
        monkeypatch.setattr(image_io, "MAX_BYTES", 7 * WIDTH * HEIGHT)
        rgba = np.dstack([np.asarray(picture(), np.uint16)] * 4)
        path = tmp_path / "deep.png"
        path.write_bytes(cv2.imencode(".png", rgba)[1].tobytes())
        self.assert_rejected(path, f"70x50 pixels of 8 bytes need {8 * 70 * 50} bytes")
        path.write_bytes(cv2.imencode(".png", rgba[..., :3])[1].tobytes())
        assert read_grey(path).shape == (50, 70)
        path.write_bytes(encoded(picture(), "PNG"))
        assert read_grey(path).shape == (50, 70)

    def test_the_error_crosses_processes(self):
        error = pickle.loads(pickle.dumps(BadImage("a.jpg", "it is a folder")))
        assert (error.path, error.reason) == (Path("a.jpg"), "it is a folder")


def test_decoder_warnings_are_suppressed_and_filters_restored(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    palette = picture().quantize(8)
    path.write_bytes(encoded(palette, "PNG", transparency=bytes(range(8))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: read_grey(path), range(200)))) == 200
    assert warnings.filters == before


def test_threads_share_a_budget_of_memory(tmp_path, monkeypatch):
    budget, running, most = image_io.ByteBudget(3 * 14 * WIDTH * HEIGHT), [], []
    monkeypatch.setattr(image_io, "decoding_memory", budget)
    to_grey = image_io._to_grey

    def slow(*arguments):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()
        return to_grey(*arguments)

    monkeypatch.setattr(image_io, "_to_grey", slow)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(), "PNG"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read_grey(path), range(24)))
    assert max(most) == 3
    with ThreadPoolExecutor(2) as pool:  # more than the budget: alone, but it is read
        big = tmp_path / "big.png"
        big.write_bytes(encoded(picture().resize((4 * WIDTH, HEIGHT)), "PNG"))
        most.clear()
        assert len(list(pool.map(lambda _: read_grey(big), range(4)))) == 4
    assert max(most) == 1


def test_strips_change_no_pixel(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (53, 41, 4)).astype(np.uint16)
    files = {
        "grey16.png": cv2.imencode(".png", deep[..., 0])[1].tobytes(),
        "color16.png": cv2.imencode(".png", deep[..., :3])[1].tobytes(),
        "alpha16.png": cv2.imencode(".png", deep)[1].tobytes(),
        "alpha8.png": encoded(Image.fromarray((deep >> 8).astype(np.uint8)), "PNG"),
        "float.tif": encoded(Image.fromarray(deep[..., 1].astype(np.float32)), "TIFF"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    whole = {name: read_grey(tmp_path / name) for name in files}
    monkeypatch.setattr(image_io, "STRIP", 100)
    for name, expected in whole.items():
        np.testing.assert_array_equal(read_grey(tmp_path / name), expected, err_msg=name)
    luma = deep[..., :3].astype(np.float64) @ np.array([0.114, 0.587, 0.299])
    span = luma.max() - luma.min()
    expected = np.rint((luma - luma.min()) * (255 / span))
    np.testing.assert_array_equal(whole["color16.png"], expected)


def test_threads_keep_each_other_strict(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    good, cut = tmp_path / "good.jpg", tmp_path / "cut.jpg"
    data = encoded(picture(width=400, height=400), "JPEG")
    good.write_bytes(data)
    cut.write_bytes(data[: len(data) // 2])
    stop = threading.Event()

    def read_repeatedly() -> None:
        while not stop.is_set():
            read_grey(good)

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read_repeatedly) for _ in range(3)]
        try:
            for _ in range(50):
                with pytest.raises(BadImage, match="truncated"):
                    read_grey(cut)
        finally:
            stop.set()
        for reader in readers:
            reader.result()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_truncated_real_files_are_rejected_and_the_others_read():
    if not (FRACATLAS / "manifest.csv").is_file():
        pytest.skip("no FracAtlas sample; set FRACATLAS_ROOT")
    table = pd.read_csv(FRACATLAS / "manifest.csv")
    truncated = table[table["truncated"] == 1]
    assert len(truncated) == 6
    for path in truncated["path"]:
        with pytest.raises(BadImage, match="truncated"):
            read_grey(FRACATLAS / path)
    for row in table[table["truncated"] == 0][::12].itertuples():
        assert read_grey(FRACATLAS / row.path).shape == (row.height, row.width)


# --- arbitrary bytes: an image or a clear error, no crash, bounded memory, no black image


SEED, EACH = 5, 150


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> dict:
    """The result of `helpers.fuzz_reading`."""
    arguments = ["-m", "helpers.fuzz_reading", tmp_path_factory.mktemp("f"), f"{SEED}", f"{EACH}"]
    process = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout)


def test_damaged_files_are_read_or_rejected_and_never_black(outcome):
    assert len(outcome["counts"]) == 14
    for kind, counts in outcome["counts"].items():
        assert counts.get("black", 0) == 0, kind
        assert counts["rejected"] > EACH / 10, kind
        assert counts["empty rejected"] == 3, kind


def test_decompression_bombs_are_rejected(outcome):
    read = {name for name, result in outcome["bombs"].items() if result != "rejected"}
    # The text next to the pixels is ignored.
    assert read <= {"png, deep text"}


def test_memory_stays_bounded(outcome):
    """Each bomb needs 300 MB to 9 GB."""
    assert outcome["growth_kib"] < 150 * 1024


def test_pipes_and_devices_are_rejected_without_waiting(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        for function in (read_grey, image_size):
            with pytest.raises(BadImage, match="not a regular file"):
                function(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(image_io.MAX_BYTES + 1)  # takes no disk space
    for function in (read_grey, image_size):
        with pytest.raises(BadImage, match="bytes exceed the limit"):
            function(path)


@pytest.mark.parametrize("suffix", [".dcm", ".png", ".jpg", ".tif", ".txt", ""])
def test_the_content_determines_the_format_not_the_name(tmp_path, suffix):
    for kind in ("png", "dicom jpeg", "bmp"):
        path = tmp_path / f"image{suffix}"
        path.write_bytes(fuzz_reading.valid_files()[kind])
        assert read_grey(path).shape == fuzz_reading.GREY.shape
    path.write_bytes(np.arange(200, dtype=np.uint8).tobytes())
    with pytest.raises(BadImage, match="not a complete JPEG"):
        read_grey(path)


def tiff(values: np.ndarray, sample_format: int, photometric: int = 1) -> bytes:
    """An uncompressed TIFF of one strip; sample_format 1 is unsigned, 2 signed, 3 float."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    tags = {
        256: width, 257: height, 258: values.dtype.itemsize * 8, 259: 1, 262: photometric, 273: 8,
        277: 1, 278: height, 279: len(data), 339: sample_format,
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<4sI", b"II*\0", 8 + len(data))
    return start + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_unsigned_32_bits_do_not_wrap(tmp_path):
    values = np.linspace(0, 4_000_000_000, 15).reshape(3, 5).astype(np.uint32)
    expected = np.rint(np.linspace(0, 255, 15)).reshape(3, 5)
    assert np.abs(read(tmp_path, tiff(values, 1)) - expected).max() <= 1


def test_signed_8_bits_do_not_wrap(tmp_path):
    values = np.arange(-128, 127, 17, dtype=np.int8).reshape(3, 5)
    assert np.array_equal(read(tmp_path, tiff(values, 2)), values.astype(int) + 128)


@pytest.mark.parametrize(
    ("dtype", "sample_format", "photometric"),
    [("float64", 3, 1), ("uint64", 1, 1), ("float16", 3, 1), ("int8", 2, 0), ("uint32", 1, 0)],
)
def test_a_tiff_of_another_type_is_rejected_by_its_type(
    tmp_path, dtype, sample_format, photometric
):
    data = tiff(np.arange(15, dtype=dtype).reshape(3, 5), sample_format, photometric)
    with pytest.raises(BadImage, match=f"a TIFF of {dtype} samples .* is not supported"):
        read(tmp_path, data)


def tiff_pages(*pages: Image.Image, kinds: tuple[int, ...] = ()) -> bytes:
    """A TIFF of several pages; kinds: their NewSubfileType (1 for a smaller copy)."""
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, True) as writer:
        for place, page in enumerate(pages):
            page.save(writer, "TIFF", tiffinfo={254: kinds[place]} if kinds else {})
            writer.newFrame()
    return buffer.getvalue()


def test_a_tiff_of_several_images_is_rejected_and_one_with_copies_read(tmp_path):
    path = tmp_path / "views.tif"
    first, second, small = picture(1), picture(2), picture(1).resize((10, 8))
    path.write_bytes(tiff_pages(first, second))
    with pytest.raises(BadImage, match="it has several pages; only single images are supported"):
        read_grey(path)
    path.write_bytes(tiff_pages(first, small, second, kinds=(0, 1, 0)))
    with pytest.raises(BadImage, match="it has several pages"):
        read_grey(path)
    path.write_bytes(tiff_pages(small, first, kinds=(1, 0)))
    with pytest.raises(BadImage, match="its first page is a smaller copy"):
        read_grey(path)
    path.write_bytes(tiff_pages(first, kinds=(1,)))  # an exported preview
    assert np.array_equal(read_grey(path), np.asarray(first))
    for kinds in ((0, 1, 1), (0, 4, 1)):
        path.write_bytes(tiff_pages(first, small, small, kinds=kinds))
        assert np.array_equal(read_grey(path), np.asarray(first))


def deep_tiff(pixels: np.ndarray, photometric: int, **tags: int) -> bytes:
    """An uncompressed TIFF of 16 bits, [H, W, C], or [C, H, W] in planes (planar=2)."""
    planar = tags.get("planar", 1)
    height, width = pixels.shape[1:] if planar == 2 else pixels.shape[:2]
    n = pixels.shape[0] if planar == 2 else pixels.shape[2]
    strips, part = (n if planar == 2 else 1), pixels.nbytes // (n if planar == 2 else 1)
    values = {
        256: [width], 257: [height], 258: [16] * n, 259: [1], 262: [photometric],
        273: [0] * strips, 277: [n], 278: [height], 279: [part] * strips, 284: [planar],
    }  # fmt: skip
    values |= {338: [tags["extra"]]} if "extra" in tags else {}
    values |= {274: [tags["orientation"]]} if "orientation" in tags else {}
    end = 8 + 2 + 12 * len(values) + 4
    start = end + sum(4 * len(items) for items in values.values() if len(items) > 1)
    values[273] = [start + part * i for i in range(strips)]
    entries, more = b"", b""
    for tag, items in sorted(values.items()):
        raw = struct.pack(f"<{len(items)}I", *items)
        place = raw if len(items) == 1 else struct.pack("<I", end + len(more))
        entries += struct.pack("<HHI", tag, 4, len(items)) + place
        more += raw if len(items) > 1 else b""
    header = struct.pack("<2sHIH", b"II", 42, 8, len(values))
    return header + entries + bytes(4) + more + pixels.astype("<u2").tobytes()


def test_deep_color_in_tiff_is_read_right_or_rejected(tmp_path):
    grey = np.asarray(picture()).astype(np.uint16) * 200 + 300
    color = np.dstack([grey] * 3)
    expected = read(tmp_path, deep_tiff(color, 2))
    assert (expected.min(), expected.max()) == (0, 255)
    opaque, clear = np.full_like(grey, 65535), np.zeros_like(grey)
    for extra, fourth in ((2, opaque), (0, clear)):  # alpha, and something unspecified
        data = deep_tiff(np.dstack([color, fourth]), 2, extra=extra)
        assert np.array_equal(read(tmp_path, data), expected)
    half = np.dstack([color // 2, opaque // 2])  # multiplied by alpha already
    assert np.abs(read(tmp_path, deep_tiff(half, 2, extra=1)).astype(int) - expected).max() <= 1
    turned = read(tmp_path, deep_tiff(color, 2, orientation=6))
    assert np.array_equal(turned, np.rot90(expected, -1))
    with pytest.raises(BadImage, match="deep color in separate planes is not supported"):
        read(tmp_path, deep_tiff(np.stack([grey] * 3), 2, planar=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_color_of_a_deep_png_is_black(tmp_path, channels):
    grey = np.asarray(picture()).astype(np.uint16) * 200 + 300
    keyed = grey.copy()
    keyed[:9] = 65535
    pixels = keyed if channels == 1 else np.dstack([keyed] * 3)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    key = struct.pack(">I4s", 2 * channels, b"tRNS") + b"\xff" * 2 * channels
    key += zlib.crc32(key[4:]).to_bytes(4)
    place = data.index(b"IDAT") - 4
    result = read(tmp_path, data[:place] + key + data[place:])
    assert result[:9].max() == 0
    keyed[:9] = 0
    assert np.array_equal(result, image_io.stretch_to_uint8(keyed))


def test_garbage_after_the_only_page_of_a_tiff_does_not_matter(tmp_path):
    data = bytearray(encoded(picture(), "TIFF"))
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    for junk in (len(data) + 1000, 6, start, 0xFFFFFFF0):
        data[end : end + 4] = junk.to_bytes(4, "little")
        (tmp_path / "x.tif").write_bytes(data)
        assert np.array_equal(read_grey(tmp_path / "x.tif"), np.asarray(picture()))
