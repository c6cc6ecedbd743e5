"""Audit results stored for training: one file per dataset, named by its fingerprint.

    <cache>/audits/<fingerprint>.json

`fracnet.audit` writes it, with the same text as its audit.json. Training prints its verdict, and
`data.split=deduplicated` uses its verified copies.
"""

import json
import logging
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
class AuditRecord:
    """What training needs from an audit.

    severity: the worst of its findings. verdict: the headline and the most serious finding.
    pairs: paths of two images, one a verified copy of the other. page: folder of the audit.
    """

    severity: str
    verdict: str
    pairs: tuple[tuple[str, str], ...]
    page: str

    def metadata(self, left_out: int | None = None) -> dict[str, str]:
        """For the metadata of a run on these data, or on them without `left_out` copies."""
        content = {"severity": self.severity, "verdict": self.verdict}
        if left_out is not None:
            copies = f"{counted(left_out, 'verified copy')} {are(left_out)} left out here"
            content["note"] = f"Of the official split; {copies}."
        return content


def audit_path(fingerprint: str) -> Path:
    """Path of the stored audit of data with this fingerprint."""
    return cache_dir() / "audits" / f"{fingerprint}.json"


def find_audit(manifest: Manifest) -> AuditRecord | None:
    """The stored audit of these data; None if there is none, or, with a warning, if it is stale.

    manifest: as the dataset returns it, before folds are assigned or images left out.
    """
    path = audit_path(data_fingerprint(manifest))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return None  # written by another version; a new audit replaces it
        files = content["fingerprint"]["files"]
        audit = AuditRecord(
            severity=str(content["severity"]),
            verdict=str(content["line"]),
            pairs=tuple((str(pair["a"]), str(pair["b"])) for pair in content["pairs"]),
            page=str(content["folder"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        log.warning("Cannot read the audit %s (%r); ignoring it.", path, error)
        return None
    if files != files_digest(manifest):
        log.warning("Files of %s changed since its audit; ignoring the audit.", manifest.name)
        return None
    return audit


def require_audit(manifest: Manifest, command: str) -> AuditRecord:
    """The audit of these data. Raises UserError naming the `command` to run if there is none."""
    audit = find_audit(manifest)
    if audit is None:
        raise UserError(
            "data.split=deduplicated leaves out the copies that an audit verified, but these data "
            f"(fingerprint {data_fingerprint(manifest)}) have not been audited. Run {command} "
            "first, with the same data settings."
        )
    return audit
