"""Predictions of a folder of any size, written as they are made.

predictions.csv grows batch by batch, and whatever ends the work leaves whole rows in it;
predictions.json tells what it all means and how far it came.

A picture of each predicted image with what spoke for the decision.
"""

import os
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fracnet.evaluation.predictions import PROB
from fracnet.evaluation.summary import plain
from fracnet.inference.inputs import OWN, Asked
from fracnet.inference.predictor import CAUTION, Batch, Predictor
from fracnet.models.ood import MEANING
from fracnet.runs.run_folder import write_json
from fracnet.saliency.cam import heatmaps
from fracnet.saliency.gallery import draw, enlarged
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import counted

Overlays = Callable[[Batch, int], list[str]]
"""Draws a batch whose first row is number n; the path of each readable image's picture."""


@dataclass
class Told:
    """What came out. counts: images by decision; lost: path and reason of the unreadable ones."""

    folder: Path
    n: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    uncertain: int = 0
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
    progress: Progress[Any] = no_progress,
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
            for batch in _by_image(batches, progress, total):
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
                    f"All {told.n} images name one study, as anonymized files do; unless they are "
                    "views of one study its row in studies.csv means nothing."
                )
        write_lines(rows.path)
        told.status = "finished"
    return told


def _of_limits(predictor: Predictor, level: str) -> list[str]:
    """What to know of the limits of `uncertain`, which make decisions sure."""
    note = predictor.levels[level]["limits"].note if level in predictor.levels else ""
    return [note] if note else []


def write_lines(rows: Path) -> None:
    """The rows of a csv once more, a JSON object a line, in a file of the same name (.jsonl)."""
    with rows.with_suffix(".jsonl").open("w", encoding="utf-8") as lines:
        for part in pd.read_csv(rows, chunksize=5000, dtype={"patient": str, "study": str}):
            lines.write(part.to_json(orient="records", lines=True, force_ascii=False))


def _by_image(batches: Iterator[Batch], progress: Progress[Any], total: int) -> Iterator[Batch]:
    """The batches, while the bar counts their images."""

    def images() -> Iterator[Batch | None]:
        for batch in batches:
            yield batch
            yield from [None] * (len(batch.table) - 1)

    yield from (batch for batch in progress(images(), total, "predicting") if batch is not None)


def _count(told: Told, table: pd.DataFrame) -> None:
    good = table[table["error"] == ""]
    told.n += len(table)
    for name, n in good["decision"].value_counts().items():
        told.counts[str(name)] = told.counts.get(str(name), 0) + int(n)
    told.uncertain += int(good["uncertain"].astype(bool).sum())
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
            "uncertain": told.uncertain,
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
    "uncertain": "by the limits below, or because the image is unlike the training images; why says",
    "novelty": MEANING,
    "unlike": "novelty above 1",
    "overlay": "picture with the heatmap, from this folder",
    "error": "why the file cannot be read; all else is empty then",
}

SHOWN = 5  # unreadable files on the screen


def refuse_what_is_there(out: Path) -> None:
    """Raise UserError unless `out` is free, or an empty folder."""
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"out={out} is there and not empty; nothing is overwritten. Name another.")
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file; allowed: a folder that is new or empty.")


@contextmanager
def new_folder(out: str | None, name: str) -> Iterator[Path]:
    """The folder `out`, or a new one named by the input and the time; gone again if left empty."""
    folder = _made(out, name)
    try:
        yield folder
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _made(out: str | None, name: str) -> Path:
    if out is not None:
        folder = Path(out).expanduser()
        refuse_what_is_there(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"out={out} cannot be made: {error.strerror or error}.") from error
        return folder
    word = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "images"
    base = f"predictions_{word}_{datetime.now().strftime('%Y-%m-%d_%H-%M-%S')}"
    for attempt in count(1):
        folder = Path(base if attempt == 1 else f"{base}_{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{Path.cwd()} cannot be written to ({error.strerror or error}); name another "
                "place with out=."
            ) from error
        return folder
    raise AssertionError("numbers do not end")


def present(told: "Told", predictor: "Predictor") -> None:
    """Print what came out."""
    from fracnet.inference.predictor import CAUTION

    readable = told.n - len(told.lost)
    print(f"{counted(readable, 'image')} predicted by {predictor.folder.path.name}")
    width = max([len("unlike the training images"), *map(len, told.counts)]) + 2
    for name in predictor.classes:
        print(f"  {name:{width}}{told.counts.get(name, 0)}")
    print(f"  {'uncertain':{width}}{told.uncertain}")
    unlike = "not known: the run has no novelty.npz" if told.unlike is None else told.unlike
    print(f"  {'unlike the training images':{width}}{unlike}")
    if told.lost:
        print(f"  {'unreadable':{width}}{len(told.lost)}")
        for path, reason in told.lost[:SHOWN]:
            print(wrapped(f"{path}: {reason}", "    "))
        if len(told.lost) > SHOWN:
            print(f"    and {len(told.lost) - SHOWN} more, in unreadable.csv")
    if told.studies:
        print(f"  {'studies':{width}}{told.studies}")
    for note in told.notes:
        print(wrapped(note))
    print(f"\n{wrapped(CAUTION)}\n\nFolder: {told.folder}")
    for left in sorted(told.folder.iterdir()):
        print(f"  {left.name}{'/' if left.is_dir() else ''}")


def wrapped(text: str, indent: str = "") -> str:
    """For a screen of 80 columns; no path is broken."""
    further = indent + ("  " if indent else "")
    return textwrap.fill(
        text, 80, initial_indent=indent, subsequent_indent=further, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


CAPTION = "Research use only. Not a medical device, no diagnosis."
FONT = cv2.FONT_HERSHEY_SIMPLEX
SIDE = 8  # white columns between the plain image and the one with the heatmap


def captioned(picture: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] with a line under it: pictures are passed on without the rest."""
    width = picture.shape[1]
    scale = width / 1100
    (_, height), below = cv2.getTextSize(CAPTION, FONT, scale, 1)
    line = np.full((2 * height + below, width, 3), 255, np.uint8)
    place = (height // 2, height + height // 2)
    cv2.putText(line, CAPTION, place, FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([picture, line])


def painter(predictor: Predictor, folder: Path) -> Callable[[Batch, int], list[str]]:
    """Draws Grad-CAM of the decided class into `folder`/overlays, beside the plain image.

    Raises UserError for a model that has no maps.
    """
    if predictor.classical:
        raise UserError(
            "overlays=true: this run's model is no network, and has no layer to make a heatmap of; "
            "allowed: overlays=false."
        )
    out = folder / "overlays"

    def paint(batch: Batch, first: int) -> list[str]:
        out.mkdir(exist_ok=True)
        rows = np.flatnonzero((batch.table["error"] == "").to_numpy())
        names = [f"overlays/{first + row + 1:06d}.png" for row in rows]
        maps = heatmaps(predictor.model, batch.images, batch.choices, device=predictor.device)
        heats = (heat for part in maps for heat in part)
        for name, image, heat in zip(names, batch.images, heats, strict=True):
            plain, warm, _ = enlarged(image, heat, [])
            gap = np.full((len(plain), SIDE, 3), 255, np.uint8)
            picture = captioned(np.concatenate([draw(plain), gap, draw(plain, warm)], axis=1))
            packed = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
            (folder / name).write_bytes(packed.tobytes())
        return names

    return paint
