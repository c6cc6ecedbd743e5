"""Whatever bytes a file holds: an image or a clear refusal; no crash, no hunger, no black image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fracnet.data import image_io
from fracnet.data.image_io import BadImage, image_size, read_grey

SEED, EACH = 5, 150


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> dict:
    """What `helpers.fuzz_reading` tells."""
    words = ["-m", "helpers.fuzz_reading", tmp_path_factory.mktemp("f"), f"{SEED}", f"{EACH}"]
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_damaged_files_are_read_or_refused_and_never_black(outcome):
    assert len(outcome["counts"]) == 14
    for kind, counts in outcome["counts"].items():
        assert counts.get("black", 0) == 0, kind
        assert counts["refused"] > EACH / 10, kind
        assert counts["empty refused"] == 3, kind


def test_bombs_are_refused(outcome):
    read = {name for name, told in outcome["bombs"].items() if told != "refused"}
    # The text beside the pixels is not looked at.
    assert read <= {"png, deep text"}


def test_memory_stays_bounded(outcome):
    """The bombs ask for 300 MB to 9 GB each."""
    assert outcome["grown_kib"] < 150 * 1024


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        for function in (read_grey, image_size):
            with pytest.raises(BadImage, match="no regular file"):
                function(path)


def test_a_file_that_is_too_large_is_not_read_into_memory(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(image_io.MAX_BYTES + 1)  # takes no room on the disk
    for function in (read_grey, image_size):
        with pytest.raises(BadImage, match="bytes are more than the allowed"):
            function(path)


@pytest.mark.parametrize("suffix", [".dcm", ".png", ".jpg", ".tif", ".txt", ""])
def test_the_name_does_not_matter(tmp_path, suffix):
    from helpers.fuzz_reading import GREY, files

    for kind in ("png", "dicom jpeg", "bmp"):
        path = tmp_path / f"image{suffix}"
        path.write_bytes(files()[kind])
        assert read_grey(path).shape == GREY.shape
    path.write_bytes(np.arange(200, dtype=np.uint8).tobytes())
    with pytest.raises(BadImage, match="not a whole JPEG"):
        read_grey(path)
