"""What a study's figures rest on: its data, what their labels mean, and what an audit says."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fracnet.report.sweep_charts import Trial

DRAWN = (
    "The images are drawn by a program, not taken of people: no figure here says anything about "
    "patients."
)
ABNORMAL = "Abnormal is what the data set calls so, which is not the same as fractured."
NOT_KNOWN = (
    "whether copies of test images were trained on, or a frame or marker tells the label, is not "
    "known"
)
FLAWED = {
    "leak": "These figures are too good: the audit found a leak in the data.",
    "error": "These figures may mislead: the audit found the data faulty.",
}
NOT_AUDITED = "not audited"
SEVERITIES = ("ok", "hint", "warning", "leak", "error")


@dataclass(frozen=True)
class Audited:
    """What the audits of a study's data come to.

    severity: the worst of them; "hint" where an audit is missing, or its leak was left out.
    fact: the severities in a few words. sentences: what each audit says. flaw: what that means for
    every figure of the study, where it means something.
    """

    severity: str
    fact: str
    sentences: Sequence[str]
    flaw: Sequence[str] = ()


def about_data(trials: Sequence[Trial]) -> list[str]:
    """Which data sets the trials are of, and what their images or labels cannot tell."""
    names = sorted({trial.data for trial in trials if trial.data})
    said = [f"Data: {', '.join(names)}."] if names else []
    drawn = {is_drawn(name) for name in names}
    if drawn == {True}:
        said.append(DRAWN)
    elif True in drawn:
        said.append("Images drawn by a program (phantoms) say nothing about patients.")
    # Where abnormal images are drawn, the data set's own note says what is drawn in them.
    if any("abnormal" in trial.classes and not is_drawn(trial.data) for trial in trials):
        said.append(ABNORMAL)
    return said


def audits(trials: Sequence[Trial]) -> Audited:
    """What was known of the data when the trials were trained; those that do not tell are left out.

    A later audit changes nothing here: it may be of other files.
    """
    telling = [trial for trial in trials if trial.audit is not None]
    if not telling:
        sentence = "The runs do not say whether their data were audited."
        return Audited("hint", "not known", [sentence] if trials else [])
    groups = Counter((trial.data, *_of(trial.audit or {})) for trial in telling)
    sentences, facts, found = [], [], ["ok"]
    for (data, severity, line, note), n in groups.items():
        some = f" ({n} of {len(telling)} runs)" if len(groups) > 1 else ""
        facts.append(severity or NOT_AUDITED)
        if not severity:
            found.append("hint")
            whose = data or "The data"
            verb = "has" if data else "have"
            end = f"{verb} not been audited{some}: {NOT_KNOWN} (`python -m fracnet.audit`)."
            sentences.append(f"{whose} {end}")
            continue
        found.append("hint" if note and severity == "leak" else severity)
        sentences.append(f"Audit of {data or 'the data'}{some}: {severity}. {line} {note}".strip())
    worst = max(found, key=SEVERITIES.index)
    heads = [FLAWED[worst]] if worst in FLAWED else []
    return Audited(worst, ", ".join(dict.fromkeys(facts)), sentences, heads)


def box(own: str, audited: Audited, trials: Sequence[Trial], *, open_to_doubt: bool = False) -> str:
    """The severity of a study's verdict: no better than its data let it be.

    own: what its figures alone come to. A leak or an error of the data counts as such. Any other
    doubt of an audit, drawn images and what is else `open_to_doubt` make it no better than "hint".
    """
    found = [own]
    if audited.severity in FLAWED:
        found.append(audited.severity)
    elif audited.severity != "ok" or open_to_doubt or any(is_drawn(one.data) for one in trials):
        found.append("hint")
    return max(found, key=SEVERITIES.index)


def is_drawn(name: str) -> bool:
    """Whether a data set of this name holds phantoms of fracnet's own."""
    return name.endswith("_phantom")


def _of(audit: Mapping[str, str]) -> tuple[str, str, str]:
    return audit.get("severity", ""), audit.get("verdict", ""), audit.get("note", "")
