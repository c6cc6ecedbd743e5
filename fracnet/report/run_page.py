"""The page of a run: the verdict first, for a clinician; then all details, for an engineer.

Everything on it comes from `RunContent`; a part without its file is left out, or replaced by the
command that makes it.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fracnet.evaluation.aggregation import equals_label
from fracnet.evaluation.decisions import calibrate, cut_of, decide_rows
from fracnet.evaluation.summary import Estimate
from fracnet.report import run_charts, run_facts, run_tables
from fracnet.report.console import evaluation_notes, explanations
from fracnet.report.html import page
from fracnet.report.run_content import IMAGE, RunContent
from fracnet.report.tables import Cell, FileName, Scale, Table, estimate_cell, stored_cell
from fracnet.report.verdict import run_verdict
from fracnet.saliency.methods import BASELINE_NAMES, CLASS_AGNOSTIC, METHOD_NAMES
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted

SIDE, QUALITY = 448, 80  # pixels of a picture's longest side, and its JPEG quality
WORST = 10  # rows of the table of errors
EXPLAIN_COMMAND = "python -m fracnet.explain run=<this run's folder>"


def run_page(content: RunContent) -> str:
    """The page, as HTML."""
    data = content.fit.get("data") or {}
    explained = content.explained or {}
    cases = gallery(content)
    about_data = [
        ("license", data.get("license", "")),
        ("citation", data.get("citation", "")),
        ("patients from", data.get("groups", "")),
    ]
    learning = None
    if content.curves is not None and "epoch" in content.curves:
        selected = (content.fit.get("selected") or {}).get("epoch")
        learning = run_charts.learning_curves(content.curves, selected)
    values = {
        "title": _title(content),
        "kicker": _kicker(content),
        "sweep": content.sweep,
        "made": str(content.provenance.get("started", ""))[:10],
        "verdict": run_verdict(content),
        "meaning": meaning(content),
        "facts": _headline_facts(content),
        "split": content.summary.split,
        "binary": content.binary,
        "operating_point": run_tables.level_table(content) if content.binary else None,
        "metrics": run_tables.overall_table(content),
        "classes": run_tables.class_table(content.summary),
        "official": run_tables.mura_kappa_table(
            content.assessment.official, content.classes[-1], data=content.data
        ),
        "confusion": run_charts.confusion_matrix(
            content.headline_summary,
            level=content.level,
            rule=run_tables.decision_rule(content, content.level),
        ),
        "roc": run_charts.roc_figure(content),
        "precision_recall": run_charts.precision_recall_figure(content),
        "reliability": run_charts.calibration_charts(content),
        "calibration": run_tables.calibration_table(content),
        "strata": list(run_tables.group_tables(content, identifiers=content.images)),
        "gallery": cases,
        "gallery_note": gallery_note(explained) if cases else "",
        "gallery_choices": gallery_choices(cases),
        "errors": confident_errors(content),
        "images": content.images,
        "explained": content.explained is not None,
        "explain_command": EXPLAIN_COMMAND
        if content.run_known and "ensemble" not in content.config
        else "",
        "no_gallery": why_no_gallery(content),
        "map_notes": [str(note) for note in explained.get("notes", [])],
        "map_parts": heatmap_scores(explained),
        "data": content.data,
        "trained_on": content.trained_on if content.external_test else "",
        "counts": run_facts.image_counts(content),
        "exclusions": run_facts.exclusions(content),
        "audit": content.audit,
        "notes": [*content.notes],
        "about_data": [pair for pair in about_data if pair[1]],
        "cited": content.cited,
        "recipe": run_facts.recipe(content) if content.run_known else [],
        "learning": learning,
        "provenance": run_facts.provenance(content),
        "packages": content.provenance.get("packages") or {},
        "files": content.files,
        "use": run_facts.limits_of_use(content),
        "method": [
            *explanations(content.summary),
            *run_tables.probability_rule(content),
            *evaluation_notes(content),
        ],
    }
    return page("run.html", values)


def _title(content: RunContent) -> str:
    trained = content.fit.get("model") or {}
    model = trained.get("name") or run_facts.architecture(content.config)
    return f"{str(model).partition(',')[0]} on {content.data}" if model else content.data


def _kicker(content: RunContent) -> str:
    if not content.run_known:
        return "Evaluation of predictions"
    if content.evaluation:
        return f"Evaluation {content.evaluation} of run {content.name}"
    return f"Run {content.name}"


def _headline_facts(content: RunContent) -> list[dict[str, Any]]:
    """The metrics that a reader looks for first, as the verdict has them."""
    summary = content.headline_summary
    if content.binary:
        positive = summary.per_class[1]
        pairs = [
            ("AUC", content.auc),
            (f"sensitivity, {content.level}", positive.sensitivity),
            (f"specificity, {content.level}", positive.specificity),
        ]
    else:
        pairs = [
            ("accuracy", summary.metrics["accuracy"]),
            ("macro sensitivity", summary.metrics["macro_sensitivity"]),
            ("macro specificity", summary.metrics["macro_specificity"]),
            ("macro AUC", content.auc),
        ]
    facts = [{"name": name, "value": estimate_cell(value), "more": ""} for name, value in pairs]
    rows = content.summary
    independent = run_tables.of_clusters(rows)
    count = counted(rows.n, "image")
    return [*facts, {"name": f"{rows.split} split", "value": count, "more": independent}]


def meaning(content: RunContent) -> list[dict[str, Any]]:
    """Rates as numbers out of a hundred, which people read more accurately than percentages.

    U. Hoffrage et al. 2000, Science 290:2261. Of two classes sensitivity and specificity at the
    operating point; of more the accuracy.
    """
    summary = content.headline_summary
    if not content.binary:
        accuracy = summary.metrics["accuracy"]
        return _of_hundred("images", accuracy, "get the right class", "get a wrong one")
    negative, positive = content.classes
    rates, units = summary.per_class[1], run_tables.level_plural(content)
    return [
        *_of_hundred(f"{positive} {units}", rates.sensitivity, "are found", "are missed"),
        *_of_hundred(
            f"{negative} {units}",
            rates.specificity,
            f"are predicted {negative}",
            "are false alarms",
        ),
    ]


def _of_hundred(what: str, rate: Estimate, good: str, bad: str) -> list[dict[str, Any]]:
    if math.isnan(rate.value):
        return []
    n = round(100 * rate.value)
    interval = ""
    if rate.low is not None and rate.high is not None:
        interval = f"{math.floor(100 * rate.low)} to {math.ceil(100 * rate.high)}"
    numbers = {"n": n, "rest": 100 - n, "interval": interval}
    return [{"what": what, "good": good, "bad": bad} | numbers]


CASE_KEYS = {"kind", "truth", "predicted", "probability", "row"}


def gallery(content: RunContent) -> list[dict[str, Any]]:
    """Cases of explain.json, wrong ones first; none where images stay out of the page."""
    if content.explained is None or not content.images or content.redecided:
        return []
    agnostic = content.explained.get("method") in CLASS_AGNOSTIC
    why_empty = "the layer responded to nothing" if agnostic else "nothing raised the score"
    cases = []
    for case in content.explained.get("cases", []):
        if not isinstance(case, Mapping) or not case.keys() >= CASE_KEYS:
            raise UserError(
                f"{content.explain_folder / 'explain.json'} cannot be read: each case needs "
                f"{', '.join(sorted(CASE_KEYS))}."
            )
        outcome, _, confidence = str(case["kind"]).partition(" and ")
        pictures = [
            {
                "kind": key,
                "src": data_url(_inside(content.explain_folder, case[key])),
                "alt": f"Radiograph, row {case['row']}{extra}",
            }
            for key, extra in (("plain", ""), ("overlay", ", with its heatmap"))
            if case.get(key)
        ]
        cases.append(
            {
                "outcome": outcome,
                "confidence": confidence,
                "truth": case["truth"],
                "predicted": case["predicted"],
                "probability": float(case["probability"]),
                "evidence": str(case.get("evidence") or ""),
                "row": case["row"],
                "path": FileName(case.get("path") or ""),
                "pictures": pictures,
                "empty": f"The heatmap is empty: {why_empty}." if case.get("empty") else "",
            }
        )
    return sorted(cases, key=lambda case: case["outcome"] != "wrong")


def gallery_choices(cases: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """Filters of the gallery: name, title and values."""
    filters = {
        "true": ("true class", "truth"),
        "predicted": ("predicted class", "predicted"),
        "outcome": ("outcome", "outcome"),
        "confidence": ("confidence", "confidence"),
    }
    return [
        (name, title, sorted({str(case[key]) for case in cases}))
        for name, (title, key) in filters.items()
    ]


def gallery_note(explained: Mapping[str, Any]) -> str:
    """What a pair of pictures is: by which method, at which layer, of which class."""
    method = str(explained.get("method"))
    by = f"by {METHOD_NAMES.get(method, method)} at the layer {explained.get('layer')}"
    heatmap = f"the heatmap of the predicted class, {by}"
    if method in CLASS_AGNOSTIC:
        heatmap = f"a heatmap {by}, which is the same for every class"
    return (
        f"Each pair is the radiograph as the model sees it and {heatmap}. Annotations of the "
        "dataset are outlined. Confident and uncertain are defined below, with the heatmaps."
    )


def why_no_gallery(content: RunContent) -> str:
    """Why a further evaluation of a run shows no cases; "" where it may show some."""
    if content.repredicted:
        return (
            "Heatmaps exist only for the test images of the run's own predictions, so this "
            "evaluation has none."
        )
    if content.redecided and content.explained is not None:
        return (
            "The run's gallery is not shown: its cases are right or wrong by the run's own "
            "decisions, and this evaluation decides differently."
        )
    return ""


def _inside(folder: Path, name: Any) -> Path:
    """A file that explain.json names; UserError where it is missing or outside of the folder."""
    path = (folder / str(name)).resolve()
    if folder.resolve() not in path.parents or not path.is_file():
        raise UserError(
            f"{folder / 'explain.json'} names {name}, which is not a picture in its folder; remove "
            "the folder, or make the heatmaps again with fracnet.explain."
        )
    return path


def data_url(path: Path) -> str:
    """A picture as a data URL: a JPEG of at most `SIDE` pixels; UserError for other files."""
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} cannot be read: it is not a picture.")
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, path
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def confident_errors(content: RunContent) -> Table | None:
    """The most confident wrong predictions, by the decision of the tables; None without any."""
    rows = calibrate(content.rows, content.temperature)
    prob, target = rows.probabilities, rows.targets
    threshold = content.overall[IMAGE].threshold
    predicted = decide_rows(rows, cut_of(content.decisions, IMAGE))
    confidence = prob[np.arange(len(predicted)), predicted]
    wrong = np.flatnonzero(predicted != target)
    if not len(wrong):
        return None
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    table = rows.table
    hidden = [] if content.images else ["file"]
    regions = table.get("region", pd.Series(index=table.index, dtype=object))
    if not regions.notna().any() or equals_label(table, "region"):
        hidden.append("region")
    numbers = content.rows.table.index.to_numpy()  # of predictions.csv, which `calibrate` resets
    lines: list[list[Cell]] = [
        [
            str(numbers[at]),
            content.classes[target[at]],
            content.classes[predicted[at]],
            f"{confidence[at]:.3f}",
            str(regions.iloc[at]),
            FileName(str(table["path"].iloc[at])),
        ]
        for at in worst
    ]
    rule = "at the operating point" if threshold is not None else "by the most likely class"
    errors = counted(len(wrong), "wrong prediction")
    return Table(
        f"The most confident of {errors} for {counted(len(predicted), 'image')}, {rule}",
        ["row", "true", "predicted", "probability", "region", "file"],
        lines,
        text=[1, 2, 4, 5],
        note="Probabilities are calibrated. Rows are those of predictions.csv, counted from 0. A "
        "confident error may be a labeling mistake: look at the image.",
    ).without(*hidden)


SCORES = {
    "pointing": "pointing",
    "pointing_tolerance": "pointing, with tolerance",
    "energy": "energy inside",
    "iou": "overlap",
}
"""Scores of heatmaps, with heads that are short enough for a page of usual width."""


def heatmap_scores(explained: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each question put to the heatmaps: title, sentences and scores."""
    questions = {
        "localization": ("Do they find the annotations?", localization),
        "sanity": ("Do they depend on the weights?", sanity),
    }
    return [
        {
            "title": title,
            "table": table_of(explained[key]),
            "sentences": list(explained[key].get("sentences", [])) or [""],
        }
        for key, (title, table_of) in questions.items()
        if explained.get(key)
    ]


def localization(result: Mapping[str, Any]) -> Table:
    """Scores of the heatmaps, next to maps that never see the network."""
    names = [name for name in SCORES if name in result["scores"]]

    def scores(values: Mapping[str, Any], signed: bool = False) -> list[Cell]:
        return [
            stored_cell(values[name], signed=signed)
            if (values.get(name) or {}).get("value") is not None
            else "-"
            for name in names
        ]

    rows: list[list[Cell]] = [["heatmaps", *scores(result["scores"])]]
    for key, title in BASELINE_NAMES.items():
        if baseline := result["baselines"].get(key):
            rows.append([title, *scores(baseline)])
            rows.append(["difference", *scores(result["differences"].get(key, {}), True)])
    caption = f"{result['images']} annotated test images, 95 % intervals by {result['unit']}"
    heads = ["", *(SCORES[name] for name in names)]
    return Table(caption, heads, rows, strong=True, below=True)


def sanity(result: Mapping[str, Any]) -> Table:
    """How similar maps are before and after randomizing the weights."""
    null = result["null"]
    rows = []
    for stage in result["stages"]:
        percent = 100 * stage["weights"]
        share = f"{percent:.0f} %" if percent >= 1 else "under 1 %"
        rows.append([f"down to {stage['name']}", share, *_correlation(stage, null, "s0")])
    rows.append(["maps of different images", "", *_correlation(null, null, "s5")])
    return Table(
        f"Rank correlation of maps before and after; {result['images']} test images",
        ["randomized weights", "share", "correlation", "-1 to 1"],
        rows,
        note="The dashed line is the mean between maps of different images; its bar covers the "
        "middle 95 % of them.",
    )


def _correlation(stage: Mapping[str, Any], null: Mapping[str, Any], look: str) -> list[Cell]:
    cell = stored_cell(stage, "correlation", digits=2)
    bar = cell.bar(Scale(-1.0, 1.0), guide=null["correlation"], look=look)
    if stage["correlation"] is None:
        return ["all maps are empty", bar]
    return [cell.number if cell.low is None else cell, bar]
