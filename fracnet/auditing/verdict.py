"""The verdict: what the findings come to, in words, the worst first."""

from collections.abc import Sequence

from fracnet.auditing.findings import Finding, by_severity, worst

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
