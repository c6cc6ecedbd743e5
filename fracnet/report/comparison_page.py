"""What a comparison shows: its sentences and tables, in the terminal and as a page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from fracnet.evaluation.comparison import (
    BETTER,
    IDENTICAL,
    UNDECIDED,
    WORSE,
    Comparison,
    Difference,
)
from fracnet.evaluation.summary import FEW, TOO_FEW
from fracnet.metrics.hypothesis_tests import ALPHA, ENOUGH, POWER
from fracnet.report.caveats import data_notes, overall_severity, summarize_audits
from fracnet.report.console import RESEARCH_ONLY
from fracnet.report.html import page
from fracnet.report.sweep_charts import Trial, learning_curves, swept_keys
from fracnet.report.sweep_tables import runs_table
from fracnet.report.tables import (
    Cell,
    EstimateCell,
    Named,
    Scale,
    Table,
    print_table,
    round_scale,
)
from fracnet.report.verdict import ABOVE_CHANCE, none_above_chance
from fracnet.utils.text import counted

SEPARATE_SENTENCES = 5
"""With more differences than this, the undecided ones share a sentence."""
TRUE_DIFFERENCE = "a true difference"
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


def difference_sentences(result: Comparison, rows: Sequence[Difference]) -> list[str]:
    """One sentence per difference, or one for all undecided ones if there are many.

    The last one states what true differences and sample sizes assume, if any are given.
    """
    p_name = "p (Holm)" if len(rows) > 1 else "p"
    undecided = [row for row in rows if row.verdict == UNDECIDED]
    if len(rows) <= SEPARATE_SENTENCES:
        open_sentences = [_undecided(result, row) for row in undecided]
    else:
        open_sentences = list(_undecided_together(result, undecided)) if undecided else []
    sentences = [
        *(_decided(row, p_name) for row in rows if row.verdict in (BETTER, WORSE)),
        *open_sentences,
    ]
    for row in rows:
        left, right = display_name(row, 0), display_name(row, 1)
        if row.verdict == IDENTICAL:
            what = row.note.split(";")[0]
            sentences.append(f"{left} and {right} make {what}: there is nothing to compare.")
        elif row.verdict is None:
            sentences.append(f"No test of {left} against {right}: {row.note or 'undefined'}.")
    if any(TOO_FEW in row.note.split("; ") for row in rows):
        sentences.append(
            f"{result.metric.title} is based on fewer than {FEW} cases (or non-cases): too few."
        )
    if any(TRUE_DIFFERENCE in sentence for sentence in open_sentences):
        sentences.append(_planning_basis(rows))
    return sentences


def pointing_sentences(result: Comparison) -> list[str]:
    """What the heatmaps of the compared runs find, with the difference; [] without any."""
    games = result.localization
    if games is None:
        return []
    values = ", ".join(f"{name} {value:.3f}" for name, value in games.values.items())
    images = counted(games.images, "annotated test image")
    sentences = [f"Pointing game of the heatmaps on {images}: {values}."]
    for row in games.differences:
        pair = f"{display_name(row, 0)} minus {display_name(row, 1)}: {signed(row.value)}"
        if row.low is None or row.high is None:
            sentences.append(f"{pair} ({row.note or 'no interval'}).")
        else:
            limits = f"{signed(row.low)} to {signed(row.high)}"
            sentences.append(f"{pair} ({limits}; {p_equals(row.holm)}; {row.method}).")
    return sentences


def describe_test_rows(result: Comparison) -> str:
    """`547 images of 160 patients`; the latter only if they are not the same."""
    rows = counted(result.n, result.level)
    clusters = result.clusters
    return rows if clusters.trivial else f"{rows} of {_count_units(clusters.count, result)}"


def _count_units(count: int, result: Comparison) -> str:
    """`80 patients`."""
    unit = result.clusters.unit  # "patient, else image" if some have none
    return f"{counted(count, 'cluster')} ({unit})" if "," in unit else counted(count, unit)


def display_name(row: Difference, side: int) -> str:
    """A configuration's name, followed by the run that represents it as a model."""
    name, run = (row.name, row.reference)[side], row.runs[side]
    return name if isinstance(run, int) or name.startswith(run) else f"{name} ({run})"


def _decided(row: Difference, p_name: str) -> str:
    better, worse = (0, 1) if row.verdict == BETTER else (1, 0)
    assert row.low is not None, "no verdict without an interval"
    assert row.high is not None, "no verdict without an interval"
    near, far = sorted((abs(row.low), abs(row.high)))
    small = ", though by less than the margin" if row.within else ""
    return (
        f"{display_name(row, better)} is better than {display_name(row, worse)} by "
        f"{abs(row.value):.3f} ({near:.3f} to {far:.3f}){small}; {p_equals(row.holm, p_name)}."
    )


def _planning_basis(rows: Sequence[Difference]) -> str:
    """The assumptions behind `detectable` and `needed`."""
    alpha = rows[0].alpha
    assert alpha is not None, "verdicts come with their alpha"
    tests = round(ALPHA / alpha)
    corrected = f" / {tests} (for {tests} differences)" if tests > 1 else ""
    return (
        f"True differences and sample sizes assume a power of {100 * POWER:.0f} %, a two-sided "
        f"alpha of {ALPHA:g}{corrected} and the standard error observed here."
    )


def _unclear(result: Comparison, row: Difference, which: str) -> str:
    """`With 60 patients and 5 and 5 runs, it is unclear which model is better ...`."""
    runs = "" if isinstance(row.runs[0], str) else f" and {row.runs[0]} and {row.runs[1]} runs"
    units = _count_units(result.clusters.count, result)
    return f"With {units}{runs}, it is unclear which {row.kind} is better{which}"


def _undecided(result: Comparison, row: Difference) -> str:
    parts = [_unclear(result, row, f", {display_name(row, 0)} or {display_name(row, 1)}")]
    if row.low is None:
        parts += [note for note in row.note.split("; ") if note and note != TOO_FEW]
        if row.holm is not None and row.holm < ALPHA:
            parts.append(f"without an interval, the test alone ({p_equals(row.p)}) is not enough")
    return "; ".join([*parts, *_disagreement(row), *_planning(result, row)]) + "."


def _disagreement(row: Difference) -> Iterator[str]:
    """Why p or the interval alone suggests a difference that is not established."""
    if row.low is None or row.high is None or row.p is None or row.holm is None:
        return
    interval = f"the interval ({signed(row.low)} to {signed(row.high)})"
    if row.agree is False and row.leaves_out_0:
        yield (
            f"test and interval disagree: {interval} excludes 0, but the test finds no difference "
            f"({p_equals(row.p)})"
        )
    elif row.agree is False:
        yield (
            f"test and interval disagree: the test finds a difference ({p_equals(row.p)}), but "
            f"{interval} includes 0"
        )
    elif row.leaves_out_0:
        yield (
            f"{p_equals(row.p)} becomes {p_equals(row.holm, 'p (Holm)')} as one of several "
            "differences"
        )


def _planning(result: Comparison, row: Difference) -> Iterator[str]:
    """What this comparison could have detected, or what detecting the margin would take."""
    if row.within:
        yield (
            f"the whole interval lies within the margin of {result.margin:g}, so neither is better "
            "by that much"
        )
    elif row.unplanned:
        yield row.unplanned
    elif row.detectable is None:
        return
    elif result.margin is None or row.detectable <= result.margin:
        size = f"{row.detectable:.2g}" if result.margin is None else f"{result.margin:g}"
        more = " (margin=... shows how many a smaller one needs)" if result.margin is None else ""
        yield f"{TRUE_DIFFERENCE} of {size} would have shown in 8 of 10 such comparisons{more}"
    elif row.needed is None:
        yield (
            f"for {TRUE_DIFFERENCE} of {result.margin:g}, no number of patients would be enough: "
            "runs of one configuration vary too much, and more seeds are needed"
        )
    else:
        units = _count_units(_round_up(row.needed), result)
        yield f"{TRUE_DIFFERENCE} of {result.margin:g} would need about {units}"


def _undecided_together(result: Comparison, rows: Sequence[Difference]) -> Iterator[str]:
    sentence = _unclear(result, replace(rows[0], runs=("", "")), f" in {len(rows)} of the pairs")
    needed = [row.needed for row in rows if row.needed is not None and not row.within]
    if needed and result.margin is not None:
        few, many = _round_up(min(needed)), _round_up(max(needed))
        span = f"{few} to " if few < many else ""
        sentence += (
            f"; {TRUE_DIFFERENCE} of {result.margin:g} would need about "
            f"{span}{_count_units(many, result)}"
        )
    yield f"{sentence}."
    for row in rows:
        if row.agree is False:
            names = f"{display_name(row, 0)} and {display_name(row, 1)}"
            yield f"For {names}, {next(_disagreement(row))}."


def _round_up(count: int) -> int:
    """Two significant digits: the variance behind it is known no better."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / step) * step


def signed(value: float) -> str:
    """Three decimals with the sign, unless they round to zero."""
    return "0.000" if round(value, 3) == 0 else f"{value:+.3f}"


def p_value(p: float | None) -> str:
    """Three decimals; smaller values as a bound."""
    return "n/a" if p is None else ("<0.001" if p < 0.001 else f"{p:.3f}")


def p_equals(p: float | None, name: str = "p") -> str:
    """`p = 0.031`, `p < 0.001`."""
    assert p is not None, "no test"
    return f"{name} < 0.001" if p < 0.001 else f"{name} = {p:.3f}"


def standing_notes(result: Comparison) -> list[str]:
    """What the validation column can be used for, and why metrics have no interval."""
    standings = result.standings
    sentences = []
    if any(len(row.runs) > 1 for row in standings):
        sentences.append("Metrics of several runs are their means.")
    if all(math.isnan(row.validation) for row in standings):
        sentences.append(
            "There are no validation metrics, so nothing is chosen and the order is as given."
        )
    else:
        best = standings[0]
        ties = [row.name for row in standings[1:] if row.validation == best.validation]
        sentences.append(
            f"{best.name} is the best by validation. The best of {len(standings)} is chosen on the "
            "same images, so its validation metric is optimistic; choosing by the test column "
            "turns the test set into a second validation set."
        )
        if ties:
            sentences.append(f"Equally good by validation: {'; '.join(ties)}. The first is used.")
    notes = {row.note for row in standings if row.note}
    return [*sentences, *(f"Test: {note}." for note in sorted(notes))]


def too_few_runs_note(result: Comparison) -> str:
    """Why configurations are not compared."""
    standings = result.standings
    if all(len(row.runs) == 1 for row in standings):
        return (
            f"Configurations are not compared: that takes {ENOUGH} or more runs of each with "
            "different seeds, and here each is one run."
        )
    if sum(len(row.runs) >= ENOUGH for row in standings) > 1:
        return (
            f"Configurations are not compared: no pair has {ENOUGH} or more runs on both sides "
            "(pairs=all compares every pair)."
        )
    counts = ", ".join(f"{row.name} {len(row.runs)}" for row in standings[:4])
    more = f" and {len(standings) - 4} more" if len(standings) > 4 else ""
    return (
        f"Configurations are not compared: that takes {ENOUGH} or more runs of each with different "
        f"seeds (runs here: {counts}{more})."
    )


def method_text(result: Comparison) -> str:
    """The methods behind intervals and tests, in a sentence or two."""
    sentences = []
    for kind, rows in (("models", result.models), ("configurations", result.configurations)):
        intervals, tests = (
            " or ".join(dict.fromkeys(filter(None, methods))) or "none"
            for methods in ([row.method for row in rows], [row.test for row in rows])
        )
        if any(row.method or row.test for row in rows):
            same = intervals == tests
            methods = (
                f"intervals and tests: {tests}"
                if same
                else f"intervals: {intervals}; tests: {tests}"
            )
            sentences.append(f"For {kind}, {methods}.")
    if not sentences:
        return "No test was possible."
    if max(len(result.models), len(result.configurations)) > 1:
        sentences.append(
            "Holm's method corrects p for the number of differences of a kind; intervals are not "
            "corrected."
        )
    return " ".join(sentences)


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
    reference = _shared_reference(differences)
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


def _shared_reference(rows: Sequence[Difference]) -> str:
    """The name of the reference that all rows share; "" if they have several."""
    return display_name(rows[0], 1) if len({row.reference for row in rows}) == 1 else ""


def print_comparison(console: Console, result: Comparison) -> None:
    """Print standings, differences, and in sentences what they show."""
    print_table(console, standings_table(result))
    for sentence in standing_notes(result):
        console.print(Text(sentence))
    for rows in filter(None, (result.models, result.configurations)):
        console.print()
        print_table(console, differences_table(result, rows))
        for sentence in difference_sentences(result, rows):
            console.print(Text(sentence))
    if not result.configurations:
        console.print(Text(too_few_runs_note(result)))
    for sentence in pointing_sentences(result):
        console.print(Text(sentence))
    console.print(Text(method_text(result)))
    console.print(RESEARCH_ONLY)


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
        [f"{_none_of(len(lows), _noun(result))} is {ABOVE_CHANCE}."]
        if none_above_chance(lows)
        else []
    )
    severity = "warning" if chance else "ok" if significant else "hint"
    return page(
        "runs.html",
        {
            "kind": "Comparison",
            "name": f"{counted(len(result.standings), _noun(result))} by {title}",
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


def headline(result: Comparison, rows: Sequence[Difference]) -> str:
    """What differences of one kind show together, in one sentence.

    About the reference if all share one; otherwise a count of pairs.
    """
    ahead = [row for row in rows if row.verdict == BETTER]
    behind = [row for row in rows if row.verdict == WORSE]
    n, decided = len(rows), len(ahead) + len(behind)
    left, reference = display_name(rows[0], 0), display_name(rows[0], 1)
    if n == 1:
        if rows[0].verdict == IDENTICAL:
            return f"{left} and {reference} perform identically."
        if decided:
            better, worse = (left, reference) if ahead else (reference, left)
            return f"{better} is better than {worse}."
        if rows[0].within:
            return f"{left} and {reference} differ by less than {result.margin:g}."
        return f"It is unclear which is better: {left} or {reference}."
    if not _shared_reference(rows):
        if not decided:
            return f"None of the {n} pairs differs significantly."
        return f"{decided} of {n} pairs differ significantly."
    if not decided:
        return f"{_none_of(n, 'other')} differs significantly from {reference}."
    parts = []
    if behind:
        parts.append(f"better than {_some_of(behind, n)}")
    if ahead:
        parts.append(f"worse than {_some_of(ahead, n)}")
    unclear = n - decided
    verb = "does" if unclear == 1 else "do"
    rest = f"; {unclear} of {n} others {verb} not differ significantly from it" if unclear else ""
    return f"{reference} is {' and '.join(parts)}{rest}."


def _some_of(rows: Sequence[Difference], n: int) -> str:
    if len(rows) == n:
        return "both others" if n == 2 else f"all {n} others"
    return display_name(rows[0], 0) if len(rows) == 1 else f"{len(rows)} of {n} others"


def _none_of(n: int, noun: str) -> str:
    """`Neither run`, `None of the 3 runs`."""
    return f"Neither {noun}" if n == 2 else f"None of the {counted(n, noun)}"


def _noun(result: Comparison) -> str:
    single = all(len(row.runs) == 1 for row in result.standings)
    return "run" if single else "configuration"


def _facts(
    result: Comparison, trials: Sequence[Trial], date: str, audit: str
) -> list[dict[str, str]]:
    margin = "not set" if result.margin is None else f"{result.margin:g}"
    facts = {
        f"{_noun(result)}s": str(len(result.standings)),
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
