"""Downloading a set that is not there: never into a folder that holds something else."""

from collections.abc import Callable
from pathlib import Path

from fracnet.data.sources.base import Source, contents, visible


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
