"""The image cache: contents, validity, progress, errors, concurrent and killed builds."""

import errno
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.caches import PREPROCESS, cache_contents, open_cache
from helpers.tiny import RESIZE, tiny_manifest
from helpers.warm import Warm

import fracnet
from fracnet.data import cache_folders, image_cache
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_features import shortcut_features
from fracnet.data.image_io import read_grey
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import Preprocess
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


# --- contents


def test_a_row_is_the_preprocessed_image_with_the_features_of_the_original(
    manifest: Manifest,
) -> None:
    cache = open_cache(manifest, workers=4)
    assert cache.images.shape == (36, 32, 32)
    assert cache.images.dtype == np.uint8
    assert cache.bad == {}
    for row, path in enumerate(manifest.table["path"]):
        file = manifest.root / path
        grey = read_grey(file)
        np.testing.assert_array_equal(cache.images[row], PREPROCESS(grey))
        expected = shortcut_features(grey, file.stat().st_size)
        np.testing.assert_array_equal(cache.features[row], expected)


def test_pixels_are_mapped_read_only_and_not_pickled(manifest: Manifest) -> None:
    cache = open_cache(manifest)
    with pytest.raises(ValueError, match="read-only"):
        cache.images[0, 0, 0] = 1
    pickled = pickle.dumps(cache)
    assert len(pickled) < cache.images.nbytes
    copy = pickle.loads(pickled)
    assert isinstance(copy.images, np.memmap)
    np.testing.assert_array_equal(copy.images, cache.images)


def test_views_and_results_are_pickled_with_their_own_pixels(manifest: Manifest) -> None:
    images = open_cache(manifest).images
    for part in (images.view()[1:, ::2], np.flip(images, 0), images + 1):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)), part)


# --- validity


def test_a_second_opening_decodes_nothing(
    manifest: Manifest, request: pytest.FixtureRequest
) -> None:
    first = open_cache(manifest)
    request.getfixturevalue("no_decoding")
    second = open_cache(manifest)
    assert second.path == first.path
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.features, first.features)


def test_a_changed_file_or_pipeline_makes_another_cache(manifest: Manifest) -> None:
    first = open_cache(manifest)
    other_size = ImageCache.open_or_build(
        manifest, Preprocess(RESIZE, 16), on_bad_file="error", progress=False
    )
    assert other_size.images.shape == (36, 16, 16)
    file = manifest.root / manifest.table["path"][4]
    size = file.stat().st_size
    os.utime(file, ns=(0, 12345))
    touched = open_cache(manifest)
    assert file.stat().st_size == size
    file.write_bytes((manifest.root / manifest.table["path"][5]).read_bytes())
    replaced = open_cache(manifest)
    assert len({first.path, other_size.path, touched.path, replaced.path}) == 4
    np.testing.assert_array_equal(replaced.images[4], replaced.images[5])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def fill_with_zeros_in_the_middle(path: Path) -> None:
    data = path.read_bytes()
    third = len(data) // 3
    path.write_bytes(data[:third] + bytes(third) + data[2 * third :])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.uint8", cut),
        ("images.uint8", fill_with_zeros),
        ("images.uint8", fill_with_zeros_in_the_middle),
        ("checksums.npy", flip),
        ("checksums.npy", Path.unlink),
        ("images.uint8", Path.unlink),
        ("features.npy", flip),
        ("features.npy", Path.unlink),
        ("meta.json", flip),
        ("meta.json", cut),
        ("meta.json", Path.unlink),
    ],
)
def test_a_damaged_cache_is_rebuilt(
    manifest: Manifest, caplog: pytest.LogCaptureFixture, name: str, damage: object
) -> None:
    first = open_cache(manifest)
    expected, features = np.array(first.images), np.array(first.features)
    damage(first.path / name)  # type: ignore[operator]
    copy = open_cache(manifest)
    assert caplog.text.count("is damaged; rebuilding it") == 1
    np.testing.assert_array_equal(copy.images, expected)
    np.testing.assert_array_equal(copy.features, features)


def test_a_damaged_image_is_read_from_its_file_and_the_next_opening_rebuilds(
    manifest: Manifest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "SAMPLED", 2)  # the first and the last
    expected = np.array(open_cache(manifest).images)
    cache = open_cache(manifest)
    data = bytearray((cache.path / "images.uint8").read_bytes())
    data[5 * 32**2 : 7 * 32**2] = bytes(2 * 32**2)
    (cache.path / "images.uint8").write_bytes(data)
    for index in (5, np.int64(6), [6, 5, 4], slice(4, 8), np.arange(36) % 2 == 0, (5, 3), (-30, 1)):
        np.testing.assert_array_equal(open_cache(manifest).images[index], expected[index])
        assert "damaged: image" in caplog.text
        assert "read from their files" in caplog.text
        caplog.clear()
        (cache.path / "damaged").unlink()
    cache = open_cache(manifest)
    copy = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(copy.images[:], expected)
    np.testing.assert_array_equal(open_cache(manifest).images, expected)
    assert "rebuilding it" in caplog.text
    assert not (cache.path / "damaged").exists()


def test_a_damaged_image_whose_file_has_changed_is_an_error(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "SAMPLED", 2)
    cache = open_cache(manifest)
    fill_with_zeros_in_the_middle(cache.path / "images.uint8")
    paths = manifest.table["path"]
    manifest.file(paths[15]).write_bytes(manifest.file(paths[16]).read_bytes())
    with pytest.raises(UserError, match=r"image 15 is not .* file has changed since\. Run .*again"):
        cache.images[15]


def test_each_image_is_compared_once(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, compared = open_cache(manifest), []
    digest = image_cache._digest
    monkeypatch.setattr(image_cache, "_digest", lambda image: compared.append(1) or digest(image))
    for _ in range(3):
        for row in range(36):
            assert type(cache.images[row]) is np.ndarray
        cache.images[[1, 2, 3]]
    assert len(compared) == 36


# --- other users of the machine


def test_cached_patients_are_private_to_their_owner(manifest: Manifest) -> None:
    cache = open_cache(manifest)
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((cache.path / "images.uint8").stat().st_mode) == 0o600


def test_a_cache_of_another_user_is_a_sentence(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(manifest)
    opened = Path.read_text

    def read_text(path: Path, *args: Any, **options: Any) -> str:
        if path.parent == cache.path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(
        UserError, match=r"belongs to \S+ and cannot be read.*FRACNET_CACHE"
    ) as error:
        open_cache(manifest)
    assert str(cache.path) in str(error.value)
    (entry,) = cache_folders.list_caches()
    assert "cannot be read" in entry.name


# --- no disk space


def test_a_full_disk_is_reported_and_leaves_nothing(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(handle: int, image: np.ndarray, offset: int) -> None:
        written.append(offset)
        if len(written) > 10:
            time.sleep(0.1)  # gives the first error time to cancel the other threads
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(image_cache, "_write", write)
        with pytest.raises(UserError, match="No space left on device") as caught:
            open_cache(manifest)
    assert str(folder) in str(caught.value)
    assert "FRACNET_CACHE" in str(caught.value)
    assert len(written) < 36, "the other threads stop"
    assert cache_contents(folder) == set()
    assert len(open_cache(manifest).images) == 36


def test_disk_space_is_reserved_before_decoding(
    manifest: Manifest, folder: Path, no_decoding: None
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (36 * 32 * 32 - 1, limits[1]))
    try:
        with pytest.raises(UserError, match="Cannot write the image cache"):
            open_cache(manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cache_contents(folder) == set()


def test_an_impossible_cache_folder_is_reported(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="FRACNET_CACHE"):
        open_cache(manifest)


# --- unreadable files

BAD = tuple(f"train/{i}.png" for i in range(1, 14))


def test_all_bad_files_are_reported_at_once(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path / "bad", truncate=BAD)
    (manifest.root / "val" / "3.png").unlink()
    with pytest.raises(UserError) as caught:
        open_cache(manifest)
    message = str(caught.value)
    assert "14 of 36" in message
    assert all(path in message for path in BAD[:10])
    assert "and 4 more" in message
    assert "data.on_bad_file=skip" in message


def test_skipped_files_leave_no_gap(
    tmp_path: Path, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tiny_manifest(tmp_path / "bad", truncate=BAD)
    cache = open_cache(damaged, on_bad_file="skip", workers=3)
    assert sorted(cache.bad) == list(range(1, 14))
    assert "truncated" in cache.bad[1]
    assert "train/13.png" not in caplog.text
    assert "13 of 36" in caplog.text
    good = [row for row in range(36) if row not in cache.bad]
    complete = open_cache(manifest)
    np.testing.assert_array_equal(cache.images, complete.images[good])
    np.testing.assert_array_equal(cache.features, complete.features[good])
    with pytest.raises(UserError, match="13 of 36"):
        open_cache(damaged, on_bad_file="error")


def test_no_readable_file_is_always_an_error(tmp_path: Path, folder: Path) -> None:
    counts = {"train": 3}
    bad = tuple(f"train/{i}.png" for i in range(3))
    manifest = tiny_manifest(tmp_path / "bad", counts=counts, truncate=bad)
    with pytest.raises(UserError, match="Cannot read any of the 3 images"):
        open_cache(manifest, on_bad_file="skip")
    assert cache_contents(folder) == set()


# --- progress


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("plain")
def test_progress_is_two_lines_without_a_terminal(
    manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    open_cache(manifest, progress=True)
    out, err = capfd.readouterr()
    before, after = err.splitlines()
    assert before == "Preprocessing 36 images of tiny (once)"
    assert after.startswith("Cached 36 images in ")
    assert " per s" in after
    assert out == ""
    open_cache(manifest, progress=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("plain")
def test_progress_is_a_bar_on_a_terminal(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    open_cache(manifest, progress=True)
    assert "36/36" in capfd.readouterr().err


# --- several processes


HELPERS = Path(__file__).parents[1]


def start_build(root: Path, log: Path, pause: float, together: int = 1) -> subprocess.Popen[str]:
    python_path = f"{HELPERS}{os.pathsep}{Path(fracnet.__file__).parents[1]}"
    return Warm(
        [sys.executable, "-m", "helpers.slow_build", *map(str, (root, log, pause, together))],
        env=os.environ | {"PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line_count(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def leftovers_of_killed_build(tmp_path: Path, folder: Path) -> set[str]:
    """Kills a build halfway; the names that it leaves behind."""
    log = tmp_path / "killed.log"
    with start_build(tmp_path / "files", log, 0.05) as process:
        deadline = time.monotonic() + 60
        while line_count(log) < 8:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    return cache_contents(folder)


@pytest.mark.slow
def test_nothing_of_a_killed_build_is_used(
    leftovers_of_killed_build: set[str], tmp_path: Path, folder: Path
) -> None:
    (leftover,) = leftovers_of_killed_build
    assert leftover.endswith(".part")
    assert cache_folders.list_caches() == []
    other = tiny_manifest(tmp_path / "other")
    cache = open_cache(other)
    assert cache_contents(folder) == {cache.path.name}, "any later build removes the leftovers"
    complete = open_cache(tiny_manifest(tmp_path / "files"))
    np.testing.assert_array_equal(complete.images, cache.images)


@pytest.mark.slow
def test_two_processes_build_once(tmp_path: Path, manifest: Manifest) -> None:
    log = tmp_path / "log"
    processes = [start_build(manifest.root, log, 0.1, together=2) for _ in range(2)]
    results = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert len({path for path, _ in results}) == 1
    assert line_count(log) == 36
    messages = [text for _, text in results]
    assert sum("Preprocessing 36 images" in text for text in messages) == 1
    assert sum("Waiting for another process" in text for text in messages) == 1


@pytest.mark.slow
def test_waiting_processes_build_a_cleared_cache_once(tmp_path: Path, manifest: Manifest) -> None:
    cache = open_cache(manifest)
    log = tmp_path / "log"
    with cache_folders.locked(cache.path, wait=True):
        cache_folders.discard(cache.path)
        waiting = [start_build(manifest.root, log, 0.02) for _ in range(2)]
        for process in waiting:
            assert process.stderr is not None
            assert "Waiting" in process.stderr.readline()
        Path(cache_folders.cache_lock(cache.path).lock_file).unlink()  # as `clear` does in the end
    results = [process.communicate(timeout=90) for process in waiting]
    assert [process.returncode for process in waiting] == [0, 0], results
    assert line_count(log) == 36
