"""All checks of a dataset in one pass over its files, and the folder an audit is written to."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracnet.data import audit_record
from fracnet.data.datasets.base import Dataset
from fracnet.data.fingerprint import data_fingerprint, describe_data, files_digest
from fracnet.data.image_features import SHORTCUT_NAMES
from fracnet.data.manifest import Manifest, with_manifest_types, without_rows
from fracnet.data.split_file import join_copied_groups
from fracnet.data.splits import groups_of
from fracnet.data_audit import checks, shortcuts
from fracnet.data_audit.findings import (
    CAUTION,
    Finding,
    by_severity,
    headline_and_worst,
    verdict,
    worst,
)
from fracnet.data_audit.image_scan import ImageScan
from fracnet.data_audit.label_errors import Doubt, check_labels, find_doubts, held_out_probabilities
from fracnet.data_audit.near_duplicates import Pair, find_duplicates
from fracnet.data_audit.similar_images import SimilarPair, check_similar, similar_across
from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.progress import Progress


@dataclass(frozen=True)
class NamedFeatures:
    """Features of a network. compute: paths of the readable images [n] and float32 [n, F]."""

    name: str
    compute: Callable[[], tuple[Sequence[str], np.ndarray]]


@dataclass(frozen=True)
class AuditResult:
    """An audit: its findings, and what the page and training need.

    has_images: False if the dataset could not even list its images. groups: the unit that shortcut
    scores hold out. doubts: labels that may be wrong, the least supported first. similar: images of
    two splits not found to be copies, the most similar first. command: as it was typed.
    """

    manifest: Manifest
    fingerprint: dict[str, Any]
    findings: list[Finding]
    pairs: list[Pair]
    shortcuts: list[shortcuts.FamilyScore]
    groups: str
    has_images: bool = True
    doubts: Sequence[Doubt] = ()
    similar: Sequence[SimilarPair] = ()
    command: Sequence[str] = ()
    created: str = ""

    def __post_init__(self) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        object.__setattr__(self, "created", self.created or now)

    @property
    def severity(self) -> str:
        """The worst severity of the findings."""
        return worst(self.findings)

    @property
    def verdict(self) -> list[str]:
        """The headline and the findings behind it."""
        return verdict(self.findings)

    def as_json(self, folder: str) -> dict[str, Any]:
        """Everything in plain containers. folder: where it is written."""
        return {
            "format": audit_record.FORMAT,
            "fracnet": version("fracnet"),
            "created": self.created,
            "command": list(self.command),
            "data": {
                "name": self.manifest.name,
                "root": str(self.manifest.root),
                "license": self.manifest.license,
                "notes": list(self.manifest.notes),
            },
            "fingerprint": self.fingerprint if self.has_images else None,
            "severity": self.severity,
            "line": headline_and_worst(self.findings),
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
            "pairs": checks.pairs_as_json(self.manifest.table, self.pairs),
            "folder": folder,
        }


def run_audit(
    manifest: Manifest,
    *,
    on_bad_file: str,
    progress: Progress,
    workers: int,
    network: NamedFeatures | None = None,
    command: Sequence[str] = (),
) -> AuditResult:
    """Read every image of the manifest once and run all checks.

    on_bad_file: what training does with unreadable files. workers: threads. network: gives the
    features by which labels are checked and similar images are found; None: they are not. command:
    the words that started the audit. Raises UserError if no image can be read.
    """
    table = manifest.table
    scan = ImageScan([manifest.file(path) for path in table["path"]])
    pairs = find_duplicates(scan, len(table), files=scan.files, workers=workers, progress=progress)
    if len(table) and not len(scan.readable):
        row = min(scan.bad)
        raise UserError(
            f"None of the {len(table)} images of {manifest.name} in {manifest.root} can be read: "
            f"{table['path'].iloc[row]} ({scan.bad[row]})."
        )
    readable = without_rows(manifest, scan.bad, "unreadable file")
    trained = readable if on_bad_file == "skip" else manifest
    splits = table["split"].to_numpy(str)
    across = {(pair.a, pair.b) for pair in pairs if splits[pair.a] != splits[pair.b]}
    paths = table["path"].to_numpy(str)
    # Patients, joined where they share copies.
    groups = np.array(join_copied_groups(table, [(paths[p.a], paths[p.b]) for p in pairs]))
    unit = _group_unit(manifest, pairs)
    rows = scan.readable[table["label"].isin(manifest.classes).to_numpy()[scan.readable]]
    scores = shortcuts.score_families(
        scan.features[rows],
        _targets(manifest, rows),
        list(groups[rows]),
        unit,
        len(manifest.classes),
        progress,
        workers,
    )
    findings = [
        checks.check_readable(manifest, scan.bad, on_bad_file),
        *checks.check_unreadable_copies(manifest, scan.bad),
        *checks.check_trainable(trained),
        checks.check_groups(manifest),
        *checks.check_copies(manifest, pairs, scan.bad),
        checks.check_stems(manifest, across),
        *checks.check_balance(readable),
        checks.check_excluded(trained, len(scan.bad) if on_bad_file == "error" else 0),
        shortcuts.check_shortcuts(scores, len(manifest.classes), unit),
    ]
    doubts: Sequence[Doubt] = ()
    similar: Sequence[SimilarPair] = ()
    if network is not None:
        more, doubts, similar = _check_features(manifest, splits, groups, network, progress)
        findings += more
    features = scan.features[:, : len(SHORTCUT_NAMES)]
    return AuditResult(
        manifest=manifest,
        fingerprint=describe_data(manifest, features) | {"files": files_digest(manifest)},
        findings=findings,
        pairs=pairs,
        shortcuts=[] if isinstance(scores, str) else scores,
        groups=unit,
        doubts=doubts,
        similar=similar,
        command=command,
    )


def _check_features(
    manifest: Manifest,
    splits: np.ndarray,
    groups: np.ndarray,
    network: NamedFeatures,
    progress: Progress,
) -> tuple[list[Finding], list[Doubt], list[SimilarPair]]:
    """Findings by the features of a network, labels in doubt, and similar images across splits."""
    try:
        paths, features = network.compute()
    except UserError as error:
        return [check_labels(manifest, str(error), 0, network.name)], [], []
    place = {path: row for row, path in enumerate(manifest.table["path"])}
    rows = np.array([place[path] for path in paths], np.int64)
    targets, classes = _targets(manifest, rows), manifest.classes
    probs = held_out_probabilities(features, targets, list(groups[rows]), len(classes), progress)
    doubts = [] if isinstance(probs, str) else find_doubts(probs, targets, rows, classes)
    reason = f"{probs}." if isinstance(probs, str) else None
    similar = similar_across(features, rows, splits, groups)
    labels = check_labels(manifest, reason or doubts, len(rows), network.name)
    return [labels, *check_similar(manifest.table, similar, network.name)], doubts, similar


def _targets(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    """Class numbers int64 [n] of these rows."""
    number = {label: i for i, label in enumerate(manifest.classes)}
    return np.array([number[label] for label in manifest.table["label"].iloc[rows]], np.int64)


def audit_without_images(
    dataset: Dataset, fault: DataFault, command: Sequence[str] = ()
) -> AuditResult:
    """The audit of a dataset that cannot list its images because of a fault in the data."""
    empty = Manifest(
        table=with_manifest_types(pd.DataFrame()),
        root=dataset.folder,
        classes=(),
        task=dataset.task,
        name=dataset.name,
        license=dataset.license,
        citation=dataset.citation,
        groups=dataset.groups,
        excluded=pd.DataFrame(columns=["split", "reason", "n"]),
    )
    finding = Finding(
        "table",
        "error",
        "The dataset is inconsistent or incomplete, so no image was checked.",
        str(fault),
        "Fix this, then repeat the audit.",
    )
    return AuditResult(
        manifest=empty,
        fingerprint=describe_data(empty, np.empty((0, len(SHORTCUT_NAMES)))),
        findings=[finding],
        pairs=[],
        shortcuts=[],
        groups="",
        has_images=False,
        command=command,
    )


def _group_unit(manifest: Manifest, pairs: Sequence[Pair]) -> str:
    """What the groups are, for sentences."""
    units = set(groups_of(manifest.table)["unit"])
    known = [unit for unit in ("patient", "study", "image") if unit in units]
    return ", else ".join(known) + (", joined by copies" if pairs else "")


def default_folder(dataset: Dataset, manifest: Manifest | None) -> Path:
    """Where an audit is written by default: named by the data, or by their folder."""
    if manifest is not None:
        name, suffix = manifest.name, data_fingerprint(manifest)
    else:
        digest = hashlib.sha256(str(dataset.folder).encode()).hexdigest()[:8]
        name, suffix = dataset.name, f"unlisted-{digest}"
    return Path("audits", re.sub(r"[^-\w.]+", "-", name) + f"-{suffix}")


def create_folder(folder: Path) -> list[Path]:
    """Create the folder before the long work; returns the folders created, innermost first."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create out={folder}: {error.strerror or error}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"Cannot write to out={folder}.")
    return created


def remove_empty_folders(created: list[Path]) -> None:
    """Remove the created folders that stayed empty; another audit may be using them."""
    for path in created:
        try:
            path.rmdir()
        except OSError:
            return  # not empty
