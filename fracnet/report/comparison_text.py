"""What a comparison says in sentences, for the terminal and the page."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase

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
from fracnet.utils.text import counted

SEPARATE_SENTENCES = 5
"""With more differences than this, the undecided ones share a sentence."""
TRUE_DIFFERENCE = "a true difference"
LONGEST_NAME = 24
"""Characters of a name that sentences repeat; longer ones get a letter."""


def letters(result: Comparison) -> dict[str, str]:
    """What stands for each name in the terminal: letters if one is long, else the name itself."""
    names = [row.name for row in result.standings]
    if max(map(len, names)) <= LONGEST_NAME or len(names) > len(ascii_uppercase):
        return {name: name for name in names}
    return dict(zip(names, ascii_uppercase, strict=False))


def with_names(result: Comparison, names: Mapping[str, str]) -> Comparison:
    """The comparison with other names of its candidates."""

    def rename(rows: Sequence[Difference]) -> tuple[Difference, ...]:
        return tuple(
            replace(row, name=names[row.name], reference=names[row.reference]) for row in rows
        )

    games = result.localization
    if games is not None:
        values = {names[name]: value for name, value in games.values.items()}
        games = replace(games, values=values, differences=rename(games.differences))
    return replace(
        result,
        standings=tuple(replace(row, name=names[row.name]) for row in result.standings),
        models=rename(result.models),
        configurations=rename(result.configurations),
        localization=games,
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
        title = result.metric.title
        sentences.append(
            f"{title} is a mean over classes, one of which has fewer than {FEW} cases: too few."
            if result.metric.is_macro
            else f"{title} is based on fewer than {FEW} cases (or non-cases): too few."
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
    if not shared_reference(rows):
        if not decided:
            return f"None of the {n} pairs differs significantly."
        return f"{decided} of {n} pairs differ significantly."
    if not decided:
        return f"{none_of(n, 'other')} differs significantly from {reference}."
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


def none_of(n: int, noun: str) -> str:
    """`Neither run`, `None of the 3 runs`."""
    return f"Neither {noun}" if n == 2 else f"None of the {counted(n, noun)}"


def noun_of(result: Comparison) -> str:
    """What is compared: `run` or `configuration`."""
    single = all(len(row.runs) == 1 for row in result.standings)
    return "run" if single else "configuration"


def shared_reference(rows: Sequence[Difference]) -> str:
    """The name of the reference that all rows share; "" if they have several."""
    return display_name(rows[0], 1) if len({row.reference for row in rows}) == 1 else ""
