"""`python -m fracnet.cache` lists image caches, clears them, and spares builds in progress."""

import os
import time
from pathlib import Path

import pytest
from helpers.caches import cache_contents, open_cache
from helpers.tiny import RESIZE, tiny_manifest

from fracnet import cache as cache_command
from fracnet.data import cache_folders
from fracnet.data.image_cache import ImageCache
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import Preprocess


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path / "files")


def test_command_lists_and_clears(
    manifest: Manifest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_command.main([])
    assert capsys.readouterr().out == f"No caches in {folder}.\n"
    cache = open_cache(manifest)
    old = time.time() - 3 * cache_command.DAY
    os.utime(cache.path, (old, old))
    recent = ImageCache.open_or_build(
        manifest, Preprocess(RESIZE, 200), on_bad_file="error", progress=False
    )
    cache_command.main([])
    listing = capsys.readouterr().out
    assert str(cache.path) in listing
    assert "3 days" in listing
    assert "1.4" in listing  # 36 x 200 x 200 bytes
    cache_command.main(["clear", "--older-than", "1"])
    assert "Removed 1 cache from" in capsys.readouterr().out
    assert cache_contents(folder) == {recent.path.name}
    (folder / f"{'1' * 32}.lock").touch()  # of a cache that does not exist
    cache_command.main(["clear"])
    assert "Removed 1 cache from" in capsys.readouterr().out
    assert list(folder.iterdir()) == [], "locks are removed with their cache"
    assert recent.images[3].sum() > 0, "an open cache stays readable"


def test_command_skips_builds_in_progress(
    manifest: Manifest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = open_cache(manifest)
    unfinished = folder / f"{'0' * 32}.part"
    unfinished.mkdir()
    with (
        cache_folders.locked(cache.path, wait=True),
        cache_folders.locked(unfinished.with_suffix(""), wait=True),
    ):
        cache_command.main(["clear"])
    assert "Skipped: a build is in progress" in capsys.readouterr().out
    assert cache_contents(folder) == {cache.path.name, unfinished.name}
    cache_command.main(["clear"])
    assert list(folder.iterdir()) == []
