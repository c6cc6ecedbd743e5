"""Downloads of missing datasets: refused within seconds if impossible, and complete or not at all.

figshare's public API states size and MD5 of each file; nothing is unpacked before both agree.
"""

import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kagglehub
import requests
from filelock import FileLock

from fracnet.data.datasets.base import Dataset, describe_folder, visible_entries
from fracnet.utils import network
from fracnet.utils.files import atomic_folder
from fracnet.utils.progress import progress_bar

FIGSHARE = "https://api.figshare.com/v2"
TIMEOUT = 60
"""Seconds without a byte; the whole download may take any time."""
BLOCK = 1 << 20
MAX_UNPACKED = 16 << 30

Find = Callable[[Path], Path | None]
"""Gives the folder of the data inside a given folder, or None."""

log = logging.getLogger(__name__)


class DownloadFailed(Exception):
    """Why a download cannot work, in one clause."""


def download_if_missing(
    dataset: Dataset, find: Find, fetch: Callable[[], None], *, allowed: bool
) -> None:
    """Call `fetch`, which raises DownloadFailed, if the dataset's folder is absent or empty.

    Raises the dataset's missing-data error if it neither exists nor can be downloaded.
    """
    folder = dataset.folder
    # Before `find`, because another job may finish its download at any moment.
    state = describe_folder(folder)
    occupied = folder.exists() and (not folder.is_dir() or visible_entries(folder))
    if find(folder) is not None:
        return
    if occupied or not allowed:
        raise dataset.missing_error(state)
    try:
        fetch()
    except DownloadFailed as failure:
        raise dataset.missing_error(f"{state}, and {failure}") from failure


def download_figshare(article: int, file: int, target: Path, *, find: Find, note: str) -> None:
    """Download file id `file` of an article, a zip archive, and make its data the folder `target`.

    note: logged as a warning before the download.

    The archive is unpacked in a hidden folder next to `target` and renamed in one step: if `target`
    exists, it is complete. Raises DownloadFailed.
    """
    try:
        network.probe(f"{FIGSHARE}/articles/{article}")
    except network.Unreachable as error:
        raise DownloadFailed(f"figshare cannot be reached ({error})") from error

    def install() -> None:
        if not target.exists():
            _fetch_and_unpack(*_describe(article, file), target, find)

    _run_locked(target.parent, install, note)


def download_kaggle(handle: str, folder: Path, *, find: Find, note: str) -> None:
    """Download dataset `handle` ("owner/name") with kagglehub and put its files into a folder.

    note: logged as a warning before the download.

    kagglehub keeps its own copy, resumes an interrupted download and marks what is complete. The
    files are linked from there (copied if the file system has no links) into a hidden folder that
    is renamed in one step: what `find` returns under `folder` is complete. Raises DownloadFailed.
    """
    probe_kaggle(handle)

    def install() -> None:
        if find(folder) is None:
            fetched = fetch_from_kaggle(handle)
            content = find(fetched)
            if content is None:
                raise DownloadFailed(f"the download in {fetched} has an unexpected layout")
            _install(content, folder / content.name)

    _run_locked(folder, install, note)


def _run_locked(folder: Path, install: Callable[[], None], note: str) -> None:
    """Call `install` while no other process downloads into this folder."""
    log.warning(note)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            install()
    except DownloadFailed:
        raise
    # kagglehub raises bare Exceptions; requests, zipfile and the disk raise many kinds.
    except Exception as error:
        raise DownloadFailed(f"the download failed ({network.clause(error)})") from error


def _describe(article: int, file: int) -> tuple[str, int, str]:
    """URL, bytes and MD5 of a file, from the newest version of the article that lists it."""
    url = f"{FIGSHARE}/articles/{article}"
    entry = _file_entry(_json(url), file)
    if entry is None:
        versions = sorted((int(v["version"]) for v in _json(f"{url}/versions")), reverse=True)
        entries = (_file_entry(_json(f"{url}/versions/{v}"), file) for v in versions)
        entry = next(filter(None, entries), None)
    if entry is None:
        raise DownloadFailed(f"figshare's article {article} no longer lists the file {file}")
    md5 = str(entry.get("computed_md5") or entry.get("supplied_md5") or "").lower()
    if len(md5) != 32:
        raise DownloadFailed(f"figshare states no MD5 for the file {file}")
    return str(entry["download_url"]), int(entry["size"]), md5


def _file_entry(article: Any, file: int) -> dict[str, Any] | None:
    return next((entry for entry in article.get("files", []) if entry.get("id") == file), None)


def _json(url: str) -> Any:
    with requests.get(url, timeout=TIMEOUT) as response:
        response.raise_for_status()
        return response.json()


def _fetch_and_unpack(url: str, size: int, md5: str, target: Path, find: Find) -> None:
    partial = target.with_name(".download.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run; this process holds the lock
    try:
        partial.mkdir()
        archive = partial / "archive.zip"
        _fetch(url, size, md5, archive)
        with zipfile.ZipFile(archive) as packed:
            unpacked = sum(member.file_size for member in packed.infolist())
            if unpacked > MAX_UNPACKED:
                raise DownloadFailed(f"its {unpacked} bytes unpacked are more than {MAX_UNPACKED}")
            packed.extractall(partial / "content")
        content = find(partial / "content")
        if content is None:
            raise DownloadFailed("the downloaded archive has an unexpected layout")
        os.replace(content, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch(url: str, expected: int, md5: str, target: Path) -> None:
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with requests.get(url, stream=True, timeout=TIMEOUT) as response, target.open("wb") as file:
        response.raise_for_status()
        if response.status_code != 200:
            raise DownloadFailed(f"figshare answered {response.status_code} instead of the file")
        blocks = response.iter_content(BLOCK)
        for block in progress_bar(blocks, -(-expected // BLOCK), "download, MB"):
            size += len(block)
            if size > expected:
                break
            digest.update(block)
            file.write(block)
    if (size, digest.hexdigest()) != (expected, md5):
        raise DownloadFailed(
            f"the downloaded file is not the expected one: {size} bytes with MD5 "
            f"{digest.hexdigest()}, but figshare states {expected} bytes with MD5 {md5}"
        )


def fetch_from_kaggle(handle: str) -> Path:
    """The folder with the complete dataset in kagglehub's cache, downloaded if missing."""
    return Path(kagglehub.dataset_download(handle))


def probe_kaggle(handle: str) -> None:
    """Raise DownloadFailed within seconds unless Kaggle offers the dataset.

    kagglehub itself waits without limit.
    """
    try:
        network.probe(f"https://www.kaggle.com/api/v1/datasets/download/{handle}")
    except network.Unreachable as error:
        raise DownloadFailed(f"Kaggle cannot be reached ({error})") from error


def _install(content: Path, target: Path) -> None:
    with atomic_folder(target) as draft:
        # Not shutil.copytree, which would try every further file on a full disk.
        for path in sorted(content.rglob("*")):
            copy = draft / path.relative_to(content)
            copy.mkdir() if path.is_dir() else _link_or_copy(path, copy)
        # Files that somebody put there during the download would be replaced.
        if target.exists() or target.is_symlink():
            raise DownloadFailed(f"{target} appeared during the download; it is left unchanged")


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:
        shutil.copy2(path, target)
