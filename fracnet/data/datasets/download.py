"""Downloading a set that is not there: never into a folder that holds something else.

Fetching an archive from figshare: quickly refused, checked against its checksum, whole or not.

figshare's public API states size and MD5 of each file; nothing is unpacked before both agree.

Fetching a public Kaggle data set: quickly refused where it cannot work, never left half done.
"""

import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from fracnet.data.datasets.base import Source, contents, visible
from fracnet.utils import network
from fracnet.utils.progress import progress_bar


class DownloadFailed(Exception):
    """Why a download cannot work, in one clause."""


def fetch_if_absent(
    source: Source,
    find: Callable[[Path], Path | None],
    fetch: Callable[[], None],
    *,
    allowed: bool,
) -> None:
    """Call `fetch` where the source's folder is absent or empty; nothing where the set is there.

    find: gives the folder of the data inside a given one, None if it is not there.
    fetch: raises DownloadFailed.

    Raises UserError, the source's `missing`, where the set cannot be had.
    """
    # Both before the question, as another job may finish its download at any moment.
    found = contents(source.folder)
    occupied = source.folder.exists() and (not source.folder.is_dir() or visible(source.folder))
    if find(source.folder) is not None:
        return
    if occupied or not allowed:
        raise source.missing(found)
    try:
        fetch()
    except DownloadFailed as failure:
        raise source.missing(f"{found}, and {failure}") from failure


API = "https://api.figshare.com/v2"
BLOCK = 1 << 20

# Seconds without a byte; a slow download may take as long as it takes.
TIMEOUT = 60
MAX_UNPACKED = 16 << 30

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Remote:
    """A file as figshare describes it. size: bytes."""

    url: str
    size: int
    md5: str


def download_figshare(
    article: int, file: int, target: Path, *, find: Callable[[Path], Path | None], note: str
) -> None:
    """Fetch file id `file` of an article, a zip archive, and make its data the folder `target`.

    find: gives the folder of the data inside a given folder, None if it is not there.
    note: logged as a warning before anything is fetched.

    It is unpacked in a hidden folder beside `target`, which gets its name in one step: where
    `target` is there, it is whole. Raises DownloadFailed.
    """
    into = target.parent
    try:
        network.probe(f"{API}/articles/{article}")
    except network.Unreachable as error:
        raise DownloadFailed(f"figshare cannot be reached ({error})") from error
    log.warning(note)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with FileLock(into / ".download.lock"):
            if not target.exists():
                _fetch_and_unpack(describe(article, file), target, find)
    except DownloadFailed:
        raise
    # requests, zipfile and the disk raise exceptions of many kinds.
    except Exception as error:
        raise DownloadFailed(f"the download failed ({network.clause(error)})") from error


def describe(article: int, file: int) -> Remote:
    """Where a file is, its size and MD5, from whichever version of the article lists it."""
    newest = _json(f"{API}/articles/{article}")
    found = _listed(newest, file)
    if found is None:
        versions = _json(f"{API}/articles/{article}/versions")
        for version in sorted((int(entry["version"]) for entry in versions), reverse=True):
            found = _listed(_json(f"{API}/articles/{article}/versions/{version}"), file)
            if found is not None:
                break
    if found is None:
        raise DownloadFailed(f"figshare's article {article} lists no file {file} any more")
    md5 = str(found.get("computed_md5") or found.get("supplied_md5") or "").lower()
    if len(md5) != 32:
        raise DownloadFailed(f"figshare states no MD5 for the file {file}")
    return Remote(str(found["download_url"]), int(found["size"]), md5)


def _listed(article: Any, file: int) -> dict[str, Any] | None:
    return next((entry for entry in article.get("files", []) if entry.get("id") == file), None)


def _json(url: str) -> Any:
    import requests

    with requests.get(url, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        return answer.json()


def _fetch_and_unpack(remote: Remote, target: Path, find: Callable[[Path], Path | None]) -> None:
    partial = target.with_name(".download.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed; the lock is ours
    try:
        partial.mkdir()
        archive = partial / "archive.zip"
        _fetch(remote, archive)
        with zipfile.ZipFile(archive) as packed:
            size = sum(member.file_size for member in packed.infolist())
            if size > MAX_UNPACKED:
                raise DownloadFailed(f"its {size} bytes unpacked are more than {MAX_UNPACKED}")
            packed.extractall(partial / "content")
        found = find(partial / "content")
        if found is None:
            raise DownloadFailed("what was downloaded has another layout")
        os.replace(found, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch(remote: Remote, target: Path) -> None:
    import requests

    digest, size = hashlib.md5(usedforsecurity=False), 0
    with (
        requests.get(remote.url, stream=True, timeout=TIMEOUT) as answer,
        target.open("wb") as file,
    ):
        answer.raise_for_status()
        if answer.status_code != 200:
            raise DownloadFailed(f"figshare answered {answer.status_code} instead of the file")
        blocks = answer.iter_content(BLOCK)
        for block in progress_bar(blocks, -(-remote.size // BLOCK), "download, MB"):
            size += len(block)
            if size > remote.size:
                break
            digest.update(block)
            file.write(block)
    if (size, digest.hexdigest()) != (remote.size, remote.md5):
        raise DownloadFailed(
            f"what arrived is not the file: {size} bytes with MD5 {digest.hexdigest()}, while "
            f"figshare states {remote.size} bytes with MD5 {remote.md5}"
        )


log = logging.getLogger(__name__)


def download_kaggle(
    handle: str, into: Path, *, find: Callable[[Path], Path | None], note: str
) -> None:
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
