"""The folder in which image caches lie: names, locks, what may be trusted, what may be removed.

    <cache>/images/<key>/          a finished cache: images.uint8, features.npy, meta.json
    <cache>/images/<key>.part/     one that is being built, or was when its process was killed
    <cache>/images/<key>.lock      held by whoever builds or removes it

A finished cache appears under its name in one step, so what has no `.part` was whole once.
Imports nothing heavy: the command that lists and clears caches answers at once.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fracnet.paths import cache_dir

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
