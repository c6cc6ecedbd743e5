"""What a comparison shows: its tables in the terminal, as a page and as a chart."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from rich.console import Console

from fracnet.evaluation.comparison import BETTER, WORSE, Comparison, Difference
from fracnet.metrics.hypothesis_tests import ALPHA
from fracnet.report.caveats import data_notes, overall_severity, summarize_audits
from fracnet.report.comparison_text import (
    describe_test_rows,
    difference_sentences,
    display_name,
    headline,
    letters,
    method_text,
    none_of,
    noun_of,
    p_equals,
    p_value,
    pointing_sentences,
    shared_reference,
    standing_notes,
    too_few_runs_note,
    with_names,
)
from fracnet.report.console import RESEARCH_ONLY, print_text
from fracnet.report.forest_plots import LABEL_WIDTH, draw_row, row_digits, rows_only
from fracnet.report.html import page
from fracnet.report.plots import BLUE, EMPTY, MUTED, VERMILION, WHITE, Chart, Figure
from fracnet.report.sweep_charts import Trial, learning_curves, swept_keys
from fracnet.report.sweep_tables import runs_table
from fracnet.report.tables import Cell, EstimateCell, Named, Scale, Table, print_table, round_scale
from fracnet.report.verdict import ABOVE_CHANCE, none_above_chance
from fracnet.utils.text import counted, shortened

PARTS_OF_SWEEPS = ("configurations", "pareto", "importance", "data_curve", "metrics", "test")
KINDS = {
    "model": "models, one run of each",
    "configuration": "configurations, all runs of each",
}
MAX_ROWS = 60
"""Rows of a table on the page; comparison.csv and standings.csv have all."""
ONE_NETWORK = (
    "This holds for the trained networks named here, one of each, not for what retraining with "
    "other seeds would give."
)
DIFFERENCE_ROW = 0.4  # inches
SHORTEST_AXIS = 0.01


def standings_table(result: Comparison, rows: int | None = None) -> Table:
    """The first `rows` candidates by validation, with test metrics on one scale."""
    standings = result.standings[:rows]
    several = any(len(row.runs) > 1 for row in standings)
    scale = round_scale(v for row in standings for v in (row.value, row.low, row.high, *row.values))
    cells: list[list[Cell]] = [
        [
            row.name,
            str(len(row.runs)),
            "n/a" if math.isnan(row.validation) else f"{row.validation:.3f}",
            cell := EstimateCell(row.value, row.low, row.high),
            cell.bar(scale, ticks=row.values if len(row.runs) > 1 else ()),
        ]
        for row in standings
    ]
    table = Table(
        f"{result.metric.title}, by validation; test: {describe_test_rows(result)}",
        ["name", "runs", "validation", "test (95 % CI)", f"test, {scale}"],
        cells,
    )
    return table if several else table.without("runs")


def differences_table(
    result: Comparison, differences: Sequence[Difference], rows: int | None = None
) -> Table:
    """The first `rows` differences of one kind, with their intervals on one scale around 0."""
    reference = shared_reference(differences)
    metric, margin = result.metric, result.margin or 0.0
    subject = (
        f"{metric.title} minus that of {reference}"
        if reference
        else f"Difference in {metric.title}"
    )
    ends = [abs(v) for d in differences[:rows] for v in (d.low, d.value, d.high) if v is not None]
    reach = max([end for end in ends if math.isfinite(end)] + [0.01, 1.5 * margin])
    top = round_scale([0.0, reach]).high
    scale = Scale(-top, top)
    sides = ("worse", "better") if metric.larger_is_better else ("better", "worse")
    cells: list[list[Cell]] = [
        [
            display_name(row, 0)
            if reference
            else Named(display_name(row, 0), f"minus {display_name(row, 1)}"),
            cell := EstimateCell(row.value, row.low, row.high, signed=True),
            p_value(row.p),
            p_value(row.holm),
            row.verdict or "no test",
            cell.bar(
                scale,
                guide=0.0,
                margin=margin,
                look=f"s{int(row.verdict == WORSE)}",
                hollow=row.verdict not in (BETTER, WORSE),
            ),
        ]
        for row in differences[:rows]
    ]
    heads = ["name", "difference (95 % CI)", "p", "p (Holm)", "verdict"]
    axis = f"{sides[0]} \N{LEFTWARDS ARROW} 0 \N{RIGHTWARDS ARROW} {sides[1]}, {scale}"
    table = Table(f"{subject}: {KINDS[differences[0].kind]}", [*heads, axis], cells)
    return table if len(differences) > 1 else table.without("p (Holm)")


def print_comparison(console: Console, result: Comparison) -> None:
    """Print standings, differences, and in sentences what they show."""
    short = letters(result)
    legend = {name: name if brief == name else f"{brief}: {name}" for name, brief in short.items()}
    print_table(console, standings_table(with_names(result, legend)))
    result = with_names(result, short)
    print_text(console, *standing_notes(result))
    for rows in filter(None, (result.models, result.configurations)):
        console.print()
        print_table(console, differences_table(result, rows))
        print_text(console, *difference_sentences(result, rows))
    if not result.configurations:
        print_text(console, too_few_runs_note(result))
    print_text(console, *pointing_sentences(result), method_text(result), RESEARCH_ONLY)


def comparison_page(
    result: Comparison,
    trials: Sequence[Trial],
    *,
    options: Mapping[str, Any],
    skipped: Sequence[Mapping[str, str]],
    warnings: Sequence[str],
    date: str,
) -> str:
    """The HTML page of a comparison.

    Args:
        result: of the comparison.
        trials: the runs, the best by validation first.
        options: the requested options by name.
        skipped: `name` and `reason` of folders that could not be used.
        warnings: what the runs do not share.
        date: of creation.
    """
    kinds = [rows for rows in (result.configurations, result.models) if rows]
    main = kinds[0]
    title = result.metric.title
    significant = [row for row in main if row.verdict in (BETTER, WORSE)]
    audit = summarize_audits(trials)
    lows = [row.low for row in result.standings] if result.metric.is_area else []
    chance = (
        [f"{none_of(len(lows), noun_of(result))} is {ABOVE_CHANCE}."]
        if none_above_chance(lows)
        else []
    )
    severity = "warning" if chance else "ok" if significant else "hint"
    return page(
        "runs.html",
        {
            "kind": "Comparison",
            "name": f"{counted(len(result.standings), noun_of(result))} by {title}",
            "made": date,
            "severity": overall_severity(severity, audit, trials, other_doubts=bool(warnings)),
            "tag": f"{len(significant)} of {counted(len(main), 'difference')} significant",
            "headline": headline(result, main),
            "sentences": [
                *audit.flaw,
                *chance,
                *([ONE_NETWORK] if main is result.models else []),
                *difference_sentences(result, main),
                *data_notes(trials),
                *audit.sentences,
            ],
            "facts": _facts(result, trials, date, audit.fact),
            "warnings": warnings,
            "standings": standings_table(result, MAX_ROWS),
            "standings_notes": _standings_notes(result),
            "differences": [
                # The verdict has the sentences of the main ones already.
                differences_part(
                    result, rows, [] if rows is main else difference_sentences(result, rows)
                )
                for rows in kinds
            ],
            "no_configurations": "" if result.configurations else too_few_runs_note(result),
            "differences_notes": [],
            "localization": pointing_sentences(result),
            **dict.fromkeys(PARTS_OF_SWEEPS),
            "swept": swept_keys(trials, f"validation {title}"),
            "swept_title": f"validation {title}",
            "curves": learning_curves(trials, result.metric.name, title),
            "runs": runs_table(trials),
            "left": skipped,
            "method": [
                f"Test: {describe_test_rows(result)}. {method_text(result)}",
                "Intervals are 95 % intervals. A difference is significant if the p of its test, "
                f"corrected for the number of differences, is below {ALPHA:g} and its interval "
                "excludes 0.",
                "Options: "
                + ", ".join(f"{k}={v}" for k, v in options.items() if v is not None)
                + ".",
            ],
        },
    )


def _facts(
    result: Comparison, trials: Sequence[Trial], date: str, audit: str
) -> list[dict[str, str]]:
    margin = "not set" if result.margin is None else f"{result.margin:g}"
    facts = {
        f"{noun_of(result)}s": str(len(result.standings)),
        "trained runs": str(len(trials)),
        "metric": result.metric.title,
        "test": describe_test_rows(result),
        "smallest relevant difference": margin,
        "audit of the data": audit,
        "created": date,
    }
    return [{"name": name, "value": value} for name, value in facts.items()]


def _standings_notes(result: Comparison) -> list[str]:
    several = any(len(row.runs) > 1 for row in result.standings)
    return [
        *standing_notes(result),
        *(["Ticks are single runs."] if several else []),
        *_truncation(len(result.standings), "standings.csv"),
    ]


def differences_part(
    result: Comparison, rows: Sequence[Difference], sentences: Sequence[str]
) -> dict[str, Any]:
    """One kind of differences, below some sentences."""
    margin = f" Grey: within the margin of {result.margin:g}." if result.margin else ""
    notes = [
        f"{display_name(row, 0)} minus {display_name(row, 1)}: {row.note}."
        for row in rows[:MAX_ROWS]
        if row.note
    ]
    return {
        "title": KINDS[rows[0].kind].capitalize(),
        "sentences": sentences,
        "table": differences_table(result, rows, MAX_ROWS),
        "notes": [
            f"Filled marks are significant by interval and corrected test; hollow ones are not."
            f"{margin}",
            *notes,
            *_truncation(len(rows), "comparison.csv"),
        ],
    }


def _truncation(n: int, file: str) -> list[str]:
    return [f"The first {MAX_ROWS} of {n}; {file} has all."] if n > MAX_ROWS else []


def differences_figure(result: Comparison, rows: Sequence[Difference], name: str) -> Figure:
    """One line per defined difference of a kind, in the order given; at least one is defined.

    The margin of the comparison is shaded. name: of the files.
    """
    metric, margin = result.metric, result.margin
    p_name = "p (Holm)" if len(rows) > 1 else "p"
    rows = [row for row in rows if not math.isnan(row.value)]
    reference = shortened(shared_reference(rows), 40)
    tested = f" and {p_name} < {ALPHA:g}" if any(row.holm is not None for row in rows) else ""
    note = f"Bars: 95 % intervals; filled: 0 lies outside{tested}."
    if margin is not None:
        note += f" Grey: within ±{margin:g}."
    sides = ("worse", "better") if metric.larger_is_better else ("better", "worse")
    # Its middle is 0, so that no side looks longer.
    ends = [abs(v) for row in rows for v in (row.low, row.value, row.high) if v is not None]
    end = 1.08 * max([1.5 * (margin or 0.0), SHORTEST_AXIS, *(v for v in ends if v == v)])
    labels = [
        textwrap.fill(
            display_name(row, 0) + ("" if reference else f" minus {display_name(row, 1)}"),
            LABEL_WIDTH,
            max_lines=2,
            placeholder="…",
        )
        for row in rows
    ]
    title = f"Differences in {metric.title}"

    def draw(axis: Axes) -> None:
        axis.set(xlim=(-end, end), ylim=(len(rows) - 0.4, -0.6))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6))
        if margin is not None:
            axis.axvspan(-margin, margin, color=EMPTY, zorder=0.5)
        axis.axvline(0, color=MUTED, linewidth=1)
        for y, row in enumerate(rows):
            _draw_difference(axis, y, row, metric.larger_is_better, p_name)
        rows_only(axis, labels)
        axis.set_xlabel(f"difference in {metric.title}{f' from {reference}' if reference else ''}")
        look: dict[str, Any] = {"fontsize": 8.5, "color": MUTED, "va": "bottom"}
        top = 1 + 0.04 / (DIFFERENCE_ROW * len(rows))
        axis.text(0, top, f"← {sides[0]}", ha="left", transform=axis.transAxes, **look)
        axis.text(1, top, f"{sides[1]} →", ha="right", transform=axis.transAxes, **look)

    longest = max(len(line) for label in labels for line in label.split("\n"))
    size = (3.4, DIFFERENCE_ROW * len(rows))
    # A blank note leaves room for the names of the sides.
    chart = Chart("", title, draw, [" "], (), size, gap=2.9, left=0.3 + longest / 12)
    return Figure(name, title, [chart], (), f"{note} {describe_test_rows(result)}.")


def _draw_difference(
    axis: Axes, y: int, row: Difference, larger_is_better: bool, p_name: str
) -> None:
    """Point, bar and digits: filled where interval and test show a difference; else hollow."""
    decided = row.leaves_out_0 and (row.holm is None or row.holm < ALPHA)
    better = (row.value > 0) == larger_is_better
    color = MUTED if not decided else BLUE if better else VERMILION
    marker = "o" if better or not decided else "s"
    fill = color if decided else WHITE
    draw_row(axis, y, row, color, fill, marker=marker, markersize=6.5, clip_on=True)
    text = str(EstimateCell(row.value, row.low, row.high, signed=True))
    if row.holm is not None:
        text += f"  {p_equals(row.holm, p_name)}"
    if row.note:
        text += "\n" + textwrap.fill(row.note, LABEL_WIDTH + 6, max_lines=2, placeholder="…")
    row_digits(axis, 1.03, y, text)
