"""What a comparison shows, in sentences: what is better, or what it would take to tell."""

import math
from collections.abc import Iterator, Sequence

from fracnet.evaluation.comparison import Comparison
from fracnet.evaluation.differences import BETTER, IDENTICAL, UNDECIDED, WORSE, Difference
from fracnet.evaluation.summary import FEW, TOO_FEW
from fracnet.words import counted

# With more differences than this, the undecided ones share a sentence.
EACH = 5


def sentences(found: Comparison, rows: Sequence[Difference]) -> list[str]:
    """One sentence a difference; where there are many, one for all that cannot be told."""
    told = [_decided(row) for row in rows if row.verdict in (BETTER, WORSE)]
    open_ones = [row for row in rows if row.verdict == UNDECIDED]
    if len(rows) <= EACH:
        told += [_undecided(found, row) for row in open_ones]
    elif open_ones:
        told.append(_undecided_together(found, open_ones))
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
    return told


def units(count: int, found: Comparison) -> str:
    """`80 patients`."""
    unit = found.clusters.unit  # "patient, else image" where some have none
    return f"{counted(count, 'cluster')} ({unit})" if "," in unit else counted(count, unit)


def _decided(row: Difference) -> str:
    upper, lower = (0, 1) if row.verdict == BETTER else (1, 0)
    size = f"by {abs(row.value):.3f}"
    if row.low is not None and row.high is not None:
        ends = sorted((abs(row.low), abs(row.high)))
        # A test and an interval are made differently; the latter may reach across 0.
        crosses = row.low < 0 < row.high
        size += "" if crosses else f" ({ends[0]:.3f} to {ends[1]:.3f})"
    p = "p < 0.001" if row.holm is not None and row.holm < 0.001 else f"p = {row.holm:.3f}"
    small = ", though by less than the margin" if row.within else ""
    return (
        f"This {row.kind} is better: {called(row, upper)}, than {called(row, lower)}, {size}"
        f"{small}; {p}."
    )


def _undecided(found: Comparison, row: Difference) -> str:
    with_ = units(found.clusters.count, found)
    runs = "" if isinstance(row.runs[0], str) else f" and {row.runs[0]} and {row.runs[1]} runs"
    told = (
        f"It cannot be told with {with_}{runs} which {row.kind} is better, {called(row, 0)} or "
        f"{called(row, 1)}"
    )
    notes = [note for note in row.note.split("; ") if note and note != TOO_FEW]
    why = notes if row.low is None else []
    return "; ".join([told, *why, *_takes(found, row)]) + "."


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
            f"a true difference of {row.detectable:.2g} would have shown in 8 of 10 such "
            "comparisons (margin=... tells how many a smaller one needs)"
        )
    elif row.detectable <= found.margin:
        yield f"a true difference of {found.margin:g} would have shown in 8 of 10 such comparisons"
    elif row.needed is None:
        yield (
            f"for a true difference of {found.margin:g} no number of patients would do: runs "
            "of one configuration differ too much, more seeds are needed"
        )
    else:
        yield (
            f"a true difference of {found.margin:g} would need about "
            f"{units(_rounded(row.needed), found)}"
        )


def _undecided_together(found: Comparison, rows: Sequence[Difference]) -> str:
    told = (
        f"It cannot be told with {units(found.clusters.count, found)} which {rows[0].kind} is "
        f"better in {len(rows)} of the pairs"
    )
    needed = [row.needed for row in rows if row.needed is not None and not row.within]
    if needed and found.margin is not None:
        few, many = _rounded(min(needed)), _rounded(max(needed))
        span = f"{few} to {units(many, found)}" if few < many else units(few, found)
        told += f"; a true difference of {found.margin:g} would need about {span}"
    return f"{told}."


def called(row: Difference, side: int) -> str:
    """A configuration's name, with the run of it that stands for a model."""
    name, run = (row.name, row.reference)[side], row.runs[side]
    return name if isinstance(run, int) or name.startswith(run) else f"{name} ({run})"


def _rounded(count: int) -> int:
    """Two figures: the variance behind it is known no better."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / step) * step
