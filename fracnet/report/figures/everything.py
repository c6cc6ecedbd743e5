"""All figures that follow from one evaluation."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fracnet.evaluation.assess import Assessment, Stratum
from fracnet.evaluation.levels import to_level
from fracnet.evaluation.strata import OVERALL
from fracnet.evaluation.temperature import calibrated
from fracnet.report.figures.confusion import confusion_matrix
from fracnet.report.figures.forest import class_lines, forest_figure, group_lines
from fracnet.report.figures.panels import by_class, by_level
from fracnet.report.figures.reliability import reliability_figure
from fracnet.report.figures.roc import precision_recall_figure, roc_figure

IMAGE = "image"


def draw_confusion(assessment: Assessment, folder: Path) -> list[Path]:
    """The one of `draw_all`'s figures that takes no time: the confusion matrix of images."""
    overall, _ = _overall(assessment)
    return confusion_matrix(overall[IMAGE].summary, folder)


def draw_all(assessment: Assessment, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw what an evaluation shows: confusion, ROC, precision-recall, reliability, forest plots.

    Of the test rows, as the strata have them: calibrated and, with two classes, at the operating
    point. Where there are no test rows, of the validation rows as they are. Learning curves are
    not among them: `curves` draws those from metrics.csv.

    Args:
        assessment: what `assess` made of the table.
        table: the predictions as they are, before calibration.
        folder: where to; made if missing.

    Returns:
        The files written, a PNG and an SVG a figure: `<what>_<split>`, with `_<level>` after it
        for levels other than the image, and `forest_<column>_<split>` for groups. What cannot be
        drawn (a class without cases) says so in its place in the figure.
    """
    overall, decisions = _overall(assessment)
    image = overall[IMAGE].summary
    rows = table[table["split"] == image.split].sort_values("path")  # sums depend on the order
    warm = rows if decisions is None else calibrated(rows, float(decisions["temperature"]))
    paths: list[Path] = []
    for level, stratum in overall.items():
        paths += confusion_matrix(stratum.summary, folder, level=level)
    if len(image.classes) == 2:
        tables = {level: to_level(warm, level, assessment.options.views) for level in overall}
        panels, about = by_level(tables, overall, decisions), image.classes[1]
    else:
        panels, about = by_class(warm, image), "each class against the rest"
    about, drawn = f"{about}, {image.split} split", assessment.options.resamples
    name, title = f"roc_{image.split}", f"ROC: {about}"
    paths += roc_figure(panels, folder, name, title, drawn)
    name, title = f"precision_recall_{image.split}", f"Precision and recall: {about}"
    paths += precision_recall_figure(panels, folder, name, title, drawn)
    temperature = None if decisions is None else float(decisions["temperature"])
    paths += reliability_figure(rows, temperature, folder, f"reliability_{image.split}")
    rule = {panel.level: panel.decision for panel in panels}
    if len(image.classes) > 2:
        name, lines = f"forest_class_{image.split}", class_lines(image)
        paths += forest_figure(lines, folder, name, image, IMAGE, rule[IMAGE])
    groups: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in assessment.strata:
        if stratum.by != OVERALL:
            groups.setdefault((stratum.level, stratum.by), []).append(stratum)
    for (level, by), members in groups.items():
        whole = overall[level].summary
        lines = group_lines(whole, [(member.value, member.summary) for member in members])
        column = re.sub(r"[^\w.-]+", "-", by)  # of a table, so any text
        name = "_".join(["forest", column, whole.split] + [level] * (level != IMAGE))
        decided = rule.get(level, rule[IMAGE])
        paths += forest_figure(lines, folder, name, whole, level, decided)
    return paths


def _overall(assessment: Assessment) -> tuple[dict[str, Stratum], Mapping[str, Any] | None]:
    """Level -> all rows of the test, and the decisions; else of validation, nothing decided."""
    strata = [stratum for stratum in assessment.strata if stratum.by == OVERALL]
    if strata:
        return {stratum.level: stratum for stratum in strata}, assessment.decisions
    assert assessment.val is not None, "neither test nor validation rows"
    return {IMAGE: Stratum(IMAGE, OVERALL, OVERALL, None, None, assessment.val)}, None
