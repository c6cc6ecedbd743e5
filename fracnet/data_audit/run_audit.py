"""All checks of a data set, in one go over its files."""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracnet.data import audit_record
from fracnet.data.datasets.base import Source
from fracnet.data.fingerprint import files_digest, fingerprint
from fracnet.data.image_features import FEATURE_NAMES
from fracnet.data.manifest import Manifest, typed, without_rows
from fracnet.data.split_file import joined_groups
from fracnet.data.splits import groups_of
from fracnet.data_audit import checks, shortcuts
from fracnet.data_audit.checks import as_json, copies
from fracnet.data_audit.findings import CAUTION, Finding, by_severity, line, verdict, worst
from fracnet.data_audit.image_scan import Looking
from fracnet.data_audit.near_duplicates import Pair, find_duplicates
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.progress import Progress


@dataclass(frozen=True)
class Audited:
    """An audit: what was found, and what the page and training need of it.

    looked: whether any image was looked at; not where the data set cannot even be listed.
    """

    manifest: Manifest
    fingerprint: dict[str, Any]
    findings: list[Finding]
    pairs: list[Pair]
    reached: list[shortcuts.Reached]
    groups: str
    made: str
    looked: bool = True

    @property
    def severity(self) -> str:
        """The worst of the findings'."""
        return worst(self.findings)

    @property
    def verdict(self) -> list[str]:
        """In words."""
        return verdict(self.findings)

    def as_json(self, folder: str) -> dict[str, Any]:
        """Everything, in plain containers; folder: where it is written to."""
        table = self.manifest.table
        return {
            "format": audit_record.FORMAT,
            "fracnet": version("fracnet"),
            "made": self.made,
            "data": {
                "name": self.manifest.name,
                "root": str(self.manifest.root),
                "license": self.manifest.license,
                "notes": list(self.manifest.notes),
            },
            "fingerprint": self.fingerprint if self.looked else None,
            "severity": self.severity,
            "line": line(self.findings),
            "verdict": self.verdict,
            "caution": CAUTION,
            "findings": [
                {
                    "check": finding.check,
                    "severity": finding.severity,
                    "title": finding.title,
                    "text": finding.text,
                    "advice": finding.advice,
                    "details": list(finding.details),
                }
                for finding in by_severity(self.findings)
            ],
            "pairs": as_json(table, self.pairs),
            "folder": folder,
        }


def audit(
    manifest: Manifest,
    *,
    on_bad_file: str,
    progress: Progress,
    workers: int,
) -> Audited:
    """Read every image of the manifest once and make all checks.

    on_bad_file: what training will do with unreadable files. progress: for progress bars. workers:
    threads.
    Raises UserError where no image can be read.
    """
    table = manifest.table
    looking = Looking([manifest.root / path for path in table["path"]])
    pairs = find_duplicates(
        looking, len(table), files=looking.files, workers=workers, progress=progress
    )
    if len(table) and not len(looking.good):
        row = min(looking.bad)
        raise UserError(
            f"None of the {len(table)} images of {manifest.name} in {manifest.root} can be read: "
            f"{table['path'].iloc[row]} ({looking.bad[row]})."
        )
    readable = without_rows(manifest, looking.bad, "unreadable file")
    trained = readable if on_bad_file == "skip" else manifest
    found = [
        checks.unreadable(manifest, looking.bad, on_bad_file),
        *checks.unreadable_copies(manifest, looking.bad),
        *checks.structure(trained),
        checks.groups(manifest),
        *copies(manifest, pairs),
    ]
    splits = table["split"].to_numpy(str)
    parted = {(pair.a, pair.b) for pair in pairs if splits[pair.a] != splits[pair.b]}
    n_stopping = len(looking.bad) if on_bad_file == "error" else 0
    found += [
        checks.stems(manifest, parted),
        *checks.balance(readable),
        checks.left_out(trained, n_stopping),
    ]
    unit = _unit(manifest, pairs)
    reached = _reached(manifest, looking, pairs, unit, progress, workers)
    found.append(shortcuts.finding(reached, len(manifest.classes), unit))
    known = looking.features[:, : len(FEATURE_NAMES)]
    return Audited(
        manifest=manifest,
        fingerprint=fingerprint(manifest, known) | {"files": files_digest(manifest)},
        findings=found,
        pairs=pairs,
        reached=[] if isinstance(reached, str) else reached,
        groups=unit,
        made=_now(),
    )


def unlisted(source: Source, fault: DataFault) -> Audited:
    """The audit of a data set of which its own source can make no table of images."""
    empty = Manifest(
        table=typed(pd.DataFrame()),
        root=source.folder,
        classes=(),
        task=source.task,
        name=source.name,
        license=source.license,
        citation=source.citation,
        groups=source.groups,
        excluded=pd.DataFrame(columns=["split", "reason", "n"]),
    )
    return Audited(
        manifest=empty,
        fingerprint=fingerprint(empty, np.empty((0, len(FEATURE_NAMES)))),
        findings=[
            Finding(
                "table",
                "error",
                "The data set contradicts itself or is not whole, so no image was looked at.",
                str(fault),
                "Mend that, then repeat the audit.",
            )
        ],
        pairs=[],
        reached=[],
        groups="",
        made=_now(),
        looked=False,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reached(
    manifest: Manifest,
    looking: Looking,
    pairs: Sequence[Pair],
    unit: str,
    progress: Progress,
    workers: int,
) -> list[shortcuts.Reached] | str:
    table = manifest.table
    paths = table["path"].to_numpy(str)
    groups = np.array(joined_groups(table, [(paths[p.a], paths[p.b]) for p in pairs]))
    scored = looking.good[table["label"].isin(manifest.classes).to_numpy()[looking.good]]
    classes = list(manifest.classes)
    targets = np.array([classes.index(label) for label in table["label"].iloc[scored]], np.int64)
    return shortcuts.reached(
        looking.features[scored],
        targets,
        list(groups[scored]),
        unit,
        len(classes),
        progress,
        workers,
    )


def _unit(manifest: Manifest, pairs: Sequence[Pair]) -> str:
    """What the groups are called, in words."""
    units = set(groups_of(manifest.table)["unit"])
    told = [unit for unit in ("patient", "study", "image") if unit in units]
    return ", else ".join(told) + (", joined by copies" if pairs else "")


def _listed(source: "Source") -> "tuple[Manifest | None, DataFault | None]":
    """The table of images, or what is wrong with the data that there can be none."""
    try:
        return source.manifest(), None
    except DataFault as fault:
        return None, fault


def _own_folder(source: "Source", manifest: "Manifest | None") -> Path:
    """Where an audit goes that is told no place: by the data, or by where they lie."""
    from fracnet.data.fingerprint import data_fingerprint

    if manifest is not None:
        name, told = manifest.name, data_fingerprint(manifest)
    else:
        place = hashlib.sha256(str(source.folder).encode()).hexdigest()[:8]
        name, told = source.name, f"unlisted-{place}"
    return Path("audits", re.sub(r"[^-\w.]+", "-", name) + f"-{told}")


def _ready(folder: Path) -> list[Path]:
    """Make the folder before the work, not after it; those that were made, the innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={folder} cannot be made: {error.strerror or error}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"out={folder} cannot be written to.")
    return made


def _leave(made: list[Path]) -> None:
    """Take away the folders that were made for nothing; another audit may be using them."""
    for path in made:
        try:
            path.rmdir()
        except OSError:
            return  # no longer empty
