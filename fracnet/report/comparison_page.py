"""The page of a comparison: who stands where, which differences are real, and what was varied."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fracnet.evaluation.comparison import Comparison, Standing
from fracnet.evaluation.differences import BETTER, IDENTICAL, WORSE, Difference
from fracnet.evaluation.power import ALPHA
from fracnet.report import svg
from fracnet.report.chance import SHOWN, none_exceeds
from fracnet.report.comparison import (
    KINDS,
    about_standings,
    how_made,
    number,
    p_value,
    too_few_runs,
)
from fracnet.report.page import page
from fracnet.report.reach import Reach, interval
from fracnet.report.study_data import about_data, audits, box
from fracnet.report.swept import swept
from fracnet.report.trials import MOST_RUNS, Trial, columns, overlaid
from fracnet.report.verdicts import called, rows_of, sentences, signed
from fracnet.words import counted

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
    scale = svg.linear([v for v in every if v is not None and math.isfinite(v)] or [0.0, 1.0])
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


def _leader(row: Standing, scale: svg.Axis, several: bool) -> dict[str, Any]:
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
    top = svg.linear([0.0, reach]).high
    scale = svg.Axis(-top, top)
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


def _difference(found: Comparison, row: Difference, scale: svg.Axis, one: bool) -> dict[str, Any]:
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
