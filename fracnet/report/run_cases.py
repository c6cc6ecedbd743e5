"""Single images on a run's page: a gallery with heatmaps, and the surest errors as a table."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fracnet.evaluation.operating import decide
from fracnet.evaluation.predictions import probabilities, targets
from fracnet.evaluation.strata import is_class
from fracnet.evaluation.temperature import calibrated
from fracnet.report.run_content import IMAGE, RunContent
from fracnet.report.tables import Cell, Table, named_file

SIDE = 320  # pixels of the longest side: two stand side by side on a telephone
QUALITY = 80
WORST = 10
NO_MAPS = "python -m fracnet.explain run=<this run's folder>"


def gallery(content: RunContent) -> list[dict[str, Any]]:
    """Cases of explain.json by their kind, wrong ones first; nothing where images stay out."""
    if content.explained is None or not content.images or content.redecided:
        return []
    cases: dict[str, list[dict[str, Any]]] = {}
    for case in content.explained.get("cases", []):
        cases.setdefault(str(case["kind"]), []).append(_case(case, content.explain_folder))
    kinds = sorted(cases, key=lambda kind: not kind.startswith("wrong"))
    return [{"kind": f"{kind[0].upper()}{kind[1:]}", "cases": cases[kind]} for kind in kinds]


def gallery_told(content: RunContent) -> str:
    """What a pair of pictures is: by which method, at which layer, of which class."""
    # Here, as it imports OpenCV.
    from fracnet.explaining.localisation_words import CLASS_AGNOSTIC, METHOD_NAMES

    made = content.explained or {}
    method = str(made.get("method"))
    by = f"by {METHOD_NAMES.get(method, method)} at the layer {made.get('layer')}"
    shows = f"the heatmap of the class that it named, {by}"
    if method in CLASS_AGNOSTIC:
        shows = f"a heatmap {by}, which is the same for every class"
    return (
        f"Each pair is the radiograph as the model sees it and {shows}; what is marked in the data "
        "set is outlined."
    )


def why_no_gallery(content: RunContent) -> str:
    """Why an evaluation of a run shows no cases, in a sentence; "" where there may be some."""
    if content.anew:
        return (
            "Heatmaps are made for the test images of the run's own predictions only, so there "
            "are none here."
        )
    if content.redecided and content.explained is not None:
        return (
            "The run's gallery is not shown: its cases are right or wrong by the run's own "
            "decisions, and this evaluation decides otherwise."
        )
    return ""


def _case(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "truth": case["truth"],
        "predicted": case["predicted"],
        "probability": float(case["probability"]),
        "row": case["row"],
        "path": named_file(case.get("path") or ""),
        "pictures": [
            {"src": as_source(folder / case[key]), "alt": f"Radiograph, row {case['row']}{words}"}
            for key, words in (("plain", ""), ("overlay", ", with its heatmap"))
            if case.get(key)
        ],
    }


def as_source(path: Path) -> str:
    """A picture of the folder as a data URL: a JPEG of at most `SIDE` pixels."""
    import cv2

    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, path
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, path
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _as_cell(column: str, value: str) -> Cell:
    return named_file(value) if column == "path" else value


def surest_errors(content: RunContent) -> Table | None:
    """Images that were called wrong most firmly, at the decision that the tables have."""
    warm = calibrated(content.rows, content.temperature)
    prob, target = probabilities(warm), targets(warm)
    threshold = content.overall[IMAGE].threshold
    if threshold is not None and content.binary:
        named = decide(prob[:, 1], threshold)
    else:
        named = prob.argmax(axis=1).astype(np.int64)
    sure = prob[np.arange(len(named)), named]
    wrong = np.flatnonzero(named != target)
    if not len(wrong):
        return None
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][:WORST]
    heads = ["row", "truth", "called", "its probability"]
    told = []
    if "region" in warm and warm["region"].notna().any() and not is_class(warm, "region"):
        told.append("region")
    if content.images:
        told.append("path")
    numbers = content.rows.index.to_numpy()  # rows of predictions.csv, which `calibrated` resets
    rows = [
        [
            str(numbers[at]),
            content.classes[target[at]],
            content.classes[named[at]],
            f"{sure[at]:.3f}",
            *(_as_cell(key, str(warm[key].iloc[at])) for key in told),
        ]
        for at in wrong
    ]
    n = int((named != target).sum())
    rule = "at the operating point" if threshold is not None else "by the likeliest class"
    return Table(
        f"The surest of {n} wrong images of {len(named)}, {rule}",
        [*heads, *({"path": "file"}.get(key, key) for key in told)],
        rows,
        text=[1, 2, *range(4, 4 + len(told))],
        note="Rows are those of predictions.csv, from 0. A sure error may be a wrong label: look "
        "at the image.",
    )
