"""Audits that are kept for training: one file a data set, named by its fingerprint.

    <cache>/audits/<fingerprint>.json

`fracnet.audit` writes it, with the very text of its audit.json. Training prints its verdict, and
`data.split=deduplicated` goes by its verified copies.
"""

import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fracnet.data.fingerprint import data_fingerprint, files_digest
from fracnet.data.manifest import Manifest
from fracnet.utils.errors import UserError
from fracnet.utils.files import cache_dir
from fracnet.utils.text import are, counted

FORMAT = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audit:
    """What training needs of an audit.

    severity: the worst of its findings. verdict: the headline and the gravest finding. pairs: the
    paths of two images of which one is a verified copy of the other. page: folder of the audit.
    """

    severity: str
    verdict: str
    pairs: tuple[tuple[str, str], ...]
    page: str

    def about(self, left_out: int | None = None) -> dict[str, str]:
        """For the record of a run on these data, or on them without `left_out` copies."""
        told = {"severity": self.severity, "verdict": self.verdict}
        if left_out is None:
            return told
        copies = f"{counted(left_out, 'verified copy')} {are(left_out)} left out here"
        return told | {"note": f"Of the official split; {copies}."}


def place(fingerprint: str) -> Path:
    """Where the audit of such data is kept."""
    return cache_dir() / "audits" / f"{fingerprint}.json"


def find(manifest: Manifest) -> Audit | None:
    """The audit of these data; None where there is none, and, with a warning, where it is stale.

    manifest: as the source gives it, before folds are dealt or anything is left out.
    """
    path = place(data_fingerprint(manifest))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return None  # another version's, which a new audit replaces
        files = content["fingerprint"]["files"]
        found = Audit(
            severity=str(content["severity"]),
            verdict=str(content["line"]),
            pairs=tuple((str(pair["a"]), str(pair["b"])) for pair in content["pairs"]),
            page=str(content["folder"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        log.warning("The audit %s cannot be read (%r); it does not count.", path, error)
        return None
    if files != files_digest(manifest):
        log.warning(
            "Files of %s have changed since it was audited; the audit does not count.",
            manifest.name,
        )
        return None
    return found


def required(manifest: Manifest, command: str) -> Audit:
    """The audit of these data; UserError with the `command` that makes it where there is none."""
    found = find(manifest)
    if found is None:
        raise UserError(
            "data.split=deduplicated leaves out the copies that an audit has verified, but these "
            f"data (fingerprint {data_fingerprint(manifest)}) have not been audited. Run {command} "
            "first, with the same keys of data."
        )
    return found


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or the one before, whoever else writes it.

    Raises UserError where it cannot be written; no half file is left behind.
    """
    draft = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            draft = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o666 & ~_umask())
        os.replace(draft, path)
        draft = None
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. It needs "
            f"{max(1, round(len(text) / 1e6))} MB."
        ) from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)


def _umask() -> int:
    """Temporary files are for their owner alone; these are to be as other files are."""
    held = os.umask(0)
    os.umask(held)
    return held
