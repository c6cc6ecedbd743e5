"""What an audit says: findings of five severities.

The verdict: what the findings come to, in words, the worst first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

SEVERITIES = ("ok", "hint", "warning", "leak", "error")
"""From nothing found, by what is worth knowing, what may mislead, and what makes test figures too
good, to what cannot be trained on."""

CONSEQUENCE = (
    "table",
    "copies across splits",
    "groups",
    "shortcuts",
    "two labels",
    "two patients",
    "copies within splits",
    "files",
    "copies of unreadable files",
    "balance",
    "unlabeled",
    "stems",
    "copies",
)
"""Checks of one severity, by how much a finding changes what can be believed, the most first."""

LISTED = 12  # items of a finding that the page and the screen show; the JSON has all


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    check: which. title: one sentence with the figure. text: what it means. advice: what to do.
    items: the first `LISTED` for the page, without patients' names, of `n` in all (None: those).
    details: for the JSON, in full.
    """

    check: str
    severity: str
    title: str
    text: str = ""
    advice: str = ""
    items: Sequence[str] = ()
    details: Sequence[dict[str, Any]] = ()
    n: int | None = None

    def __post_init__(self) -> None:
        assert self.severity in SEVERITIES, self.severity

    @property
    def listed(self) -> list[str]:
        """The first items, and how many more there are."""
        more = self.total - len(self.items[:LISTED])
        return [*self.items[:LISTED], *([f"and {more} more, in audit.json"] if more > 0 else [])]

    @property
    def total(self) -> int:
        """Items in all."""
        return len(self.items) if self.n is None else self.n


def rank(severity: str) -> int:
    """0 for ok to 4 for error."""
    return SEVERITIES.index(severity)


def worst(findings: Iterable[Finding]) -> str:
    """The highest severity among them; ok where there are none."""
    return max((finding.severity for finding in findings), key=rank, default="ok")


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; of one severity by `CONSEQUENCE`, then in the order of making."""

    def key(finding: Finding) -> tuple[int, int]:
        known = finding.check in CONSEQUENCE
        place = CONSEQUENCE.index(finding.check) if known else len(CONSEQUENCE)
        return -rank(finding.severity), place

    return sorted(findings, key=key)


def called(table: pd.DataFrame, row: int) -> str:
    """How the page calls an image: split, row and label, with its file's name.

    Where patients are known the name is left out: in many sets it holds the patient's.
    """
    image = detail(table, row)
    patient: Any = table["patient"].iat[row]
    name = "" if pd.notna(patient) else f", {PurePosixPath(image['path']).name}"
    return f"{image['split']} #{row} ({image['label']}{name})"


def detail(table: pd.DataFrame, row: int) -> dict[str, Any]:
    """How the JSON names an image: path, split, label, row."""
    held: dict[str, Any] = {key: table[key].iat[row] for key in ("path", "split", "label")}
    return {key: None if pd.isna(value) else str(value) for key, value in held.items()} | {
        "row": row
    }


def share(n: int, of: int) -> str:
    """`11.1 %`."""
    return f"{100 * n / max(1, of):.1f} %"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table as plain mappings, for the JSON."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


HEADLINES = {
    "error": "These data cannot be trained on as they are.",
    "leak": "Test figures on these data, split as they are, will be too good.",
    "warning": "No leak was found, but figures on these data can mislead.",
    "hint": "No leak was found; a few things are worth knowing.",
    "ok": "Nothing was found that would make figures on these data too good.",
}

# Where unreadable files are all that is so grave; policies of data.on_bad_file.
FILES_ALONE = {
    "error": "Training stops at files of these data that cannot be read.",
    "warning": "No leak was found; files that cannot be read are left out.",
}
CAUTION = (
    "An audit finds what it looks for: it cannot show that labels are right, nor that two pictures "
    "are of two people where patients are unknown."
)
TOLD = 4  # findings that the verdict names


def verdict(findings: Sequence[Finding]) -> list[str]:
    """Sentences; the first says it all, the next are the findings behind it."""
    severity = worst(findings)
    grave = [
        finding.title
        for finding in by_severity(findings)
        if finding.severity != "ok" and (finding.severity != "hint" or severity == "hint")
    ]
    more = [f"Further: {len(grave) - TOLD} more."] if len(grave) > TOLD else []
    return [_headline(findings, severity), *grave[:TOLD], *more]


def line(findings: Sequence[Finding]) -> str:
    """One line for a run's header: the headline and the gravest finding.

    A leak behind an error is told too: a file that is mended or left out does not mend it.
    """
    ordered = by_severity(findings)
    leak = next((finding.title for finding in ordered if finding.severity == "leak"), None)
    behind = [leak] if leak and worst(findings) == "error" else []
    return " ".join([*verdict(findings)[:2], *behind])


def _headline(findings: Sequence[Finding], severity: str) -> str:
    grave = {finding.check for finding in findings if finding.severity == severity}
    if grave <= {"files", "copies of unreadable files"} and severity in FILES_ALONE:
        return FILES_ALONE[severity]
    return HEADLINES[severity]
