"""Several processes that want one cache, and some that die while they build it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.caches import lying, opened
from helpers.tiny import tiny_manifest

import fracnet
from fracnet.data import image_cache
from fracnet.data.manifest import Manifest

HELPERS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path / "files")


def start(root: Path, log: Path, pause: float, together: int = 1) -> subprocess.Popen[str]:
    places = f"{HELPERS}{os.pathsep}{Path(fracnet.__file__).parents[1]}"
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "helpers.slow_build",
            str(root),
            str(log),
            str(pause),
            str(together),
        ],
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
    assert image_cache.entries() == []
    other = tiny_manifest(tmp_path / "other")
    cache = opened(other)
    assert lying(folder) == {cache.path.name}, "the next build sweeps, whatever it builds itself"
    whole = opened(tiny_manifest(tmp_path / "files"))
    np.testing.assert_array_equal(whole.images, cache.images)


@pytest.mark.slow
def test_two_processes_build_once(tmp_path: Path, manifest: Manifest) -> None:
    log = tmp_path / "log"
    processes = [start(manifest.root, log, 0.1, together=2) for _ in range(2)]
    results = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert len({path for path, _ in results}) == 1
    assert lines(log) == 36
    told = [text for _, text in results]
    assert sum("Decoding and enhancing 36 images" in text for text in told) == 1
    assert sum("Waiting for another process" in text for text in told) == 1


@pytest.mark.slow
def test_who_waits_for_a_cache_that_is_cleared_builds_it_alone(
    tmp_path: Path, manifest: Manifest
) -> None:
    cache = opened(manifest)
    log = tmp_path / "log"
    with image_cache.held(cache.path, progress=False):
        image_cache.discard(cache.path)
        waiting = [start(manifest.root, log, 0.02) for _ in range(2)]
        for process in waiting:
            assert process.stderr is not None
            assert "Waiting" in process.stderr.readline()
        Path(image_cache.lock(cache.path).lock_file).unlink()  # as `clear` does at its end
    results = [process.communicate(timeout=90) for process in waiting]
    assert [process.returncode for process in waiting] == [0, 0], results
    assert lines(log) == 36
