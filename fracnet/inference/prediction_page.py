"""The page of a prediction: counts, one row per image with its pictures, studies, and the rules.

It refers to the pictures and tables next to it in its folder, whatever their number.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from fracnet.evaluation.conformal import NEVER, Limits, limit_evidence, short_reason
from fracnet.evaluation.decisions import temperature_text
from fracnet.evaluation.predictions import PROB
from fracnet.inference import CAUTION
from fracnet.inference.image_predictor import ImagePredictor
from fracnet.inference.overlays import plain_picture
from fracnet.models.ood import NO_REFERENCE
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


def prediction_page(
    folder: Path,
    predictor: ImagePredictor,
    rows: pd.DataFrame,
    studies: pd.DataFrame | None,
    notes: Sequence[str],
) -> str:
    """The page for `folder`, as HTML.

    rows: of predictions.csv; an empty text is "". studies: of studies.csv, or None.
    """
    readable = rows["error"] == ""
    counts = {f"predicted {name}": rows["decision"].eq(name) for name in predictor.classes}
    counts["uncertain"] = rows["uncertain"].eq(True)
    if predictor.ood_description:
        counts["out of distribution"] = rows["ood"].eq(True)
    counts["unreadable"] = ~readable
    numbers = {name: int(which.sum()) for name, which in counts.items()}
    facts = {"images": len(rows), **numbers}
    if studies is not None:
        facts["studies"] = len(studies)
    uncertain, unreadable = numbers["uncertain"], numbers["unreadable"]
    shown = rows_to_show(rows)
    cases = [_case(row, predictor) for _, row in shown.iterrows()]
    choices = {
        "decision": ("class", predictor.classes),
        "confidence": ("confidence", ("confident", "uncertain")),
        "ood": ("out of distribution", ("yes", "no")),
        "error": ("file", ("readable", "unreadable")),
    }
    missing = {"studies.csv": studies is None, "unreadable.csv": not unreadable}
    values = {
        "name": folder.resolve().name,
        "run": predictor.path.name,
        "written": datetime.now(UTC).date().isoformat(),
        "headline": f"{counted(len(rows), 'image')}: {len(rows) - unreadable - uncertain} "
        f"confident, {uncertain} uncertain" + (f", {unreadable} unreadable" if unreadable else ""),
        "caution": CAUTION,
        "notes": notes,
        "facts": [{"name": name, "value": str(value)} for name, value in facts.items()],
        "cases": cases,
        "pictures": any(case["pictures"] for case in cases),
        "left_out": f"The page shows the {counted(len(shown), 'image')} that most need review: "
        "unreadable, out of distribution and uncertain ones first. predictions.csv has all "
        f"{len(rows)}."
        if len(shown) < len(rows)
        else "",
        "choices": [
            (key, title, [value for value in options if any(case[key] == value for case in cases)])
            for key, (title, options) in choices.items()
        ],
        "studies": None if studies is None else study_table(studies, predictor),
        "rules": rules(predictor),
        "limits": [limits_table(level, values) for level, values in predictor.levels.items()],
        "files": [
            (Link(name, quote(name)), what)
            for name, what in LINKED_FILES.items()
            if not missing.get(name)
        ],
    }
    return page("prediction.html", values)


def rows_to_show(rows: pd.DataFrame) -> pd.DataFrame:
    """All rows in their order; of more than `MAX_ROWS` those that most need review."""
    if len(rows) <= MAX_ROWS:
        return rows
    rank = np.select(
        [rows["error"] != "", rows["ood"].eq(True), rows["uncertain"].eq(True)],
        [0, 1, 2],
        default=3,
    )
    return rows.iloc[np.argsort(rank, kind="stable")[:MAX_ROWS]]


def _case(row: pd.Series, predictor: ImagePredictor) -> dict[str, Any]:
    """A row of the table of images."""
    name = str(row["path"]).replace("\\", "/").rpartition("/")[2]
    case = {"file": FileName(name), "path": str(row["path"]), "pictures": [], "href": ""}
    if row["error"]:
        return case | {
            "error": "unreadable", "decision": "", "probability": "", "confidence": "", "ood": "",
            "score": "", "why": str(row["error"]), "caption": f"{name}: {row['error']}",
        }  # fmt: skip
    prob = np.array([float(row[f"{PROB}{c}"]) for c in predictor.classes])
    choice = predictor.classes.index(str(row["decision"]))
    probability = f"{prob[choice]:.3f}"
    confidence = "uncertain" if row["uncertain"] else "confident"
    why = limit_evidence(prob, choice, predictor.levels["image"]["limits"])
    ood = ("yes" if row["ood"] else "no") if predictor.ood_description else ""
    if ood == "yes":
        why += f"; out-of-distribution score {row['ood_score']:.2f} is above the limit of 1"
    case |= {
        "error": "readable",
        "decision": row["decision"],
        "probability": probability,
        "confidence": confidence,
        "ood": ood,
        "score": f"{row['ood_score']:.2f}" if ood else "",
        "why": f"{why}.",
        "caption": f"{name}; predicted: {row['decision']}, calibrated probability "
        f"{probability}; {confidence}: {why}.",
    }
    if row["overlay"]:
        plain, case["href"] = quote(plain_picture(row["overlay"])), quote(row["overlay"])
        case["pictures"] = [
            {"kind": "plain", "src": plain, "alt": name},
            {"kind": "overlay", "src": case["href"], "alt": f"{name}, with its heatmap"},
        ]
    return case


def study_table(studies: pd.DataFrame, predictor: ImagePredictor) -> Table:
    """A row per study."""
    rows: list[list[Cell]] = []
    for _, row in studies.iterrows():
        decision = row["decision"]
        known = isinstance(decision, str) and decision != ""
        prob = row[f"{PROB}{decision if known else predictor.classes[-1]}"]
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
                short_reason(row["reason"]) if isinstance(row["reason"], str) else "",
            ]
        )
    note = ""
    if "study" not in predictor.levels:
        note = (
            "There are no decisions on studies, because the run's validation has none. The "
            f"probability is that of {predictor.classes[-1]}."
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


def decision_rules(predictor: ImagePredictor) -> list[str]:
    """Which probabilities are shown, and by which rule a class is predicted."""
    temperature = float(predictor.decisions["temperature"])
    scaled = f"{PROBABILITIES}, {temperature_text(temperature)}."
    threshold = predictor.levels["image"]["threshold"]
    rule = "The predicted class of an image is the most likely one."
    if threshold is not None:
        rule = (
            f"An image is predicted {predictor.classes[1]} if that probability is above "
            f"{format_threshold(threshold)}, the threshold that validation chose."
        )
    return [UNSCALED if temperature == 1 else scaled, rule]


def rules(predictor: ImagePredictor) -> list[str]:
    """By which rules the page decides, and which probabilities it shows."""
    sentences = decision_rules(predictor)
    sentences.append(
        "A prediction is confident if every other class is below its own limit and the predicted "
        "class is not, and uncertain otherwise, so a high probability can be uncertain and a lower "
        "one confident. An image out of distribution is always uncertain."
    )
    if not predictor.ood_description:
        sentences.append(NO_REFERENCE)
    return sentences


def limits_table(level: str, values: Mapping[str, Any]) -> Table:
    """The limit of each class at a level, and the rate of confident errors that it allows."""
    limits: Limits = values["limits"]
    rows = [
        [name, "never ruled out", "-", str(n)]
        if value == NEVER
        else [name, format_threshold(value), f"{100 * promised:.1f} %", str(n)]
        for name, value, promised, n in zip(
            limits.classes, limits.values, limits.promised, limits.counts, strict=True
        )
    ]
    plural = "studies" if level == "study" else f"{level}s"
    heads = ["class", "ruled out below", "confident errors at most", f"validation {plural}"]
    return Table(f"Limits by class, {level} level", heads, rows)
