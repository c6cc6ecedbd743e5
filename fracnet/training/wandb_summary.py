"""What a finished run shows in W&B, made from metrics.json, the predictions table and the cache."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import classes_of, probabilities, targets
from fracnet.utils.redaction import hashed

Table = tuple[list[str], list[list[Any]]]
EXAMPLES = 6  # of each kind: right and confident, right and uncertain, wrong and confident, wrong and uncertain
OPEN_FORESTS = ("forest_region_", "forest_class_")
POINTS = 500  # of a curve of one class


def summary(metrics: dict[str, Any], splits: Sequence[str]) -> dict[str, Any]:
    """Flat figures of these splits: `test/macro_auc`, and `_low` and `_high` for its interval."""
    found: dict[str, Any] = {}
    for split in splits:
        found |= _estimates(metrics[split], split)
    if "test" in splits:
        for row in metrics.get("test_by_level_and_region", ()):
            found |= _estimates(row, f"test/{row['level']}/{row['region']}")
        found |= _strata(metrics.get("test_strata", ()))
    found |= _chosen(metrics)
    objective = metrics["objective"]
    found[f"objective/{objective['name']}"] = objective["value"]
    for key, value in metrics["selected"].items():
        if isinstance(value, int | float | str):
            found[f"selected/{key}"] = value
    return found


def external(evaluations: Path) -> dict[str, Any]:
    """Test figures on other data sets, `external/<name>/macro_auc`, from a run's evaluations."""
    found: dict[str, Any] = {}
    for path in sorted(evaluations.glob("data-*/metrics.json")):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        found |= _estimates(metrics["test"], f"external/{path.parent.name.removeprefix('data-')}")
    return found


def _strata(strata: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Overall figures of each level: `test/operating_point/study/sensitivity`.

    With two classes those of the positive one at the operating point, else those of all classes
    by the likeliest one, `test/calibrated/study/accuracy`. Groups stay here: they may have names.
    """
    found: dict[str, Any] = {}
    for row in (row for row in strata if row["by"] == "overall"):
        if row["threshold"] is None:
            found |= _estimates(row["metrics"], f"test/calibrated/{row['level']}")
        else:
            found |= _estimates(row["per_class"][1], f"test/operating_point/{row['level']}")
    return found


def _chosen(metrics: dict[str, Any]) -> dict[str, Any]:
    """What validation has chosen: temperature and thresholds; and what the first does to it."""
    decisions = metrics.get("decisions")
    if not decisions:
        return {}
    found = {"decisions/temperature": decisions["temperature"]}
    for level, point in (decisions["operating_point"] or {}).items():
        found[f"decisions/threshold/{level}"] = point["threshold"]
    after = metrics["calibration"].get("val", {}).get("after", {})
    return found | _estimates(after, "val/calibrated")


def _estimates(node: Any, name: str) -> dict[str, Any]:
    """Every `{value, low, high}` inside, by its place; lists by the names of their members."""
    found: dict[str, Any] = {}
    if isinstance(node, list):
        for item in node:
            label = (
                next((item[k] for k in ("class", "name") if k in item), None)
                if (isinstance(item, dict))
                else None
            )
            if label is not None:
                found |= _estimates(item, f"{name}/{label}")
    elif isinstance(node, dict) and {"value", "low", "high"} <= node.keys():
        found = {name: node["value"], f"{name}_low": node["low"], f"{name}_high": node["high"]}
    elif isinstance(node, dict):
        for key, item in node.items():
            dull = key in ("metrics", "per_class")
            found |= _estimates(item, name if dull else f"{name}/{key}")
    return found


def tables(split: str, figures: dict[str, Any], rows: pd.DataFrame) -> dict[str, Table]:
    """Per-class figures, confusion matrix, ROC and precision-recall points of one split.

    figures: the split's part of metrics.json. rows: its part of the predictions table.
    """
    names = ("sensitivity", "specificity", "auc")
    columns = ["class", "n"] + [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    per_class = [
        [row["class"], row["n"]]
        + [row[name][end] for name in names for end in ("value", "low", "high")]
        for row in figures["per_class"]
    ]
    classes = figures["classes"]
    counts = [
        [truth, predicted, figures["confusion"][i][j]]
        for i, truth in enumerate(classes)
        for j, predicted in enumerate(classes)
    ]
    return {
        f"{split}/per_class": (columns, per_class),
        f"{split}/confusion_matrix": (["Actual", "Predicted", "nPredictions"], counts),
    } | _curves(split, rows)


def _curves(split: str, rows: pd.DataFrame) -> dict[str, Table]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    prob, target = probabilities(rows), targets(rows)
    roc: list[list[Any]] = []
    recall: list[list[Any]] = []
    for c, name in enumerate(classes_of(rows)):
        case = target == c
        if case.all() or not case.any():
            continue  # no curve without cases, or without others
        false, true, _ = roc_curve(case, prob[:, c])
        roc += _points(name, false, true)
        precision, found, _ = precision_recall_curve(case, prob[:, c])
        recall += _points(name, found[::-1], precision[::-1])
    return {
        f"{split}/roc": (["class", "false positive rate", "sensitivity"], roc),
        f"{split}/precision_recall": (["class", "recall", "precision"], recall),
    }


def _points(name: str, x: np.ndarray, y: np.ndarray) -> list[list[Any]]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    return [[name, float(x[i]), float(y[i])] for i in kept]


def figures(folder: Path, splits: Sequence[str]) -> dict[str, bytes]:
    """The PNG files of a run's figures, `figures/<name>`, as far as they are of these splits.

    A figure's name holds the split it is of; learning curves are of none. They show no pixels.
    Forest plots over other columns than the region stay here: the values may be names of people
    or hospitals.
    """
    hidden = {"val", "test"} - set(splits)
    return {
        f"figures/{path.stem}": path.read_bytes()
        for path in sorted(folder.glob("*.png"))
        if hidden.isdisjoint(path.stem.split("_"))
        and (not path.stem.startswith("forest_") or path.stem.startswith(OPEN_FORESTS))
    }


def chosen_examples(rows: pd.DataFrame) -> list[tuple[str, int]]:
    """Kind and place in `rows` of up to `EXAMPLES` images of each kind, the extremest first."""
    prob = probabilities(rows)
    sure, right = prob.max(axis=1), prob.argmax(axis=1) == targets(rows)
    found: list[tuple[str, int]] = []
    for word, of in (("wrong", ~right), ("right", right)):
        order = np.flatnonzero(of)[np.argsort(-sure[of], kind="stable")]
        half = min(EXAMPLES, (len(order) + 1) // 2)
        found += [(f"{word}, confident", int(i)) for i in order[:half]]
        found += [(f"{word}, uncertain", int(i)) for i in order[half:][::-1][:EXAMPLES]]
    return found


def examples(
    split: str, table: pd.DataFrame, data: RadiographData, salt: str, pixels: bool
) -> tuple[dict[str, Table], dict[str, list[tuple[str, np.ndarray]]]]:
    """Images that the model got right and wrong, confident and uncertain: as a table, and as pictures.

    Args:
        split: whose.
        table: the whole predictions table; `row` is the place in it, counted from 0.
        data: for the cached images, uint8 [S, S].
        salt: for the hashes that stand for patients and studies.
        pixels: whether pictures may be shown; otherwise the second answer is empty.
    """
    places = np.flatnonzero((table["split"] == split).to_numpy())
    rows = table.iloc[places]
    classes, prob = classes_of(rows), probabilities(rows)
    groups = [k for k in ("patient", "study") if k in rows and rows[k].notna().any()]
    columns = ["row", "kind", "truth", "predicted", "probability", *groups]
    columns += [f"prob_{name}" for name in classes]
    cached = pd.Index(data.manifest.table["path"])
    lines, pictures = [], []
    for kind, i in chosen_examples(rows):
        row, said = rows.iloc[i], int(prob[i].argmax())
        place, confident = int(places[i]), float(prob[i, said])
        ids = [hashed(k, str(row[k]), salt) if pd.notna(row[k]) else None for k in groups]
        lines.append([place, kind, row["label"], classes[said], confident, *ids, *_plain(prob[i])])
        if pixels:
            image = np.array(data.cache.images[cached.get_loc(row["path"])])
            caption = (
                f"row {place}: {row['label']}, predicted {classes[said]} ({confident:.2f}); {kind}"
            )
            pictures.append((caption, image))
    shown = {f"{split}/example_images": pictures} if pixels else {}
    return {f"{split}/examples": (columns, lines)}, shown


def _plain(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values]
