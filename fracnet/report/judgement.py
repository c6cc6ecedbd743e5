"""The closing tables of an evaluation, in the order in which they are worth reading."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from fracnet.evaluation.assess import Assessment
from fracnet.report.binary import print_official
from fracnet.report.calibration import print_calibration
from fracnet.report.cited import told
from fracnet.report.console import print_sentences, print_tables, say
from fracnet.report.strata import print_strata


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
