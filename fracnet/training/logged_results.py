"""What a finished run shows in W&B: its metrics, tables, figures and example images.

Made from metrics.json, the predictions table, the figures and the image cache. Patients and studies
appear as salted hashes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import wandb
from PIL import Image

from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.decisions import calibrate, cut_of, decide_rows
from fracnet.evaluation.predictions import Predictions
from fracnet.metrics import roc as curves
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.redaction import hashed

Table = tuple[list[Any], list[Any]]
"""Names of the columns, and rows: lists of values."""
EXAMPLES = 6
"""Images of each kind: right or wrong, confident or uncertain."""
PUBLIC_FORESTS = ("forest_region_", "forest_class_")
"""Forest plots over other columns may name patients or hospitals, and stay on this machine."""
CURVE_POINTS = 500
"""Of one class."""
# Charts that the W&B site draws from a table: its name there, and the column of each role.
CHARTS = {
    "roc": (
        "wandb/area-under-curve/v0",
        {"x": "false positive rate", "y": "sensitivity", "class": "class"},
    ),
    "precision_recall": (
        "wandb/area-under-curve/v0",
        {"x": "recall", "y": "precision", "class": "class"},
    ),
    "confusion_matrix": (
        "wandb/confusion_matrix/v1",
        {"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
    ),
}


@dataclass(frozen=True)
class Results:
    """summary: flat values. images: caption and uint8 [S, S]. figures: paths of PNG files."""

    summary: dict[str, Any]
    tables: dict[str, Table]
    images: dict[str, list[tuple[str, np.ndarray]]]
    figures: dict[str, Path]

    def log_media(self, run: Any) -> None:
        """Log tables, charts, images and figures to a W&B run."""
        media: dict[str, Any] = {}
        for key, (columns, rows) in self.tables.items():
            table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
            chart = CHARTS.get(key.rpartition("/")[2])
            # By hand: an unbound table is also uploaded as an artifact, whose manifest holds the
            # local path of every file. Of a chart, W&B looks for it under `_table`.
            table.bind_to_run(run, f"{key}_table" if chart else key, run.step)
            media[key] = table
            if chart:
                name, roles = chart
                axes = {f"{axis}-axis-title": roles[axis] for axis in ("x", "y") if axis in roles}
                media[key] = wandb.plot_table(name, table, roles, {"title": key, **axes})
        for key, examples in self.images.items():
            media[key] = [wandb.Image(pixels, caption=caption) for caption, pixels in examples]
        for key, path in self.figures.items():
            media[key] = wandb.Image(Image.open(path))
        run.log(media)


def collect(
    folder: RunFolder,
    table: pd.DataFrame,
    data: RadiographData,
    splits: Sequence[str],
    salt: str,
    with_images: bool,
) -> Results:
    """All that is logged of a finished run.

    table: predictions for val and test. splits: those that may be shown; examples come from the
    last. salt: of the hashes that stand for patients and studies. with_images: whether pixels may
    leave the run folder.
    """
    metrics = json.loads(folder.metrics.read_text(encoding="utf-8"))
    values = summary_of(metrics, splits)
    if "test" in splits:
        values |= external_summary(folder.evaluations)
    tables: dict[str, Table] = {}
    for split in splits:
        tables |= split_tables(split, metrics[split], table[table["split"] == split])
    decisions = metrics.get("decisions")
    example_table, images = examples(splits[-1], table, data, salt, with_images, decisions)
    figures = public_figures(folder.figures, splits)
    return Results(values, tables | example_table, images, figures)


def summary_of(metrics: dict[str, Any], splits: Sequence[str]) -> dict[str, Any]:
    """Flat metrics of these splits: `test/macro_auc`, with `_low` and `_high` for its interval.

    Those of one class are `test_class/elbow/sensitivity`.
    """
    values: dict[str, Any] = {}
    for split in splits:
        overall = {key: node for key, node in metrics[split].items() if key != "per_class"}
        values |= _estimates(overall, split)
        values |= _estimates(metrics[split].get("per_class", []), f"{split}_class")
    if "test" in splits:
        for row in metrics.get("test_by_level_and_region", ()):
            values |= _estimates(row, f"test/{row['level']}/{row['region']}")
        values |= _overall_strata(metrics.get("test_strata", ()))
    values |= _decisions(metrics)
    objective = metrics["objective"]
    values[f"objective/{objective['name']}"] = objective["value"]
    for key, value in metrics["selected"].items():
        if isinstance(value, int | float | str):
            values[f"selected/{key}"] = value
    return values


def external_summary(evaluations: Path) -> dict[str, Any]:
    """Test metrics on other datasets, `external/<name>/macro_auc`, from a run's evaluations."""
    values: dict[str, Any] = {}
    for path in sorted(evaluations.glob("data-*/metrics.json")):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        values |= _estimates(metrics["test"], f"external/{path.parent.name.removeprefix('data-')}")
    return values


def _overall_strata(strata: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Overall metrics of each level: `test/operating_point/study/sensitivity`.

    With two classes those of the positive one at the operating point, otherwise those of all
    classes by the most probable one, `test/calibrated/study/accuracy`. Groups may have names and
    are left out.
    """
    values: dict[str, Any] = {}
    for row in (row for row in strata if row["by"] == "overall"):
        if row["threshold"] is None:
            values |= _estimates(row["metrics"], f"test/calibrated/{row['level']}")
        else:
            values |= _estimates(row["per_class"][1], f"test/operating_point/{row['level']}")
    return values


def _decisions(metrics: dict[str, Any]) -> dict[str, Any]:
    """Temperature and thresholds that validation chose, and validation metrics after scaling."""
    decisions = metrics.get("decisions")
    if not decisions:
        return {}
    values = {"decisions/temperature": decisions["temperature"]}
    for level, point in (decisions["operating_point"] or {}).items():
        values[f"decisions/threshold/{level}"] = point["threshold"]
    after = metrics["calibration"].get("val", {}).get("after", {})
    return values | _estimates(after, "val/calibrated")


def _estimates(node: Any, name: str) -> dict[str, Any]:
    """Every `{value, low, high}` inside, by its place; lists by the names of their members."""
    values: dict[str, Any] = {}
    if isinstance(node, list):
        for item in node:
            label = None
            if isinstance(item, dict):
                label = next((item[key] for key in ("class", "name") if key in item), None)
            if label is not None:
                values |= _estimates(item, f"{name}/{label}")
    elif isinstance(node, dict) and {"value", "low", "high"} <= node.keys():
        values = {name: node["value"], f"{name}_low": node["low"], f"{name}_high": node["high"]}
    elif isinstance(node, dict):
        for key, item in node.items():
            flat = key in ("metrics", "per_class")
            values |= _estimates(item, name if flat else f"{name}/{key}")
    return values


def split_tables(split: str, metrics: dict[str, Any], rows: pd.DataFrame) -> dict[str, Table]:
    """Per-class metrics, confusion matrix, ROC and precision-recall points of one split.

    metrics: the split's part of metrics.json. rows: its part of the predictions table.
    """
    names = ("sensitivity", "specificity", "auc")
    columns = ["class", "n"] + [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    per_class = [
        [row["class"], row["n"]]
        + [row[name][end] for name in names for end in ("value", "low", "high")]
        for row in metrics["per_class"]
    ]
    classes = metrics["classes"]
    counts = [
        [truth, predicted, metrics["confusion"][i][j]]
        for i, truth in enumerate(classes)
        for j, predicted in enumerate(classes)
    ]
    return {
        f"{split}/per_class": (columns, per_class),
        f"{split}/confusion_matrix": (["Actual", "Predicted", "nPredictions"], counts),
    } | _curves(split, rows)


def _curves(split: str, rows: pd.DataFrame) -> dict[str, Table]:
    predictions = Predictions.trusted(rows)
    roc: list[list[Any]] = []
    recall: list[list[Any]] = []
    for c, name in enumerate(predictions.classes):
        positive = predictions.targets == c
        if positive.all() or not positive.any():
            continue  # there is no curve of one class alone
        score = predictions.scores[:, c]
        roc += _points(name, curves.roc(positive, score))
        recall += _points(name, curves.precision_recall(positive, score))
    return {
        f"{split}/roc": (["class", "false positive rate", "sensitivity"], roc),
        f"{split}/precision_recall": (["class", "recall", "precision"], recall),
    }


def _points(name: str, curve: curves.Curve) -> list[list[Any]]:
    n = len(curve.x)
    places = np.linspace(0, n - 1, min(n, CURVE_POINTS)).round().astype(int)
    return [[name, float(curve.x[i]), float(curve.y[i])] for i in np.unique(places)]


def public_figures(folder: Path, splits: Sequence[str]) -> dict[str, Path]:
    """The PNG files of a run, as `figures/<name>`, that show these splits and no names.

    A figure's name holds the split that it shows; learning curves have none. No figure has pixels
    of images.
    """
    hidden = {"val", "test"} - set(splits)
    return {
        f"figures/{path.stem}": path
        for path in sorted(folder.glob("*.png"))
        if hidden.isdisjoint(path.stem.split("_"))
        and (not path.stem.startswith("forest_") or path.stem.startswith(PUBLIC_FORESTS))
    }


def choose_examples(predictions: Predictions, cut: float | None = None) -> list[tuple[str, int]]:
    """Kind and place of up to `EXAMPLES` images of each kind, the most extreme first.

    cut: log-odds above which the second of two classes is predicted; None for the likeliest class.
    """
    prob = predictions.probabilities
    predicted = decide_rows(predictions, cut)
    confidence = prob[np.arange(len(prob)), predicted]
    right = predicted == predictions.targets
    chosen: list[tuple[str, int]] = []
    for word, rows in (("wrong", ~right), ("right", right)):
        order = np.flatnonzero(rows)[np.argsort(-confidence[rows], kind="stable")]
        half = min(EXAMPLES, (len(order) + 1) // 2)
        # Not confident and uncertain, which limits define elsewhere: these are ranks.
        chosen += [(f"{word}, highest probability", int(i)) for i in order[:half]]
        chosen += [(f"{word}, lowest probability", int(i)) for i in order[half:][::-1][:EXAMPLES]]
    return chosen


def examples(
    split: str,
    table: pd.DataFrame,
    data: RadiographData,
    salt: str,
    with_images: bool,
    decisions: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Table], dict[str, list[tuple[str, np.ndarray]]]]:
    """Right and wrong images of high and low probability: as a table, and with their pixels.

    Probabilities are calibrated and classes are predicted at the operating point, as on the page.
    table: the whole predictions table; `row` is the place in it, counted from 0. decisions: the
    content of decisions.json; None where validation chose nothing.
    """
    places = np.flatnonzero((table["split"] == split).to_numpy())
    rows = table.iloc[places]
    decided = decisions or {"temperature": 1, "operating_point": None}
    predictions = calibrate(Predictions.trusted(rows), decided["temperature"])
    cut = cut_of(decided, "image")
    classes, prob = predictions.classes, predictions.probabilities
    predicted = decide_rows(predictions, cut)
    groups = [k for k in ("patient", "study") if k in rows and rows[k].notna().any()]
    columns = ["row", "kind", "truth", "predicted", "probability", *groups]
    columns += [f"prob_{name}" for name in classes]
    cached = pd.Index(data.manifest.table["path"])
    lines, images = [], []
    for kind, i in choose_examples(predictions, cut):
        row, c, place = rows.iloc[i], int(predicted[i]), int(places[i])
        confidence = float(prob[i, c])
        ids = [hashed(k, str(row[k]), salt) if pd.notna(row[k]) else None for k in groups]
        line = [place, kind, row["label"], classes[c], confidence, *ids, *map(float, prob[i])]
        lines.append(line)
        if with_images:
            caption = (
                f"row {place}: {row['label']}, predicted {classes[c]} "
                f"(calibrated probability {confidence:.3f})"
            )
            pixels = np.array(data.cache.images[cached.get_loc(row["path"])])
            images.append((f"{caption}; {kind}", pixels))
    return {f"{split}/examples": (columns, lines)}, (
        {f"{split}/example_images": images} if with_images else {}
    )
