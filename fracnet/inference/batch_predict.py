"""Predict any number of images into a folder, batch by batch.

predictions.csv grows with each batch, and holds whole rows however the work ends; predictions.json
describes the rows and how far the prediction came. With overlays, each predicted image gets a
picture with its heatmap.
"""

import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

import pandas as pd

from fracnet.evaluation.predictions import PROB
from fracnet.evaluation.summary import plain
from fracnet.inference import CAUTION
from fracnet.inference.image_predictor import Batch, ImagePredictor
from fracnet.inference.inputs import InputImages
from fracnet.inference.overlays import Overlays
from fracnet.inference.prediction_page import prediction_page
from fracnet.models.ood import MEANING, NO_REFERENCE
from fracnet.runs.run_folder import csv_text, with_format, write_json
from fracnet.utils.errors import Interrupted, UserError
from fracnet.utils.files import atomic_file, write_atomically
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.result_files import PREDICTION_FILE
from fracnet.utils.text import counted, exact_cell

COLUMNS = {
    "path": "the file",
    "patient, study": "from DICOM headers or the table of the input; empty where unknown",
    "likeliest": "the class with the highest probability",
    f"{PROB}<class>": "calibrated with the temperature that validation has chosen",
    "log_odds": "calibrated log-odds of the second of two classes, which the threshold compares: "
    "probabilities near 1 round to 1",
    "decision": "by the run's threshold for two classes, otherwise the most likely class",
    "uncertain": "by the limits below, or because the image is out of distribution; see reason",
    "ood_score": MEANING,
    "ood": "whether ood_score is above 1",
    "overlay": "picture with the heatmap, relative to this folder",
    "error": "why the file cannot be read; all other columns are empty then",
}
TEXT_COLUMNS = [
    "path", "patient", "study", "likeliest", "decision", "reason", "overlay", "error",
]  # fmt: skip
MANY_VIEWS = 6
"""An examination rarely has more."""
LISTED = 5
"""Unreadable files that the console lists."""


@dataclass
class PredictionSummary:
    """The outcome. decisions: images per decision; unreadable: path and reason of each file.

    ood: None where the run has no OOD reference.
    """

    folder: Path
    n: int = 0
    decisions: dict[str, int] = field(default_factory=dict)
    uncertain: int = 0
    ood: int | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    studies: int = 0
    notes: list[str] = field(default_factory=list)
    status: str = "unfinished"

    def add(self, table: pd.DataFrame) -> None:
        """Count the rows of a batch."""
        good, bad = table[table["error"] == ""], table[table["error"] != ""]
        self.n += len(table)
        for name, n in good["decision"].value_counts().items():
            self.decisions[str(name)] = self.decisions.get(str(name), 0) + int(n)
        self.uncertain += int(good["uncertain"].astype(bool).sum())
        if self.ood is not None:
            self.ood += int(good["ood"].astype(bool).sum())
        self.unreadable += list(zip(bad["path"], bad["error"], strict=True))


def predict_into(
    folder: Path,
    predictor: ImagePredictor,
    images: InputImages,
    *,
    overlays: Overlays | None = None,
    progress: Progress[Any] = no_progress,
) -> PredictionSummary:
    """Predict all images into a new folder.

    Writes predictions.csv, at the end the same rows as predictions.jsonl, predictions.json,
    studies.csv where studies are known, unreadable.csv where files cannot be read, and the page
    index.html. Raises UserError where the folder cannot be written, and KeyboardInterrupt that
    states what is done so far.
    """
    summary = PredictionSummary(folder, ood=None if predictor.ood_description is None else 0)
    summary.notes += [*images.notes, *_limit_notes(predictor, "image")]
    study_rows: list[pd.DataFrame] = []
    studies: pd.DataFrame | None = None
    total = len(images.files)
    rows = _RowFile(folder / "predictions.csv")
    with _recorded(summary, predictor, total, rows):
        with rows:
            batches = predictor.batches(images.files, originals=overlays is not None)
            for batch in _counting_images(batches, progress, total):
                table = batch.table
                table["overlay"] = None
                if overlays is not None:
                    table.loc[table["error"] == "", "overlay"] = overlays(batch)
                rows.add(table)
                summary.add(table)
                if table["study"].notna().any():
                    known = table[table["study"].notna()]
                    study_rows.append(known.drop(columns=["path", "reason"]))
        if study_rows:
            studies = predictor.studies(pd.concat(study_rows, ignore_index=True))
            write_atomically(folder / "studies.csv", csv_text(studies))
            summary.studies = len(studies)
            summary.notes += _limit_notes(predictor, "study")
            named = sum(map(len, study_rows))
            if len(studies) == 1 and named > MANY_VIEWS:
                summary.notes.append(
                    f"All {named} images with a study name the same one, which anonymized "
                    "files often do; unless they are views of one study, its row in studies.csv "
                    "has no meaning."
                )
        _write_jsonl(rows.path)
        # "" and not missing: an image is readable where `error` is empty.
        written = pd.concat(list(_read_rows(rows.path)), ignore_index=True)
        written = written.fillna(dict.fromkeys(TEXT_COLUMNS, ""))
        page = prediction_page(folder, predictor, written, studies, summary.notes)
        write_atomically(folder / "index.html", page)
        summary.status = "finished"
    return summary


def _limit_notes(predictor: ImagePredictor, level: str) -> list[str]:
    """Notes on the limits that make decisions confident or uncertain."""
    note = predictor.levels[level]["limits"].note if level in predictor.levels else ""
    return [note] if note else []


def _write_jsonl(rows: Path) -> None:
    """The rows of a csv as one JSON object per line, in a file of the same name (.jsonl)."""
    with atomic_file(rows.with_suffix(".jsonl")) as lines:
        for part in _read_rows(rows):
            lines.write(part.to_json(orient="records", lines=True, force_ascii=False).encode())


def _read_rows(path: Path) -> Iterator[pd.DataFrame]:
    """The rows of predictions.csv in parts; an empty cell is missing, and nothing else."""
    # pandas would take a name such as NA or null as missing, and an id such as 007 as a number.
    parts = pd.read_csv(
        path,
        chunksize=5000,
        dtype=dict.fromkeys(TEXT_COLUMNS, str),
        keep_default_na=False,
        na_values=[""],
    )
    for part in parts:
        text = part.columns.intersection(TEXT_COLUMNS)
        # A column without any text would become one of numbers.
        part[text] = part[text].map(exact_cell).astype(object)
        yield part


def _counting_images(
    batches: Iterator[Batch], progress: Progress[Any], total: int
) -> Iterator[Batch]:
    """The batches, while the progress bar counts their images."""

    def images() -> Iterator[Batch | None]:
        for batch in batches:
            yield batch
            yield from [None] * (len(batch.table) - 1)

    yield from (batch for batch in progress(images(), total, "predicting") if batch is not None)


class _RowFile:
    """A csv to which tables are appended; a table that could not be written whole is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._complete = (0, 0)  # bytes and rows in one tuple, so that Ctrl-C cannot separate them

    @property
    def n(self) -> int:
        """Rows in the file."""
        return self._complete[1]

    def __enter__(self) -> "_RowFile":
        # O_EXCL: the folder is new, so the file must not exist.
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        return self

    def add(self, table: pd.DataFrame) -> None:
        n_bytes, n_rows = self._complete
        text = csv_text(table, header=not n_bytes).encode()
        left = memoryview(text)
        while left:
            left = left[os.write(self._file, left) :]
        self._complete = (n_bytes + len(text), n_rows + len(table))

    def __exit__(self, *_: object) -> None:
        try:
            os.ftruncate(self._file, self._complete[0])
        finally:
            os.close(self._file)


@contextmanager
def _recorded(
    summary: PredictionSummary, predictor: ImagePredictor, total: int, rows: _RowFile
) -> Iterator[None]:
    """Write predictions.json and unreadable.csv however the work ends."""
    folder = summary.folder
    try:
        write_json(folder / PREDICTION_FILE, _content(summary, predictor, total))
        try:
            yield
        except (KeyboardInterrupt, Interrupted) as stop:
            summary.status = "interrupted"
            message = f"{rows.n} of {counted(total, 'image')} are in {folder}"
            raise KeyboardInterrupt(message) from stop
        finally:
            summary.n = rows.n
            if summary.unreadable:
                table = pd.DataFrame(summary.unreadable, columns=["path", "error"])
                write_atomically(folder / "unreadable.csv", csv_text(table))
            write_json(folder / PREDICTION_FILE, _content(summary, predictor, total))
    except OSError as error:
        raise UserError(
            f"out={folder} cannot be written: {error.strerror or error}. The first {summary.n} of "
            f"{counted(total, 'image')} are in it."
        ) from error


def _content(summary: PredictionSummary, predictor: ImagePredictor, total: int) -> dict[str, Any]:
    """The content of predictions.json: what a reader of the rows must know."""
    levels = {
        level: {
            "threshold": values["threshold"],
            "threshold_log_odds": values["cut"],
            "limits": _limits_by_class(values, predictor.classes),
            "on_run_test": values["test"],
        }
        for level, values in predictor.levels.items()
    }
    return with_format(plain({
        "caution": CAUTION,
        "status": summary.status,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": str(predictor.path),
        "decisions_sha256": predictor.decisions["sha256"],
        "classes": list(predictor.classes),
        "temperature": predictor.decisions["temperature"],
        "views": predictor.decisions["views"],
        "images": {
            "requested": total,
            "done": summary.n,
            "unreadable": len(summary.unreadable),
            "decisions": summary.decisions,
            "uncertain": summary.uncertain,
            "ood": summary.ood,
        },
        "studies": summary.studies,
        "levels": levels,
        "ood": predictor.ood_description,
        "columns": COLUMNS,
        "notes": summary.notes,
    }))  # fmt: skip


def _limits_by_class(level: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    limits = asdict(level["limits"])
    limits.pop("classes")
    by_class = ("values", "promised", "counts")
    return limits | {key: dict(zip(classes, limits[key], strict=True)) for key in by_class}


def check_output_free(out: Path) -> None:
    """Raise UserError unless `out` does not exist or is an empty folder."""
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"out={out} is not empty, and nothing is overwritten; name another folder.")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file; allowed: a new or empty folder.")


@contextmanager
def output_folder(out: str | None, name: str) -> Iterator[Path]:
    """The folder `out`, or a new one named after input and time; removed again if left empty."""
    folder = _new_folder(name) if out is None else Path(out).expanduser()
    if out is not None:
        check_output_free(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"out={out} cannot be created: {error.strerror or error}.") from error
    try:
        yield folder
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _new_folder(name: str) -> Path:
    """A folder that no other command has, even one that starts in the same second."""
    safe_name = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "images"
    base = f"predictions_{safe_name}_{datetime.now().strftime('%Y-%m-%d_%H-%M-%S')}"
    names = chain([base], (f"{base}_{number}" for number in count(2)))
    while True:
        folder = Path(next(names))
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"Cannot write to {Path.cwd()} ({error.strerror or error}); name another folder "
                "with out=."
            ) from error
        return folder


def print_summary(summary: PredictionSummary, predictor: ImagePredictor) -> None:
    """Print the counts, the notes and the files."""
    ood = "unknown" if summary.ood is None else summary.ood
    counts: dict[str, int | str] = {
        name: summary.decisions.get(name, 0) for name in predictor.classes
    }
    counts |= {"uncertain": summary.uncertain, "out of distribution": ood}
    if summary.unreadable:
        counts["unreadable"] = len(summary.unreadable)
    if summary.studies:
        counts["studies"] = summary.studies
    readable = summary.n - len(summary.unreadable)
    print(f"{counted(readable, 'image')} predicted by {predictor.path.name}")
    width = max(map(len, counts)) + 2
    for name, value in counts.items():
        print(f"  {name:{width}}{value}")
        if name == "unreadable":
            for file, reason in summary.unreadable[:LISTED]:
                print(_wrapped(f"{file}: {reason}", "    "))
            if len(summary.unreadable) > LISTED:
                print(f"    and {len(summary.unreadable) - LISTED} more, in unreadable.csv")
    for note in [*summary.notes, *([NO_REFERENCE] if summary.ood is None else [])]:
        print(_wrapped(note))
    print(f"\n{_wrapped(CAUTION)}\n\nFolder: {summary.folder}")
    for path in sorted(summary.folder.iterdir()):
        print(f"  {path.name}{'/' if path.is_dir() else ''}")


def _wrapped(text: str, indent: str = "") -> str:
    """For a terminal of 80 columns; paths are not broken."""
    further = indent + ("  " if indent else "")
    return textwrap.fill(
        text, 80, initial_indent=indent, subsequent_indent=further, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
