"""What a person sees of the caches: two lines, a bar, a list, and `clear`."""

import os
import time
from pathlib import Path

import pytest
from helpers.caches import lying, opened
from helpers.tiny import RESIZE, tiny_manifest

from fracnet import cache as cache_module
from fracnet.data import image_cache
from fracnet.data.image_cache import ImageCache
from fracnet.data.manifest import Manifest
from fracnet.data.preprocess import build_preprocess


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path / "files")


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
    cache_module.main([])
    assert capsys.readouterr().out == f"No image caches in {folder}.\n"
    cache = opened(manifest)
    old = time.time() - 3 * cache_module.DAY
    os.utime(cache.path, (old, old))
    young = ImageCache.open_or_build(
        manifest, build_preprocess(RESIZE, 200), on_bad_file="error", progress=False
    )
    cache_module.main([])
    listing = capsys.readouterr().out
    assert str(cache.path) in listing
    assert "3 days" in listing
    assert "1.4" in listing  # 36 x 200 x 200 bytes
    cache_module.main(["clear", "--older-than", "1"])
    assert "Removed 1 image cache from" in capsys.readouterr().out
    assert lying(folder) == {young.path.name}
    (folder / f"{'1' * 32}.lock").touch()  # of a cache that is gone
    cache_module.main(["clear"])
    assert "Removed 1 image cache from" in capsys.readouterr().out
    assert list(folder.iterdir()) == [], "locks go with what they guard"
    assert young.images[3].sum() > 0, "who has it open keeps it"


def test_command_spares_what_is_being_built(
    manifest: Manifest, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = opened(manifest)
    unfinished = folder / f"{'0' * 32}.part"
    unfinished.mkdir()
    with (
        image_cache.held(cache.path, progress=False),
        image_cache.held(unfinished.with_suffix(""), progress=False),
    ):
        cache_module.main(["clear"])
    assert "Left alone" in capsys.readouterr().out
    assert lying(folder) == {cache.path.name, unfinished.name}
    cache_module.main(["clear"])
    assert list(folder.iterdir()) == []
