"""The verdict on a run in words: what is shown, by which figure, and what stands against it.

One function decides. Each rule looks at one thing; the gravest gives the headline.

The model against the shortcut baseline on the same rows: a paired difference of two AUCs.

Whether an AUC is shown to exceed chance: one rule for pages of runs, comparisons and sweeps.

What can be said of a run, a rule a function: the sentences that its verdict is made of.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.comparison import BETTER, WORSE, Difference, between_models, judged
from fracnet.evaluation.figure_of_merit import Figure, Sample
from fracnet.evaluation.predictions import align, clusters_of, probabilities, targets
from fracnet.evaluation.summary import FEW, Estimate, summarize
from fracnet.metrics import classification
from fracnet.metrics.intervals import wilson
from fracnet.report.caveats import DRAWN, FLAWED, NOT_KNOWN, SEVERITIES
from fracnet.report.plots import told
from fracnet.report.run_content import RunContent
from fracnet.utils.text import are, counted

SHORTCUT = "shortcut"

# An AUC and its interval come without resampling.
NONE_NEEDED = 2


@dataclass(frozen=True)
class Against:
    """AUC (`RunContent.area`) of model and baseline at `level`, and the difference.

    `baseline` and `difference` are None where there is no such baseline, or are no test rows.
    """

    level: str
    model: Estimate
    baseline: Estimate | None
    difference: Difference | None


def against(content: RunContent) -> Against:
    """Set the model's AUC beside that of the shortcut baseline; see `Against`."""
    level = content.level
    model = content.area
    theirs = content.baselines.get(SHORTCUT)
    if theirs is None or content.assessment.test is None or math.isnan(model.value):
        return Against(level, model, None, None)
    views = content.assessment.options.views
    tables = {
        "the model": to_level(content.decided, level, views),
        "the baseline": to_level(theirs, level, views),
    }
    tables = align(tables, "test")
    ours, other = tables.values()
    classes = content.classes
    figure = (
        Figure("auc", 2, 1, classes[1]) if content.binary else Figure("macro_auc", len(classes))
    )
    clusters = clusters_of(ours)
    nothing = np.full(NONE_NEEDED, np.nan)
    names = ("the model", "the baseline")
    samples = (_sample(ours), _sample(other))
    found = between_models(figure, names, names, samples, (nothing, nothing), clusters)
    baseline = figure.estimate(summarize(other, resamples=NONE_NEEDED))
    return Against(level, model, baseline, judged([found], clusters, True, None)[0])


def _sample(table: pd.DataFrame) -> Sample:
    prob = probabilities(table)
    return Sample(targets(table), prob, classification.predict(prob))


CHANCE = 0.5
SHOWN = f"shown to do better than chance ({CHANCE:g}) on test"


def reaches_chance(low: float) -> bool:
    """Whether an interval with this lower limit leaves it open that the AUC is no more than chance.

    One that touches chance does, and one that lies below it.
    """
    return low <= CHANCE


def none_exceeds(lows: Sequence[float | None]) -> bool:
    """Whether every one of these intervals, by its lower limit, reaches chance.

    False where one has no interval: what is not computed is no failure.
    """
    return bool(lows) and all(low is not None and reaches_chance(low) for low in lows)


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
    points = (content.assessment.decisions or {}).get("operating_point") or {}
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


def of_maps(content: RunContent) -> Iterator[Said]:
    """What scored heatmaps say, in the words of who scored them."""
    grave = {
        "survives": "warning",
        "partly": "hint",
        "not better": "hint",
        "mixed": "hint",
        "too few": "hint",
    }
    explained = content.explained or {}
    for key in ("localization", "sanity"):
        told_of = explained.get(key) or {}
        if told_of and key == "sanity" and explained.get("model_dependent", True) is None:
            yield Said("hint", "It is not shown whether the heatmaps depend on the weights.")
            continue
        for sentence in told_of.get("sentences", [])[:1]:
            yield Said(grave.get(str(told_of.get("verdict")), "ok"), str(sentence))


TAGS = {
    "ok": "no fault found",
    "hint": "worth knowing",
    "warning": "with care",
    "leak": "leak",
    "error": "fault",
}


@dataclass(frozen=True)
class Verdict:
    """The worst severity, the headline, and the sentences behind it, in the order of reading."""

    severity: str
    headline: str
    sentences: tuple[str, ...]

    @property
    def tag(self) -> str:
        """The severity in a reader's words."""
        return TAGS[self.severity]


def verdict(content: RunContent, found: Against) -> Verdict:
    """What the run shows.

    A leak or fault of the data comes before any figure, then figures that stand on no test, then
    chance, then shortcuts. What only limits a good result is said, and takes "no fault found" away.
    """
    said = [
        *without_test(content),
        *of_ability(content, found),
        *of_threshold(content),
        *of_majority(content),
        *of_few(content),
        *of_calibration(content),
        *of_maps(content),
        *of_data(content),
    ]
    worst = max((one.severity for one in said), key=SEVERITIES.index)
    heads = sorted(
        (one for one in said if one.headline), key=lambda one: -SEVERITIES.index(one.severity)
    )
    # First what the headline rests on.
    ordered = sorted(said, key=lambda one: one is not heads[0])
    return Verdict(worst, heads[0].headline, tuple(one.sentence for one in ordered))
