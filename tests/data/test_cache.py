import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import RESIZE, tiny_manifest

import fracnet
from fracnet import cache as command
from fracnet.data import build, cachefolder
from fracnet.data.cache import ImageCache
from fracnet.data.enhance import build_enhance
from fracnet.data.manifest import Manifest
from fracnet.data.reading import read_grey
from fracnet.data.shortcuts import shortcut_features
from fracnet.errors import UserError

ENHANCE = build_enhance(RESIZE, 32)
HELPERS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path / "files")


def opened(manifest: Manifest, **settings: object) -> ImageCache:
    defaults: dict = {"on_bad_file": "error", "progress": False}
    return ImageCache.open_or_build(manifest, ENHANCE, **(defaults | settings))


def lying(folder: Path) -> set[str]:
    """Everything in the folder but locks."""
    return {path.name for path in folder.glob("*") if path.suffix != ".lock"}


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "read_grey", lambda path: pytest.fail(f"decoded {path}"))


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
        manifest, build_enhance(RESIZE, 16), on_bad_file="error", progress=False
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
    expected, features = np.array(first.images), first.features
    damage(first.path / name)  # type: ignore[operator]
    again = opened(manifest)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(again.images, expected)
    np.testing.assert_array_equal(again.features, features)


# --- several processes, and some that die


def start(root: Path, log: Path, pause: float) -> subprocess.Popen[str]:
    places = f"{HELPERS}{os.pathsep}{Path(fracnet.__file__).parents[1]}"
    return subprocess.Popen(
        [sys.executable, "-m", "helpers.slow_build", str(root), str(log), str(pause)],
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def killed(tmp_path: Path, folder: Path) -> set[str]:
    """Leaves behind what a build leaves that was killed half-way; its names."""
    with start(tmp_path / "files", tmp_path / "killed.log", 0.05) as process:
        deadline = time.monotonic() + 60
        while lines(tmp_path / "killed.log") < 8:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    return lying(folder)


@pytest.mark.slow
def test_killed_build_leaves_nothing_trusted(
    killed: set[str], tmp_path: Path, folder: Path
) -> None:
    (left,) = killed
    assert left.endswith(".part")
    assert cachefolder.entries() == []
    other = tiny_manifest(tmp_path / "other")
    cache = opened(other)
    assert lying(folder) == {cache.path.name}, "the next build sweeps, whatever it builds itself"
    whole = opened(tiny_manifest(tmp_path / "files"))
    np.testing.assert_array_equal(whole.images, cache.images)


@pytest.mark.slow
def test_two_processes_build_once(tmp_path: Path, manifest: Manifest) -> None:
    log = tmp_path / "log"
    processes = [start(manifest.root, log, 0.1) for _ in range(2)]
    results = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert len({path for path, _ in results}) == 1
    assert lines(log) == 36
    told = [text for _, text in results]
    assert sum("Decoding and enhancing 36 images" in text for text in told) == 1
    assert sum("Waiting for another process" in text for text in told) == 1


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
        patched.setattr(build, "_write", write)
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


# --- what the user sees


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("plain")
def test_two_plain_lines_where_nobody_watches(
    manifest: Manifest, capfd: pytest.CaptureFixture[str]
) -> None:
    opened(manifest, progress=True)
    out, err = capfd.readouterr()
    before, after = err.splitlines()
    assert before == "Decoding and enhancing 36 images of tiny, once"
    assert after.startswith("36 images in ")
    assert " a second" in after
    assert out == ""
    opened(manifest, progress=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("plain")
def test_bar_where_somebody_watches(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    opened(manifest, progress=True)
    assert "36/36" in capfd.readouterr().err


def test_command_lists_and_clears(
    manifest: Manifest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main([])
    assert capsys.readouterr().out == f"No image caches in {folder}.\n"
    cache = opened(manifest)
    old = time.time() - 3 * command.DAY
    os.utime(cache.path, (old, old))
    young = ImageCache.open_or_build(
        manifest, build_enhance(RESIZE, 200), on_bad_file="error", progress=False
    )
    command.main([])
    listing = capsys.readouterr().out
    assert str(cache.path) in listing
    assert "3 days" in listing
    assert "1.4" in listing  # 36 x 200 x 200 bytes
    command.main(["clear", "--older-than", "1"])
    assert "Removed 1 image caches" in capsys.readouterr().out
    assert lying(folder) == {young.path.name}
    command.main(["clear"])
    assert "Removed 1 image caches" in capsys.readouterr().out
    assert lying(folder) == set()
    assert young.images[3].sum() > 0, "who has it open keeps it"


def test_command_spares_what_is_being_built(
    manifest: Manifest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = opened(manifest)
    unfinished = folder / f"{'0' * 32}.part"
    unfinished.mkdir()
    with (
        cachefolder.held(cache.path, progress=False),
        cachefolder.held(unfinished.with_suffix(""), progress=False),
    ):
        command.main(["clear"])
    assert "Left alone" in capsys.readouterr().out
    assert lying(folder) == {cache.path.name, unfinished.name}
    command.main(["clear"])
    assert lying(folder) == set()
