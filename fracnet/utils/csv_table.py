"""CSV tables from other programs: cells by column, and messages that name file and line."""

import codecs
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracnet.utils.errors import DataFault, UserError
from fracnet.utils.text import are, counted, list_some, near_miss

BLANKS = " \t\r\n\xa0"
"""Removed around cells; other white space, such as a form feed, may belong to an id."""

ID_WORDS = {
    "patient": (
        "patientid", "patientname", "patientnumber", "patientno", "subject", "subjectid", "person",
        "personid",
    ),
    "study": (
        "studyid", "studyinstanceuid", "studynumber", "studyno", "exam", "examid", "accession",
        "accessionnumber",
    ),
}  # fmt: skip
"""Usual names of columns with ids, without separators."""


@dataclass(frozen=True)
class Table:
    """rows: column -> cell without surrounding blanks; lines: the line of each in the file."""

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]

    def column_named(self, name: str, read: Collection[str] = ()) -> str | None:
        """The column of this name, otherwise the one that differs from it in case; None without.

        A column that differs in case and is `read` as something else does not count. Raises
        DataFault for several.
        """
        if name in self.columns:
            return name
        same = [
            column
            for column in self.columns
            if column.casefold() == name.casefold() and column not in read
        ]
        if len(same) > 1:
            listed = " and ".join(map(repr, same))
            raise DataFault(f"{self.path} has the columns {listed}; rename or remove all but one.")
        return same[0] if same else None

    def named_like(self, key: str, read: Collection[str]) -> str | None:
        """A column that is not `read`, with a usual name for ids of patients or studies."""
        for column in self.columns:
            if column not in read and re.sub(r"[\W_]+", "", column.casefold()) in ID_WORDS[key]:
                return column
        return None

    def require(self, columns: Iterable[str], hint: str = "") -> None:
        """Raise UserError that lists the missing columns, if any. `hint` ends the message."""
        if missing := [column for column in columns if column not in self.columns]:
            raise UserError(
                f"{self.path} has no column {' and no column '.join(map(repr, missing))}; it has "
                f"{', '.join(self.columns)}.{near_miss(missing[0], self.columns)}{hint}"
            )

    def reject(self, rows: Sequence[int], column: str, expected: str) -> None:
        """Raise DataFault that names these rows, unless there are none."""
        if rows:
            cells = (f"line {self.lines[row]} ({self.rows[row][column]!r})" for row in rows)
            raise DataFault(
                f"{self.path}: {counted(len(rows), 'value')} of the column {column!r} "
                f"{are(len(rows))} invalid: "
                f"{list_some(cells, len(rows))}; expected {expected}."
            )

    def flags(self, column: str) -> list[int]:
        """A column of 0 and 1, empty for 0; DataFault for anything else."""
        values = {"": 0, "0": 0, "0.0": 0, "1": 1, "1.0": 1}
        cells = [row[column] for row in self.rows]
        self.reject([i for i, cell in enumerate(cells) if cell not in values], column, "0 or 1")
        return [values[cell] for cell in cells]


def read_text(path: Path) -> str:
    """The text of a file with its own line breaks: UTF-8, or UTF-16 with its mark (Excel's "Unicode
    text"). Raises UserError.
    """
    encoding = "utf-8-sig"
    try:
        data = path.read_bytes()
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encoding = "utf-16"
        text = data.decode(encoding).lstrip("\ufeff")  # some programs write it twice
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        kind = f"not {encoding.removesuffix('-sig').upper()} text"
        if data.startswith(b"PK\3\4"):
            kind = "an Excel workbook or ZIP file"
        raise UserError(
            f"{path} cannot be read: it is {kind} ({error.reason} at byte {error.start}). Save it "
            "as CSV in UTF-8."
        ) from error
    if (place := text.find("\0")) >= 0:
        raise UserError(
            f"{path} cannot be read: character {place + 1} is NUL, as in UTF-16 without its mark "
            "or in a file that is no text. Save it as CSV in UTF-8."
        )
    return text


def csv_reader(text: str, separator: str = ",") -> Any:
    """Python's reader of CSV, for cells of any length.

    Strict: otherwise an unpaired quotation mark swallows the lines up to the next one.
    """
    csv.field_size_limit(sys.maxsize)  # of the whole process; Python's own is 131,072
    # Not splitlines: a form feed, for example, is part of a cell.
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)


def unreadable_cell(path: Path, line: int, error: csv.Error) -> DataFault:
    """What to raise for an error of `csv_reader`, which is always one of quotation marks."""
    return DataFault(
        f"{path}, line {line}: a cell cannot be read ({error}). Check its quotation marks."
    )


def listed_path(text: str, folder: Path) -> Path:
    """The file that a table names, relative to `folder`; backslashes may separate its folders."""
    path = folder / text
    # On POSIX, a file name may contain a backslash.
    return path if "\\" not in text or path.exists() else folder / text.replace("\\", "/")


def read_csv(path: Path) -> Table:
    """A table with a header, separated by commas, semicolons or tabs. Raises UserError.

    Columns without a name, such as the empty ones at the end that spreadsheets write, are left out.
    """
    text = read_text(path)
    # Excel's own way to name the separator, in a line before the header.
    first = re.match(r"""["']?sep=([^\w\s"']|\t)["']?[,;\t]*(?=[\r\n])""", text, re.IGNORECASE)
    text = text[first.end() :] if first else text
    header = text.lstrip("\r\n").replace("\r", "\n").partition("\n")[0]
    separator = first[1] if first else max(",;\t", key=header.count)
    # A strict reader refuses blanks behind a closing quotation mark.
    ends = rf"[{re.escape(separator)}\r\n]"
    quoted = rf'((?:\A|{ends})"(?:[^"]|"")*+")[ \xa0]*+(?={ends}|\Z)'
    text = re.sub(quoted, r"\1", text)
    reader = csv_reader(text, separator)
    columns: tuple[str, ...] = ()
    rows, lines, long = [], [], []
    start = 1
    try:
        for cells in reader:
            start = reader.line_num + 1
            cells = [cell.strip(BLANKS) for cell in cells]
            if not any(cells):
                continue
            if not columns:
                columns = tuple(cells)
                if twice := [name for name, n in Counter(cells).items() if name and n > 1]:
                    raise DataFault(
                        f"{path} has more than one column {' and '.join(map(repr, twice))}; rename "
                        "or remove all but one."
                    )
                continue
            if any(cells[len(columns) :]):
                long.append(f"line {reader.line_num}: {len(cells)} cells")
                continue
            cells += [""] * (len(columns) - len(cells))
            named = zip(columns, cells, strict=False)
            rows.append({name: cell for name, cell in named if name})
            lines.append(reader.line_num)
    except csv.Error as error:
        raise unreadable_cell(path, start, error) from error
    if long:
        raise DataFault(f"{path}, {list_some(long, len(long))}, but the header has {len(columns)}.")
    if not rows:
        raise DataFault(f"{path} has no line below its header.")
    return Table(path, tuple(filter(None, columns)), rows, lines)
