"""The page of a prediction: counts, one row per image with its pictures, studies, and the rules.

It refers to the pictures and tables next to it in its folder, whatever their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from fracnet.evaluation.conformal import NEVER, Limits, limit_evidence
from fracnet.evaluation.predictions import PROB
from fracnet.report.html import page
from fracnet.report.run_tables import UNSCALED, format_threshold
from fracnet.report.tables import Cell, FileName, Link, Table
from fracnet.utils.text import counted

MAX_ROWS = 2000
"""Rows of the page: browsers sort and filter no more at once."""
LINKED_FILES = {
    "predictions.csv": "one row per image",
    "predictions.jsonl": "the same rows as JSON",
    "studies.csv": "one row per study",
    "unreadable.csv": "files that cannot be read, with the reason",
    "predictions.json": "columns, limits and their results on the run's own test split",
}
PROBABILITIES = "All probabilities are calibrated with the temperature that validation chose"


@dataclass(frozen=True)
class PredictionContent:
    """What the page shows.

    name: of the output folder. run: of the run's folder. written: the date. rows: predictions.csv;
    a column `plain` has the path of the image without its heatmap. studies: studies.csv, or None.
    levels: by level, threshold and limits, as in `Predictor.levels`. ood: whether the run has an
    OOD reference. files: names of files in the folder.
    """

    name: str
    run: str
    written: str
    caution: str
    notes: Sequence[str]
    classes: tuple[str, ...]
    temperature: float
    levels: Mapping[str, Mapping[str, Any]]
    rows: pd.DataFrame
    studies: pd.DataFrame | None
    ood: bool
    files: Sequence[str]


def prediction_page(content: PredictionContent) -> str:
    """The page, as HTML."""
    rows = rows_to_show(content.rows)
    cases = [_case(row, content) for _, row in rows.iterrows()]
    studies = None if content.studies is None else study_table(content)
    left_out = len(content.rows) - len(rows)
    choices = {
        "decision": ("class", content.classes),
        "confidence": ("confidence", ("confident", "uncertain")),
        "ood": ("out of distribution", ("yes", "no")),
        "error": ("file", ("readable", "unreadable")),
    }
    values = {
        "name": content.name,
        "run": content.run,
        "written": content.written,
        "headline": _headline(content.rows),
        "caution": content.caution,
        "notes": content.notes,
        "facts": _facts(content),
        "cases": cases,
        "pictures": any(case["pictures"] for case in cases),
        "left_out": f"The page shows the {counted(len(rows), 'image')} that most need review: "
        "unreadable, out of distribution and uncertain ones first. predictions.csv has all "
        f"{len(content.rows)}."
        if left_out
        else "",
        "choices": [
            (key, title, [value for value in options if any(case[key] == value for case in cases)])
            for key, (title, options) in choices.items()
        ],
        "studies": studies,
        "rules": rules(content),
        "limits": [limits_table(level, values) for level, values in content.levels.items()],
        "files": [
            (Link(name, quote(name)), LINKED_FILES[name])
            for name in LINKED_FILES
            if name in content.files
        ],
    }
    return page("prediction.html", values)


def rows_to_show(rows: pd.DataFrame) -> pd.DataFrame:
    """All rows in their order; of more than `MAX_ROWS` those that most need review."""
    if len(rows) <= MAX_ROWS:
        return rows
    readable = rows["error"].fillna("") == ""
    rank = np.select(
        [~readable, rows["ood"].eq(True), rows["uncertain"].eq(True)], [0, 1, 2], default=3
    )
    return rows.iloc[np.argsort(rank, kind="stable")[:MAX_ROWS]]


def _headline(rows: pd.DataFrame) -> str:
    readable = rows["error"].fillna("") == ""
    uncertain = int(rows["uncertain"].eq(True).sum())
    unreadable = f", {int((~readable).sum())} unreadable" if not readable.all() else ""
    confident = int(readable.sum()) - uncertain
    images = counted(len(rows), "image")
    return f"{images}: {confident} confident, {uncertain} uncertain{unreadable}"


def _facts(content: PredictionContent) -> list[dict[str, str]]:
    rows = content.rows
    readable = rows["error"].fillna("") == ""
    counts = [(f"predicted {name}", rows["decision"].eq(name)) for name in content.classes]
    counts.append(("uncertain", rows["uncertain"].eq(True)))
    if content.ood:
        counts.append(("out of distribution", rows["ood"].eq(True)))
    counts.append(("unreadable", ~readable))
    facts = [("images", str(len(rows))), *((name, str(int(n.sum()))) for name, n in counts)]
    if content.studies is not None:
        facts.append(("studies", str(len(content.studies))))
    return [{"name": name, "value": value} for name, value in facts]


def _case(row: pd.Series, content: PredictionContent) -> dict[str, Any]:
    """A row of the table of images."""
    name = str(row["path"]).replace("\\", "/").rpartition("/")[2]
    case = {"file": FileName(name), "path": str(row["path"]), "pictures": [], "href": ""}
    if row["error"]:
        return case | {
            "error": "unreadable", "decision": "", "probability": "", "confidence": "", "ood": "",
            "score": "", "why": str(row["error"]), "caption": f"{name}: {row['error']}",
        }  # fmt: skip
    prob = np.array([float(row[f"{PROB}{c}"]) for c in content.classes])
    choice = content.classes.index(str(row["decision"]))
    probability = f"{prob[choice]:.3f}"
    confidence = "uncertain" if row["uncertain"] else "confident"
    why = limit_evidence(prob, choice, content.levels["image"]["limits"])
    ood = "yes" if content.ood and row["ood"] else "no" if content.ood else ""
    if ood == "yes":
        why += f"; out-of-distribution score {row['ood_score']:.2f} is above the limit of 1"
    case |= {
        "error": "readable",
        "decision": content.classes[choice],
        "probability": probability,
        "confidence": confidence,
        "ood": ood,
        "score": f"{row['ood_score']:.2f}" if content.ood else "",
        "why": f"{why}.",
        "caption": f"{name}; predicted: {content.classes[choice]}, calibrated probability "
        f"{probability}; {confidence}: {why}.",
    }
    if row["overlay"]:
        kinds = (("plain", row["plain"], ""), ("overlay", row["overlay"], ", with its heatmap"))
        case["href"] = quote(str(row["overlay"]))
        case["pictures"] = [
            {"kind": kind, "src": quote(str(file)), "alt": f"{name}{extra}"}
            for kind, file, extra in kinds
        ]
    return case


def study_table(content: PredictionContent) -> Table:
    """A row per study."""
    assert content.studies is not None
    rows: list[list[Cell]] = []
    for _, row in content.studies.iterrows():
        decision = row["decision"]
        known = isinstance(decision, str) and decision != ""
        prob = row[f"{PROB}{decision if known else content.classes[-1]}"]
        rows.append(
            [
                str(row["study"]),
                "" if pd.isna(row["patient"]) else str(row["patient"]),
                str(row["views"]),
                str(decision) if known else "-",
                "-" if pd.isna(prob) else f"{prob:.3f}",
                "-" if pd.isna(row["uncertain"]) else "yes" if row["uncertain"] else "no",
                "-" if pd.isna(row["ood"]) else str(row["ood"]),
                str(row["unreadable"]),
                str(row["reason"] or "") if isinstance(row["reason"], str) else "",
            ]
        )
    note = ""
    if "study" not in content.levels:
        note = (
            "There are no decisions on studies, because the run's validation has none. The "
            f"probability is that of {content.classes[-1]}."
        )
    heads = ["study", "patient", "views", "predicted", "probability", "uncertain"]
    return Table(
        f"{counted(len(rows), 'study')}; calibrated probabilities",
        [*heads, "OOD views", "unreadable views", "reason"],
        rows,
        note=note,
        text=[1, 3, 8],
        sortable=True,
    )


def rules(content: PredictionContent) -> list[str]:
    """By which rules the page decides, and which probabilities it shows."""
    scaled = content.temperature != 1
    sentences = [f"{PROBABILITIES}, {content.temperature:.3f}." if scaled else UNSCALED]
    threshold = content.levels["image"]["threshold"]
    if threshold is None:
        sentences.append("The predicted class of an image is the most likely one.")
    else:
        sentences.append(
            f"An image is predicted {content.classes[1]} if that probability is above "
            f"{format_threshold(threshold)}, the threshold that validation chose."
        )
    sentences.append(
        "A prediction is confident if every other class is below its own limit and the predicted "
        "class is not, and uncertain otherwise, so a high probability can be uncertain and a lower "
        "one confident. An image out of distribution is always uncertain."
    )
    if not content.ood:
        sentences.append("It is unknown which images are out of distribution: the run has no "
                         "ood.npz.")  # fmt: skip
    return sentences


def limits_table(level: str, values: Mapping[str, Any]) -> Table:
    """The limit of each class at a level, and the rate of confident errors that it allows."""
    limits: Limits = values["limits"]
    rows = [
        [name, "never ruled out", "-", str(n)]
        if value == NEVER
        else [name, f"{value:.3f}", f"{100 * promised:.1f} %", str(n)]
        for name, value, promised, n in zip(
            limits.classes, limits.values, limits.promised, limits.counts, strict=True
        )
    ]
    plural = "studies" if level == "study" else f"{level}s"
    heads = ["class", "ruled out below", "confident errors at most", f"validation {plural}"]
    return Table(f"Limits by class, {level} level", heads, rows)
