"""Writes phantoms in the on-disk layout of the six-class upper-limb set."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fracnet.data.datasets.layouts import UPPER_LIMB_FOLDER as FOLDER
from fracnet.data.datasets.layouts import UPPER_LIMB_MERGED as MERGED
from fracnet.data.datasets.layouts import UPPER_LIMB_NAMES as NAMES
from fracnet.data.phantoms.render import VERSION, Rendered, Spec, render_shown
from fracnet.data.phantoms.workers import (
    check_counts,
    check_range,
    check_seed,
    make_once,
    mixed,
    write_all,
)

# Labeled images of each region in the real train split.
SHARES = {
    "elbow": 306,
    "fingers": 433,
    "forearm": 283,
    "humerus": 299,
    "shoulder": 315,
    "wrist": 168,
}

# Class ids of each region: a humerus has two.
IDS = {
    region: tuple(i for i, name in enumerate(NAMES) if MERGED[name] == region) for region in SHARES
}
VIEWS = (0.6, 0.2, 0.2)  # shares of frontal, lateral, oblique
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


@dataclass(frozen=True)
class Job:
    """One image to be written: where, of whom, with which class id (None: without a fracture)."""

    folder: Path
    spec: Spec
    class_id: int | None


def write_upper_limb(
    root: Path,
    *,
    seed: int = 0,
    counts: Mapping[str, int],
    unlabeled: float = 0.1,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Fills root/BoneFractureYolo8 with phantoms, unless it already holds the same ones.

    counts: labeled images of the splits train, val and test. unlabeled: share of further images,
    without a fracture, whose label file is empty. workers: processes (default: the CPUs at hand);
    the bytes do not depend on it. Raises UserError for a bad argument and where `root` holds
    another data set.
    """
    recipe = {
        "seed": seed,
        "counts": {split: int(counts.get(split, 0)) for split in FOLDERS},
        "unlabeled": float(unlabeled),
        "version": VERSION,
    }
    check_counts("counts", counts, FOLDERS)
    check_range("unlabeled", unlabeled, 0, 2)
    check_seed(seed)
    make_once(Path(root), FOLDER, recipe, lambda folder: _build(folder, recipe, workers, progress))


def _build(folder: Path, recipe: dict, workers: int | None, progress: bool) -> None:
    for name in FOLDERS.values():
        (folder / name / "images").mkdir(parents=True)
        (folder / name / "labels").mkdir()
    write_all(__name__, folder, recipe, workers, progress)
    (folder / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
        f"nc: {len(NAMES)}\nnames: {json.dumps(list(NAMES))}\n"
    )


def plan(folder: Path, recipe: dict) -> Iterator[Job]:
    """All images of a recipe, in a fixed order."""
    patient = 0  # a new one for every image, so that no patient is in two splits
    for number, (split, n) in enumerate(recipe["counts"].items()):
        rng = np.random.default_rng([recipe["seed"], 77, number])
        extra = round(recipe["unlabeled"] * n)
        for regions, labeled in ((mix(n), True), (mix(extra), False)):
            for region in rng.permutation(regions) if regions else ():
                region = str(region)
                class_id = int(rng.choice(IDS[region])) if labeled else None
                view = int(rng.choice(3, p=VIEWS))
                spec = Spec(region, recipe["seed"], patient, 0, view, labeled)
                yield Job(folder / FOLDERS[split], spec, class_id)
                patient += 1


def mix(n: int) -> list[str]:
    """n regions in about the real proportions; all six are there when n is 12 or more."""
    return mixed(n, SHARES)


def write_one(job: Job) -> None:
    """Renders one image and writes its JPEG and its label file."""
    drawn = draw(job.spec)
    rng = job.spec.stream("file")
    stem = file_stem(job.spec, rng)
    quality = int(rng.integers(80, 96))
    color = cv2.cvtColor(drawn.image, cv2.COLOR_GRAY2BGR)
    ok, data = cv2.imencode(".jpg", color, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    (job.folder / "images" / f"{stem}.jpg").write_bytes(data.tobytes())
    lines = []
    if job.class_id is not None:
        lines = [
            " ".join([str(job.class_id), *(f"{x:.6f}" for x in polygon.ravel())])
            for polygon in drawn.polygons
        ]
    text = "".join(line + "\n" for line in lines)
    (job.folder / "labels" / f"{stem}.txt").write_text(text)


def draw(spec: Spec) -> Rendered:
    """The image of a spec; where its frame leaves no place for its fracture, of the next study."""
    return render_shown(spec, "study", 1)


def file_stem(spec: Spec, rng: np.random.Generator) -> str:
    """A name as the annotation service gives them: unrelated images may share the first part."""
    name = f"image{int(rng.integers(1, 6))}_{int(rng.integers(1, 900))}_png"
    words = f"{spec.seed}/{spec.patient}/{spec.study}/{spec.view}"
    return f"{name}.rf.{hashlib.md5(words.encode(), usedforsecurity=False).hexdigest()}"
