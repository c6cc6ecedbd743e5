"""What a page must know of the model that answers it, with a server or without."""

from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import cv2
import numpy as np

from fracnet.evaluation.summary import plain
from fracnet.inference.batch_predict import COLUMNS
from fracnet.inference.image_predictor import CAUTION, ImagePredictor
from fracnet.models.ood import MEANING
from fracnet.saliency.drawing import COLORS, OPACITY

PAGE = files("fracnet.serving") / "page"
"""The files of the page: index.html, page.css, page.js, and engine.js, which asks the server."""


def describe_model(
    predictor: ImagePredictor, run: str, formats: str, limits: Mapping[str, Any]
) -> dict[str, Any]:
    """The model, its operating point and limits, and what its answers mean.

    run: its name. formats: of files, in words. limits: `megabytes` of a file, `files` at once.
    """
    level = predictor.levels["image"]
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8), COLORS)[:, 0, ::-1]
    return dict(plain({
        "caution": CAUTION,
        "fracnet": version("fracnet"),
        "run": run,
        "classes": list(predictor.classes),
        "temperature": predictor.decisions["temperature"],
        "threshold": level["threshold"],
        "decisions_sha256": predictor.decisions["sha256"],
        "views": predictor.decisions["views"],
        "study_decisions": "study" in predictor.levels,
        "heatmaps": not predictor.why_no_heatmaps,
        "ood": predictor.ood_description,
        "ood_score": MEANING,
        "notes": [note for note in [level["limits"].note] if note],
        "columns": COLUMNS,
        "table": list(predictor.predict([]).columns),
        "formats": formats,
        "limits": limits,
        "colors": colors.tolist(),
        "opacity": OPACITY,
    }))  # fmt: skip
