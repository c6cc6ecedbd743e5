"""How sure the model sounds, before and after temperature scaling."""

from rich.console import Console

from fracnet.evaluation.assess import CALIBRATION, Assessment
from fracnet.report.console import FIGURE_WIDTH, FURTHER, figure, plain_table, say, titled


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
