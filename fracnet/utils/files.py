"""Files: safe writing, hash, identity, names as text; fracnet's folders. Imports nothing heavy."""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fracnet.utils.errors import UserError

_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAULTS = (*_SPACE, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_SQLITE_FAULTS = (8, 10, 13, 14)  # read-only, input/output, full, cannot open
_DRAFT = re.compile(r"\..+\.[0-9a-f]{16}\.part")


class CannotWrite(UserError, OSError):
    """A file or folder cannot be written; the message names it, the reason and the free space."""

    def __str__(self) -> str:
        return str(self.args[0])  # OSError would add its number


def cannot_write(path: Path | str, error: OSError) -> CannotWrite:
    """The `CannotWrite` for an OSError at `path`."""
    if isinstance(error, CannotWrite):
        return error
    reason = error.strerror or str(error)
    fault = CannotWrite(f"Cannot write {path_text(path)}: {reason}{_free_space(path, error)}.")
    fault.errno, fault.strerror = error.errno, reason
    return fault


def _free_space(path: Path | str, error: OSError) -> str:
    if error.errno not in _SPACE:
        return ""
    limit = "`ulimit -f` may limit a file's size" if error.errno == errno.EFBIG else ""
    if not path:
        return limit and f"; {limit}"
    parent = next(p for p in Path(os.path.abspath(path)).parents if p.is_dir())
    free = shutil.disk_usage(parent).free / 1e6
    return f"; {free:,.1f} MB are free in {path_text(parent)}{limit and f', and {limit}'}"


def explain_disk_fault(error: BaseException) -> str | None:
    """A sentence for an OSError of disk or permissions, from any library; None for other errors."""
    if isinstance(error, CannotWrite):
        return str(error)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_FAULTS:
        return f"Cannot write a database, such as optuna.db of a search: {error}."
    if not isinstance(error, OSError) or error.errno not in _FAULTS:
        return None
    # The name is missing where a write to an open file failed.
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if error.errno not in _SPACE:
        return f"Cannot use {path_text(name) or 'a file'}: {error.strerror}."
    space = _free_space(name, error)
    return f"Cannot write {path_text(name) or 'a file'}: {error.strerror}{space}."


@contextmanager
def disk_faults(path: Path | str) -> Iterator[None]:
    """Raise CannotWrite, naming `path`, for a fault of disk or permissions inside the block."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FAULTS:
            raise
        raise cannot_write(path, error) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends without an exception.

    A reader sees either all of it or the previous version. The draft is a new file of a random
    name in the same folder: a symbolic link at `path` is replaced, and its target stays as it is.
    Parent folders are created. Raises CannotWrite if the file cannot be written; no draft remains.
    """
    draft = _draft_of(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, flags, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with disk_faults(path), os.fdopen(descriptor, "w+b") as file:
            _mark_as_used(descriptor)
            yield file
            file.flush()
            os.fsync(descriptor)
        try:
            os.replace(draft, path)
        except OSError as error:
            raise cannot_write(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file as `atomic_file` does; text is encoded as UTF-8."""
    data = valid_text(content).encode() if isinstance(content, str) else content
    with atomic_file(path) as file:
        file.write(data)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a crash of the machine, as fsync does a file's content."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_record(path: Path, content: str) -> None:
    """Write how something ended: on a full disk into the space that the file has already.

    Raises CannotWrite where there is no file, or too little space.
    """
    try:
        write_atomically(path, content)
    except CannotWrite:
        if not path.is_file():
            raise
        _overwrite(path, content)


def _overwrite(path: Path, content: str) -> None:
    """A fault in between leaves a damaged file, so `write_atomically` comes first."""
    with disk_faults(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "wb") as file:
            file.write(valid_text(content).encode())
            file.truncate()


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A new folder that replaces the folder `path` when the block ends without an exception.

    A symbolic link at `path` is replaced, never followed. Raises CannotWrite as `atomic_file` does.
    overwrite=False: and where `path` exists by then, unless it is an empty folder.
    """
    draft = _draft_of(path)
    with disk_faults(path):
        remove_drafts(path.parent)
        draft.mkdir(parents=True)
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            _mark_as_used(descriptor)
            yield draft
            if overwrite and path.is_symlink():
                path.unlink()
            elif overwrite and path.exists():
                shutil.rmtree(path)
            try:
                os.rename(draft, path)
            except OSError as error:
                raise cannot_write(path, error) from error
        finally:
            os.close(descriptor)
            shutil.rmtree(draft, ignore_errors=True)  # already gone where all went well


def append_to(path: Path) -> int:
    """A descriptor that appends to a file, created if needed.

    Raises CannotWrite for a link and, instead of waiting for its reader, for a named pipe.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_drafts(folder: Path, *, recursive: bool = False) -> None:
    """Remove what killed processes left of `atomic_file` and `atomic_folder`.

    A draft that another process is writing stays. Symbolic links are not followed.
    """
    for parent, folders, files in os.walk(folder):
        for name in [n for n in (*folders, *files) if _DRAFT.fullmatch(n)]:
            _remove_unused(Path(parent, name))
        folders[:] = [n for n in folders if recursive and not _DRAFT.fullmatch(n)]


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.part")


def _mark_as_used(descriptor: int) -> None:
    """Lock a draft for as long as its process lives, so that `remove_drafts` leaves it."""
    with suppress(OSError):  # a file system without locks: only a removal at the same time matters
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_unused(draft: Path) -> None:
    try:
        descriptor = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # a link, which no draft is, or it is gone
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink()
    except OSError:
        return  # in use, or just completed by its process
    finally:
        os.close(descriptor)


def without_waiting(path: str, flags: int) -> int:
    """An `opener` for `open`: a named pipe reads as empty; waiting for a writer could block.

    Where a writer has the pipe open, `read` returns None.
    """
    return os.open(path, flags | os.O_NONBLOCK)


ESCAPED = re.compile(rb"\\x(0d|[89a-f][0-9a-f])")


def sha256_of(file: Path) -> str:
    """SHA-256 of a file as 64 hex digits, read in blocks. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def file_key(path: Path | str) -> int | str | None:
    """What all links to one file or folder share; None if it does not exist."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    # Some file systems number no files.
    return state.st_dev << 64 | state.st_ino if state.st_ino else os.path.realpath(path)


def valid_text(text: str) -> str:
    """Text that UTF-8 can encode: bytes of a file name that are not UTF-8 become `\\xe9`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:  # no such byte, but half of a UTF-16 pair
            return text.encode("utf-8", "backslashreplace").decode()
    return text


def path_text(path: Path | str) -> str:
    """A path, id or message as `valid_text`, and a carriage return, which csv loses, as `\\x0d`."""
    return valid_text(str(path).replace("\r", "\\x0d"))


def path_from_text(folder: Path | str, text: str) -> Path:
    """The file in `folder` that `path_text` describes; a literal `\\xe9` comes first."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:  # an ASCII locale, where Python reads names as bytes
        text = os.fsdecode(text.encode("utf-8", "backslashreplace"))
    path = Path(folder, text)
    if "\\x" in text and not os.path.lexists(path):
        raw = ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode())
        escaped = Path(folder, raw.decode("utf-8", "surrogateescape"))
        return escaped if os.path.lexists(escaped) else path
    return path


def config_dir() -> Path:
    """The folder of Hydra groups: inside an installed wheel, else beside the package."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def choices_of(folder: Path) -> list[str]:
    """The choices of a config group, by its folder."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def by_number(sweep: Path, jobs: Iterable[tuple[int, Path]]) -> dict[int, Path]:
    """The folders of a sweep's jobs by number.

    Raises UserError where folders share one: copies, or jobs of several sweeps.
    """
    folders: dict[int, list[Path]] = {}
    for number, folder in jobs:
        folders.setdefault(number, []).append(folder)
    for number, same in sorted(folders.items()):
        if len(same) > 1:
            names = ", ".join(sorted(path.relative_to(sweep).as_posix() for path in same))
            raise UserError(
                f"In {sweep} the folders {names} share the job number {number}; name the folder "
                "of one sweep, and move copies out of it."
            )
    return {number: same[0] for number, same in folders.items()}


def cache_dir() -> Path:
    """Folder for everything that can be recomputed: $FRACNET_CACHE, else ~/.cache/fracnet."""
    folder = os.environ.get("FRACNET_CACHE")
    if folder:
        return Path(folder).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "fracnet"
