"""Fit the weights of `pixel_match` to planted copies, other views and other patients.

FRACATLAS_ROOT=<folder> python -m experiments.duplicates.fit
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from experiments.duplicates.copies import (
    SINGLES,
    TRIPLES,
    Planted,
    plant,
    radiographs,
    score_search,
)
from experiments.duplicates.measure import VIEWS, reduced, without_copies
from fracnet.data.phantoms.render import REGIONS, Spec, render
from fracnet.data_audit import pixel_match
from fracnet.data_audit.keypoints import describe
from fracnet.data_audit.near_duplicates import Index, Pair, as_pair, consistent_pairs

PHANTOM_SEEDS, PLANTING_SEEDS, ALONE_SEED = (900, 910), (900, 901, 902), 920
SHIFTS = np.arange(-1, 2.1, 0.25)  # of the intercept


def plant_all(seed: int, n_phantoms: int, copies: int) -> Planted:
    """Copies of half of the radiographs, which `measure.py` does not use, and of phantoms."""
    originals: list[tuple[str, np.ndarray, int]] = []
    if root := os.environ.get("FRACATLAS_ROOT"):
        images = radiographs(Path(root), held_out=False)
        originals += [(name, reduced(image), copies) for name, image in images]
    for phantom_seed in PHANTOM_SEEDS:
        for patient in range(n_phantoms):
            for view in VIEWS:
                spec = Spec(REGIONS[patient % len(REGIONS)], phantom_seed, patient, 0, view)
                originals.append((str(spec), np.asarray(render(spec).image), copies))
    triples = [TRIPLES[i] for i in np.random.default_rng(seed).permutation(len(TRIPLES))]
    recipes = [recipe for both in zip(SINGLES * 4, triples, strict=True) for recipe in both]
    return plant(originals, seed, recipes)


def measure_pairs(planted: Planted) -> tuple[list[Pair], np.ndarray]:
    """All candidate pairs that align, and their measurements float [n, M], named by `WEIGHTS`."""
    described = [describe(image) for image in planted.images]
    order = sorted(range(len(planted)), key=lambda i: described[i].digest)
    images = [described[i] for i in order]
    index = Index(images)
    candidates = {
        (min(i, j), max(i, j), *flags)
        for i in range(len(images))
        for j, *flags in index.candidates(i)
    }
    pairs, rows = [], []
    for i, j, is_mirrored, is_inverted in sorted(candidates):
        match = pixel_match.Source(images[i], is_mirrored, is_inverted).compare(images[j])
        if match is not None:
            pairs.append(as_pair(match, order[i], order[j], is_mirrored, is_inverted))
            rows.append([match.measured[name] for name in pixel_match.WEIGHTS])
    return pairs, np.array(rows)


def main() -> None:
    """Print the weights; by the intercept, recall and precision of the whole search, without the
    comparisons over copies, and how many pairs it finds among images without copies, which the
    weights are not fitted to.
    """
    # No pair is dropped for its score by the present weights.
    pixel_match.UNLIKELY, pixel_match.HOPELESS_ODDS = 0.0, -np.inf
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=8, help="patients of each seed")
    parser.add_argument("--per-image", type=int, default=4, help="copies planted of each image")
    parser.add_argument("--alone", type=int, default=60, help="phantoms of each kind, no copies")
    args = parser.parse_args()
    sets = []
    for seed in PLANTING_SEEDS:
        planted = plant_all(seed, args.phantoms, args.per_image)
        sets.append((planted, *measure_pairs(planted)))
    images = without_copies(ALONE_SEED, args.alone, held_out=False)
    alone = Planted(images, [frozenset([str(i)]) for i in range(len(images))], [()] * len(images))
    apart = (alone, *measure_pairs(alone))
    values = np.concatenate([values for _, _, values in sets])
    is_copy = [
        bool(planted.origins[pair.a] & planted.origins[pair.b])
        for planted, pairs, _ in sets
        for pair in pairs
    ]
    scale = values.std(axis=0)
    model = LogisticRegression(C=10, max_iter=5000).fit(values / scale, is_copy)
    weights = (model.coef_[0] / scale).round(2).tolist()
    print(f"INTERCEPT = {model.intercept_[0]:.2f}")
    print(dict(zip(pixel_match.WEIGHTS, weights, strict=True)))
    for shift in SHIFTS:
        results = [score_search(each[0], _search(model, shift, *each[1:], scale)) for each in sets]
        recall = np.average([r.recall for r in results], weights=[r.copies for r in results])
        false = sum(len(r.false) for r in results)
        precision = 1 - false / sum(r.pairs for r in results)
        n = len(_search(model, shift, *apart[1:], scale))
        print(
            f"{shift:+.2f}: recall {recall:.4f}, precision {precision:.4f}; "
            f"{n} pairs among {len(alone)} images without copies",
            flush=True,
        )


def _search(
    model: LogisticRegression,
    shift: float,
    pairs: list[Pair],
    values: np.ndarray,
    scale: np.ndarray,
) -> list[Pair]:
    """What the search, without comparisons over copies, detects if the intercept is shifted."""
    log_odds = model.decision_function(values / scale) + shift
    best: dict[tuple[int, int], Pair] = {}
    for pair, score in zip(pairs, 1 / (1 + np.exp(-log_odds)), strict=True):
        if (pair.a, pair.b) not in best or best[pair.a, pair.b].score < score:
            best[pair.a, pair.b] = replace(pair, score=float(score))
    return consistent_pairs(list(best.values()))


if __name__ == "__main__":
    main()
