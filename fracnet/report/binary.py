"""The closing tables of a two-class task: by region, at image and at study level."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from fracnet.evaluation.binary import BinaryRow
from fracnet.report.console import FIGURE_WIDTH, figure, plain_table


def print_binary(console: Console, rows: Sequence[BinaryRow], positive: str) -> None:
    """Print a table a level: region, cases of n, AUC, sensitivity, specificity, kappa.

    `positive` is the name of the positive class.
    """
    for level in dict.fromkeys(row.level for row in rows):
        table = plain_table(f"{level} level: {positive}, 95 % intervals by {rows[0].unit}")
        table.add_column("region", overflow="fold")
        table.add_column("cases/n", justify="right", no_wrap=True)
        for title in ("AUC", "sensitivity", "specificity", "kappa"):
            table.add_column(title, max_width=FIGURE_WIDTH, overflow="fold")
        for row in (row for row in rows if row.level == level):
            figures = (row.auc, row.sensitivity, row.specificity, row.kappa)
            table.add_row(
                Text(row.region),
                f"{row.positives}/{row.n}",
                *(_stacked(figure(value)) for value in figures),
            )
        console.print(table)


def _stacked(text: str) -> str:
    """Value above interval: four figures side by side would not fit 80 columns."""
    return text.replace(" ", "\n", 1)
