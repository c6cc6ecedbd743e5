"""What a comparison shows, in sentences: what is better, or what it would take to tell."""

import math
from collections.abc import Iterator, Sequence

from fracnet.evaluation.comparison import Comparison
from fracnet.evaluation.differences import BETTER, IDENTICAL, UNDECIDED, WORSE, Difference
from fracnet.evaluation.power import ALPHA, POWER
from fracnet.evaluation.summary import FEW, TOO_FEW
from fracnet.words import counted

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
