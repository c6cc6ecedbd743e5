"""Which test images to show: right and wrong, confident and uncertain ones, by lot and not by looks.

A heatmap over a radiograph, with what was marked in it.

Pictures of chosen test images with their heatmaps, and what one must know to read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from fracnet.data.annotations import outlines
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.conformal import Limits, decided, limits, uncertain
from fracnet.evaluation.decisions import calibrated
from fracnet.evaluation.predictions import classes_of, probabilities, targets
from fracnet.models.classifier import Classifier
from fracnet.saliency.cam import Layer, heatmaps
from fracnet.saliency.localization import CLASS_AGNOSTIC, METHOD_NAMES, listed
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import counted

KINDS = ("wrong and confident", "wrong and uncertain", "right and uncertain", "right and confident")


@dataclass(frozen=True)
class Case:
    """A test image to show.

    row: its row in predictions.csv. truth, predicted: indices of classes. probability: of the
    predicted class, calibrated.
    """

    kind: str
    row: int
    truth: int
    predicted: int
    probability: float


def choose(
    table: pd.DataFrame, decisions: Mapping[str, Any], each: int, *, error: float, seed: int
) -> tuple[list[Case], list[str]]:
    """At most `each` test images of every kind, and how they were chosen, in sentences.

    Predicted is what validation's operating point decides. Sure is what its limits call so
    (`fracnet.evaluation.conformal`), as in prediction. Drawn by lot within a kind, in turns from
    the classes, and of each patient at most one image a kind. With `each` 0 there is nothing to tell.

    Args:
        table: all of predictions.csv.
        decisions: the content of decisions.json.
        error: of the limits.
        seed: of the lot, which does not depend on the order of rows.
    """
    table = calibrated(table, decisions["temperature"])
    val = table[table["split"] == "val"]
    test = table[table["split"] == "test"]
    points = decisions["operating_point"]
    threshold = points["image"]["threshold"] if points else None
    prob, truth = probabilities(test), targets(test)
    choice = decided(prob, threshold)
    bounds = limits(probabilities(val), targets(val), error, classes_of(val))
    doubt = uncertain(prob, choice, bounds)
    lot = _lot(test["path"], seed)
    members = {
        "wrong and confident": (choice != truth) & ~doubt,
        "wrong and uncertain": (choice != truth) & doubt,
        "right and uncertain": (choice == truth) & doubt,
        "right and confident": (choice == truth) & ~doubt,
    }
    rows = np.flatnonzero((table["split"] == "test").to_numpy())
    found, counts = [], []
    for kind in KINDS:
        member = members[kind]
        counts.append(f"{kind} {int(member.sum())}")
        for i in _in_turns(lot[member[lot]], truth, test["patient"], each):
            named = int(choice[i])
            found.append(Case(kind, int(rows[i]), int(truth[i]), named, float(prob[i, named])))
    if not each:
        return [], []
    how = (
        f"The pictures were drawn by lot, at most {each} of each kind, in turns from the classes. "
        f"All {len(test)} test images: {', '.join(counts)}. {_sure(bounds)}"
    )
    return found, [how]


def _sure(bounds: Limits) -> str:
    """What a sure decision is, and what that promises."""
    if bounds.note:
        return (
            "A decision is sure where limits chosen on validation leave no other class. "
            f"{bounds.note}"
        )
    return (
        f"A decision is sure where limits chosen on validation, by which at most "
        f"{100 * bounds.error:g} % of a class would surely be taken for another, leave no other "
        "class."
    )


def _lot(paths: pd.Series, seed: int) -> np.ndarray:
    """Places of the rows in an order that is drawn, int64 [n]."""
    by_name = np.argsort(paths.to_numpy(dtype=str), kind="stable")
    return np.asarray(by_name[np.random.default_rng(seed).permutation(len(paths))])


def _in_turns(lot: np.ndarray, truth: np.ndarray, patients: pd.Series, each: int) -> list[int]:
    """The first `each` of the lot, from the classes in turns, no known patient twice."""
    taken: list[int] = []
    seen: set[Any] = set()
    names = patients.to_numpy(dtype=object)
    queues = [[int(i) for i in lot if truth[i] == c] for c in np.unique(truth[lot])]
    while len(taken) < each and any(queues):
        for queue in queues:
            while queue and names[queue[0]] in seen:
                queue.pop(0)
            if not queue or len(taken) == each:
                continue
            taken.append(queue.pop(0))
            if pd.notna(names[taken[-1]]):
                seen.add(names[taken[-1]])
    return taken


def as_entry(case: Case, table: pd.DataFrame) -> dict[str, Any]:
    """The case as explain.json holds it, but for the names of its pictures."""
    classes, row = classes_of(table), table.iloc[case.row]
    entry = {
        "kind": case.kind,
        "path": str(row["path"]),
        "row": case.row,
        "truth": classes[case.truth],
        "predicted": classes[case.predicted],
        "probability": case.probability,
    }
    return entry | ({"patient": str(row["patient"])} if pd.notna(row["patient"]) else {})


# Its lightness rises evenly with the value, also for color-blind eyes and in grey print.
COLORS = cv2.COLORMAP_INFERNO

# The radiograph shows through everywhere, and alone where nothing speaks for the class.
OPACITY = 0.6
LINE, RIM = (90, 220, 255), (0, 0, 0)

# Enlarged pictures have thin outlines.
LEAST = 224


def draw(
    image: np.ndarray, heat: np.ndarray | None = None, outlines: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """The picture, uint8 RGB [H, W, 3].

    Args:
        image: uint8 [H, W].
        heat: float32 [H, W], 0 to 1, or None for the radiograph with its outlines alone.
        outlines: each float [k, 2], x and y in pixels; the first pixel covers 0 to 1 in both.
    """
    grey = np.repeat(image[:, :, None], 3, axis=2)
    if heat is not None:
        assert heat.shape == image.shape, (heat.shape, image.shape)
        values = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
        color = cv2.cvtColor(cv2.applyColorMap(values, COLORS), cv2.COLOR_BGR2RGB)
        share = OPACITY * np.clip(heat, 0, 1)[:, :, None]
        grey = np.rint(grey * (1 - share) + color * share).astype(np.uint8)
    picture = np.ascontiguousarray(grey)
    for color_of_line, width in ((RIM, 3), (LINE, 1)):
        for points in outlines:
            # OpenCV counts from the middle of the first pixel; four bits are fractions of a pixel.
            fixed = np.rint((np.asarray(points) - 0.5) * 16).astype(np.int32)
            cv2.polylines(picture, [fixed], True, color_of_line, width, cv2.LINE_AA, shift=4)
    return picture


def enlarged(
    image: np.ndarray, heat: np.ndarray, outlines: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The same, so many times as large that the picture has `LEAST` pixels a side or more."""
    times = -(-LEAST // min(image.shape))
    if times <= 1:
        return image, heat, list(outlines)
    size = (image.shape[1] * times, image.shape[0] * times)
    return (
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8),
        np.asarray(cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR), dtype=np.float32),
        [np.asarray(points) * times for points in outlines],
    )


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
    progress: Progress[Any] = no_progress,
) -> tuple[list[dict[str, Any]], int]:
    """Write two pictures a case to `folder`/overlays; entries for explain.json, and empty maps.

    The map is that of the predicted class, if the method knows one; outlines are of what is marked
    as a case of the image's own class.

    Args:
        data: set up; holds all images of `table`, the run's predictions.
        cases: at least none.
        folder: exists.
        method, layer, batch_size, device, progress: as for `heatmaps`.
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
        progress=progress,
    )
    maps = [heat for batch in batches for heat in batch]
    entries = []
    for i, (case, row, heat) in enumerate(zip(cases, rows, maps, strict=True), start=1):
        marks = outlines(data.manifest.table.iloc[row], data.preprocess)
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
        told.append(f"In {empty} of the {counted(shown, 'picture')} {what}: no color.")
    return told


def is_of_parts(data: RadiographData) -> bool:
    """Whether the classes are body parts: each label is its image's region."""
    table = data.manifest.table
    known = table["region"].notna()
    return bool(known.any()) and bool((table["label"] == table["region"])[known].all())
