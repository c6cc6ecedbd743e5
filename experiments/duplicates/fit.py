"""Fit the weights of `pixel_match` to planted copies, other views and other patients.

PYTHONPATH=tests FRACATLAS_ROOT=<folder> python experiments/duplicates/fit.py
"""

import argparse
import os
from pathlib import Path

import numpy as np
from helpers.copies import SINGLES, TRIPLES, plant, radiographs
from measure import VIEWS, reduced
from sklearn.linear_model import LogisticRegression

from fracnet.data.phantoms.render import REGIONS, Spec, render
from fracnet.data_audit import pixel_match
from fracnet.data_audit.keypoints import describe
from fracnet.data_audit.near_duplicates import Index

PHANTOM_SEEDS, PLANTING_SEED = (900, 910), 900


def measure_pairs(n_phantoms: int, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Measurements float [n, 5] of all candidate pairs that align, and whether they are copies."""
    originals: list[tuple[str, np.ndarray, int]] = []
    if root := os.environ.get("FRACATLAS_ROOT"):
        originals += [(name, reduced(image), copies) for name, image in radiographs(Path(root))]
    for seed in PHANTOM_SEEDS:
        for patient in range(n_phantoms):
            for view in VIEWS:
                spec = Spec(REGIONS[patient % len(REGIONS)], seed, patient, 0, view)
                originals.append((str(spec), np.asarray(render(spec).image), copies))
    recipes = [recipe for both in zip(SINGLES * 4, TRIPLES, strict=True) for recipe in both]
    planted = plant(originals, PLANTING_SEED, recipes)
    described = [describe(image) for image in planted.images]
    order = sorted(range(len(planted)), key=lambda i: described[i].digest)
    images = [described[i] for i in order]
    origins = [planted.origins[i] for i in order]
    index = Index(images)
    rows, is_copy = [], []
    candidates = {
        (min(i, j), max(i, j), *flags)
        for i in range(len(images))
        for j, *flags in index.candidates(i)
    }
    for i, j, is_mirrored, is_inverted in sorted(candidates):
        match = pixel_match.compare(images[i], images[j], is_mirrored, is_inverted)
        if match is not None:
            rows.append([match.measured[name] for name in pixel_match.WEIGHTS])
            is_copy.append(bool(origins[i] & origins[j]))
    return np.array(rows), np.array(is_copy)


def main() -> None:
    """Print the weights, and recall and false pairs by the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=20, help="patients of each seed")
    parser.add_argument("--per-image", type=int, default=4, help="copies planted of each image")
    args = parser.parse_args()
    values, is_copy = measure_pairs(args.phantoms, args.per_image)
    use = values[:, -1] > np.log(pixel_match.FEWEST_WINDOWS / 100)
    model = LogisticRegression(C=10, max_iter=5000).fit(values[use], is_copy[use])
    print(f"INTERCEPT = {model.intercept_[0]:.2f}")
    print(dict(zip(pixel_match.WEIGHTS, model.coef_[0].round(2).tolist(), strict=True)))
    log_odds = model.decision_function(values[use])
    for limit in np.arange(-2, 1.1, 0.5):
        accepted = log_odds > limit
        recall = (accepted & is_copy[use]).sum() / is_copy.sum()
        n_false = (accepted & ~is_copy[use]).sum()
        print(f"limit {limit:4.1f}: recall {recall:.4f}, {n_false} of {(~is_copy).sum()} false")


if __name__ == "__main__":
    main()
