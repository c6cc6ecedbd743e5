"""Recall, precision and cost of the search for duplicates, on planted copies.

PYTHONPATH=tests FRACATLAS_ROOT=<folder> python experiments/duplicates/measure.py found
PYTHONPATH=tests python experiments/duplicates/measure.py cost --sizes 2000 4000 8000
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from helpers.copies import RECIPES, Planted, SearchResult, altered, plant, radiographs, score_search

from fracnet.data.image_io import read_grey
from fracnet.data.phantoms.mura import write_mura
from fracnet.data.phantoms.upper_limb import write_upper_limb
from fracnet.data_audit.near_duplicates import clusters, find_duplicates

T = TypeVar("T")
# Thresholds were chosen on the seeds 11 to 14, 21, 22, 31, 32 and 61 and half of the radiographs.
UPPER_LIMB_SEED, MURA_SEED, PLANTING_SEED, COST_SEED = 71, 72, 73, 74


def found(folder: Path, workers: int, out: Path | None) -> None:
    """Recall by origin and by kind of alteration, precision, and what went wrong."""
    counts = {"train": 130, "val": 10, "test": 10}
    write_upper_limb(folder / "upper_limb", seed=UPPER_LIMB_SEED, counts=counts, progress=False)
    write_mura(folder / "mura", seed=MURA_SEED, patients={"train": 70}, progress=False)
    originals = []
    root = os.environ.get("FRACATLAS_ROOT")
    for held_out in (False, True) if root else ():
        half = "radiograph, other half" if held_out else "radiograph, half of the thresholds"
        originals += [
            (f"{half}: {name}", image, 3) for name, image in radiographs(Path(str(root)), held_out)
        ]
    for kind, pattern in (("upper_limb", "*/*/images/*.jpg"), ("mura", "*/*/*/*/*/*.png")):
        for path in sorted((folder / kind).glob(pattern)):
            name = path.relative_to(folder / kind)
            originals.append((f"{kind} phantom: {name}", read_grey(path), 1))
    planted = plant(originals, PLANTING_SEED)
    pairs = find_duplicates(lambda i: planted.images[i], len(planted), workers=workers)
    result = score_search(planted, pairs)
    _print(planted, result)
    if out is not None:
        told = {
            "images": len(planted),
            "copies": result.copies,
            "recall": result.recall,
            "recall by cluster": result.by_cluster,
            "precision": result.precision,
            "pairs": result.pairs,
            "wrong": [f"{planted.origins[p.a]} and {planted.origins[p.b]}" for p in result.false],
            "missed": [f"{planted.origins[i]} {planted.recipes[i]}" for i in result.missed],
            "by kind": result.by_kind,
        }
        out.write_text(json.dumps(told, indent=1) + "\n")


def _print(planted: Planted, result: SearchResult) -> None:
    print(f"{len(planted)} images, {result.copies} of them planted copies")
    print(f"recall {result.recall:.4f} (by cluster {result.by_cluster:.4f})")
    wrong = len(result.false)
    print(f"precision {result.precision:.4f} ({wrong} of {result.pairs} pairs wrong)")
    for kind, (hit, made) in result.by_kind.items():
        print(f"  {kind:16} {hit}/{made}")
    missed = set(result.missed)
    for group in dict.fromkeys(origin.split(":")[0] for origin in planted.origins):
        rows = [
            i
            for i, origin in enumerate(planted.origins)
            if planted.recipes[i] and origin.startswith(f"{group}:")
        ]
        print(f"  {group:36} {sum(i not in missed for i in rows)}/{len(rows)}")
    for i in result.missed:
        print(f"missed {planted.origins[i]} {planted.recipes[i]}")
    for pair in result.false:
        print(f"wrong {planted.origins[pair.a]} and {planted.origins[pair.b]} {pair.score:.3f}")


def cost(
    folder: Path, sizes: list[int], drawn: int, copies: int, workers: int, out: Path | None
) -> None:
    """Seconds and memory by size, the files' decoding included, with planted copies among them."""
    write_upper_limb(folder / "cost", seed=COST_SEED, counts={"train": drawn}, unlabeled=0)
    files = sorted((folder / "cost").glob("*/*/images/*.jpg"))
    files = [files[i] for i in np.random.default_rng(COST_SEED).permutation(len(files))]
    lines = []
    for size in sizes:
        n = size - copies

        def image(i: int, n: int = n) -> np.ndarray:
            if i < n:
                return read_grey(files[i])
            rng = np.random.default_rng([PLANTING_SEED, i - n])
            return altered(read_grey(files[i - n]), RECIPES[(i - n) % len(RECIPES)], rng)

        steps: dict[str, float] = {}

        def timed(items: Iterable[T], total: int, name: str, into: dict = steps) -> Iterator[T]:
            start = time.perf_counter()
            yield from items
            into[name] = round(time.perf_counter() - start, 1)

        start, busy = time.perf_counter(), time.process_time()
        pairs = find_duplicates(image, size, workers=workers, progress=timed)
        wall, busy = time.perf_counter() - start, time.process_time() - busy
        group = clusters(pairs, size)
        line = {
            "images": size,
            "copies": copies,
            "seconds": round(wall, 1),
            "ms an image": round(1000 * wall / size, 2),
            "CPU ms an image": round(1000 * busy / size, 2),
            "steps": steps,
            "recall": round(float(np.mean([group[n + i] == group[i] for i in range(copies)])), 4),
            "wrong pairs": sum(pair.b < n or pair.b - n != pair.a for pair in pairs),
            "peak memory of the process so far, MB": _peak(),
        }
        lines.append(line)
        print(json.dumps(line), flush=True)
    first, last = lines[0]["ms an image"], lines[-1]["ms an image"]
    print(f"an image costs {last / first:.2f} times as much among {sizes[-1]} as among {sizes[0]}")
    if out is not None:
        out.write_text(json.dumps(lines, indent=1) + "\n")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("found", "cost"))
    parser.add_argument("--folder", type=Path, default=Path("data/duplicates"), help="of phantoms")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 4000, 8000])
    parser.add_argument("--drawn", type=int, help="phantoms; each size takes some of them")
    parser.add_argument("--copies", type=int, default=200, help="planted, at every size")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    chosen = parser.parse_args()
    if chosen.what == "found":
        found(chosen.folder, chosen.workers, chosen.out)
    else:
        drawn = max([chosen.drawn or 0, *chosen.sizes])
        cost(chosen.folder, chosen.sizes, drawn, chosen.copies, chosen.workers, chosen.out)


if __name__ == "__main__":
    main()
