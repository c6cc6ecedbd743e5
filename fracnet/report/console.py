"""The closing table of a run: every figure with its interval, beside what it must beat.

Plain ASCII rules and no reliance on color, so that a log file reads as well as a terminal.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.box import Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fracnet.evaluation.summary import FEW, TOO_FEW, Estimate, Summary
from fracnet.metrics.calibration import ESTIMATOR
from fracnet.metrics.classification import brier_range
from fracnet.utils.text import counted, limits

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_sensitivity": "macro sensitivity",
    "macro_specificity": "macro specificity",
    "macro_auc": "macro AUC",
}
FURTHER = {
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
    "kappa": "Cohen's kappa",
    "mcc": "MCC",
    "macro_average_precision": "macro AUC-PR",
    "brier": "Brier score",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
RESEARCH_ONLY = "For research use only; not a medical device."

# A rule under the header and nothing else. Eight lines: top, head, head rule, ... bottom.
PLAIN = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
FIGURE_WIDTH = len("0.940 0.867-0.974")


def print_tables(
    console: Console,
    model: Summary,
    *,
    shortcut: Summary | None = None,
    majority: Summary | None = None,
) -> None:
    """Print overall figures, figures per class, and further figures.

    `shortcut` and `majority` are the baselines' summaries of the same rows.
    """
    rule = f", {model.classes[1]} above 0.5" if len(model.classes) == 2 else ""
    title = f"{model.split} split, {counted(model.n, 'image')}{rule}, 95 % intervals"
    titled(console, title, _overall(METRICS, model, shortcut, majority))
    titled(console, "each class against the rest", _per_class(model))
    best, worst = brier_range(len(model.classes))
    title = f"further figures; Brier score from {best} (perfect) to {worst}"
    titled(console, title, _overall(FURTHER, model, shortcut, majority))


def print_sentences(
    console: Console,
    model: Summary,
    *,
    shortcut: Summary | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Print how the figures were made, the verdict, and `notes` of the data source."""
    for sentence in [basis(model), further_basis(model), *remarks(model)]:
        say(console, sentence)
    if shortcut is not None:
        say(console, verdict(model, shortcut), style="bold")
    for note in notes:
        say(console, f"Note: {note}")
    say(console, RESEARCH_ONLY)


def figure(estimate: Estimate) -> str:
    """`0.940 0.867-0.974`: value and interval, `n/a` if undefined, `too few` on a second line."""
    text = _number(estimate.value)
    if estimate.low is not None and estimate.high is not None:
        text += f" {limits(estimate.low, estimate.high)}"
    elif not math.isnan(estimate.value):
        text += " no interval"
    return f"{text}\n{TOO_FEW}" if TOO_FEW in estimate.note.split("; ") else text


def verdict(model: Summary, shortcut: Summary) -> str:
    """Whether the model's accuracy is shown to exceed what the shortcut baseline reaches."""
    ours, theirs = model.metrics["accuracy"], shortcut.metrics["accuracy"]
    if ours.low is None:
        return "No interval for the accuracy: nothing is shown against the shortcut baseline."
    if ours.low > theirs.value:
        return (
            f"The model does better than the shortcut baseline: the lower bound of its accuracy, "
            f"{ours.low:.3f}, lies above the baseline's {theirs.value:.3f}."
        )
    return (
        f"The model is not shown to do better than the shortcut baseline: the lower bound of its "
        f"accuracy, {ours.low:.3f}, does not exceed the baseline's {theirs.value:.3f}."
    )


def basis(model: Summary) -> str:
    """One sentence: what was counted, what counts as independent, how intervals were made."""
    of = "" if model.unit == "image" else f" in {counted(model.clusters, 'cluster')} ({model.unit})"
    methods = {
        "accuracy and per class": model.metrics["accuracy"].method,
        "macro": model.metrics["macro_sensitivity"].method,
        "AUC": model.metrics["macro_auc"].method,
    }
    made = "; ".join(f"{name}: {method}" for name, method in methods.items())
    return f"n = {counted(model.n, 'image')}{of}; 95 % intervals by {model.unit} ({made})."


def further_basis(model: Summary) -> str:
    """One sentence on the intervals of the further figures, and what the calibration error is."""
    made: dict[str, list[str]] = {}
    for name, title in FURTHER.items():
        method = model.metrics[name].method.removesuffix(f" by {model.unit}")
        made.setdefault(method, []).append(title)
    told = "; ".join(f"{', '.join(titles)}: {method}" for method, titles in made.items())
    return f"Further figures: {told}. Calibration error: {ESTIMATOR}."


def remarks(model: Summary) -> list[str]:
    """Why a figure or its interval is missing, each reason once, with the figures it concerns."""
    found: dict[str, list[str]] = {}
    few = False
    for title, estimate in _estimates(model):
        for note in filter(None, estimate.note.split("; ")):
            if note == TOO_FEW:
                few = True
            else:
                found.setdefault(note, []).append(title)
    sentences = [f"{', '.join(titles)}: {note}." for note, titles in found.items()]
    if few:
        sentences.append(f"{TOO_FEW}: under {FEW} cases (or under {FEW} others).")
    return sentences


def _estimates(model: Summary) -> Iterable[tuple[str, Estimate]]:
    for name, title in (METRICS | FURTHER).items():
        yield title, model.metrics[name]
    for row in model.per_class:
        yield f"sensitivity of {row.name}", row.sensitivity
        yield f"specificity of {row.name}", row.specificity
        yield f"AUC of {row.name}", row.auc


def _overall(
    names: Mapping[str, str],
    model: Summary,
    shortcut: Summary | None,
    majority: Summary | None,
) -> Table:
    table = plain_table()
    table.add_column("", no_wrap=True)
    table.add_column("model", min_width=FIGURE_WIDTH, no_wrap=True)
    if shortcut is not None:
        table.add_column("shortcut baseline", min_width=FIGURE_WIDTH, no_wrap=True)
    if majority is not None:
        table.add_column("majority", no_wrap=True)
    for name, row in names.items():
        cells = [row, figure(model.metrics[name])]
        if shortcut is not None:
            cells.append(figure(shortcut.metrics[name]))
        if majority is not None:
            cells.append(_number(majority.metrics[name].value))
        table.add_row(*cells)
    return table


def _per_class(model: Summary) -> Table:
    table = plain_table()
    table.add_column("class", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    for title in ("sensitivity", "specificity", "AUC"):
        table.add_column(title, min_width=FIGURE_WIDTH, no_wrap=True)
    for row in model.per_class:
        cells = [figure(value) for value in (row.sensitivity, row.specificity, row.auc)]
        table.add_row(Text(row.name), str(row.n), *cells)
    return table


def titled(console: Console, title: str, table: Table) -> None:
    """Print a title, which may be wider than its table, and the table."""
    say(console, title, style="bold")
    console.print(table)


def plain_table(title: str | None = None) -> Table:
    """An empty table in the style of all of fracnet's: no frame, a rule under the header."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=PLAIN,
        pad_edge=False,
        collapse_padding=True,
    )


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a sentence as it is, with no meaning given to its brackets and colons."""
    console.print(text, style=style, markup=False, highlight=False, emoji=False)
