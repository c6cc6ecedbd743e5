"""The tables of a comparison on the screen: the standing by validation, then the differences."""

import math
import re
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fracnet.evaluation.comparison import Comparison, Standing
from fracnet.evaluation.differences import Difference
from fracnet.evaluation.ensembles import OUT_OF_FOLD, Ensemble
from fracnet.evaluation.seeds import ENOUGH
from fracnet.report.console import PLAIN, RESEARCH_ONLY, limits
from fracnet.report.verdicts import called, rows_of, sentences, signed

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
            console.print(_differences(rows, console.width))
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


def _differences(rows: Sequence[Difference], width: int) -> Table:
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
