"""Findings of five severities, and the verdict that sums them up, the worst first."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

SEVERITIES = ("ok", "hint", "warning", "leak", "error")
"""From nothing to report, through what is worth knowing, what can mislead, and what inflates test
metrics, to what stops training."""

CONSEQUENCE = (
    "table",
    "copies across splits",
    "groups",
    "shortcuts",
    "two labels",
    "two patients",
    "copies within splits",
    "labels",
    "similar images",
    "files",
    "copies of unreadable files",
    "balance",
    "unlabeled",
    "stems",
    "copies",
)
"""Checks of equal severity, ordered by how much a finding changes what the metrics mean."""

HEADLINES = {
    "error": "Training cannot run on these data as they are.",
    "leak": "Test metrics on these data will be too good with the current split.",
    "warning": "No leak was found, but metrics on these data can mislead.",
    "hint": "No leak was found; there are a few things to know.",
    "ok": "No problem was found.",
}
# If unreadable files are the only findings of the worst severity; by data.on_bad_file.
FILES_ONLY = {
    "error": "Training stops at unreadable files in these data.",
    "warning": "No leak was found; unreadable files are left out.",
}
CAUTION = (
    "An audit finds only what it checks for. It cannot tell whether labels are right, or whether "
    "two images show the same person when patients are unknown."
)
MAX_LISTED = 12  # items of a finding on the page and screen; the JSON has all
MAX_IN_VERDICT = 4  # findings that the verdict names


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    title: one sentence with the numbers. text: what it means. advice: what to do. items: for the
    page, without patient names. details: for the JSON.
    """

    check: str
    severity: str
    title: str
    text: str = ""
    advice: str = ""
    items: Sequence[str] = ()
    details: Sequence[dict[str, Any]] = ()

    def __post_init__(self) -> None:
        assert self.severity in SEVERITIES, self.severity

    @property
    def listed(self) -> list[str]:
        """The first items, and how many more there are."""
        more = len(self.items) - MAX_LISTED
        return [*self.items[:MAX_LISTED], *([f"and {more} more in audit.json"] if more > 0 else [])]


def rank(severity: str) -> int:
    """0 for ok to 4 for error."""
    return SEVERITIES.index(severity)


def worst(findings: Iterable[Finding]) -> str:
    """The highest severity among the findings; ok if there are none."""
    return max((finding.severity for finding in findings), key=rank, default="ok")


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; equal severities by `CONSEQUENCE`, then in the given order."""

    def key(finding: Finding) -> tuple[int, int]:
        known = finding.check in CONSEQUENCE
        place = CONSEQUENCE.index(finding.check) if known else len(CONSEQUENCE)
        return -rank(finding.severity), place

    return sorted(findings, key=key)


def verdict(findings: Sequence[Finding]) -> list[str]:
    """Sentences: the headline, then the titles of the findings behind it."""
    severity = worst(findings)
    titles = [
        finding.title
        for finding in by_severity(findings)
        if finding.severity != "ok" and (finding.severity != "hint" or severity == "hint")
    ]
    more = len(titles) - MAX_IN_VERDICT
    rest = [f"And {more} more."] if more > 0 else []
    return [_headline(findings, severity), *titles[:MAX_IN_VERDICT], *rest]


def headline_and_worst(findings: Sequence[Finding]) -> str:
    """One line for a run's header: the headline and the worst finding.

    A leak that ranks behind an error is included: fixing or skipping a file does not remove it.
    """
    leaks = [finding.title for finding in by_severity(findings) if finding.severity == "leak"]
    behind = leaks[:1] if worst(findings) == "error" else []
    return " ".join([*verdict(findings)[:2], *behind])


def _headline(findings: Sequence[Finding], severity: str) -> str:
    checks = {finding.check for finding in findings if finding.severity == severity}
    if checks <= {"files", "copies of unreadable files"} and severity in FILES_ONLY:
        return FILES_ONLY[severity]
    return HEADLINES[severity]


def image_name(table: pd.DataFrame, row: int) -> str:
    """An image's name on the page: split, row, label and file name.

    The file name is left out where the patient is known: in many datasets it names the patient.
    """
    image = image_detail(table, row)
    patient: Any = table["patient"].iat[row]
    name = "" if pd.notna(patient) else f", {PurePosixPath(image['path']).name}"
    return f"{image['split']} #{row} ({image['label']}{name})"


def image_detail(table: pd.DataFrame, row: int) -> dict[str, Any]:
    """An image in the JSON: path, split, label, row."""
    values: dict[str, Any] = {key: table[key].iat[row] for key in ("path", "split", "label")}
    plain = {key: None if pd.isna(value) else str(value) for key, value in values.items()}
    return plain | {"row": row}


def percent(n: int, total: int) -> str:
    """`11.1 %`."""
    return f"{100 * n / max(1, total):.1f} %"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain dicts, for the JSON."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
