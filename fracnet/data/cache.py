"""The cache of enhanced images: decoded and enhanced once, then mapped by every process.

It holds row i of the manifest at place i, without the rows whose file cannot be read. A cache is
named by a hash of its files (path, size, time of change) and of its pipeline, so a changed file or
step makes another one, and a damaged one is built again.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fracnet.data import cachefolder
from fracnet.data.build import build
from fracnet.data.enhance import Enhance
from fracnet.data.manifest import Manifest, listed
from fracnet.errors import UserError
from fracnet.hashes import sha256_of

FORMAT = 1
ON_BAD_FILE = ("error", "skip")

log = logging.getLogger(__name__)


@dataclass
class ImageCache:
    """An open cache.

    images: uint8 [N, S, S], mapped read-only; row i is row i of the manifest's table after the
        rows in `bad` have been dropped from it.
    features: float64 [N, F], `shortcuts.FEATURE_NAMES` of the images as they lie in the files.
    bad: row of the manifest's full table -> why its file cannot be read.
    """

    path: Path
    images: np.memmap
    features: np.ndarray
    bad: dict[int, str]

    @classmethod
    def open_or_build(
        cls,
        manifest: Manifest,
        enhance: Enhance,
        *,
        on_bad_file: str = "error",
        workers: int | None = None,
        progress: bool = True,
    ) -> "ImageCache":
        """Open the cache of these files and this pipeline; build it first where there is none.

        `workers` threads build (default: one per core of this process); processes that want the
        same cache at once build it once. Raises UserError for unreadable files where `on_bad_file`
        is "error" (all are named together), and where the folder is full or not writable.
        """
        assert on_bad_file in ON_BAD_FILE, on_bad_file
        # No Path of every file: that many objects would be kept in memory for good.
        states = [_state(os.path.join(manifest.root, path)) for path in manifest.table["path"]]
        folder = cachefolder.images_dir() / _key(manifest, states, enhance)
        cache = cls._open(folder)
        if cache is None:
            cache = cls._build(folder, manifest, states, enhance, workers, progress)
        cache._judge_bad_files(manifest, on_bad_file)
        return cache

    @classmethod
    def _open(cls, folder: Path) -> "ImageCache | None":
        """The cache if it is there and whole."""
        if not folder.is_dir():
            return None
        meta = cachefolder.read_meta(folder)
        try:
            digest = sha256_of(folder / "features.npy")
            size = (folder / "images.uint8").stat().st_size
        except FileNotFoundError:
            meta = None
        if (
            meta is None
            or size != meta["images"] * meta["image_size"] ** 2
            or digest != meta["features_sha256"]
        ):
            log.warning("The image cache %s is damaged; it is built again.", folder)
            return None
        shape = (meta["images"], meta["image_size"], meta["image_size"])
        try:
            images = _mapped(folder, shape)
            features = np.asarray(np.load(folder / "features.npy", mmap_mode="r"))
        except FileNotFoundError:  # cleared this very moment
            return None
        bad = {int(row): str(reason) for row, reason in meta["bad"].items()}
        return cls(folder, images, features, bad)

    @classmethod
    def _build(
        cls,
        folder: Path,
        manifest: Manifest,
        states: Sequence[tuple[int, int]],
        enhance: Enhance,
        workers: int | None,
        progress: bool,
    ) -> "ImageCache":
        side = enhance.image_size
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            cachefolder.sweep()
            with cachefolder.held(folder, progress):
                cache = cls._open(folder)
                if cache is not None:  # another process has built it meanwhile
                    return cache
                cachefolder.discard(folder)
                part = cachefolder.part_of(folder)
                files = [manifest.root / path for path in manifest.table["path"]]
                sizes = [size for size, _ in states]
                build(part, manifest.name, files, sizes, enhance, workers, progress)
                os.replace(part, folder)
                _sync(folder.parent)
                cache = cls._open(folder)
        except OSError as error:
            raise UserError(_cannot_write(folder.parent, len(states) * side**2, error)) from error
        assert cache is not None, folder
        return cache

    def _judge_bad_files(self, manifest: Manifest, on_bad_file: str) -> None:
        if not self.bad:
            return
        paths = manifest.table["path"]
        told = listed((f"{paths[row]} ({why})" for row, why in self.bad.items()), len(self.bad))
        what = f"{len(self.bad)} of {len(paths)} images in {manifest.root} cannot be read: {told}."
        if on_bad_file == "error":
            raise UserError(f"{what} Mend them, or leave them out with data.on_bad_file=skip.")
        log.warning("%s They are left out.", what)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["images"] = self.images.shape  # the other process maps the file itself
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.images = _mapped(self.path, state["images"])


def _mapped(folder: Path, shape: tuple[int, ...]) -> np.memmap:
    return np.memmap(folder / "images.uint8", dtype=np.uint8, mode="r", shape=shape)


def _state(file: str) -> tuple[int, int]:
    """(bytes, time of last change in ns), (-1, -1) for a file that is not there."""
    try:
        found = os.stat(file)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _key(manifest: Manifest, states: Sequence[tuple[int, int]], enhance: Enhance) -> str:
    """Name of the cache: equal for equal files in equal order and an equal pipeline."""
    digest = hashlib.sha256(f"{FORMAT}\n{manifest.root.resolve()}\n{enhance.key()}\n".encode())
    for path, (size, changed) in zip(manifest.table["path"], states, strict=True):
        digest.update(f"{path}\t{size}\t{changed}\n".encode())
    return digest.hexdigest()[:32]


def _sync(folder: Path) -> None:
    """Make a rename within `folder` outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(folder: Path, n_bytes: int, error: OSError) -> str:
    return (
        f"The image cache cannot be written to {folder}: {error.strerror or error}. It needs "
        f"{max(1, round(n_bytes / 1e6))} MB. Make room (`python -m fracnet.cache clear` removes "
        "old caches), or name a folder on another disk with the environment variable "
        "FRACNET_CACHE."
    )
