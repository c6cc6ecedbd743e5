"""Writes phantoms in the on-disk layout of MURA v1.1: patients, studies of one to four views."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fracnet.data.datasets.layouts import MURA_FOLDER
from fracnet.data.phantoms.geometry import Array
from fracnet.data.phantoms.render import VERSION, Spec, render_shown
from fracnet.data.phantoms.workers import (
    check_counts,
    check_range,
    check_seed,
    make_once,
    mixed,
    write_all,
)

PARTS = ("train", "valid")

# Raised whenever other files are written of unchanged pixels; 2 added the polygons.
FILES = 2
POLYGONS = "fracture_polygons.json"

# Studies of each region in the real train part (Rajpurkar et al. 2018, arXiv:1712.06957, table 1).
SHARES = {
    "elbow": 1754,
    "fingers": 1935,
    "forearm": 877,
    "hand": 2018,
    "humerus": 592,
    "shoulder": 2821,
    "wrist": 3460,
}
VIEWS = (0.1, 0.3, 0.4, 0.2)  # shares of studies of one to four views: 2.7 a study, as the real
SECOND = 0.2  # share of patients with a second study; half of these are of another region

# Far beyond the views of a study, and a multiple of the three projections.
SAME_PROJECTION = 12

# Level 1 with run lengths: the smallest files for these images, and the fastest written.
PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)


@dataclass(frozen=True)
class Job:
    """One image to be written, and where."""

    path: Path
    spec: Spec


def write_mura(
    root: Path,
    *,
    seed: int = 0,
    patients: Mapping[str, int],
    abnormal: float = 0.45,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Fills root/MURA-v1.1 with phantoms, unless it already holds the same ones.

    patients: of the parts train and valid. abnormal: share of studies in which a fracture is drawn,
    the same in all regions; unlike in the real set, every view of such a study shows it. workers:
    processes (default: the CPUs at hand); the bytes do not depend on it. Raises UserError for a bad
    argument and where `root` holds another data set.

    The file `POLYGONS`, which the real set has not, outlines the fractures (`polygons_of`).
    """
    recipe = {
        "seed": seed,
        "patients": {part: int(patients.get(part, 0)) for part in PARTS},
        "abnormal": float(abnormal),
        "version": VERSION,
        "files": FILES,
    }
    check_counts("patients", patients, PARTS)
    check_range("abnormal", abnormal, 0, 1)
    check_seed(seed)
    make_once(
        Path(root), MURA_FOLDER, recipe, lambda folder: _build(folder, recipe, workers, progress)
    )


def _build(folder: Path, recipe: dict, workers: int | None, progress: bool) -> None:
    for part in PARTS:
        (folder / part).mkdir(parents=True)
    write_all(__name__, folder, recipe, workers, progress)
    images = [job.path for job in plan(folder, recipe)]
    _gather_polygons(folder, images)
    _write_lists(folder, images)


def plan(folder: Path, recipe: dict) -> Iterator[Job]:
    """All images of a recipe, in a fixed order: by part, patient, study and view."""
    first = 1  # patients are numbered over both parts, so that none is in two
    for number, (part, n) in enumerate(recipe["patients"].items()):
        rng = np.random.default_rng([recipe["seed"], 78, number])
        studies = list(_studies(rng, n))
        positive = draw_labels(rng, [region for _, region, _ in studies], recipe["abnormal"])
        seen: Counter[tuple[int, str]] = Counter()
        for (index, region, study), broken in zip(studies, positive, strict=True):
            patient = first + index
            seen[patient, region] += 1
            name = f"study{seen[patient, region]}_{'positive' if broken else 'negative'}"
            place = folder / part / xr(region) / f"patient{patient:05d}" / name
            for view in range(1 + int(rng.choice(len(VIEWS), p=VIEWS))):
                spec = Spec(region, recipe["seed"], patient, study, view, bool(broken))
                yield Job(place / f"image{view + 1}.png", spec)
        first += n


def _studies(rng: np.random.Generator, n: int) -> Iterator[tuple[int, str, int]]:
    """(patient, region, study) of n patients; the three count from 0 over all regions."""
    regions = mixed(n, SHARES)
    for patient, region in enumerate(str(name) for name in rng.permutation(regions)):
        yield patient, region, 0
        if rng.random() < SECOND:
            elsewhere = str(rng.choice(mixed(1000, SHARES)))
            yield patient, elsewhere if rng.random() < 0.5 else region, 1


def draw_labels(rng: np.random.Generator, regions: list[str], abnormal: float) -> Array:
    """Which studies are abnormal, bool [N]: that share of each region and of all, within one."""
    order = np.lexsort((rng.random(len(regions)), np.array(regions)))
    # Every time that the running sum passes a whole number, from a random start.
    passed = np.diff(np.floor(rng.random() + abnormal * np.arange(len(regions) + 1)))
    labels = np.zeros(len(regions), bool)
    labels[order] = passed > 0
    return labels


def xr(region: str) -> str:
    """The folder of a region, such as XR_FINGER."""
    return f"XR_{'FINGER' if region == 'fingers' else region.upper()}"


def write_one(job: Job) -> None:
    """Renders one image and writes its PNG, and beside it the outlines of what is broken in it."""
    drawn = render_shown(job.spec, "view", SAME_PROJECTION)
    ok, data = cv2.imencode(".png", drawn.image, PNG)
    assert ok
    job.path.parent.mkdir(parents=True, exist_ok=True)
    job.path.write_bytes(data.tobytes())
    if drawn.polygons:
        outlines = [np.round(polygon, 6).tolist() for polygon in drawn.polygons]
        job.path.with_suffix(".json").write_text(json.dumps(outlines))


def _gather_polygons(folder: Path, images: list[Path]) -> None:
    """One file in place of one an image: the real set has nothing but images in its folders."""
    found = {}
    for path in images:
        own = path.with_suffix(".json")
        if own.exists():
            found[path.relative_to(folder).as_posix()] = json.loads(own.read_text())
            own.unlink()
    lines = (f"{json.dumps(path)}: {json.dumps(found[path])}" for path in found)
    (folder / POLYGONS).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def polygons_of(folder: Path) -> dict[str, list[list[list[float]]]]:
    """The outlines in `folder` (MURA-v1.1) by image path, such as valid/XR_WRIST/...: each the
    convex hull of a bone's pixels that a fracture changes, [[x, y], ...] in shares of the width and
    height. Images without a fracture are not listed.
    """
    found: dict[str, list[list[list[float]]]] = json.loads((folder / POLYGONS).read_text())
    return found


def _write_lists(folder: Path, images: list[Path]) -> None:
    """The official lists, without a header; a study's path ends with a slash, as it does there."""
    for part in PARTS:
        paths = [path.relative_to(folder) for path in images if (folder / part) in path.parents]
        studies = dict.fromkeys(path.parent for path in paths)
        listed = "".join(f"{MURA_FOLDER}/{path.as_posix()}\n" for path in paths)
        labeled = "".join(
            f"{MURA_FOLDER}/{study.as_posix()}/,{int(study.name.endswith('_positive'))}\n"
            for study in studies
        )
        (folder / f"{part}_image_paths.csv").write_text(listed)
        (folder / f"{part}_labeled_studies.csv").write_text(labeled)
