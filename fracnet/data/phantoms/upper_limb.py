"""Phantoms in the on-disk layout of the six-class upper-limb set."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from fracnet.data.datasets.layouts import UPPER_LIMB_FOLDER, UPPER_LIMB_MERGED, UPPER_LIMB_NAMES
from fracnet.data.phantoms.poses import WIDE_SCENES
from fracnet.data.phantoms.render import VERSION, Spec, render_visible
from fracnet.data.phantoms.workers import build_once, proportional, write_images

SHARES = {
    "elbow": 306,
    "fingers": 433,
    "forearm": 283,
    "humerus": 299,
    "shoulder": 315,
    "wrist": 168,
}
"""Labeled images by region in the real train split."""
WIDE_SHARES = {
    f"{scene}/{region}": 6 // len(regions)
    for scene, regions in WIDE_SCENES.items()
    for region in regions
}
"""Images by scene and broken region: all scenes are as common, and in each scene its regions."""
IDS = {
    region: tuple(i for i, name in enumerate(UPPER_LIMB_NAMES) if UPPER_LIMB_MERGED[name] == region)
    for region in SHARES
}
"""Class ids by region; humerus has two."""
VIEWS = (0.6, 0.2, 0.2)  # shares of frontal, lateral, oblique
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


@dataclass(frozen=True)
class PlannedImage:
    """One image to write: its folder, identifiers and class id (None: no fracture)."""

    folder: Path
    spec: Spec
    class_id: int | None


def write_upper_limb(
    root: Path,
    *,
    seed: int = 0,
    counts: Mapping[str, int],
    unlabeled: float = 0.1,
    context: Literal["part", "wide"] = "part",
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Fill root/BoneFractureYolo8 with phantoms, unless it already holds the same ones.

    counts: labeled images in the splits train, val and test. unlabeled: share of further images,
    without a fracture, whose label file is empty. context: "part" shows the labeled region, "wide"
    its neighbors as well (`WIDE_SCENES`), so that only the fracture tells the label. workers:
    processes (default: one per CPU); the bytes do not depend on it. Raises UserError if `root`
    holds another dataset.
    """
    recipe: dict[str, Any] = {
        "seed": seed,
        "counts": {split: int(counts.get(split, 0)) for split in FOLDERS},
        "unlabeled": float(unlabeled),
        "version": VERSION,
    }
    if context == "wide":  # the recipe of the others is that of earlier versions
        recipe["context"] = context
    build_once(
        Path(root),
        UPPER_LIMB_FOLDER,
        recipe,
        lambda folder: _build(folder, recipe, workers, progress),
    )


def _build(folder: Path, recipe: dict, workers: int | None, progress: bool) -> None:
    for name in FOLDERS.values():
        (folder / name / "images").mkdir(parents=True)
        (folder / name / "labels").mkdir()
    write_images(list(plan(folder, recipe)), write_image, workers, progress)
    (folder / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
        f"nc: {len(UPPER_LIMB_NAMES)}\nnames: {json.dumps(list(UPPER_LIMB_NAMES))}\n",
        encoding="utf-8",
    )


def plan(folder: Path, recipe: dict) -> Iterator[PlannedImage]:
    """All images of a recipe, in a fixed order."""
    patient = 0  # a new one for each image, so that no patient is in two splits
    for number, (split, n) in enumerate(recipe["counts"].items()):
        rng = np.random.default_rng([recipe["seed"], 77, number])
        extra = round(recipe["unlabeled"] * n)
        shares = WIDE_SHARES if recipe.get("context") == "wide" else SHARES
        for names, labeled in (
            (proportional(n, shares), True),
            (proportional(extra, shares), False),
        ):
            for name in rng.permutation(names) if names else ():
                scene, _, region = str(name).rpartition("/")
                class_id = int(rng.choice(IDS[region])) if labeled else None
                view = int(rng.choice(3, p=VIEWS))
                spec = Spec(region, recipe["seed"], patient, 0, view, labeled, scene or None)
                yield PlannedImage(folder / FOLDERS[split], spec, class_id)
                patient += 1


def write_image(planned: PlannedImage) -> None:
    """Render one image; write its JPEG and its label file."""
    # If its frame has no room for its fracture, the image of the next study.
    rendered = render_visible(planned.spec, "study", 1)
    rng = planned.spec.stream("file")
    stem = file_stem(planned.spec, rng)
    quality = int(rng.integers(80, 96))
    color = cv2.cvtColor(rendered.image, cv2.COLOR_GRAY2BGR)
    ok, data = cv2.imencode(".jpg", color, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    (planned.folder / "images" / f"{stem}.jpg").write_bytes(data.tobytes())
    lines = []
    if planned.class_id is not None:
        lines = [
            " ".join([str(planned.class_id), *(f"{x:.6f}" for x in polygon.ravel())])
            for polygon in rendered.polygons
        ]
    text = "".join(line + "\n" for line in lines)
    (planned.folder / "labels" / f"{stem}.txt").write_text(text, encoding="utf-8")


def file_stem(spec: Spec, rng: np.random.Generator) -> str:
    """A name like those of the annotation service: unrelated images may share the first part."""
    name = f"image{int(rng.integers(1, 6))}_{int(rng.integers(1, 900))}_png"
    identifiers = f"{spec.seed}/{spec.patient}/{spec.study}/{spec.view}"
    return f"{name}.rf.{hashlib.md5(identifiers.encode(), usedforsecurity=False).hexdigest()}"
