"""What an evaluation prints: tables of metrics with intervals, then sentences that explain them.

Plain ASCII rules and no reliance on color, so a log file reads as well as a terminal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from fracnet.evaluation.summary import FEW, TOO_FEW, Estimate, Summary
from fracnet.metrics.calibration import ESTIMATOR
from fracnet.report import run_tables
from fracnet.report.published import published_lines
from fracnet.report.run_content import Evaluated
from fracnet.report.run_tables import FURTHER_METRICS, METRICS
from fracnet.report.tables import print_table
from fracnet.report.verdict import Verdict
from fracnet.utils.text import counted

RESEARCH_ONLY = "For research use only; not a medical device."
NO_TEST = (
    "There are no test rows. These metrics come from the rows that chose the threshold and the "
    "temperature, so they are optimistic."
)


def print_assessment(
    console: Console,
    run: Evaluated,
    verdict: Verdict,
    *,
    notes: Sequence[str] = (),
    cited: Sequence[Mapping[str, str]] = (),
    data: str = "",
) -> None:
    """Print the metrics of the test rows; those of validation if there are no others.

    Args:
        console: where to print.
        run: the metrics with their predictions.
        verdict: on the run, as its page has it.
        notes: sentences of the dataset that a reader must know.
        cited: published metrics and ours, as `compare_with_published` gives them.
        data: name of the dataset.
    """
    assessment, summary = run.assessment, run.summary
    if assessment.test is not None:
        _print_strata(console, run)
    kappa = run_tables.mura_kappa_table(assessment.official, run.classes[-1], data=data)
    if kappa is not None:
        print_table(console, kappa)
    calibration = None if assessment.decisions is None else run_tables.calibration_table(run)
    if run.binary and calibration is not None:  # the tables above are calibrated
        print_table(console, calibration)
    if assessment.test is None:
        print_text(console, NO_TEST)
    print_text(console, *evaluation_notes(run))
    print_summary(console, run)
    if not run.binary and calibration is not None:
        print_table(console, calibration)
    print_text(console, *explanations(summary), *run_tables.probability_rule(run))
    print_text(console, f"Verdict ({verdict.tag}): {verdict.headline}", style="bold")
    print_text(console, *verdict.sentences, *(f"Note: {note}" for note in notes))
    print_text(console, RESEARCH_ONLY, *published_lines([("This run", cited)]))


def _print_strata(console: Console, run: Evaluated) -> None:
    """Print metrics by level, then by group: of studies if known; metrics.json has all levels."""
    levels = run_tables.level_table(run)
    if levels is not None:
        levels = levels.without("NPV", "on validation") if run.binary else levels
        print_table(console, replace(levels, note=""))
    print_text(console, *run_tables.threshold_notes(run.assessment.decisions or {}))
    groups = run_tables.group_strata(run.assessment)
    for by in dict.fromkeys(by for by, _ in groups):
        level = "study" if (by, "study") in groups else "image"
        print_table(console, run_tables.group_table(run, by, level))


def print_summary(console: Console, run: Evaluated) -> None:
    """Print overall metrics, metrics by class, and further metrics."""
    print_table(console, run_tables.overall_table(run, METRICS))
    print_table(console, run_tables.class_table(run.summary).without("precision"))
    further = run_tables.overall_table(run, FURTHER_METRICS)
    print_table(console, replace(further, caption="Further metrics"))


def evaluation_notes(run: Evaluated) -> list[str]:
    """What the evaluation notes on the rows, in sentences."""
    return [f"{note[0].upper()}{note[1:].rstrip('.')}." for note in run.assessment.notes]


def explanations(model: Summary) -> list[str]:
    """Sentences on what was counted, how intervals were computed, and why values are missing."""
    unit = model.unit
    clusters = "" if unit == "image" else f" in {counted(model.clusters, 'cluster')} ({unit})"
    methods = {
        "accuracy and per class": model.metrics["accuracy"].method,
        "macro": model.metrics["macro_sensitivity"].method,
        "AUC": model.metrics["macro_auc"].method,
    }
    main = "; ".join(f"{name}: {method}" for name, method in methods.items())
    titles: dict[str, list[str]] = {}
    for name, title in FURTHER_METRICS.items():
        method = model.metrics[name].method.removesuffix(f" by {unit}")
        titles.setdefault(method, []).append(title)
    further = "; ".join(f"{', '.join(names)}: {method}" for method, names in titles.items())
    return [
        f"n = {counted(model.n, 'image')}{clusters}; 95 % intervals by {unit} ({main}).",
        f"Further metrics: {further}. Calibration error: {ESTIMATOR}.",
        *_missing_values(model),
    ]


def _missing_values(model: Summary) -> Iterator[str]:
    """Why a metric or its interval is missing: each reason once, with its metrics."""
    titles: dict[str, list[str]] = {}
    for title, estimate in _estimates(model):
        for note in filter(None, estimate.note.split("; ")):
            titles.setdefault(note, []).append(title)
    few = titles.pop(TOO_FEW, None)
    for note, names in titles.items():
        yield f"{', '.join(names)}: {note}."
    if few:
        yield f"{TOO_FEW}: fewer than {FEW} cases (or non-cases)."


def _estimates(model: Summary) -> Iterator[tuple[str, Estimate]]:
    for name, title in (METRICS | FURTHER_METRICS).items():
        yield title, model.metrics[name]
    for row in model.per_class:
        yield f"sensitivity of {row.name}", row.sensitivity
        yield f"specificity of {row.name}", row.specificity
        yield f"AUC of {row.name}", row.auc


def print_text(console: Console, *sentences: str, style: str = "") -> None:
    """Print sentences as they are, without interpreting their brackets and colons."""
    for sentence in sentences:
        console.print(Text(sentence, style))
