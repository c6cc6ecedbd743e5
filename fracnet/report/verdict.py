"""The verdict on a run: what the test shows, on which evidence, and what limits it.

Each `*_statements` function checks one aspect and yields sentences with a severity; `run_verdict`
collects them, and the most severe one provides the headline. The console, the page and the model
card all show this verdict. The pages of comparisons and sweeps share the rule for whether an AUC
exceeds chance.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.comparison import (
    BETTER,
    WORSE,
    Difference,
    ScoredRuns,
    with_verdicts,
)
from fracnet.evaluation.decisions import temperature_warning
from fracnet.evaluation.metric_selection import Metric, Sample
from fracnet.evaluation.predictions import Predictions, align
from fracnet.evaluation.summary import FEW, Estimate, Summary, summarize
from fracnet.metrics.intervals import wilson
from fracnet.report.caveats import FLAWED_DATA, SEVERITIES, SYNTHETIC, UNKNOWN_WITHOUT_AUDIT
from fracnet.report.run_content import RunContent
from fracnet.report.run_tables import of_clusters
from fracnet.report.tables import estimate_text
from fracnet.utils.text import are, counted, list_some

SHORTCUT, MAJORITY = "shortcut", "majority"
RESAMPLES = 2
"""The least that is allowed: an AUC and its interval need no resampling."""
CHANCE = 0.5
ABOVE_CHANCE = f"shown to do better than chance ({CHANCE:g}) on test"
FEWEST_CASES = 5
"""With fewer independent ones (more images of one patient do not help), the interval of an AUC lies
above chance too often: of 1,500 simulated test sets with 100 others and no skill, in 9 % with 2
cases, 5 % with 3 and 2.7 % with 5; 2.5 % are meant. So does that of a macro AUC of which one class
has so few: of 1,000 sets with two more classes of 60 in 12 %, 6 % and 3 %."""
WIDE = 0.2
"""A wider interval of an AUC does not separate good models from poor ones."""
MISCALIBRATED = 0.05
"""A calibration error that is shown to exceed this makes the probabilities misleading."""
NOTABLE_RISE = 0.01
"""Of the calibration error by temperature scaling; smaller ones are left to the table."""
TAGS = {
    "ok": "no fault found",
    "hint": "worth knowing",
    "warning": "with care",
    "leak": "leak",
    "error": "fault",
}
HEATMAP_SEVERITIES = {
    "failed": "warning",
    "partial": "hint",
    "inconclusive": "hint",
    "not better": "hint",
    "too few": "hint",
}
"""Severities of the verdicts in explain.json; the others are "ok"."""


@dataclass(frozen=True)
class BaselineComparison:
    """Paired differences between the model and both baselines on the test rows.

    baseline, difference: the AUC (`RunContent.auc`) of the shortcut baseline. majority,
    majority_difference: the metrics of the majority class, and the model's accuracy minus its
    accuracy, of images by the likeliest class. None without that baseline or without test rows.
    """

    baseline: Estimate | None = None
    difference: Difference | None = None
    majority: Summary | None = None
    majority_difference: Difference | None = None


@dataclass(frozen=True)
class Statement:
    """One sentence; `headline` sums up the whole run, "" for a detail."""

    severity: str
    sentence: str
    headline: str = ""


@dataclass(frozen=True)
class Verdict:
    """The worst severity, the headline, and its sentences in reading order."""

    severity: str
    headline: str
    sentences: tuple[str, ...]

    @property
    def tag(self) -> str:
        """The severity in a reader's words."""
        return TAGS[self.severity]


def compare_with_baseline(content: RunContent) -> BaselineComparison:
    """The model against both baselines on the same rows, by paired differences."""
    level, classes = content.level, content.classes
    comparison = BaselineComparison()
    if content.assessment.test is None:
        return comparison
    shortcut, majority = content.baselines.get(SHORTCUT), content.baselines.get(MAJORITY)
    if shortcut is not None and not math.isnan(content.auc.value):
        metric = (
            Metric("auc", 2, 1, classes[1]) if content.binary else Metric("macro_auc", len(classes))
        )
        views = content.assessment.options.views
        baseline = to_level(shortcut, level, views)
        difference = paired_difference(metric, to_level(content.decided, level, views), baseline)
        estimate = metric.estimate(summarize(baseline, resamples=RESAMPLES))
        comparison = replace(comparison, baseline=estimate, difference=difference)
    if majority is not None:
        difference = paired_difference(Metric("accuracy", len(classes)), content.rows, majority)
        summary = summarize(majority, resamples=RESAMPLES)
        comparison = replace(comparison, majority=summary, majority_difference=difference)
    return comparison


def paired_difference(metric: Metric, model: Predictions, baseline: Predictions) -> Difference:
    """The metric of the model minus that of the baseline, with interval, test and verdict."""
    names = ("the model", "the baseline")
    rows = align(dict(zip(names, (model, baseline), strict=True)), "test")
    clusters = rows[names[0]].clusters
    samples = {name: Sample.of(part) for name, part in rows.items()}
    draws = dict.fromkeys(names, np.full(RESAMPLES, np.nan))  # an area needs none
    if not metric.is_area:
        draws = {name: metric.resampled(each, clusters) for name, each in samples.items()}
    difference = ScoredRuns(metric, clusters, samples, draws).models(names, names)
    return with_verdicts([difference], clusters, True, None)[0]


def none_above_chance(lows: Sequence[float | None]) -> bool:
    """Whether each of these intervals of an AUC, given by its lower limit, includes chance.

    False if one has no interval: a missing interval is not evidence of failure.
    """
    return bool(lows) and all(low is not None and low <= CHANCE for low in lows)


def run_verdict(content: RunContent) -> Verdict:
    """What the run shows.

    A leak or fault of the data outranks every metric; then come a missing test split, chance, and
    shortcuts. What merely limits a good result is stated too, and rules out "no fault found".
    """
    comparison = compare_with_baseline(content)
    statements = [
        *test_split_statements(content),
        *discrimination_statements(content, comparison),
        *threshold_statements(content),
        *majority_statements(content, comparison),
        *never_predicted_statements(content),
        *sample_size_statements(content),
        *calibration_statements(content),
        *heatmap_statements(content),
        *data_statements(content),
    ]
    severity = max((item.severity for item in statements), key=SEVERITIES.index)
    top = max(
        (item for item in statements if item.headline),
        key=lambda item: SEVERITIES.index(item.severity),
    )
    # The evidence behind the headline comes first.
    ordered = sorted(statements, key=lambda item: item is not top)
    return Verdict(severity, top.headline, tuple(item.sentence for item in ordered))


def data_statements(content: RunContent) -> Iterator[Statement]:
    """Whether the images are real, and what the data audit reports."""
    audit = content.audit
    if content.synthetic:
        yield Statement("hint", SYNTHETIC)
    if content.external_test:
        yield Statement(
            "hint",
            f"Trained on {content.trained_on}, tested on {content.data}; whether the two share "
            "images is unknown.",
        )
        return
    if audit is None:
        unknown = (
            f"The data have not been audited: {UNKNOWN_WITHOUT_AUDIT} (python -m fracnet.audit)."
            if content.run_known
            else "The training data of this model are unknown, so it may have been trained on "
            "these images."
        )
        yield Statement("hint", unknown)
        return
    severity, audit_verdict = str(audit["severity"]), str(audit["verdict"])
    if severity == "ok":
        yield Statement("ok", "The data audit found no leak and no shortcut.")
    elif severity == "leak" and content.deduplicated:
        note = audit.get(
            "note", "This concerns the official split; its verified copies are left out here."
        )
        yield Statement("hint", f"Data audit: {audit_verdict} {note}")
    else:
        yield Statement(severity, f"Data audit: {audit_verdict}", FLAWED_DATA.get(severity, ""))


def test_split_statements(content: RunContent) -> Iterator[Statement]:
    """That there is no test split, if so."""
    if content.assessment.test is None:
        yield Statement(
            "warning",
            "There are no test rows. The metrics come from the validation rows that selected the "
            "model, so they are optimistic.",
            "It is unknown how well the model does on new images.",
        )


def discrimination_statements(
    content: RunContent, comparison: BaselineComparison
) -> Iterator[Statement]:
    """The AUC against chance, then against shortcuts."""
    name = "AUC" if content.binary else "Macro AUC"
    task = _task(content)
    area, summary = content.auc, content.headline_summary
    rows = counted(summary.n, f"{summary.split} {content.level}")
    rows = f"{rows} {of_clusters(summary)}".strip()
    if math.isnan(area.value):
        yield Statement(
            "warning",
            f"{name} is undefined on {rows}: "
            f"{area.note.removeprefix('undefined: ') or 'a class has no cases'}.",
            "These rows cannot show whether the model works.",
        )
        return
    sentence = f"{estimate_text(area, name)} on {rows}; chance is 0.5."
    difference = comparison.difference
    if difference is not None and comparison.baseline is not None:
        sentence += (
            " A baseline that sees image sizes and brightness but no anatomy reaches "
            f"{estimate_text(comparison.baseline)}; the difference is "
            f"{_difference_text(difference)}."
        )
    severity = "warning"
    if area.low is None or area.high is None:
        sentence += f" There is no interval ({area.note})."
        headline = "It is unclear whether the model does better than chance."
    elif few := _too_few_cases(content):
        headline = f"{few} are too few to tell whether the model does better than chance."
    elif area.high < CHANCE:
        severity = "error"
        headline = "The model does worse than chance. Are labels or classes swapped?"
    elif area.low <= CHANCE:
        headline = "The model is not shown to do better than chance."
    elif difference is None:
        severity, headline = "ok", f"The model {task} better than chance."
    elif difference.verdict == BETTER:
        severity = "ok"
        headline = f"The model {task} better than chance and better than the shortcut baseline."
    elif difference.verdict == WORSE:
        headline = "A shortcut baseline that never sees anatomy does better than the model."
    else:
        headline = (
            "The model is not shown to do better than a shortcut baseline that never sees anatomy."
        )
    yield Statement(severity, sentence, headline)
    if severity == "ok" and difference is None:
        yield Statement(
            "hint",
            "There is no shortcut baseline to compare with, so it is unknown how much of this "
            "a frame, the image size or the brightness alone would achieve.",
        )


def _too_few_cases(content: RunContent) -> str:
    """`6 abnormal cases of 2 patients` if a class has too few independent cases, else "".

    Of more than two classes, the others may suffice, whatever the AUC of the rare ones is.
    """
    summary, rows = content.headline_summary, content.rows
    ids = {c: np.unique(rows.clusters.ids[rows.targets == c]) for c in np.unique(rows.targets)}
    rarest = min(ids, key=lambda c: len(ids[c]))
    row, clusters = summary.per_class[rarest], len(ids[rarest])
    lows = [summary.per_class[c].auc.low for c in ids if len(ids[c]) >= FEWEST_CASES]
    others_suffice = not content.binary and sum(low or 0 for low in lows) / len(ids) > CHANCE
    if clusters >= FEWEST_CASES or others_suffice:
        return ""
    patients = of_clusters(replace(summary, n=row.n, clusters=clusters))
    return f"{row.n} {row.name} cases {patients}".strip()


def _difference_text(difference: Difference) -> str:
    """`+0.120 (+0.031 to +0.209)`; with p where the test does not confirm the interval."""
    interval = "no interval"
    if difference.low is not None and difference.high is not None:
        interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
        shown = difference.verdict in (BETTER, WORSE)
        if not shown and difference.p is not None and difference.low * difference.high > 0:
            interval += f", but p = {difference.p:.3f}"
    return f"{difference.value:+.3f} ({interval})"


def _task(content: RunContent) -> str:
    if content.binary:
        negative, positive = content.classes
        plural = "studies" if content.level == "study" else f"{content.level}s"
        return f"separates {positive} from {negative} {plural}"
    n, scored = len(content.classes), content.auc.scored
    some = "" if scored in (None, n) else f"{scored} of "
    return f"separates {some}its {n} classes"


def threshold_statements(content: RunContent) -> Iterator[Statement]:
    """That the threshold is degenerate, or is shown to do worse on test than on validation."""
    points = (content.assessment.decisions or {}).get("operating_point") or {}
    point, stratum = points.get(content.level), content.overall[content.level]
    if point is None or stratum.threshold is None:
        return
    for label, extent in (("positive", "everything"), ("negative", "nothing")):
        if f"only by predicting {label} for every case" in point["note"]:
            yield Statement(
                "warning",
                "On validation, the threshold reaches its target only by predicting "
                f"{extent} as {content.classes[1]}, so sensitivity and specificity at that "
                "threshold say nothing about the model.",
            )
    drops = []
    cases = {"sensitivity": point["positives"], "specificity": point["n"] - point["positives"]}
    for name, n in cases.items():
        test, validation = getattr(stratum.summary.per_class[1], name), point[name]
        if validation is not None and _is_lower(test, validation, n):
            drops.append(f"{name} was {validation:.3f} there and is {estimate_text(test)} on test")
    if drops:
        chosen_on = counted(point["n"], f"validation {content.level}")
        yield Statement(
            "warning",
            f"The threshold does worse than on the {chosen_on} it was chosen on: "
            f"{', and '.join(drops)}.",
        )


def _is_lower(test: Estimate, validation: float, n: int) -> bool:
    """Whether a rate on test is shown to be lower than one of n validation units.

    By the interval of a difference of two independent proportions, built from the interval of each
    (R. G. Newcombe 1998, Stat Med 17:873, method 10).
    """
    if test.high is None or not n:
        return False
    low, _ = wilson(round(validation * n), n)
    return validation - test.value > math.hypot(validation - low, test.high - test.value)


def majority_statements(content: RunContent, comparison: BaselineComparison) -> Iterator[Statement]:
    """That the accuracy is not shown to exceed that of a constant prediction, if so."""
    baseline, difference = comparison.majority, comparison.majority_difference
    if baseline is None or difference is None or difference.verdict == BETTER:
        return
    # All predictions of this baseline fall into one column of the confusion matrix.
    predicted = np.asarray(baseline.confusion).sum(axis=0).argmax()
    above = f" (predicted {content.classes[1]} above a probability of 0.5)"
    shown = "is lower than" if difference.verdict == WORSE else "is not shown to exceed"
    yield Statement(
        "warning",
        f"The image-level accuracy{above if content.binary else ''} is "
        f"{estimate_text(content.summary.metrics['accuracy'])}, which {shown} the "
        f"{baseline.metrics['accuracy'].value:.3f} of always predicting "
        f"{baseline.classes[predicted]}; the difference is {_difference_text(difference)}.",
    )


def never_predicted_statements(content: RunContent) -> Iterator[Statement]:
    """That classes with cases are never the likeliest, if so; two classes have a threshold."""
    summary = content.summary
    predicted = np.asarray(summary.confusion).sum(axis=0)
    rows = zip(summary.per_class, predicted, strict=True)
    never = [f"{row.name} ({counted(row.n, 'case')})" for row, n in rows if row.n and not n]
    if never and not content.binary:
        yield Statement("warning", f"Never predicted: {list_some(never, len(never))}.")


def sample_size_statements(content: RunContent) -> Iterator[Statement]:
    """That a class has few cases, or that the interval of the AUC is wide, if so."""
    few = [row for row in content.summary.per_class if row.n < FEW]
    if few:
        fewest = sorted(few, key=lambda row: row.n)
        rare = list_some((f"{row.name} {row.n}" for row in fewest), len(few))
        yield Statement(
            "warning",
            f"Fewer than {FEW} cases: {rare}. Metrics of such a class say little.",
        )
    area = content.auc
    if area.low is not None and area.high is not None and area.high - area.low > WIDE:
        n, unit = content.summary.clusters, content.summary.unit.partition(",")[0]
        yield Statement(
            "warning",
            f"{counted(n, f'independent {unit}')} {are(n)} too few "
            "to distinguish a good model from a poor one: the interval of the AUC is "
            f"{area.high - area.low:.2f} wide.",
        )


def calibration_statements(content: RunContent) -> Iterator[Statement]:
    """That the probabilities are shown to be miscalibrated, or scaling is doubtful, if so."""
    moments = content.assessment.calibration.get(content.summary.split, {})
    moment = "after" if "after" in moments else "before"
    error = moments.get(moment, {}).get("calibration_error")
    temperature = float((content.assessment.decisions or {}).get("temperature", 1.0))
    if extreme := temperature_warning(temperature):
        yield Statement("warning", extreme)
    if error is not None and moment == "after" and content.assessment.test is not None:
        before = moments["before"]["calibration_error"]
        if error.value > before.value + NOTABLE_RISE:
            shown = error.low is not None and error.low > before.value
            yield Statement(
                "warning" if shown else "hint",
                "Temperature scaling, chosen on validation, does not help on test: "
                f"{estimate_text(before, 'calibration error')} before, {estimate_text(error)} "
                "after.",
            )
    if error is not None and error.low is not None and error.low > MISCALIBRATED:
        scaling = " even after temperature scaling" if moment == "after" else ""
        yield Statement(
            "warning",
            f"The probabilities are poorly calibrated{scaling}: "
            f"{estimate_text(error, 'calibration error')}.",
        )


def heatmap_statements(content: RunContent) -> Iterator[Statement]:
    """The first sentence of each check of the heatmaps, as explain.json has it."""
    explained = content.explained or {}
    for key in ("localization", "sanity"):
        result = explained.get(key) or {}
        if result and key == "sanity" and explained.get("model_dependent", True) is None:
            yield Statement("hint", "It is unclear whether the heatmaps depend on the weights.")
            continue
        for sentence in result.get("sentences", [])[:1]:
            severity = HEATMAP_SEVERITIES.get(str(result.get("verdict")), "ok")
            yield Statement(severity, str(sentence))
