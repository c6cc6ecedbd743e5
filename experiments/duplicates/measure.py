"""Recall, precision and cost of the search for duplicates, on planted copies.

FRACATLAS_ROOT=<folder> python -m experiments.duplicates.measure recall
python -m experiments.duplicates.measure cost --sizes 300
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from experiments.duplicates.copies import (
    RECIPES,
    SINGLES,
    TRIPLES,
    Planted,
    SearchResult,
    altered,
    plant,
    radiographs,
    score_search,
)
from fracnet.data.image_io import BadImage, read_grey
from fracnet.data.phantoms.poses import WIDE_SCENES
from fracnet.data.phantoms.render import REGIONS, Spec, render, render_visible
from fracnet.data.phantoms.upper_limb import write_upper_limb
from fracnet.data_audit.near_duplicates import clusters, find_duplicates

T = TypeVar("T")
# The weights and the limit come from the other half of the radiographs and from phantoms of the
# seeds 900 and 910 (fit.py).
PHANTOM_SEED, PLANTING_SEED, COST_SEED = 71, 73, 74
VIEWS = (0, 1, 3)  # of each phantom: 0 and 3 are of one projection, the hardest negatives


def measure_recall(
    n_phantoms: int, copies: int, n_alone: int, workers: int, out: Path | None
) -> None:
    """Recall by source and alteration, precision, and every error."""
    originals: list[tuple[str, np.ndarray, int]] = []
    root = os.environ.get("FRACATLAS_ROOT")
    if root:
        originals += [
            (f"radiograph: {name}", reduced(image), copies)
            for name, image in radiographs(Path(root), held_out=True)
        ]
    for patient in range(n_phantoms):
        region = REGIONS[patient % len(REGIONS)]
        for view in VIEWS:
            image = np.asarray(render(Spec(region, PHANTOM_SEED, patient, 0, view)).image)
            originals.append((f"phantom: {region} {patient}, view {view}", image, copies))
    recipes = [recipe for both in zip(SINGLES * 4, TRIPLES, strict=True) for recipe in both]
    planted = plant(originals, PLANTING_SEED, recipes)
    pairs = find_duplicates(lambda i: planted.images[i], len(planted), workers=workers)
    content = _summary(planted, score_search(planted, pairs))
    alone = without_copies(PHANTOM_SEED, n_alone, held_out=True)
    wrong = find_duplicates(lambda i: alone[i], len(alone), workers=workers)
    content["images without copies"] = len(alone)
    content["wrong pairs among images without copies"] = len(wrong)
    print(json.dumps(content, indent=1))
    if out is not None:
        out.write_text(json.dumps(content, indent=1) + "\n")


def without_copies(seed: int, n: int, held_out: bool) -> list[np.ndarray]:
    """Radiographs, n phantoms in two exposures of one pose, and n of wide scenes."""
    root = os.environ.get("FRACATLAS_ROOT")
    images = {
        name: reduced(image)
        for name, image in (radiographs(Path(root), held_out=held_out) if root else ())
    }  # once where the sample repeats an image
    specs = [
        Spec(REGIONS[patient % len(REGIONS)], seed + 1, patient, 0, view)
        for patient in range(n)
        for view in (0, 3)
    ]
    scenes = [(scene, region) for scene, regions in WIDE_SCENES.items() for region in regions]
    for patient in range(n):
        scene, region = scenes[patient % len(scenes)]
        specs.append(Spec(region, seed + 2, patient, 0, patient % 3, True, scene))
    phantoms = [np.asarray(render_visible(spec, "study", 1).image) for spec in specs]
    return [*images.values(), *phantoms]


def reduced(image: np.ndarray) -> np.ndarray:
    """At most 640 pixels, about what public sets have."""
    scale = 640 / max(image.shape)
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def _summary(planted: Planted, result: SearchResult) -> dict[str, Any]:
    def names(i: int) -> str:
        return " + ".join(sorted(planted.origins[i]))

    missed = set(result.missed)
    groups: dict[str, list[int]] = {}
    for i, recipe in enumerate(planted.recipes):
        if recipe:
            source = min(planted.origins[i]).split(":")[0]
            kind = "single alterations" if len(recipe) == 1 else "triples"
            for group in (kind, f"{source}, {kind}"):
                groups.setdefault(group, []).append(i)
    return {
        "images": len(planted),
        "copies": result.copies,
        "recall": round(result.recall, 4),
        "recall by cluster": round(result.by_cluster, 4),
        "precision": round(result.precision, 4),
        "pairs": result.pairs,
        "found by group": {
            group: [sum(i not in missed for i in rows), len(rows)] for group, rows in groups.items()
        },
        "found by single alteration": result.by_recipe,
        "found by alteration in triples": result.by_kind,
        "wrong": [f"{names(p.a)} and {names(p.b)}, score {p.score:.2f}" for p in result.false],
        "missed": [f"{names(i)}: {', '.join(planted.recipes[i])}" for i in result.missed],
    }


def measure_cost(
    folder: Path, sizes: list[int], copies: float, workers: int, out: Path | None
) -> None:
    """Seconds and memory by size, including decoding, with planted copies among the images."""
    write_upper_limb(folder / "cost", seed=COST_SEED, counts={"train": max(sizes)}, unlabeled=0)
    phantoms = sorted((folder / "cost").glob("*/*/images/*.jpg"))
    sets = [("phantoms", phantoms, size) for size in sizes]
    if root := os.environ.get("FRACATLAS_ROOT"):
        files = sorted(Path(root).glob("images/*/*.jpg"))
        files = [file for file in files if _is_readable(file)]
        sets.append(("radiographs", files, round(len(files) / (1 - copies))))
    lines = []
    for name, files, size in sets:
        chosen = _with_copies(files, size, round(copies * size), folder / f"copies {name} {size}")
        steps: dict[str, float] = {}

        def timed(
            items: Iterable[T], total: int, name: str, into: dict = steps, size: int = size
        ) -> Iterator[T]:
            start = time.process_time()
            yield from items
            into[name] = round(1000 * (time.process_time() - start) / size, 1)

        def image(i: int, files: list[Path] = chosen) -> np.ndarray:
            return read_grey(files[i])

        start, busy = time.perf_counter(), time.process_time()
        pairs = find_duplicates(image, size, workers=workers, progress=timed)
        wall, busy = time.perf_counter() - start, time.process_time() - busy
        group, planted = clusters(pairs, size), round(copies * size)
        hits = [group[size - planted + i] == group[i] for i in range(planted)]
        line = {
            "images": size,
            "of them copies": planted,
            "recall": round(float(np.mean(hits)), 4),
            "source": name,
            "seconds": round(wall, 1),
            "CPU ms per image": round(1000 * busy / size, 1),
            "of them by step": steps,
            "pairs": len(pairs),
            "peak memory of the process so far, MB": _peak_memory(),
        }
        lines.append(line)
        print(json.dumps(line), flush=True)
    if out is not None:
        out.write_text(json.dumps(lines, indent=1) + "\n")


def _is_readable(file: Path) -> bool:
    try:
        read_grey(file)
    except BadImage:
        return False
    return True


def _with_copies(files: list[Path], size: int, copies: int, folder: Path) -> list[Path]:
    """That many files in random order, the last ones copies of the first, written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(COST_SEED).permutation(len(files))
    chosen = [files[i] for i in order[: size - copies]]
    for i in range(copies):
        image, other = (read_grey(chosen[k]) for k in (i, i + 1))
        rng = np.random.default_rng([PLANTING_SEED, i])
        file = folder / f"{i}.jpg"
        cv2.imwrite(str(file), altered(image, RECIPES[i % len(RECIPES)], rng, other))
        chosen.append(file)
    return chosen


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Parse the command line and run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("recall", "cost"))
    parser.add_argument("--folder", type=Path, default=Path("data/duplicates"), help="of phantoms")
    parser.add_argument("--phantoms", type=int, default=14, help="patients, of three views each")
    parser.add_argument("--per-image", type=int, default=4, help="copies planted of each image")
    parser.add_argument("--alone", type=int, default=80, help="phantoms of each kind, no copies")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000])
    parser.add_argument("--copies", type=float, default=0.2, help="share of copies, for the cost")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    if args.what == "recall":
        measure_recall(args.phantoms, args.per_image, args.alone, args.workers, args.out)
    else:
        measure_cost(args.folder, args.sizes, args.copies, args.workers, args.out)


if __name__ == "__main__":
    main()
