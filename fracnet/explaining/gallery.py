"""Pictures of chosen test images with their heatmaps, and what one must know to read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fracnet.data.datamodule import RadiographData
from fracnet.data.marks import outlines
from fracnet.explaining.cases import Case, as_entry
from fracnet.explaining.layers import Layer
from fracnet.explaining.localisation_words import CLASS_AGNOSTIC, METHOD_NAMES, listed
from fracnet.explaining.maps import heatmaps
from fracnet.explaining.overlay import draw, enlarged
from fracnet.models.module import Classifier
from fracnet.progress import Show, unseen
from fracnet.words import counted

FOLDER = "overlays"
READING = (
    "A heatmap shows which places raised the score of the predicted class, by one way of sharing "
    "it out."
)
AGNOSTIC = (
    "Eigen-CAM knows no class: it shows what the layer holds most of, not what speaks for a class."
)
NO_PROOF = "It is no proof that the model has seen a fracture, and no diagnosis."
PARTS = (
    "The classes are body parts: the maps explain what tells one part from another, not the "
    "fracture."
)


def draw_cases(
    model: Classifier,
    data: RadiographData,
    table: pd.DataFrame,
    cases: Sequence[Case],
    folder: Path,
    *,
    method: str,
    layer: str | None,
    batch_size: int = 16,
    device: str = "cpu",
    show: Show[Any] = unseen,
) -> tuple[list[dict[str, Any]], int]:
    """Write two pictures a case to `folder`/overlays; entries for explain.json, and empty maps.

    The map is that of the predicted class, if the method knows one; outlines are of what is marked
    as a case of the image's own class.

    Args:
        data: set up; holds all images of `table`, the run's predictions.
        cases: at least none.
        folder: exists.
        method, layer, batch_size, device, show: as for `heatmaps`.
    """
    (folder / FOLDER).mkdir()
    paths = table["path"].iloc[[case.row for case in cases]]
    rows = pd.Index(data.manifest.table["path"]).get_indexer(paths)
    assert (rows >= 0).all(), "a predicted image that is not in the manifest"
    images = data.cache.images[rows]
    classes = np.array([case.predicted for case in cases], dtype=np.int64)
    batches = heatmaps(
        model,
        images,
        classes,
        method=method,
        layer=layer,
        batch_size=batch_size,
        device=device,
        show=show,
    )
    maps = [heat for batch in batches for heat in batch]
    entries = []
    for i, (case, row, heat) in enumerate(zip(cases, rows, maps, strict=True), start=1):
        marks = outlines(data.manifest.table.iloc[row], data.enhance)
        image, heat, marks = enlarged(images[i - 1], heat, marks)
        names = {"overlay": f"{FOLDER}/{i:04d}.png", "plain": f"{FOLDER}/{i:04d}_plain.png"}
        write_png(draw(image, heat, marks), folder / names["overlay"])
        write_png(image, folder / names["plain"])
        entries.append(as_entry(case, table) | names)
    return entries, sum(not heat.any() for heat in maps)


def write_png(picture: np.ndarray, path: Path) -> None:
    """Write uint8 [H, W], grey, or [H, W, 3], RGB."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", picture)
    assert done, path
    path.write_bytes(data.tobytes())


def notes(layer: Layer, method: str, data: RadiographData, shown: int, empty: int) -> list[str]:
    """What one must know to read the pictures, in sentences.

    shown, empty: how many maps there are, and how many that show nothing.
    """
    cells = " x ".join(str(side) for side in layer.grid)
    told = [
        f"Heatmaps by {METHOD_NAMES[method]} at the layer {layer.name}, whose output has {cells} "
        "cells for an image: no map is finer than that.",
        f"{AGNOSTIC if method in CLASS_AGNOSTIC else READING} {NO_PROOF}",
    ]
    if is_of_parts(data):
        told.append(PARTS)
    elif data.task == "multiclass":
        told.append(
            f"The classes are {listed(data.manifest.classes)}: a map explains what tells one of "
            "them from the others, and not what is marked as such."
        )
    if empty:
        what = "the layer showed nothing"
        if method not in CLASS_AGNOSTIC:
            what = "nothing spoke for the predicted class"
        told.append(f"In {empty} of the {counted(shown, 'picture')} {what}: no colour.")
    return told


def is_of_parts(data: RadiographData) -> bool:
    """Whether the classes are body parts: each label is its image's region."""
    table = data.manifest.table
    known = table["region"].notna()
    return bool(known.any()) and bool((table["label"] == table["region"])[known].all())
