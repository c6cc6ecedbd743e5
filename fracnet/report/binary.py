"""MURA's official figure: Cohen's kappa of raw mean probabilities above 0.5."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from fracnet.evaluation.binary import BinaryRow
from fracnet.report.console import FIGURE_WIDTH, figure, plain_table, titled


def print_official(console: Console, rows: Sequence[BinaryRow], positive: str) -> None:
    """Print kappa by region, at image and (the official one) study level.

    `positive` is the name of the positive class. Regions that split studies have a "-" for them.
    """
    levels = list(dict.fromkeys(row.level for row in rows))
    table = plain_table()
    table.add_column("region", overflow="fold")
    for level in levels:
        table.add_column("cases/n", justify="right", no_wrap=True)
        table.add_column(f"{level} level", min_width=FIGURE_WIDTH, no_wrap=True)
    for region in dict.fromkeys(row.region for row in rows):
        cells: list[str] = []
        for level in levels:
            row = next((r for r in rows if (r.level, r.region) == (level, region)), None)
            cells += [f"{row.positives}/{row.n}", figure(row.kappa)] if row else ["-", "-"]
        table.add_row(Text(region), *cells)
    title = f"Cohen's kappa: {positive} where the raw mean is above 0.5, as in MURA"
    titled(console, title, table)
