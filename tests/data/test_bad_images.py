"""What is not a whole image is refused by name; nothing is filled in, nothing leaks."""

import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.pictures import HEIGHT, WIDTH, color, encoded, picture
from PIL import Image, ImageFile

from fracnet.data import image_io
from fracnet.data.image_io import BadImage, image_size, read_grey

FRACATLAS = Path(
    os.environ.get("FRACATLAS_ROOT")
    or Path(__file__).resolve().parents[3] / "shared" / "data" / "fracatlas_sample"
)

CUT = {
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
@pytest.mark.parametrize("kind", CUT)
def test_a_cut_file_is_refused_or_whole(tmp_path, kind, lenient, monkeypatch, capfd):
    """At whatever byte a file is cut: an error, or every pixel as in the whole file."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = CUT[kind]()
    path = tmp_path / "cut"
    path.write_bytes(data)
    whole = read_grey(path)
    cuts = {*range(0, len(data), 1 + len(data) // 150), *range(len(data) - 40, len(data))}
    refused = 0
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        try:
            pixels = read_grey(path)
        except BadImage:
            refused += 1
        else:
            assert np.array_equal(pixels, whole), cut
    assert refused > 140
    assert lenient is ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_an_end_marker_behind_the_cut_does_not_hide_it(tmp_path, mode):
    data = encoded(picture().convert(mode), "JPEG")
    start = data.index(b"\xff\xda") + 16
    for cut in range(start, len(data) - 40, 5):
        (tmp_path / "cut.jpg").write_bytes(data[:cut] + b"\xff\xd9")
        with pytest.raises(BadImage, match="truncated"):
            read_grey(tmp_path / "cut.jpg")


@pytest.mark.parametrize("kind", CUT)
def test_damaged_bytes_raise_nothing_but_bad_image(tmp_path, kind, capfd):
    data = np.frombuffer(CUT[kind](), np.uint8)
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


class TestNoImageAtAll:
    def refuse(self, path: Path, why: str) -> None:
        for function in (read_grey, image_size):
            with pytest.raises(BadImage) as caught:
                function(path)
            assert str(path) in str(caught.value)
            assert why in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_missing_file_and_folder(self, tmp_path):
        self.refuse(tmp_path / "gone.jpg", "there is no such file")
        self.refuse(tmp_path, "it is a folder")

    def test_text_and_other_formats(self, tmp_path):
        path = tmp_path / "a.jpg"
        path.write_text("<html>Not Found</html>")
        self.refuse(path, "not a whole JPEG")
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
        self.refuse(path, "not a whole JPEG")

    def test_empty_file(self, tmp_path):
        path = tmp_path / "a.jpg"
        path.touch()
        self.refuse(path, "empty (0 bytes)")

    def test_no_pixels(self, tmp_path):
        data = bytearray(encoded(picture(), "BMP"))
        data[18:22] = bytes(4)
        (tmp_path / "a.bmp").write_bytes(data)
        self.refuse(tmp_path / "a.bmp", "")

    def test_too_many_pixels(self, tmp_path, monkeypatch):
        path = tmp_path / "a.png"
        path.write_bytes(encoded(picture(), "PNG"))
        monkeypatch.setattr(image_io, "MAX_PIXELS", WIDTH * HEIGHT - 1)
        self.refuse(path, "70x50 pixels are more than the allowed")
        monkeypatch.undo()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 3)
        self.refuse(path, "decompression bomb")

    def test_the_error_crosses_processes(self):
        error = pickle.loads(pickle.dumps(BadImage("a.jpg", "it is a folder")))
        assert (error.path, error.reason) == (Path("a.jpg"), "it is a folder")


def test_no_warning_of_the_decoder_leaks(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    palette = picture().quantize(8)
    path.write_bytes(encoded(palette, "PNG", transparency=bytes(range(8))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT - 1)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: read_grey(path), range(200)))) == 200
    assert warnings.filters == before


def test_threads_do_not_undo_each_others_strictness(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    good, cut = tmp_path / "good.jpg", tmp_path / "cut.jpg"
    data = encoded(picture(width=400, height=400), "JPEG")
    good.write_bytes(data)
    cut.write_bytes(data[: len(data) // 2])
    stop = threading.Event()

    def keep_reading() -> None:
        while not stop.is_set():
            read_grey(good)

    with ThreadPoolExecutor(3) as pool:
        busy = [pool.submit(keep_reading) for _ in range(3)]
        try:
            for _ in range(50):
                with pytest.raises(BadImage, match="truncated"):
                    read_grey(cut)
        finally:
            stop.set()
        for one in busy:
            one.result()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_real_files_that_are_truncated_are_refused_and_the_others_read():
    if not (FRACATLAS / "manifest.csv").is_file():
        pytest.skip("no FracAtlas sample; set FRACATLAS_ROOT")
    listed = pd.read_csv(FRACATLAS / "manifest.csv")
    truncated = listed[listed["truncated"] == 1]
    assert len(truncated) == 6
    for path in truncated["path"]:
        with pytest.raises(BadImage, match="truncated"):
            read_grey(FRACATLAS / path)
    for row in listed[listed["truncated"] == 0][::12].itertuples():
        assert read_grey(FRACATLAS / row.path).shape == (row.height, row.width)
