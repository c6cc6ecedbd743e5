"""The cache of preprocessed images: decoded and preprocessed once, then mapped by every process.

It holds row i of the manifest at place i, without the rows whose file cannot be read. A cache is
named by a hash of its files (path, size, time of change) and of its pipeline, so a changed file or
step makes another one, and a damaged one is built again.

The folder in which image caches lie: names, locks, what may be trusted, what may be removed.

    <cache>/images/<key>/          a finished cache: images.uint8, features.npy, meta.json
    <cache>/images/<key>.part/     one that is being built, or was when its process was killed
    <cache>/images/<key>.lock      held by whoever builds or removes it

A finished cache appears under its name in one step, so what has no `.part` was whole once.
Imports nothing heavy: the command that lists and clears caches answers at once.

Decode and preprocess all images of a data set, in parallel threads, into one folder.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from fracnet.data.image_features import FEATURE_NAMES, shortcut_features
from fracnet.data.image_io import BadImage, read_grey, single_threaded
from fracnet.data.manifest import Manifest, listed
from fracnet.data.preprocess import Preprocess
from fracnet.utils.errors import UserError
from fracnet.utils.files import cache_dir, sha256_of
from fracnet.utils.progress import progress_bar

META = "meta.json"


@dataclass(frozen=True)
class Entry:
    """A cache as the user sees it; `images` is None where its description is damaged."""

    path: Path
    name: str
    images: int | None
    image_size: int | None
    n_bytes: int
    age: float
    """Seconds since it was built."""


def images_dir() -> Path:
    """The folder of all image caches; it need not exist."""
    return cache_dir() / "images"


def lock(folder: Path) -> FileLock:
    """The lock of one cache; the system lets go of it when its process ends, however it ends."""
    return FileLock(folder.with_suffix(".lock"))


def part_of(folder: Path) -> Path:
    """Where `folder` is being built."""
    return folder.with_suffix(".part")


def write_meta(folder: Path, content: dict[str, Any]) -> None:
    """Write the description of a cache together with its own checksum."""
    text = json.dumps({"checksum": _checksum(content), "content": content}, indent=1)
    (folder / META).write_text(text, encoding="utf-8")


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The description of a cache, None where it is missing or not what was written."""
    try:
        document = json.loads((folder / META).read_text(encoding="utf-8"))
        content = document["content"]
        return content if document["checksum"] == _checksum(content) else None
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return None


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def entries() -> list[Entry]:
    """All finished caches, the oldest first."""
    found = []
    for path in _folders(images_dir()):
        if path.suffix == ".part":
            continue
        meta = read_meta(path) or {}
        found.append(
            Entry(
                path=path,
                name=str(meta.get("name", "damaged")),
                images=meta.get("images"),
                image_size=meta.get("image_size"),
                n_bytes=_size(path),
                age=max(0.0, time.time() - path.stat().st_mtime),
            )
        )
    return sorted(found, key=lambda entry: -entry.age)


def remove(folder: Path) -> int | None:
    """Remove a cache and what a killed build of it left; bytes freed, None if it is being built."""
    with _if_free(folder) as free:
        if not free:
            return None
        part = part_of(folder)
        freed = _size(folder) + _size(part)
        discard(folder)
        shutil.rmtree(part, ignore_errors=True)
        _unlock_for_good(folder)
        return freed


def discard(folder: Path) -> None:
    """Remove a finished cache under its lock. Whoever has it open keeps reading it unharmed."""
    part = part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    if folder.exists():
        folder.rename(part)  # gone at once for whoever looks now
        shutil.rmtree(part)


def sweep() -> int:
    """Remove what killed builds left behind, and locks of nothing; bytes freed."""
    freed = 0
    base = images_dir()
    for part in [*_folders(base), *base.glob("*.lock")]:
        folder = part.with_suffix("")
        if part == folder or (part.suffix == ".lock" and folder.exists()):
            continue
        with _if_free(folder) as free:
            if free:
                freed += _size(part_of(folder))
                shutil.rmtree(part_of(folder), ignore_errors=True)
                if not folder.exists():
                    _unlock_for_good(folder)
    return freed


@contextmanager
def held(folder: Path, progress: bool) -> Iterator[None]:
    """Hold the lock of a cache; wait, and say so, while another process holds it."""
    guard = lock(folder)
    try:
        guard.acquire(timeout=0)
    except Timeout:
        if progress:
            print(f"Waiting for another process that builds {folder}", file=sys.stderr)
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


@contextmanager
def _if_free(folder: Path) -> Iterator[bool]:
    """Hold the lock if nobody else does; tells whether it is held."""
    guard = lock(folder)
    try:
        guard.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        guard.release()


def _unlock_for_good(folder: Path) -> None:
    """Remove a lock that is held: whoever waits for it makes and takes another one."""
    Path(lock(folder).lock_file).unlink(missing_ok=True)


def _folders(base: Path) -> list[Path]:
    return sorted(path for path in base.iterdir() if path.is_dir()) if base.is_dir() else []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def build(
    part: Path,
    name: str,
    files: Sequence[Path],
    sizes: Sequence[int],
    preprocess: Preprocess,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Write images.uint8, features.npy and meta.json of `files` (of `sizes` bytes) into `part`.

    Unreadable files are left out and told in the description. Whatever goes wrong, `part` is
    removed. Raises OSError where it cannot be written, UserError where no file can be read.
    """
    start = time.perf_counter()
    if progress:
        print(f"Decoding and enhancing {len(files)} images of {name}, once", file=sys.stderr)
    part.mkdir()
    try:
        bad, features = _write_images(
            part / "images.uint8", files, sizes, preprocess, workers, progress
        )
        if len(bad) == len(files):
            raise UserError(f"None of the {len(files)} images of {name} can be read: {bad[0]}.")
        good = [row for row in range(len(files)) if row not in bad]
        packed = io.BytesIO()
        np.save(packed, features[good])
        (part / "features.npy").write_bytes(packed.getvalue())
        content = {
            "name": name,
            "images": len(good),
            "image_size": preprocess.image_size,
            "pipeline": preprocess.key(),
            "bad": {str(row): reason for row, reason in sorted(bad.items())},
            "features_sha256": hashlib.sha256(packed.getvalue()).hexdigest(),
        }
        write_meta(part, content)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if progress:
        seconds = time.perf_counter() - start
        rate = len(files) / seconds
        print(f"{len(good)} images in {seconds:.1f} s ({rate:.0f} a second)", file=sys.stderr)


def _write_images(
    target: Path,
    files: Sequence[Path],
    sizes: Sequence[int],
    preprocess: Preprocess,
    workers: int | None,
    progress: bool,
) -> tuple[dict[int, str], np.ndarray]:
    """Fill `target` with the good images, one after the other; (bad rows, features of all)."""
    n_pixels = preprocess.image_size**2
    features = np.full((len(files), len(FEATURE_NAMES)), np.nan)
    bad: dict[int, str] = {}
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)

    def one(row: int) -> None:
        try:
            image = read_grey(files[row])
        except BadImage as error:
            bad[row] = error.reason
            return
        features[row] = shortcut_features(image, sizes[row])
        _write(handle, preprocess(image), row * n_pixels)

    try:
        # Reserved before any work: a full disk is told at once, and not by a bus error later.
        os.posix_fallocate(handle, 0, len(files) * n_pixels)
        single_threaded()
        pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))
        try:
            done = pool.map(one, range(len(files)))
            for _ in progress_bar(done, len(files), "preprocess", visible=progress):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        _close_gaps(handle, bad, len(files), n_pixels)
        os.fsync(handle)
    finally:
        os.close(handle)
    return bad, features


def _write(handle: int, image: np.ndarray, offset: int) -> None:
    """Write all of it at a place of its own; threads need no lock."""
    data = image.data.cast("B")
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written


def _close_gaps(handle: int, bad: dict[int, str], n_files: int, n_pixels: int) -> None:
    """Move the images behind a bad one up, so that the good ones stand in a row."""
    if not bad:
        return
    place = min(bad)
    for row in range(place, n_files):
        if row not in bad:
            image = os.pread(handle, n_pixels, row * n_pixels)
            _write(handle, np.frombuffer(image, np.uint8), place * n_pixels)
            place += 1
    os.ftruncate(handle, place * n_pixels)


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
        preprocess: Preprocess,
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
        folder = images_dir() / _key(manifest, states, preprocess)
        cache = cls._open(folder)
        if cache is None:
            cache = cls._build(folder, manifest, states, preprocess, workers, progress)
        cache._judge_bad_files(manifest, on_bad_file)
        return cache

    @classmethod
    def _open(cls, folder: Path) -> "ImageCache | None":
        """The cache if it is there and whole."""
        if not folder.is_dir():
            return None
        meta = read_meta(folder)
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
        preprocess: Preprocess,
        workers: int | None,
        progress: bool,
    ) -> "ImageCache":
        side = preprocess.image_size
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            sweep()
            with held(folder, progress):
                cache = cls._open(folder)
                if cache is not None:  # another process has built it meanwhile
                    return cache
                discard(folder)
                part = part_of(folder)
                files = [manifest.root / path for path in manifest.table["path"]]
                sizes = [size for size, _ in states]
                build(part, manifest.name, files, sizes, preprocess, workers, progress)
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


def _key(manifest: Manifest, states: Sequence[tuple[int, int]], preprocess: Preprocess) -> str:
    """Name of the cache: equal for equal files in equal order and an equal pipeline."""
    digest = hashlib.sha256(f"{FORMAT}\n{manifest.root.resolve()}\n{preprocess.key()}\n".encode())
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
