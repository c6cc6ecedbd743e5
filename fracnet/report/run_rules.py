"""What can be said of a run, a rule a function: the sentences that its verdict is made of."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fracnet.evaluation.differences import BETTER, WORSE
from fracnet.evaluation.intervals import wilson
from fracnet.evaluation.summary import FEW, Estimate
from fracnet.report.chance import CHANCE, reaches_chance
from fracnet.report.figures.panels import told
from fracnet.report.run_against import Against
from fracnet.report.run_content import RunContent
from fracnet.report.study_data import DRAWN, FLAWED, NOT_KNOWN
from fracnet.words import are, counted

# Wider than this, an interval of an AUC leaves good and poor models side by side.
WIDE = 0.2
# A calibration error that is shown to be more than this misleads who reads the probability.
MISCALIBRATED = 0.05


@dataclass(frozen=True)
class Said:
    """One sentence; `headline` is what it says of the whole, "" where it is a detail."""

    severity: str
    sentence: str
    headline: str = ""


def of_data(content: RunContent) -> Iterator[Said]:
    """Whether the images are real, and what the audit of the data says."""
    audit = content.audit
    if content.drawn:
        yield Said("hint", DRAWN)
    if content.elsewhere:
        yield Said(
            "hint",
            f"Trained on {content.trained_on}, tested on {content.data}: whether the two share "
            "images is not known.",
        )
        return
    if audit is None:
        if content.run_known:
            yield Said(
                "hint",
                f"The data have not been audited: {NOT_KNOWN} (python -m fracnet.audit).",
            )
        else:
            yield Said(
                "hint",
                "What the model was trained on is not known here, and so not whether it has seen "
                "images of this test.",
            )
        return
    severity, line = str(audit["severity"]), str(audit["verdict"])
    if severity == "ok":
        yield Said("ok", "The audit of the data found no leak and no shortcut.")
    elif severity == "leak" and content.deduplicated:
        note = audit.get("note", "Of the official split; its verified copies are left out here.")
        yield Said("hint", f"The audit says: {line} {note}")
    elif severity in FLAWED:
        yield Said(severity, f"The audit says: {line}", FLAWED[severity])
    else:
        yield Said(severity, f"The audit says: {line}")


def without_test(content: RunContent) -> Iterator[Said]:
    """That there is no test, where there is none."""
    if content.assessment.test is None:
        yield Said(
            "warning",
            "There are no test rows: the figures stand on the rows that chose the model, so they "
            "are optimistic.",
            "How well the model does on new images is not known.",
        )


def of_ability(content: RunContent, found: Against) -> Iterator[Said]:
    """Against chance, then against shortcuts."""
    name = "AUC" if content.binary else "Macro AUC"
    what = _task(content)
    area, summary = found.model, content.first
    rows = counted(summary.n, f"{summary.split} {found.level}")
    if summary.clusters != summary.n:
        known = "," not in summary.unit
        rows += f" of {counted(summary.clusters, summary.unit if known else 'group')}"
    if math.isnan(area.value):
        yield Said(
            "warning",
            f"{name} is undefined on {rows}: {area.note or 'a class has no cases'}.",
            "Whether the model works cannot be told from these rows.",
        )
        return
    sentence = f"{told(area, name)} on {rows}; chance is 0.5."
    other = _baseline(found)
    if other:
        sentence += f" {other}"
    verdict_of = found.difference.verdict if found.difference else None
    if area.low is None or area.high is None:
        head = "Whether the model does better than chance cannot be told."
        yield Said("warning", f"{sentence} There is no interval: {area.note}.", head)
    elif area.high < CHANCE:
        head = "The model does worse than chance: are labels or classes swapped?"
        yield Said("error", sentence, head)
    elif reaches_chance(area.low):
        yield Said("warning", sentence, "The model is not shown to do better than chance.")
    elif not other:
        yield Said("ok", sentence, f"The model tells {what} better than chance.")
        yield Said(
            "hint",
            "There is no shortcut baseline here to set it against: how much of that a frame, a "
            "size or a brightness would reach is not known.",
        )
    elif verdict_of == BETTER:
        yield Said("ok", sentence, f"The model tells {what} better than chance and shortcuts do.")
    elif verdict_of == WORSE:
        yield Said("warning", sentence, "Shortcuts that see no bone do better than the model.")
    else:
        head = "The model is not shown to do better than shortcuts that see no bone."
        yield Said("warning", sentence, head)


def _baseline(found: Against) -> str:
    """What shortcuts reach on the same rows; "" where that is not known."""
    gap = found.difference
    if gap is None or found.baseline is None:
        return ""
    reach = "no interval"
    if gap.low is not None and gap.high is not None:
        reach = f"{gap.low:+.3f} to {gap.high:+.3f}"
    return (
        f"A baseline that sees sizes and brightness but no bone reaches {told(found.baseline)}; "
        f"the difference is {gap.value:+.3f} ({reach})."
    )


def _task(content: RunContent) -> str:
    if content.binary:
        negative, positive = content.classes
        return f"{positive} from {negative} {content.level.replace('study', 'studie')}s"
    return f"its {len(content.classes)} classes apart"


def of_threshold(content: RunContent) -> Iterator[Said]:
    """That the operating point does less on the test than where it was chosen, if it is shown."""
    points = (content.assessment.decisions or {}).get("operating") or {}
    point, stratum = points.get(content.level), content.overall[content.level]
    if point is None or stratum.threshold is None:
        return
    for way in ("everything", "nothing"):
        if f"only by naming {way} positive" in point["note"]:
            positive = content.classes[1]
            yield Said(
                "warning",
                f"On validation the threshold reaches what was asked for only by calling {way} "
                f"{positive}: sensitivity and specificity there say nothing about the model.",
            )
    fell = []
    units = {"sensitivity": point["positives"], "specificity": point["n"] - point["positives"]}
    for rate, n in units.items():
        here, there = getattr(stratum.summary.per_class[1], rate), point[rate]
        if there is not None and _fell(there, n, here):
            fell.append(f"{rate} was {there:.3f} there and is {told(here)} on the test")
    if fell:
        chosen_on = counted(point["n"], f"validation {content.level}")
        yield Said(
            "warning",
            f"The threshold does less than on the {chosen_on} that chose it: "
            f"{', and '.join(fell)}.",
        )


def _fell(there: float, n: int, here: Estimate) -> bool:
    """Whether a rate of n units is shown to be higher than one on the test.

    By the interval of a difference of two independent proportions, made of the interval of each
    (R. G. Newcombe 1998, Stat Med 17:873, method 10).
    """
    if here.high is None or not n:
        return False
    low, _ = wilson(round(there * n), n)
    return there - here.value > math.hypot(there - low, here.high - here.value)


def of_majority(content: RunContent) -> Iterator[Said]:
    """That the accuracy is no better than that of one and the same answer, where it is so."""
    base = content.assessment.baselines.get("majority")
    if base is None or content.assessment.test is None:
        return
    ours, theirs = content.shown.metrics["accuracy"], base.metrics["accuracy"]
    if ours.low is not None and ours.low <= theirs.value:
        # The baseline names one class alone: the one that all its predictions fall into.
        column = max(range(len(base.classes)), key=lambda c: sum(row[c] for row in base.confusion))
        where = f", each called {content.classes[1]} above 0.5," if content.binary else ""
        yield Said(
            "warning",
            f"Its accuracy by image{where} is {told(ours)}, which is not shown to exceed the "
            f"{theirs.value:.3f} of always answering {base.classes[column]}.",
        )


def of_few(content: RunContent) -> Iterator[Said]:
    """Classes of few cases, and an interval that leaves good and poor models side by side."""
    rare = [f"{one.name} {one.n}" for one in content.shown.per_class if one.n < FEW]
    if rare:
        yield Said(
            "warning",
            f"Fewer than {FEW} cases: {', '.join(rare)}. Figures of such a class say little.",
        )
    area = content.area
    if area.low is not None and area.high is not None and area.high - area.low > WIDE:
        n = content.shown.clusters
        yield Said(
            "warning",
            f"{counted(n, 'independent ' + content.shown.unit.partition(',')[0])} {are(n)} too few "
            f"to tell a good model from a poor one: the interval of the AUC is "
            f"{area.high - area.low:.2f} wide.",
        )


def of_calibration(content: RunContent) -> Iterator[Said]:
    """That the probabilities mislead, where it is shown."""
    moments = content.assessment.calibration.get(content.shown.split, {})
    moment = "after" if "after" in moments else "before"
    error = moments.get(moment, {}).get("calibration_error")
    if error is not None and error.low is not None and error.low > MISCALIBRATED:
        when = " even after temperature scaling" if moment == "after" else ""
        yield Said(
            "warning",
            f"Its probabilities are not to be taken at face value{when}: calibration error "
            f"{told(error)}.",
        )
