"""Predictions of a folder of any size, written as they are made.

predictions.csv grows batch by batch, and whatever ends the work leaves whole rows in it;
predictions.json tells what it all means and how far it came.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from fracnet.errors import UserError
from fracnet.evaluation.predictions import PROB
from fracnet.evaluation.summary import plain
from fracnet.models.novelty import MEANING
from fracnet.progress import Show, unseen
from fracnet.training.asked import OWN, Asked
from fracnet.training.predictor import CAUTION, Batch, Predictor
from fracnet.training.run_folder import write_json
from fracnet.words import counted

Overlays = Callable[[Batch, int], list[str]]
"""Draws a batch whose first row is number n; the path of each readable image's picture."""


@dataclass
class Told:
    """What came out. counts: images by decision; lost: path and reason of the unreadable ones."""

    folder: Path
    n: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    unsure: int = 0
    unlike: int | None = 0  # None: the run has nothing to tell it by
    lost: list[tuple[str, str]] = field(default_factory=list)
    studies: int = 0
    notes: list[str] = field(default_factory=list)
    status: str = "unfinished"


def predict_into(
    folder: Path,
    predictor: Predictor,
    asked: Asked,
    *,
    overlays: Overlays | None = None,
    show: Show[Any] = unseen,
) -> Told:
    """Predict everything asked for into a new folder; returns what to tell the person.

    Writes predictions.csv, when all is done the same rows as predictions.jsonl, predictions.json,
    studies.csv where studies are known, unreadable.csv where a file cannot be read. Raises
    UserError where the folder cannot be written, and KeyboardInterrupt with what was done so far.
    """
    told = Told(folder, notes=[*asked.notes, *_of_limits(predictor, "image")])
    told.unlike = None if predictor.novelty is None else 0
    of_studies: list[pd.DataFrame] = []
    total = len(asked.items)
    rows = _WholeRows(folder / "predictions.csv")
    with _closing(told, predictor, total, rows):
        with rows:
            batches = predictor.batches(asked.items)
            for batch in _by_image(batches, show, total):
                table = batch.table
                table["overlay"] = None
                if overlays is not None:
                    table.loc[table["error"] == "", "overlay"] = overlays(batch, told.n)
                rows.add(table)
                _count(told, table)
                if table["study"].notna().any():
                    of_studies.append(table[table["study"].notna()].drop(columns=["path", "why"]))
        if of_studies:
            studies = predictor.studies(pd.concat(of_studies, ignore_index=True))
            studies.to_csv(folder / "studies.csv", index=False, lineterminator="\n")
            told.studies = len(studies)
            told.notes += _of_limits(predictor, "study")
            if len(studies) == 1 and told.n > 1:
                told.notes.append(
                    f"All {told.n} images name one study, as anonymised files do; unless they are "
                    "views of one study its row in studies.csv means nothing."
                )
        write_lines(rows.path)
        told.status = "finished"
    return told


def _of_limits(predictor: Predictor, level: str) -> list[str]:
    """What to know of the limits of `unsure`, which make decisions sure."""
    note = predictor.levels[level]["limits"].note if level in predictor.levels else ""
    return [note] if note else []


def write_lines(rows: Path) -> None:
    """The rows of a csv once more, a JSON object a line, in a file of the same name (.jsonl)."""
    with rows.with_suffix(".jsonl").open("w", encoding="utf-8") as lines:
        for part in pd.read_csv(rows, chunksize=5000, dtype={"patient": str, "study": str}):
            lines.write(part.to_json(orient="records", lines=True, force_ascii=False))


def _by_image(batches: Iterator[Batch], show: Show[Any], total: int) -> Iterator[Batch]:
    """The batches, while the bar counts their images."""

    def images() -> Iterator[Batch | None]:
        for batch in batches:
            yield batch
            yield from [None] * (len(batch.table) - 1)

    yield from (batch for batch in show(images(), total, "predicting") if batch is not None)


def _count(told: Told, table: pd.DataFrame) -> None:
    good = table[table["error"] == ""]
    told.n += len(table)
    for name, n in good["decision"].value_counts().items():
        told.counts[str(name)] = told.counts.get(str(name), 0) + int(n)
    told.unsure += int(good["unsure"].astype(bool).sum())
    if told.unlike is not None:
        told.unlike += int(good["unlike"].astype(bool).sum())
    bad = table[table["error"] != ""]
    told.lost += list(zip(bad["path"], bad["error"], strict=True))


class _WholeRows:
    """A csv to which tables are added; one that could not be written whole is taken back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = (0, 0)  # bytes and rows; one thing, so that Ctrl-C does not part them

    @property
    def n(self) -> int:
        """Rows that are in the file."""
        return self._whole[1]

    def __enter__(self) -> "_WholeRows":
        # Not the file of anyone else: the folder is new.
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        return self

    def add(self, table: pd.DataFrame) -> None:
        text = table.to_csv(index=False, header=not self._whole[0], lineterminator="\n").encode()
        left = memoryview(text)
        while left:
            left = left[os.write(self._file, left) :]
        self._whole = (self._whole[0] + len(text), self._whole[1] + len(table))

    def __exit__(self, *_: object) -> None:
        try:
            os.ftruncate(self._file, self._whole[0])
        finally:
            os.close(self._file)


@contextmanager
def _closing(told: Told, predictor: Predictor, total: int, rows: _WholeRows) -> Iterator[None]:
    """Write predictions.json and unreadable.csv however the work ends."""
    path = told.folder / OWN
    try:
        write_json(path, _content(told, predictor, total))
        try:
            yield
        except KeyboardInterrupt as stop:
            told.n = rows.n
            told.status = "interrupted"
            so_far = f"{told.n} of {counted(total, 'image')} are in {told.folder}"
            raise KeyboardInterrupt(so_far) from stop
        finally:
            told.n = rows.n
            if told.lost:
                lost = pd.DataFrame(told.lost, columns=["path", "error"])
                lost.to_csv(told.folder / "unreadable.csv", index=False, lineterminator="\n")
            write_json(path, _content(told, predictor, total))
    except OSError as error:
        raise UserError(
            f"out={told.folder} cannot be written: {error.strerror or error}. The first "
            f"{told.n} of {counted(total, 'image')} are in it."
        ) from error


def _content(told: Told, predictor: Predictor, total: int) -> dict[str, Any]:
    """What a reader of the rows must know."""
    levels = {
        level: {"threshold": one["threshold"], **_named(one, predictor.classes)}
        for level, one in predictor.levels.items()
    }
    return dict(plain({
        "caution": CAUTION,
        "status": told.status,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": str(predictor.folder.path),
        "decisions_sha256": predictor.decisions["sha256"],
        "classes": list(predictor.classes),
        "temperature": predictor.decisions["temperature"],
        "views": predictor.decisions["views"],
        "images": {
            "asked": total,
            "done": told.n,
            "unreadable": len(told.lost),
            "decisions": told.counts,
            "unsure": told.unsure,
            "unlike": told.unlike,
        },
        "studies": told.studies,
        "levels": levels,
        "novelty": predictor.novelty.about() if predictor.novelty else None,
        "columns": COLUMNS,
        "notes": told.notes,
    }))  # fmt: skip


def _named(level: dict[str, Any], classes: tuple[str, ...]) -> dict[str, Any]:
    limits = asdict(level["limits"])
    limits.pop("classes")
    keys = ("values", "promised", "counts")
    named = {key: dict(zip(classes, limits[key], strict=True)) for key in keys}
    return {"limits": limits | named, "on_the_run_s_test": level["test"]}


COLUMNS = {
    "path": "the file",
    "patient, study": "from DICOM headers or the table of the input; empty where unknown",
    "likeliest": "the class with the highest probability",
    f"{PROB}<class>": "calibrated with the temperature that validation has chosen",
    "decision": "by the frozen threshold of two classes, otherwise the likeliest class",
    "unsure": "by the limits below, or because the image is unlike the training images; why says",
    "novelty": MEANING,
    "unlike": "novelty above 1",
    "overlay": "picture with the heatmap, from this folder",
    "error": "why the file cannot be read; all else is empty then",
}
