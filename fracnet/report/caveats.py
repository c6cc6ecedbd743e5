"""Caveats on the pages of runs, sweeps and comparisons: synthetic data, labels, and data audits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fracnet.report.sweep_charts import Trial

SYNTHETIC = (
    "The images are synthetic, drawn by a program: no metric here says anything about patients."
)
ABNORMAL = "Abnormal is the label as the dataset defines it, which is not the same as fractured."
UNKNOWN_WITHOUT_AUDIT = (
    "it is unknown whether training images are copies of test images, or whether a frame or marker "
    "reveals the label"
)
FLAWED_DATA = {
    "leak": "These metrics are too good: the audit found a leak in the data.",
    "error": "These metrics may be misleading: the audit found the data faulty.",
}
NOT_AUDITED = "not audited"
SEVERITIES = ("ok", "hint", "warning", "leak", "error")


@dataclass(frozen=True)
class AuditSummary:
    """The data audits of all runs on a page, taken together.

    severity: the worst of them; "hint" if an audit is missing, or its leak was left out.
    fact: the severities in a few words. sentences: the result of each audit. flaw: what that means
    for every metric on the page, if anything.
    """

    severity: str
    fact: str
    sentences: Sequence[str]
    flaw: Sequence[str] = ()


def data_notes(trials: Sequence[Trial]) -> list[str]:
    """The datasets of the trials, and what their images or labels cannot show."""
    names = sorted({trial.data for trial in trials if trial.data})
    sentences = [f"Data: {', '.join(names)}."] if names else []
    synthetic = {is_phantom(name) for name in names}
    if synthetic == {True}:
        sentences.append(SYNTHETIC)
    elif True in synthetic:
        sentences.append("Synthetic images (phantoms) say nothing about patients.")
    # A phantom dataset's own note says what its abnormal images contain.
    if any("abnormal" in trial.classes and not is_phantom(trial.data) for trial in trials):
        sentences.append(ABNORMAL)
    return sentences


def summarize_audits(trials: Sequence[Trial]) -> AuditSummary:
    """What was known about the data at training time; trials without a record are left out.

    A later audit changes nothing here: it may concern other files.
    """
    audits = [(trial.data, trial.audit) for trial in trials if trial.audit is not None]
    if not audits:
        sentence = "The runs do not record whether their data were audited."
        return AuditSummary("hint", "unknown", [sentence] if trials else [])
    groups = Counter(
        (data, *(audit.get(key, "") for key in ("severity", "verdict", "note")))
        for data, audit in audits
    )
    sentences, facts, severities = [], [], ["ok"]
    for (data, severity, verdict, note), n in groups.items():
        share = f" ({n} of {len(audits)} runs)" if len(groups) > 1 else ""
        facts.append(severity or NOT_AUDITED)
        if not severity:
            severities.append("hint")
            subject = f"{data} has" if data else "The data have"
            sentences.append(
                f"{subject} not been audited{share}: {UNKNOWN_WITHOUT_AUDIT} "
                "(`python -m fracnet.audit`)."
            )
            continue
        severities.append("hint" if note and severity == "leak" else severity)
        sentences.append(
            f"Audit of {data or 'the data'}{share}: {severity}. {verdict} {note}".strip()
        )
    worst = max(severities, key=SEVERITIES.index)
    flaw = [FLAWED_DATA[worst]] if worst in FLAWED_DATA else []
    return AuditSummary(worst, ", ".join(dict.fromkeys(facts)), sentences, flaw)


def overall_severity(
    metrics: str, audit: AuditSummary, trials: Sequence[Trial], *, other_doubts: bool = False
) -> str:
    """The severity of a page's verdict: no better than its data allow.

    metrics: the severity by the metrics alone. A leak or error of the data counts as such. Any
    other doubt raised by an audit, synthetic images and `other_doubts` limit it to "hint".
    """
    severities = [metrics]
    if audit.severity in FLAWED_DATA:
        severities.append(audit.severity)
    elif audit.severity != "ok" or other_doubts or any(is_phantom(t.data) for t in trials):
        severities.append("hint")
    return max(severities, key=SEVERITIES.index)


def is_phantom(dataset: str) -> bool:
    """Whether a dataset of this name holds fracnet's own phantoms."""
    return dataset.endswith("_phantom")
