"""All checks of a data set, in one go over its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from fracnet.auditing import files, labels, leaks, shortcuts
from fracnet.auditing.copies import copies
from fracnet.auditing.duplicates import Pair, find_duplicates
from fracnet.auditing.findings import Finding, by_severity, worst
from fracnet.auditing.looking import Looking
from fracnet.auditing.pairs import as_json
from fracnet.auditing.verdict import CAUTION, line, verdict
from fracnet.data import audits
from fracnet.data.deduplicated import joined_groups
from fracnet.data.fingerprint import files_digest, fingerprint
from fracnet.data.manifest import Manifest, typed, without_rows
from fracnet.data.shortcuts import FEATURE_NAMES
from fracnet.data.sources.base import Source
from fracnet.data.splits import groups_of
from fracnet.errors import DataFault, UserError
from fracnet.progress import Show


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
            "format": audits.FORMAT,
            "fracnet": version("fracnet"),
            "made": self.made,
            "data": {
                "name": self.manifest.name,
                "root": str(self.manifest.root),
                "licence": self.manifest.licence,
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
    show: Show,
    workers: int,
) -> Audited:
    """Read every image of the manifest once and make all checks.

    on_bad_file: what training will do with unreadable files. show: for progress bars. workers:
    threads.
    Raises UserError where no image can be read.
    """
    table = manifest.table
    looking = Looking([manifest.root / path for path in table["path"]])
    pairs = find_duplicates(looking, len(table), files=looking.files, workers=workers, show=show)
    if len(table) and not len(looking.good):
        row = min(looking.bad)
        raise UserError(
            f"None of the {len(table)} images of {manifest.name} in {manifest.root} can be read: "
            f"{table['path'].iloc[row]} ({looking.bad[row]})."
        )
    readable = without_rows(manifest, looking.bad, "unreadable file")
    trained = readable if on_bad_file == "skip" else manifest
    found = [
        files.unreadable(manifest, looking.bad, on_bad_file),
        *files.unreadable_copies(manifest, looking.bad),
        *files.structure(trained),
        leaks.groups(manifest),
        *copies(manifest, pairs),
    ]
    splits = table["split"].to_numpy(str)
    parted = {(pair.a, pair.b) for pair in pairs if splits[pair.a] != splits[pair.b]}
    n_stopping = len(looking.bad) if on_bad_file == "error" else 0
    found += [
        files.stems(manifest, parted),
        *labels.balance(readable),
        labels.left_out(trained, n_stopping),
    ]
    unit = _unit(manifest, pairs)
    reached = _reached(manifest, looking, pairs, unit, show, workers)
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
        licence=source.licence,
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
    show: Show,
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
        show,
        workers,
    )


def _unit(manifest: Manifest, pairs: Sequence[Pair]) -> str:
    """What the groups are called, in words."""
    units = set(groups_of(manifest.table)["unit"])
    told = [unit for unit in ("patient", "study", "image") if unit in units]
    return ", else ".join(told) + (", joined by copies" if pairs else "")
