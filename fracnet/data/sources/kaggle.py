"""Fetching a public Kaggle data set: quickly refused where it cannot work, never left half done."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from fracnet import network
from fracnet.data.sources.fetching import DownloadFailed

log = logging.getLogger(__name__)


def download(handle: str, into: Path, *, find: Callable[[Path], Path | None], note: str) -> None:
    """Fetch data set `handle` ("owner/name") with kagglehub and put its files into a folder.

    find: gives the folder of the data inside a given folder, None if it is not there.
    note: logged as a warning before anything is fetched.

    kagglehub keeps its own copy, resumes an interrupted download and marks what is complete. The
    files are linked from there (copied where the file system cannot) into a hidden folder, which
    gets its name in one step: what `find` sees under `into` is whole. Raises DownloadFailed.
    """
    probe(handle)
    log.warning(note)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with FileLock(into / ".download.lock"):
            if find(into) is None:
                fetched = fetch(handle)
                found = find(fetched)
                if found is None:
                    raise DownloadFailed(f"what was downloaded to {fetched} has another layout")
                _install(found, into)
    except DownloadFailed:
        raise
    # kagglehub raises bare Exceptions of its own beside those of requests, zipfile and the disk.
    except Exception as error:
        raise DownloadFailed(f"the download failed ({network.clause(error)})") from error


def fetch(handle: str) -> Path:
    """The folder with the complete data set in kagglehub's cache, downloaded if it is not there."""
    import kagglehub

    return Path(kagglehub.dataset_download(handle))


def probe(handle: str) -> None:
    """Raise DownloadFailed within seconds unless Kaggle offers the data set.

    kagglehub itself waits without limit.
    """
    try:
        network.probe(f"https://www.kaggle.com/api/v1/datasets/download/{handle}")
    except network.Unreachable as error:
        raise DownloadFailed(f"Kaggle cannot be reached ({error})") from error


def _install(found: Path, into: Path) -> None:
    target = into / found.name
    partial = into / f".{found.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed; the lock is ours
    try:
        partial.mkdir()
        # Not shutil.copytree, which would try every further file on a disk that is full.
        for source in sorted(found.rglob("*")):
            copy = partial / source.relative_to(found)
            copy.mkdir() if source.is_dir() else _link_or_copy(source, copy)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
