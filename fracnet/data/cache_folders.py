"""The folder that holds image and feature caches: names, locks, building, listing, removal.

    <cache>/images/<key>/          a finished cache, see `image_cache` and `feature_cache`
    <cache>/images/<key>.part/     a build in progress, or what a killed build left
    <cache>/images/<key>.lock      held by the process that builds or removes the cache

A finished cache appears under its name in one step, so a folder without `.part` was once complete.
Imports nothing heavy: the command that lists and clears caches answers at once.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from fracnet.utils.errors import UserError
from fracnet.utils.files import cache_dir, sync_folder

META = "meta.json"
DAMAGED = "damaged"
"""File that marks a cache of which an image did not match its checksum, for the next opening."""

Cache = TypeVar("Cache")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """A cache as listed for the user; `images` is None if its description is damaged."""

    path: Path
    name: str
    images: int | None
    image_size: int | None
    n_bytes: int
    age: float
    """Seconds since it was built."""


def images_dir() -> Path:
    """The folder of all image caches, which may not exist."""
    return cache_dir() / "images"


def cache_lock(folder: Path) -> FileLock:
    """The lock of one cache; the system releases it when its process ends, however it ends."""
    return FileLock(folder.with_suffix(".lock"))


def part_path(folder: Path) -> Path:
    """Where `folder` is being built."""
    return folder.with_suffix(".part")


def mark_as_damaged(folder: Path) -> None:
    """Let the next opening rebuild this cache."""
    with suppress(OSError):  # cleared, or of another user: then the damage shows again next time
        (folder / DAMAGED).touch()


def owner_of(folder: Path) -> str:
    """Name of the user to whom a folder belongs, or its number."""
    try:
        return folder.owner()
    except KeyError:  # a user of another machine
        return f"user {folder.stat().st_uid}"


def write_meta(folder: Path, content: dict[str, Any]) -> None:
    """Write the description of a cache together with its own checksum."""
    text = json.dumps({"checksum": _checksum(content), "content": content}, indent=1)
    (folder / META).write_text(text, encoding="utf-8")


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The description of a cache; None if it is missing or does not match its checksum."""
    try:
        document = json.loads((folder / META).read_text(encoding="utf-8"))
        content = document["content"]
        return content if document["checksum"] == _checksum(content) else None
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return None


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def list_caches() -> list[CacheEntry]:
    """All finished caches, oldest first."""
    entries = []
    for path in _subfolders(images_dir()):
        if path.suffix == ".part":
            continue
        try:
            meta = read_meta(path) or {}
        except PermissionError:
            meta = {"name": f"of {owner_of(path)}, cannot be read"}
        entries.append(
            CacheEntry(
                path=path,
                name=str(meta.get("name", "damaged")),
                images=meta.get("images"),
                image_size=meta.get("image_size"),
                n_bytes=_size(path),
                age=max(0.0, time.time() - path.stat().st_mtime),
            )
        )
    return sorted(entries, key=lambda entry: -entry.age)


def remove_cache(folder: Path) -> int | None:
    """Remove a cache and the remains of a killed build; bytes freed, None if it is being built."""
    with locked(folder, wait=False) as free:
        if not free:
            return None
        freed = _size(folder) + _size(part_path(folder))
        discard(folder)
        _remove_lock(folder)
        return freed


def discard(folder: Path) -> None:
    """Remove a finished cache while holding its lock. Processes that opened it can keep reading."""
    part = part_path(folder)
    shutil.rmtree(part, ignore_errors=True)
    if folder.exists():
        folder.rename(part)  # disappears for other processes in one step
        shutil.rmtree(part)


def remove_leftovers() -> int:
    """Remove what killed builds left behind, and locks without a cache; bytes freed."""
    freed = 0
    base = images_dir()
    for path in [*_subfolders(base), *base.glob("*.lock")]:
        folder = path.with_suffix("")
        if path == folder or (path.suffix == ".lock" and folder.exists()):
            continue
        with locked(folder, wait=False) as free:
            if free:
                freed += _size(part_path(folder))
                shutil.rmtree(part_path(folder), ignore_errors=True)
                if not folder.exists():
                    _remove_lock(folder)
    return freed


@contextmanager
def locked(folder: Path, *, wait: bool, progress: bool = False) -> Iterator[bool]:
    """Hold the lock of a cache; yields whether it is held: always if `wait`, else if it was free.

    With `progress`, waiting for another process is printed.
    """
    lock = cache_lock(folder)
    try:
        lock.acquire(timeout=0)
    except (Timeout, PermissionError) as error:
        if not wait:
            yield False  # being built, or a lock of another user
            return
        if isinstance(error, PermissionError):
            raise
        if progress:
            print(f"Waiting for another process to build {folder}", file=sys.stderr)
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()


def open_or_build(
    folder: Path,
    kind: str,
    *,
    n_bytes: int,
    opened: Callable[[], Cache | None],
    write: Callable[[Path], None],
    progress: bool,
) -> Cache:
    """The cache in `folder`, built first if there is none; of several processes, one builds.

    kind: what it is called in messages. n_bytes: what it needs, for the message of a full disk.
    opened: the cache, or None where it is damaged. write: fills a new, private folder.

    Raises UserError where the cache cannot be written, or is of another user who does not share it.
    """

    def existing() -> Cache | None:
        try:
            return opened() if folder.is_dir() else None
        except PermissionError as error:
            raise UserError(
                f"The {kind} {folder} belongs to {owner_of(folder)} and cannot be read "
                "(permission denied). Ask its owner to share it (chmod -R a+rX), or set the "
                "environment variable FRACNET_CACHE to a folder of your own."
            ) from error
        except FileNotFoundError:  # never complete, or another process just cleared it
            return None

    if (cache := existing()) is not None:
        return cache
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers()
        with locked(folder, wait=True, progress=progress):
            if (cache := existing()) is not None:  # another process has built it meanwhile
                return cache
            if folder.is_dir():
                log.warning("The %s %s is damaged; rebuilding it.", kind, folder)
            discard(folder)
            part = part_path(folder)
            part.mkdir(mode=0o700)
            try:
                write(part)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            os.replace(part, folder)
            sync_folder(folder.parent)
            cache = existing()
    except OSError as error:
        raise UserError(
            f"Cannot write the {kind} to {folder.parent}: {error.strerror or error}. It "
            f"needs {max(1, round(n_bytes / 1e6))} MB. Free some space (`python -m "
            "fracnet.cache clear` removes old caches), or set the environment variable "
            "FRACNET_CACHE to a folder on another disk."
        ) from error
    assert cache is not None, folder
    return cache


def _remove_lock(folder: Path) -> None:
    """Remove a lock while holding it: processes waiting for it create and take a new one."""
    Path(cache_lock(folder).lock_file).unlink(missing_ok=True)


def _subfolders(base: Path) -> list[Path]:
    return sorted(path for path in base.iterdir() if path.is_dir()) if base.is_dir() else []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
