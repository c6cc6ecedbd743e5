"""What a cache of preprocessed images holds, when it is trusted, and what it refuses."""

import errno
import os
import pickle
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import ENHANCE, lying, opened
from helpers.tiny import RESIZE, tiny_manifest

from fracnet.data import image_cache
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_features import shortcut_features
from fracnet.data.image_io import read_grey
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import build_preprocess
from fracnet.utils.errors import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path / "files")


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "read_grey", lambda path: pytest.fail(f"decoded {path}"))


# --- what it holds


def test_row_is_the_enhanced_image_with_the_features_of_the_original(manifest: Manifest) -> None:
    cache = opened(manifest, workers=4)
    assert cache.images.shape == (36, 32, 32)
    assert cache.images.dtype == np.uint8
    assert cache.bad == {}
    for row, path in enumerate(manifest.table["path"]):
        file = manifest.root / path
        grey = read_grey(file)
        np.testing.assert_array_equal(cache.images[row], ENHANCE(grey))
        expected = shortcut_features(grey, file.stat().st_size)
        np.testing.assert_array_equal(cache.features[row], expected)


def test_pixels_are_mapped_read_only_and_not_pickled(manifest: Manifest) -> None:
    cache = opened(manifest)
    with pytest.raises(ValueError, match="read-only"):
        cache.images[0, 0, 0] = 1
    packed = pickle.dumps(cache)
    assert len(packed) < cache.images.nbytes
    again = pickle.loads(packed)
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images, cache.images)


# --- when it is trusted


def test_second_opening_decodes_nothing(manifest: Manifest, request: pytest.FixtureRequest) -> None:
    first = opened(manifest)
    request.getfixturevalue("no_decoding")
    second = opened(manifest)
    assert second.path == first.path
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.features, first.features)


def test_changed_file_or_pipeline_is_another_cache(manifest: Manifest) -> None:
    first = opened(manifest)
    other_size = ImageCache.open_or_build(
        manifest, build_preprocess(RESIZE, 16), on_bad_file="error", progress=False
    )
    assert other_size.images.shape == (36, 16, 16)
    file = manifest.root / manifest.table["path"][4]
    same_length = file.stat().st_size
    os.utime(file, ns=(0, 12345))
    touched = opened(manifest)
    assert file.stat().st_size == same_length
    file.write_bytes((manifest.root / manifest.table["path"][5]).read_bytes())
    replaced = opened(manifest)
    assert len({first.path, other_size.path, touched.path, replaced.path}) == 4
    np.testing.assert_array_equal(replaced.images[4], replaced.images[5])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.uint8", cut),
        ("images.uint8", Path.unlink),
        ("features.npy", flip),
        ("features.npy", Path.unlink),
        ("meta.json", flip),
        ("meta.json", cut),
        ("meta.json", Path.unlink),
    ],
)
def test_damaged_cache_is_built_again(
    manifest: Manifest, caplog: pytest.LogCaptureFixture, name: str, damage: object
) -> None:
    first = opened(manifest)
    expected, features = np.array(first.images), np.array(first.features)
    damage(first.path / name)  # type: ignore[operator]
    again = opened(manifest)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(again.images, expected)
    np.testing.assert_array_equal(again.features, features)


# --- no room


def test_full_disk_is_told_and_leaves_nothing(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(handle: int, image: np.ndarray, offset: int) -> None:
        written.append(offset)
        if len(written) > 10:
            time.sleep(0.1)  # whoever is told first has time to call the others off
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(image_cache, "_write", write)
        with pytest.raises(UserError, match="No space left on device") as caught:
            opened(manifest)
    assert str(folder) in str(caught.value)
    assert "FRACNET_CACHE" in str(caught.value)
    assert len(written) < 36, "it does not go on in vain"
    assert lying(folder) == set()
    assert len(opened(manifest).images) == 36


def test_room_is_asked_for_before_the_work(
    manifest: Manifest, folder: Path, no_decoding: None
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (36 * 32 * 32 - 1, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot be written"):
            opened(manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert lying(folder) == set()


def test_cache_folder_that_cannot_be_is_told(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="FRACNET_CACHE"):
        opened(manifest)


# --- files that cannot be read

BAD = tuple(f"train/{i}.png" for i in range(1, 14))


def test_all_bad_files_are_told_at_once(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path / "bad", truncate=BAD)
    (manifest.root / "val" / "3.png").unlink()
    with pytest.raises(UserError) as caught:
        opened(manifest)
    message = str(caught.value)
    assert "14 of 36" in message
    assert all(path in message for path in BAD[:10])
    assert "and 4 more" in message
    assert "data.on_bad_file=skip" in message


def test_skipped_files_leave_no_gap(
    tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    partly = tiny_manifest(tmp_path / "bad", truncate=BAD)
    cache = opened(partly, on_bad_file="skip", workers=3)
    assert sorted(cache.bad) == list(range(1, 14))
    assert "truncated" in cache.bad[1]
    assert "train/13.png" not in caplog.text
    assert "13 of 36" in caplog.text
    good = [row for row in range(36) if row not in cache.bad]
    whole = opened(manifest)
    np.testing.assert_array_equal(cache.images, whole.images[good])
    np.testing.assert_array_equal(cache.features, whole.features[good])
    with pytest.raises(UserError, match="13 of 36"):
        opened(partly, on_bad_file="error")


def test_nothing_readable_is_an_error_under_any_policy(tmp_path: Path, folder: Path) -> None:
    counts = {"train": 3}
    bad = tuple(f"train/{i}.png" for i in range(3))
    manifest = tiny_manifest(tmp_path / "bad", counts=counts, truncate=bad)
    with pytest.raises(UserError, match="None of the 3 images"):
        opened(manifest, on_bad_file="skip")
    assert lying(folder) == set()
