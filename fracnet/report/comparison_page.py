"""The page of a comparison: who stands where, which differences are real, and what was varied.

What a comparison shows, in sentences: what is better, or what it would take to tell.

The tables of a comparison on the screen: the standing by validation, then the differences.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fracnet.evaluation.comparison import (
    BETTER,
    IDENTICAL,
    UNDECIDED,
    WORSE,
    Comparison,
    Difference,
    Standing,
)
from fracnet.evaluation.ensembles import OUT_OF_FOLD, Ensemble
from fracnet.evaluation.summary import FEW, TOO_FEW
from fracnet.metrics.hypothesis_tests import ALPHA, ENOUGH, POWER
from fracnet.report import tables
from fracnet.report.caveats import about_data, audits, box
from fracnet.report.console import PLAIN, RESEARCH_ONLY
from fracnet.report.html import page
from fracnet.report.sweep_charts import MOST_RUNS, Trial, columns, overlaid, swept
from fracnet.report.tables import Reach, interval
from fracnet.report.verdict import SHOWN, none_exceeds
from fracnet.utils.text import counted, limits

# With more differences than this, the undecided ones share a sentence.
EACH = 5
TRUE = "a true difference"


def sentences(found: Comparison, rows: Sequence[Difference]) -> list[str]:
    """One sentence a difference; where there are many, one for all that cannot be told.

    Last what true differences and numbers of patients rest on, where one is given.
    """
    p_name = "p (Holm)" if len(rows) > 1 else "p"
    told = [_decided(row, p_name) for row in rows if row.verdict in (BETTER, WORSE)]
    open_ones = [row for row in rows if row.verdict == UNDECIDED]
    if len(rows) <= EACH:
        undecided = [_undecided(found, row) for row in open_ones]
    else:
        undecided = list(_undecided_together(found, open_ones)) if open_ones else []
    told += undecided
    told += [
        f"{called(row, 0)} and {called(row, 1)} make {row.note.split(';')[0]}: there is nothing to "
        "compare."
        for row in rows
        if row.verdict == IDENTICAL
    ]
    told += [
        f"No test of {called(row, 0)} against {called(row, 1)}: {row.note or 'undefined'}."
        for row in rows
        if row.verdict is None
    ]
    if any(TOO_FEW in row.note.split("; ") for row in rows):
        told.append(f"{found.figure.title} rests on fewer than {FEW} cases (or others): too few.")
    if any(TRUE in sentence for sentence in undecided):
        told.append(_planned(rows))
    return told


def rows_of(found: Comparison) -> str:
    """`547 images of 160 patients`; the latter only where they are not the same."""
    rows = counted(found.n, found.level)
    return rows if found.clusters.trivial else f"{rows} of {units(found.clusters.count, found)}"


def units(count: int, found: Comparison) -> str:
    """`80 patients`."""
    unit = found.clusters.unit  # "patient, else image" where some have none
    return f"{counted(count, 'cluster')} ({unit})" if "," in unit else counted(count, unit)


def _decided(row: Difference, p_name: str) -> str:
    upper, lower = (0, 1) if row.verdict == BETTER else (1, 0)
    assert row.low is not None, "no verdict without an interval"
    assert row.high is not None, "no verdict without an interval"
    near, far = sorted((abs(row.low), abs(row.high)))
    small = ", though by less than the margin" if row.within else ""
    return (
        f"This {row.kind} is better: {called(row, upper)}, than {called(row, lower)}, by "
        f"{abs(row.value):.3f} ({near:.3f} to {far:.3f}){small}; {_p(row.holm, p_name)}."
    )


def _planned(rows: Sequence[Difference]) -> str:
    """The conditions of `detectable` and `needed`."""
    alpha = rows[0].alpha
    assert alpha is not None, "not judged"
    tests = round(ALPHA / alpha)
    corrected = f" / {tests} (for {tests} differences)" if tests > 1 else ""
    return (
        f"True differences and the numbers they need are for a power of {100 * POWER:.0f} %, a "
        f"two-sided alpha of {ALPHA:g}{corrected} and the standard error observed here."
    )


def _undecided(found: Comparison, row: Difference) -> str:
    with_ = units(found.clusters.count, found)
    runs = "" if isinstance(row.runs[0], str) else f" and {row.runs[0]} and {row.runs[1]} runs"
    told = (
        f"It cannot be told with {with_}{runs} which {row.kind} is better, {called(row, 0)} or "
        f"{called(row, 1)}"
    )
    notes = [note for note in row.note.split("; ") if note and note != TOO_FEW]
    why = [*notes, *_alone(row)] if row.low is None else []
    return "; ".join([told, *why, *_at_odds(row), *_takes(found, row)]) + "."


def _alone(row: Difference) -> Iterator[str]:
    """A test that would tell, beside no interval."""
    if row.holm is not None and row.holm < ALPHA:
        yield f"without an interval the test alone ({_p(row.p)}) does not decide"


def _at_odds(row: Difference) -> Iterator[str]:
    """What a reader of p and interval would take for a difference, and why it is none."""
    if row.low is None or row.high is None or row.p is None or row.holm is None:
        return
    interval = f"the interval ({signed(row.low)} to {signed(row.high)})"
    if row.agree is False and row.leaves_out_0:
        yield (
            f"test and interval disagree: {interval} leaves 0 out, but the test does not tell them "
            f"apart ({_p(row.p)})"
        )
    elif row.agree is False:
        yield (
            f"test and interval disagree: the test tells them apart ({_p(row.p)}), but {interval} "
            "holds 0"
        )
    elif row.leaves_out_0:
        yield f"{_p(row.p)} is {_p(row.holm, 'p (Holm)')} as one of several differences"


def _takes(found: Comparison, row: Difference) -> Iterator[str]:
    if row.within:
        yield (
            f"the whole interval lies within the margin of {found.margin:g}, so neither is better "
            "by that much"
        )
    elif row.detectable is None:
        return
    elif found.margin is None:
        yield (
            f"{TRUE} of {row.detectable:.2g} would have shown in 8 of 10 such "
            "comparisons (margin=... tells how many a smaller one needs)"
        )
    elif row.detectable <= found.margin:
        yield f"{TRUE} of {found.margin:g} would have shown in 8 of 10 such comparisons"
    elif row.needed is None:
        yield (
            f"for {TRUE} of {found.margin:g} no number of patients would do: runs "
            "of one configuration differ too much, more seeds are needed"
        )
    else:
        yield f"{TRUE} of {found.margin:g} would need about {units(_rounded(row.needed), found)}"


def _undecided_together(found: Comparison, rows: Sequence[Difference]) -> Iterator[str]:
    told = (
        f"It cannot be told with {units(found.clusters.count, found)} which {rows[0].kind} is "
        f"better in {len(rows)} of the pairs"
    )
    needed = [row.needed for row in rows if row.needed is not None and not row.within]
    if needed and found.margin is not None:
        few, many = _rounded(min(needed)), _rounded(max(needed))
        span = f"{few} to {units(many, found)}" if few < many else units(few, found)
        told += f"; {TRUE} of {found.margin:g} would need about {span}"
    yield f"{told}."
    for row in rows:
        if row.agree is False:
            yield f"Of {called(row, 0)} and {called(row, 1)}, {next(_at_odds(row))}."


def called(row: Difference, side: int) -> str:
    """A configuration's name, with the run of it that stands for a model."""
    name, run = (row.name, row.reference)[side], row.runs[side]
    return name if isinstance(run, int) or name.startswith(run) else f"{name} ({run})"


def _rounded(count: int) -> int:
    """Two figures: the variance behind it is known no better."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / step) * step


def signed(value: float) -> str:
    """Three decimals with the sign, unless they round to nothing."""
    return "0.000" if round(value, 3) == 0 else f"{value:+.3f}"


def _p(p: float | None, name: str = "p") -> str:
    assert p is not None, "no test"
    return f"{name} < 0.001" if p < 0.001 else f"{name} = {p:.3f}"


# Columns that names get on the narrowest screen.
LEAST_ROOM = 12
KINDS = {
    "model": "models, one run of each",
    "configuration": "configurations, all runs of each",
}


def print_comparison(console: Console, found: Comparison) -> None:
    """Print who stands where, what differs, and in sentences what that shows."""
    console.print(Text(_heading(found), style="bold"))
    console.print(_standings(found, console.width))
    for sentence in about_standings(found):
        console.print(Text(sentence))
    for kind, rows in (("model", found.models), ("configuration", found.configurations)):
        if rows:
            console.print()
            console.print(Text(_title(found, kind, rows), style="bold"))
            console.print(_difference_table(rows, console.width))
            for sentence in sentences(found, rows):
                console.print(Text(sentence))
    if not found.configurations:
        console.print(Text(too_few_runs(found)))
    console.print(Text(how_made(found)))
    console.print(RESEARCH_ONLY)


def ensemble_lines(made: Ensemble) -> list[str]:
    """How an ensemble was made, in a sentence or two."""
    runs = sum(len(fold) for fold in made.folds)
    told = [f"The mean of the probabilities of {runs} runs."]
    if made.validation == OUT_OF_FOLD:
        told.append(
            f"Their val images are {len(made.folds)} folds, so each is predicted by the "
            f"{'run' if runs == len(made.folds) else 'runs'} that validated on it. A mean over "
            "all runs is less extreme than that: temperature and thresholds fit the test less well "
            "than usual."
        )
    return told


def _standings(found: Comparison, width: int) -> Table:
    several = any(len(row.runs) > 1 for row in found.standings)
    titles = [*(["runs"] if several else []), "validation", "test"]
    rows = []
    for row in found.standings:
        runs = [str(len(row.runs))] if several else []
        rows.append(([row.name], [*runs, number(row.validation), _test(row)]))
    return _named(titles, rows, width)


def _heading(found: Comparison) -> str:
    """In a line of its own: as a table's title it would break at the table's width."""
    return f"{found.figure.title}, by validation; test: {rows_of(found)}"


def _test(row: Standing) -> str:
    value = number(row.value)
    if row.low is not None and row.high is not None:
        return f"{value} {limits(row.low, row.high)}"
    return f"{value} no interval" if row.note else value


def about_standings(found: Comparison) -> list[str]:
    """What the column of validation is worth, and why figures have no interval."""
    told = []
    if any(len(row.runs) > 1 for row in found.standings):
        told.append("Figures of several runs are their means.")
    if all(math.isnan(row.validation) for row in found.standings):
        told.append("There are no validation figures: nothing is chosen, the order is that given.")
    else:
        top = found.standings[0].validation
        ties = [row.name for row in found.standings[1:] if row.validation == top]
        if ties:
            told.append(f"As good by validation: {'; '.join(ties)}. The first is taken.")
        told.append(
            f"{found.standings[0].name} is the best by validation. The best of "
            f"{len(found.standings)} is chosen on the same images, so its validation figure is "
            "optimistic; who chooses by the test column makes the test a second validation."
        )
    notes = {row.note for row in found.standings if row.note}
    return [*told, *(f"Test: {note}." for note in sorted(notes))]


def _title(found: Comparison, kind: str, rows: Sequence[Difference]) -> str:
    less = f" less {called(rows[0], 1)}" if _shared(rows) else ""
    return f"difference in {found.figure.title}{less}: {KINDS[kind]}"


def _shared(rows: Sequence[Difference]) -> bool:
    """Whether all have one reference."""
    return len({row.reference for row in rows}) == 1


def _difference_table(rows: Sequence[Difference], width: int) -> Table:
    one = _shared(rows)
    titles = ["difference", "p", *(["Holm"] if len(rows) > 1 else []), "verdict"]
    lines = []
    for row in rows:
        names = [called(row, 0)] if one else [called(row, 0), f"less {called(row, 1)}"]
        holm = [p_value(row.holm)] if len(rows) > 1 else []
        lines.append((names, [_sized(row), p_value(row.p), *holm, row.verdict or "no test"]))
    return _named(titles, lines, width)


def _named(
    titles: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[str]]], width: int
) -> Table:
    """Rows of names, each on lines of its own, and cells; names get what cells leave of `width`."""
    table = untitled()
    table.add_column("", overflow="fold")
    taken = 2
    for column, title in enumerate(titles):
        table.add_column(title, justify="right" if title == "runs" else "left", no_wrap=True)
        taken += 2 + max(len(title), *(len(cells[column]) for _, cells in rows))
    room = max(width - taken, LEAST_ROOM)
    for names, cells in rows:
        whole = " ".join(names)
        lines = [whole] if len(whole) <= room else [x for name in names for x in broken(name, room)]
        table.add_row(Text("\n".join(lines)), *cells)
    return table


def broken(name: str, width: int) -> list[str]:
    """A name on lines of `width`, parted where words end, or failing that within one at a mark."""
    lines = [""]
    for piece in _pieces(name, width, (" ,/", "_", ".;-")):
        if len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines if line.strip()]


def _pieces(name: str, width: int, ends: Sequence[str]) -> Iterator[str]:
    """Pieces no wider than `width`, each up to one of the characters of `ends`, best first."""
    if len(name.rstrip()) <= width:
        yield name
    elif not ends:
        yield from (name[start : start + width] for start in range(0, len(name), width))
    else:
        of = re.escape(ends[0])
        for piece in re.findall(f"[^{of}]*[{of}]|[^{of}]+", name):
            yield from _pieces(piece, width, ends[1:])


def too_few_runs(found: Comparison) -> str:
    """Why nothing is said of configurations."""
    if all(len(row.runs) == 1 for row in found.standings):
        return (
            f"Nothing is said of configurations: that takes {ENOUGH} runs or more of each, with "
            "different seeds; here each is one run."
        )
    if sum(len(row.runs) >= ENOUGH for row in found.standings) > 1:
        return (
            f"Nothing is said of configurations: none of the pairs has {ENOUGH} runs or more on "
            "both sides (pairs=all takes every pair)."
        )
    counts = ", ".join(f"{row.name} {len(row.runs)}" for row in found.standings[:4])
    more = f" and {len(found.standings) - 4} more" if len(found.standings) > 4 else ""
    return (
        f"Nothing is said of configurations: that takes {ENOUGH} runs or more of each, with "
        f"different seeds ({counts}{more})."
    )


def how_made(found: Comparison) -> str:
    """The methods of intervals and tests, in a sentence or two."""
    methods = [
        f"{kind}, {_methods(_one([r.method for r in rows]), _one([r.test for r in rows]))}"
        for kind, rows in (("Models", found.models), ("Configurations", found.configurations))
        if any(row.method or row.test for row in rows)
    ]
    many = max(len(found.models), len(found.configurations)) > 1
    holm = (
        " Holm corrects p for the number of differences of a kind; intervals are not corrected."
        if many
        else ""
    )
    return f"{'. '.join(methods)}.{holm}" if methods else "No test could be made."


def _methods(intervals: str, tests: str) -> str:
    if intervals == tests:
        return f"intervals and tests: {tests}"
    return f"intervals: {intervals}; tests: {tests}"


def _one(methods: Sequence[str]) -> str:
    return " or ".join(dict.fromkeys(filter(None, methods))) or "nothing"


def untitled() -> Table:
    """An empty table in the style of all of fracnet's."""
    return Table(box=PLAIN, pad_edge=False, collapse_padding=True)


def number(value: float) -> str:
    """Three decimals, or n/a."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _sized(row: Difference) -> str:
    """A difference with its sign and its interval."""
    if math.isnan(row.value):
        return "n/a"
    if row.low is None or row.high is None:
        return f"{signed(row.value)} no interval"
    return f"{signed(row.value)} {signed(row.low)} to {signed(row.high)}"


def p_value(p: float | None) -> str:
    """Three decimals; smaller ones as a bound."""
    return "n/a" if p is None else ("<0.001" if p < 0.001 else f"{p:.3f}")


# Rows of a table on the page; comparison.csv and standings.csv have all.
MOST_ROWS = 60
ONE_NETWORK = (
    "This is said of the trained networks named here, one of each, not of what training would give "
    "again with other seeds."
)


def comparison_page(
    found: Comparison,
    trials: Sequence[Trial],
    *,
    options: Mapping[str, Any],
    left: Sequence[Mapping[str, str]],
    warnings: Sequence[str],
    made: str,
) -> str:
    """The page, as HTML, from the result of a comparison and what the runs' folders tell.

    trials: the runs, the best by validation first. options: what was asked for, by its words.
    left: `name` and `reason` of folders that could not be used. warnings: what runs do not share.
    made: the day.
    """
    kinds = [rows for rows in (found.configurations, found.models) if rows]
    main = kinds[0]
    title = found.figure.title
    decided = [row for row in main if row.verdict in (BETTER, WORSE)]
    audited = audits(trials)
    lows = [standing.low for standing in found.standings] if found.figure.is_area else []
    chance = [f"{_none(len(lows), _noun(found))} is {SHOWN}."] if none_exceeds(lows) else []
    own = "warning" if chance else "ok" if decided else "hint"
    return page(
        "study.html",
        {
            "kind": "Comparison",
            "name": f"{counted(len(found.standings), _noun(found))} by {title}",
            "made": made,
            "severity": box(own, audited, trials, open_to_doubt=bool(warnings)),
            "tag": f"{len(decided)} of {counted(len(main), 'difference')} shown",
            "headline": headline(found, main),
            "told": [
                *audited.flaw,
                *chance,
                *([ONE_NETWORK] if main is found.models else []),
                *sentences(found, main),
                *about_data(trials),
                *audited.sentences,
            ],
            "facts": _facts(found, trials, made, audited.fact),
            "warnings": warnings,
            "leaders": _leaders(found),
            "differences": [_differences(found, rows, rows is not main) for rows in kinds],
            "no_configurations": "" if found.configurations else too_few_runs(found),
            "swept": swept(trials, f"validation {title}"),
            "swept_of": f"{title} on validation",
            "curves": overlaid(trials, found.figure.name, title),
            "trials": trials,
            "columns": columns(trials),
            "most_runs": MOST_RUNS,
            "test": None,
            "left": left,
            "method": [
                f"Test: {rows_of(found)}. {how_made(found)}",
                "Intervals are 95 % intervals. A difference counts as shown where its test, "
                f"corrected for their number, falls below {ALPHA:g} and its interval leaves 0 out.",
                "Asked for: "
                + ", ".join(f"{k}={v}" for k, v in options.items() if v is not None)
                + ".",
            ],
        },
    )


def headline(found: Comparison, rows: Sequence[Difference]) -> str:
    """What differences of one kind show together, in a sentence.

    With one reference for all it tells of that; with every pair it counts.
    """
    same = sum(row.verdict == IDENTICAL for row in rows)
    ahead = [row for row in rows if row.verdict == BETTER]
    behind = [row for row in rows if row.verdict == WORSE]
    first = rows[0]
    if len(rows) == 1:
        if same:
            return f"{called(first, 0)} and {called(first, 1)} do exactly the same."
        if ahead or behind:
            upper, lower = (0, 1) if ahead else (1, 0)
            return f"{called(first, upper)} is better than {called(first, lower)}."
        if first.within:
            pair = f"{called(first, 0)} and {called(first, 1)}"
            return f"{pair} differ by less than {found.margin:g}."
        return f"It cannot be told which is better: {called(first, 0)} or {called(first, 1)}."
    shown, of = len(ahead) + len(behind), len(rows)
    if len({row.reference for row in rows}) > 1:
        if not shown:
            return f"None of the {of} pairs can be told apart."
        return f"{shown} of {of} pairs can be told apart."
    name, unclear = called(first, 1), of - shown
    if not shown:
        return f"{_none(of, 'other')} can be told from {name}."
    parts = []
    if behind:
        parts.append(f"better than {_some(behind, of)}")
    if ahead:
        parts.append(f"worse than {_some(ahead, of)}")
    rest = f"; {unclear} of {of} others cannot be told from it" if unclear else ""
    return f"{name} is {' and '.join(parts)}{rest}."


def _some(rows: Sequence[Difference], of: int) -> str:
    if len(rows) == of:
        return "both others" if of == 2 else f"all {of} others"
    return called(rows[0], 0) if len(rows) == 1 else f"{len(rows)} of {of} others"


def _none(of: int, noun: str) -> str:
    """`Neither run`, `None of the 3 runs`."""
    return f"Neither {noun}" if of == 2 else f"None of the {counted(of, noun)}"


def _noun(found: Comparison) -> str:
    single = all(len(standing.runs) == 1 for standing in found.standings)
    return "run" if single else "configuration"


def _facts(
    found: Comparison, trials: Sequence[Trial], made: str, audited: str
) -> list[dict[str, str]]:
    facts = {
        f"{_noun(found)}s": str(len(found.standings)),
        "trained runs": str(len(trials)),
        "figure": found.figure.title,
        "test": rows_of(found),
        "margin that matters": "none given" if found.margin is None else f"{found.margin:g}",
        "audit of the data": audited,
        "made on": made,
    }
    return [{"name": name, "value": value} for name, value in facts.items()]


def _leaders(found: Comparison) -> dict[str, Any]:
    """The leaderboard, by validation, with test figures on one scale."""
    shown = found.standings[:MOST_ROWS]
    every = [v for row in shown for v in (row.value, row.low, row.high, *row.values)]
    scale = tables.linear([v for v in every if v is not None and math.isfinite(v)] or [0.0, 1.0])
    several = any(len(row.runs) > 1 for row in shown)
    left = len(found.standings) - len(shown)
    return {
        "caption": f"{found.figure.title}, by validation; test: {rows_of(found)}",
        "columns": [*(["runs"] if several else []), "validation", "test (95 %)"],
        "bar": "test",
        "ends": [words for _, words in scale.ticks[:: len(scale.ticks) - 1]],
        "rows": [_leader(row, scale, several) for row in shown],
        "notes": about_standings(found)
        + (["Ticks: the runs one by one."] if several else [])
        + ([f"The first {len(shown)}; {left} more are in standings.csv."] if left else []),
    }


def _leader(row: Standing, scale: tables.Axis, several: bool) -> dict[str, Any]:
    reach = Reach(row.value, row.low, row.high)
    each = row.values if len(row.runs) > 1 else ()
    return {
        "name": row.name,
        "beside": "",
        "chosen": False,
        "cells": [*([str(len(row.runs))] if several else []), number(row.validation), reach.words],
        "bar": interval(reach, scale, each=each),
    }


def _differences(found: Comparison, rows: Sequence[Difference], tell: bool) -> dict[str, Any]:
    """A forest of one kind of differences; `tell`: with the sentences, which stand nowhere else."""
    shown = rows[:MOST_ROWS]
    one = len({row.reference for row in rows}) == 1
    ends = [abs(v) for row in shown for v in (row.low, row.value, row.high) if v is not None]
    reach = max([v for v in ends if math.isfinite(v)] + [0.01, 1.5 * (found.margin or 0.0)])
    top = tables.linear([0.0, reach]).high
    scale = tables.Axis(-top, top)
    less = f" less {called(rows[0], 1)}" if one else ""
    sides = ["worse", "better"] if found.figure.larger_is_better else ["better", "worse"]
    many = len(rows) - len(shown)
    return {
        "title": KINDS[rows[0].kind].capitalize(),
        "caption": f"{found.figure.title} of each{less}, with 95 % interval",
        "corrected": len(rows) > 1,
        "sides": [f"\N{LEFTWARDS ARROW} {sides[0]}", f"{sides[1]} \N{RIGHTWARDS ARROW}"],
        "ends": [signed(-top), "0", signed(top)],
        "rows": [_difference(found, row, scale, one) for row in shown],
        "told": sentences(found, rows) if tell else [],
        "notes": [
            "Filled: shown by interval and corrected test; hollow: not."
            + (f" Grey: within the margin of {found.margin:g}." if found.margin else ""),
            *([f"The first {len(shown)}; {many} more are in comparison.csv."] if many else []),
        ],
    }


def _difference(
    found: Comparison, row: Difference, scale: tables.Axis, one: bool
) -> dict[str, Any]:
    shown = row.verdict in (BETTER, WORSE)
    look = f"s{int(row.verdict == WORSE)}" if shown else "hollow"
    held = "no interval"
    if row.low is not None and row.high is not None:
        held = f"({signed(row.low)} to {signed(row.high)})"
    reach = Reach(row.value, row.low, row.high)
    return {
        "name": called(row, 0) + ("" if one else f" less {called(row, 1)}"),
        "value": "n/a" if math.isnan(row.value) else f"{signed(row.value)} {held}",
        "p": p_value(row.p),
        "holm": p_value(row.holm),
        "verdict": row.verdict or "no test",
        "note": row.note,
        "bar": interval(reach, scale, guide=0.0, margin=found.margin or 0.0, look=look),
    }
