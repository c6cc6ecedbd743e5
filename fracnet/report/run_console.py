"""The closing tables of an evaluation, in the order in which they are worth reading.

MURA's official figure: Cohen's kappa of raw mean probabilities above 0.5.

How sure the model sounds, before and after temperature scaling.

Figures by level at the operating point, and by the values of a column.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fracnet.evaluation.aggregation import OVERALL
from fracnet.evaluation.assessment import CALIBRATION, Assessment, BinaryRow, Stratum
from fracnet.evaluation.decisions import said
from fracnet.evaluation.summary import Estimate
from fracnet.report.console import (
    FIGURE_WIDTH,
    FURTHER,
    figure,
    plain_table,
    print_sentences,
    print_tables,
    say,
    titled,
)
from fracnet.report.published import told


def print_official(console: Console, rows: Sequence[BinaryRow], positive: str) -> None:
    """Print kappa by region, at image and (the official one) study level.

    `positive` is the name of the positive class. Regions that split studies have a "-" for them.
    """
    levels = list(dict.fromkeys(row.level for row in rows))
    table = plain_table()
    table.add_column("region", overflow="fold")
    for level in levels:
        table.add_column("cases/n", justify="right", no_wrap=True)
        table.add_column(f"{level} level", min_width=FIGURE_WIDTH, no_wrap=True)
    for region in dict.fromkeys(row.region for row in rows):
        cells: list[str] = []
        for level in levels:
            row = next((r for r in rows if (r.level, r.region) == (level, region)), None)
            cells += [f"{row.positives}/{row.n}", figure(row.kappa)] if row else ["-", "-"]
        table.add_row(Text(region), *cells)
    title = f"Cohen's kappa: {positive} where the raw mean is above 0.5, as in MURA"
    titled(console, title, table)


def print_calibration(console: Console, found: Assessment) -> None:
    """Print a table of the test rows' figures before and after, or why there is no temperature."""
    if found.decisions is None:
        return
    value, note = found.decisions["temperature"], found.decisions["temperature_note"]
    if note:
        say(console, f"Temperature scaling: {note}.")
        return
    split = "test" if found.test is not None else "val"
    both = found.calibration[split]
    if "after" not in both:
        return
    n = found.decisions["validation"]["n"]
    table = plain_table()
    table.add_column("", no_wrap=True)
    for moment in ("before", "after"):
        table.add_column(f"{split} {moment}", min_width=FIGURE_WIDTH, no_wrap=True)
    for name in CALIBRATION:
        table.add_row(
            FURTHER[name], *(figure(both[moment][name]) for moment in ("before", "after"))
        )
    titled(console, f"temperature {value:.3f}, fitted on {n} validation images", table)


SEVERAL = {
    "accuracy": "accuracy",
    "macro_sensitivity": "macro sens.",
    "macro_specificity": "macro spec.",
    "macro_auc": "macro AUC",
}
TWO = ("AUC", "sensitivity", "specificity", "precision")


def print_strata(console: Console, found: Assessment) -> None:
    """Print overall figures of each level, then those of each group at one level.

    That level is the study where studies are known, else the image; metrics.json has the others.
    """
    overall = [stratum for stratum in found.strata if stratum.by == OVERALL]
    two = any(stratum.threshold is not None for stratum in overall)
    if two or len(overall) > 1:
        how = _how(found, overall[0]) if two else "likeliest class by level"
        titled(console, f"{how}, 95 % intervals", _table("level", overall))
    for sentence in threshold_notes(found.decisions):
        say(console, sentence)
    for by in dict.fromkeys(stratum.by for stratum in found.strata if stratum.by != OVERALL):
        groups = [stratum for stratum in found.strata if stratum.by == by]
        level = "study" if any(stratum.level == "study" for stratum in groups) else "image"
        shown = [stratum for stratum in groups if stratum.level == level]
        same = "" if shown[0].threshold is None else f" above {cut(shown[0].threshold)}"
        if (shown[0].threshold or 0) < 0:
            same = ", everything positive"
        titled(console, f"{level} level{same}, by {by}", _table(by, shown))


def threshold_notes(decisions: Mapping[str, Any] | None) -> list[str]:
    """What is doubtful about the operating points, a sentence each."""
    points = (decisions or {}).get("operating_point") or {}
    told: dict[str, list[str]] = {}
    for level, point in points.items():
        for note in filter(None, point["note"].split("; ")):
            told.setdefault(note, []).append(level)
    return [f"Threshold ({', '.join(levels)} level): {note}." for note, levels in told.items()]


def _how(found: Assessment, of: Stratum) -> str:
    positive = of.summary.classes[1]
    if found.decisions is None:
        return f"{positive} above 0.5, without validation to choose a threshold"
    return f"{positive} above a threshold chosen on validation ({said(found.decisions['rule'])})"


def _table(by: str, rows: Sequence[Stratum]) -> Table:
    """A row a stratum, each figure above its interval."""
    two, levels = rows[0].threshold is not None, by == "level"
    table = plain_table()
    table.add_column(Text(by), overflow="fold")
    if two and levels:
        table.add_column("above", justify="right", no_wrap=True)
    table.add_column("cases/n" if two else "n", justify="right", no_wrap=True)
    for head in TWO if two else SEVERAL.values():
        table.add_column(head, no_wrap=True)  # a number is never broken: the first column gives way
    for row in rows:
        above = [cut(row.threshold)] if two and levels else []
        count = f"{row.positives}/{row.summary.n}" if two else str(row.summary.n)
        cells = [stacked(figure(value)) for value in _figures(row)]
        table.add_row(Text(row.level if levels else row.value), *above, count, *cells)
    return table


def _figures(row: Stratum) -> list[Estimate]:
    if row.threshold is None:
        return [row.summary.metrics[name] for name in SEVERAL]
    one = row.summary.per_class[1]
    return [one.auc, one.sensitivity, one.specificity, one.precision]


def cut(threshold: float | None) -> str:
    """A threshold in at most eight characters, and not as 0.000 or 1.000 where it is neither."""
    assert threshold is not None
    if threshold < 0:
        return "<0"  # what lets a probability of 0 count as positive
    if threshold < 0.001:
        return f"{threshold:.2g}"
    return ">0.999" if 0.999 < threshold < 1 else f"{threshold:.3f}"


def stacked(text: str) -> str:
    """Value above interval: four figures side by side would not fit 80 columns."""
    return text.replace(" ", "\n", 1)


def print_assessment(
    console: Console,
    found: Assessment,
    *,
    notes: Sequence[str] = (),
    cited: Sequence[Mapping[str, str]] = (),
) -> None:
    """Print the figures of the test rows; those of validation where there are no others.

    Args:
        console: where to.
        found: the figures.
        notes: sentences of the data source that a reader must know.
        cited: published figures and our own, as `cited_pairs` gives them.
    """
    shown = found.test or found.val
    assert shown is not None
    print_strata(console, found)
    if found.official:
        print_official(console, found.official, shown.classes[1])
    if len(shown.classes) == 2:  # the tables above are calibrated
        print_calibration(console, found)
    if found.test is None:
        say(
            console,
            "There are no test rows: these figures stand on the rows that chose the threshold and "
            "the temperature, so they are optimistic.",
        )
    for note in found.notes:
        say(console, f"{note[0].upper()}{note[1:]}.")
    shortcut, majority = (found.baselines.get(name) for name in ("shortcut", "majority"))
    print_tables(console, shown, shortcut=shortcut, majority=majority)
    if len(shown.classes) > 2:
        print_calibration(console, found)
    print_sentences(console, shown, shortcut=shortcut, notes=notes)
    for line in told([("This run", cited)]):
        say(console, line)
