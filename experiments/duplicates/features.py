"""What the nearest neighbors by a network's features add to the search for copies.

FRACATLAS_ROOT=<folder> python -m experiments.duplicates.features --nearest 5
"""

import argparse
import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from experiments.duplicates.copies import (
    SINGLES,
    TRIPLES,
    Planted,
    plant,
    radiographs,
    score_search,
)
from experiments.duplicates.measure import (
    PHANTOM_SEED,
    PLANTING_SEED,
    VIEWS,
    reduced,
    without_copies,
)
from fracnet.data.phantoms.render import REGIONS, Spec, render
from fracnet.data.preprocess import Preprocess
from fracnet.data_audit.keypoints import describe
from fracnet.data_audit.near_duplicates import VARIANTS, Index, find_duplicates
from fracnet.data_audit.similar_images import similar_across
from fracnet.models.backbones import efficientnet_lite0

STEPS = [{"name": "resize", "mode": "squash"}, {"name": "clahe", "clip_limit": 2.0, "tiles": 8}]
SIZE, BATCH = 224, 8


def images_with_copies(held_out: bool, n_alone: int) -> Planted:
    """As in measure.py, together with radiographs and phantoms without copies.

    held_out: the half of measure.py and its seeds; otherwise the other half and other seeds.
    """
    seed, planting = (PHANTOM_SEED, PLANTING_SEED) if held_out else (950, 952)
    sources = radiographs(Path(os.environ["FRACATLAS_ROOT"]), held_out=held_out)
    originals = [(f"radiograph: {name}", reduced(image), 4) for name, image in sources]
    for patient in range(14):
        region = REGIONS[patient % len(REGIONS)]
        for view in VIEWS:
            image = np.asarray(render(Spec(region, seed, patient, 0, view)).image)
            originals.append((f"phantom: {region} {patient}, view {view}", image, 4))
    recipes = [recipe for both in zip(SINGLES * 4, TRIPLES, strict=True) for recipe in both]
    planted = plant(originals, planting, recipes)
    alone = without_copies(seed + 3, n_alone, held_out=not held_out)
    return Planted(
        [*planted.images, *alone],
        [*planted.origins, *(frozenset([f"alone: {i}"]) for i in range(len(alone)))],
        [*planted.recipes, *[()] * len(alone)],
    )


def features_of(images: list[np.ndarray]) -> np.ndarray:
    """Float32 [N, F] of EfficientNet-Lite0 with the weights of ImageNet, as the audit computes."""
    preprocess = Preprocess(STEPS, SIZE)
    network = efficientnet_lite0(num_classes=2).eval()
    parts: list[torch.Tensor] = []
    network.get_classifier().register_forward_pre_hook(lambda _, args: parts.append(args[0]))
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            pixels = np.stack([preprocess(image) for image in images[start : start + BATCH]])
            values = torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1).float()
            network((values / 255 - 0.5) / 0.5)
    return torch.cat(parts).numpy()


def propose_nearest(images: list[np.ndarray], k: int) -> None:
    """Let the search compare each image also with the k most similar ones, in all variants."""
    centered = features_of(images)
    centered -= centered.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    similarity = centered @ centered.T
    np.fill_diagonal(similarity, -np.inf)
    digests = [describe(image).digest for image in images]
    nearest = {
        digest: [digests[other] for other in row[:k]]
        for digest, row in zip(digests, np.argsort(-similarity, axis=1), strict=True)
    }
    by_key_points = Index.candidates

    def candidates(self: Index, query: int) -> list[tuple[int, bool, bool]]:
        place = {image.digest: i for i, image in enumerate(self.images)}
        others = [place[digest] for digest in nearest[self.images[query].digest]]
        more = [(other, *flags) for other in others if other != query for flags in VARIANTS]
        return [*by_key_points(self, query), *more]

    Index.candidates = candidates  # type: ignore[method-assign]


def one_patient(n: int, rounds: int = 20) -> dict[str, float]:
    """How many of the listed similar pairs show one patient, who is unknown to the list.

    Two exposures of one pose of n phantoms, split in halves at random, image by image.
    """
    specs = [
        Spec(REGIONS[patient % len(REGIONS)], 980, patient, 0, view)
        for patient in range(n)
        for view in (0, 3)
    ]
    values = features_of([np.asarray(render(spec).image) for spec in specs])
    rows = np.arange(2 * n)
    shares, groups = [], rows.astype(str)
    for seed in range(rounds):
        halves = np.random.default_rng(seed).permutation(2 * n) % 2
        listed = similar_across(values, rows, np.array(["train", "test"])[halves], groups)
        shares.append(np.mean([pair.a // 2 == pair.b // 2 for pair in listed]))
    return {
        "phantoms": n,
        "share of listed pairs that show one patient": round(float(np.mean(shares)), 3),
        "lowest": round(float(np.min(shares)), 3),
        "highest": round(float(np.max(shares)), 3),
        "by chance": round(1 / (2 * n - 1), 4),
    }


def main() -> None:
    """Run one search, with `--nearest 0` by key points alone; or check the list, `--patients`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nearest", type=int, default=5, help="by features, 0: none")
    parser.add_argument("--alone", type=int, default=100, help="phantoms of each kind, no copies")
    parser.add_argument("--choose", action="store_true", help="the half for decisions")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--patients", type=int, help="phantoms whose similar pairs are counted")
    args = parser.parse_args()
    if args.patients:
        print(json.dumps(one_patient(args.patients)))
        return
    planted = images_with_copies(not args.choose, args.alone)
    n = len(planted)
    start = time.process_time()
    if args.nearest:
        propose_nearest(planted.images, args.nearest)
    between = time.process_time()
    pairs = find_duplicates(lambda i: planted.images[i], n, workers=1)
    end = time.process_time()
    result = score_search(planted, pairs)
    content = {
        "images": n,
        "nearest by features": args.nearest,
        "copies": result.copies,
        "found": result.copies - len(result.missed),
        "pairs": result.pairs,
        "wrong pairs": len(result.false),
        "CPU ms per image, features": round(1000 * (between - start) / n, 1),
        "CPU ms per image, search": round(1000 * (end - between) / n, 1),
        "wrong by sources": Counter(
            " and ".join(sorted(min(planted.origins[i]).split(":")[0] for i in (pair.a, pair.b)))
            for pair in result.false
        ),
        "missed": [
            f"{' + '.join(sorted(planted.origins[i]))}: {', '.join(planted.recipes[i])}"
            for i in result.missed
        ],
    }
    print(json.dumps(content, indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
