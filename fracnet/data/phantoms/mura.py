"""Phantoms in the on-disk layout of MURA v1.1: patients, studies of one to four views."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fracnet.data.datasets.layouts import MURA_FOLDER
from fracnet.data.phantoms.geometry import Array
from fracnet.data.phantoms.render import VERSION, Spec, render_visible
from fracnet.data.phantoms.workers import build_once, proportional, write_images

PARTS = ("train", "valid")

FILES = 2
"""Raised whenever the files change but not the pixels; 2 added the polygons."""
POLYGONS = "fracture_polygons.json"
SHARES = {
    "elbow": 1754,
    "fingers": 1935,
    "forearm": 877,
    "hand": 2018,
    "humerus": 592,
    "shoulder": 2821,
    "wrist": 3460,
}
"""Studies by region in the real train part (Rajpurkar et al. 2018, arXiv:1712.06957, table 1)."""
VIEWS = (0.1, 0.3, 0.4, 0.2)  # shares of studies with one to four views: 2.7 per study, as in MURA
SECOND_STUDY_SHARE = 0.2  # share of patients with a second study, half of them of another region
SAME_PROJECTION = 12  # far beyond the views of a study, and a multiple of the three projections
PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
"""Level 1 with run lengths: the smallest and fastest files for these images."""


@dataclass(frozen=True)
class PlannedImage:
    """One image to write, and its file."""

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
    """Fill root/MURA-v1.1 with phantoms, unless it already holds the same ones.

    patients: number in the parts train and valid. abnormal: share of studies with a fracture, the
    same in all regions; unlike in MURA, every view of such a study shows it. workers: processes
    (default: one per CPU); the bytes do not depend on it. Raises UserError
    if `root` holds another dataset.

    The file POLYGONS, which MURA does not have, outlines the fractures (see `read_polygons`).
    """
    recipe = {
        "seed": seed,
        "patients": {part: int(patients.get(part, 0)) for part in PARTS},
        "abnormal": float(abnormal),
        "version": VERSION,
        "files": FILES,
    }
    build_once(
        Path(root), MURA_FOLDER, recipe, lambda folder: _build(folder, recipe, workers, progress)
    )


def _build(folder: Path, recipe: dict, workers: int | None, progress: bool) -> None:
    for part in PARTS:
        (folder / part).mkdir(parents=True)
    images = list(plan(folder, recipe))
    paths = [image.path.relative_to(folder) for image in images]
    outlines = zip(paths, write_images(images, write_image, workers, progress), strict=True)
    lines = (f'"{path.as_posix()}": {json.dumps(shapes)}' for path, shapes in outlines if shapes)
    (folder / POLYGONS).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    _write_lists(folder, paths)


def plan(folder: Path, recipe: dict) -> Iterator[PlannedImage]:
    """All images of a recipe, in a fixed order: by part, patient, study and view."""
    first = 1  # patient numbers continue from train to valid, so that no patient is in both
    for number, (part, n) in enumerate(recipe["patients"].items()):
        rng = np.random.default_rng([recipe["seed"], 78, number])
        studies = list(_studies(rng, n))
        positive = draw_labels(rng, [region for _, region, _ in studies], recipe["abnormal"])
        n_studies: Counter[tuple[int, str]] = Counter()
        for (index, region, study), broken in zip(studies, positive, strict=True):
            patient = first + index
            n_studies[patient, region] += 1
            name = f"study{n_studies[patient, region]}_{'positive' if broken else 'negative'}"
            xr = f"XR_{'FINGER' if region == 'fingers' else region.upper()}"
            study_folder = folder / part / xr / f"patient{patient:05d}" / name
            for view in range(1 + int(rng.choice(len(VIEWS), p=VIEWS))):
                spec = Spec(region, recipe["seed"], patient, study, view, bool(broken))
                yield PlannedImage(study_folder / f"image{view + 1}.png", spec)
        first += n


def _studies(rng: np.random.Generator, n: int) -> Iterator[tuple[int, str, int]]:
    """(patient, region, study) of n patients; the three count from 0 over all regions."""
    regions = proportional(n, SHARES)
    for patient, region in enumerate(str(name) for name in rng.permutation(regions)):
        yield patient, region, 0
        if rng.random() < SECOND_STUDY_SHARE:
            other = str(rng.choice(proportional(1000, SHARES)))
            yield patient, other if rng.random() < 0.5 else region, 1


def draw_labels(rng: np.random.Generator, regions: list[str], abnormal: float) -> Array:
    """Whether each study is abnormal, bool [N]: that share of each region and of all, within 1."""
    order = np.lexsort((rng.random(len(regions)), np.array(regions)))
    # Whenever the running sum passes a whole number, from a random start.
    passed = np.diff(np.floor(rng.random() + abnormal * np.arange(len(regions) + 1)))
    labels = np.zeros(len(regions), bool)
    labels[order] = passed > 0
    return labels


def write_image(planned: PlannedImage) -> list[list[list[float]]]:
    """Render one image and write its PNG; the outlines of its fractures."""
    rendered = render_visible(planned.spec, "view", SAME_PROJECTION)
    ok, data = cv2.imencode(".png", rendered.image, PNG)
    assert ok
    planned.path.parent.mkdir(parents=True, exist_ok=True)
    planned.path.write_bytes(data.tobytes())
    return [np.round(polygon, 6).tolist() for polygon in rendered.polygons]


def read_polygons(folder: Path) -> dict[str, list[list[list[float]]]]:
    """The outlines in `folder` (MURA-v1.1) by image path, such as valid/XR_WRIST/...

    Each is the convex hull of the pixels of a bone that a fracture changes, [[x, y], ...] in shares
    of width and height. Images without a fracture are not listed.
    """
    outlines: dict[str, list[list[list[float]]]] = json.loads(
        (folder / POLYGONS).read_text(encoding="utf-8")
    )
    return outlines


def _write_lists(folder: Path, images: list[Path]) -> None:
    """The official lists, without a header; the path of a study ends with a slash, as in MURA."""
    for part in PARTS:
        paths = [path for path in images if path.parts[0] == part]
        studies = dict.fromkeys(path.parent for path in paths)
        image_lines = "".join(f"{MURA_FOLDER}/{path.as_posix()}\n" for path in paths)
        study_lines = "".join(
            f"{MURA_FOLDER}/{study.as_posix()}/,{int(study.name.endswith('_positive'))}\n"
            for study in studies
        )
        (folder / f"{part}_image_paths.csv").write_text(image_lines, encoding="utf-8")
        (folder / f"{part}_labeled_studies.csv").write_text(study_lines, encoding="utf-8")
