"""CSV tables that come with data sets: cells by column, and messages that name file and line."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fracnet.config.instantiate import near_miss
from fracnet.data.manifest import listed
from fracnet.utils.errors import DataFault, UserError


@dataclass(frozen=True)
class Table:
    """rows: column -> cell without surrounding blanks; lines: the line of each in the file."""

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]

    def require(self, columns: Iterable[str], why: str = "") -> None:
        """Raise UserError where a column is not there. `why` ends the message."""
        for column in columns:
            if column not in self.columns:
                raise UserError(
                    f"{self.path} has no column {column!r}; it has {', '.join(self.columns)}."
                    f"{near_miss(column, self.columns)}{why}"
                )

    def refuse(self, wrong: Sequence[int], column: str, expected: str) -> None:
        """Raise DataFault naming the rows `wrong`, unless there are none."""
        if wrong:
            told = (f"line {self.lines[row]} ({self.rows[row][column]!r})" for row in wrong)
            raise DataFault(
                f"{self.path}: {len(wrong)} values of the column {column!r} cannot be understood: "
                f"{listed(told, len(wrong))}; expected is {expected}."
            )

    def flags(self, column: str) -> list[int]:
        """A column of 0 and 1, empty for 0; DataFault for anything else."""
        known = {"": 0, "0": 0, "0.0": 0, "1": 1, "1.0": 1}
        cells = [row[column] for row in self.rows]
        self.refuse([i for i, cell in enumerate(cells) if cell not in known], column, "0 or 1")
        return [known[cell] for cell in cells]


def read_csv(path: Path) -> Table:
    """A table with a header, separated by commas, semicolons or tabs. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator)
    columns: tuple[str, ...] = ()
    rows, lines = [], []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = tuple(cells)
                continue
            if len(cells) > len(columns) and any(cells[len(columns) :]):
                raise DataFault(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the header has "
                    f"{len(columns)}."
                )
            cells += [""] * (len(columns) - len(cells))
            rows.append(dict(zip(columns, cells, strict=False)))
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataFault(f"{path}, line {reader.line_num}: {error}.") from error
    if not rows:
        raise DataFault(f"{path} has no line below its header.")
    return Table(path, columns, rows, lines)
