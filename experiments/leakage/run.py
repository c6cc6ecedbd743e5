"""How much copies of an image, or of a patient, on both sides of the split inflate test metrics.

OMP_NUM_THREADS=1 python -m experiments.leakage.run
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.small_phantoms import (
    ADAM,
    OVERRIDES,
    Phantoms,
    accuracy_and_auc,
    build_training,
    make_phantoms,
    probabilities,
    write_config,
    write_dataset,
)
from fracnet.data.augment import build_augment
from fracnet.evaluation.predictions import Predictions
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.hypothesis_tests import spread_over_runs
from fracnet.metrics.intervals import RESAMPLES, bootstrap
from fracnet.models.classifier import Classifier
from fracnet.runs.run_folder import RunFolder
from fracnet.training.trainer import fit_and_predict

METRICS = ("accuracy", "macro_auc")
COPIES = 4  # of each image, including the original; the six-class dataset has about three
# fracnet splits by patient if labels.csv names the patient, otherwise by file.
ARMS = {
    "patient": "split by patient, augmented in training",
    "file": "split by file, augmented in training",
    "copies": f"{COPIES} copies of each image, then split by file",
    "copies, by patient": f"{COPIES} copies of each image, then split by patient",
}
# The first two arms differ in augmentation and split, the second two in the split alone.
COMPARED = (("copies", "patient"), ("copies", "copies, by patient"))
PUBLISHED = [
    {"_target_": "albumentations.Affine", "rotate": [-15, 15], "scale": [0.9, 1.1], "p": 1.0},
    {"_target_": "albumentations.HorizontalFlip", "p": 0.5},
    {"_target_": "albumentations.VerticalFlip", "p": 0.5},
]


def with_copies(phantoms: Phantoms, seed: int) -> tuple[Phantoms, np.ndarray]:
    """Each image followed by its altered copies, and the index of each one's original, int64."""
    origin = np.repeat(np.arange(len(phantoms.images)), COPIES)
    copies = phantoms.select(origin)
    augment = build_augment(PUBLISHED)
    for i, row in enumerate(origin):
        if copy := i % COPIES:
            copies.images[i] = augment(phantoms.images[row], seed=seed, epoch=copy, row=int(row))
    return copies, origin


def has_copies(arm: str) -> bool:
    """Whether the arm trains on copies, created once, instead of augmenting in training."""
    return arm.startswith("copies")


def train(
    arm: str, phantoms: Phantoms, fresh: Phantoms, seed: int, root: Path, overrides: Sequence[str]
) -> tuple[dict[str, Any], np.ndarray]:
    """The reported and the true metrics of one run, and its probabilities of the fresh images."""
    shutil.rmtree(root, ignore_errors=True)
    origin = np.arange(len(phantoms.images))
    if has_copies(arm):
        phantoms, origin = with_copies(phantoms, seed)
    columns = {"patient": phantoms.patients} if arm.endswith("patient") else {}
    write_dataset(root, phantoms, **columns)
    run_overrides = [f"data.root={root}", f"seed={seed}", f"data.split_seed={seed}"]
    config, data, model = build_training([*OVERRIDES, *run_overrides, *overrides])
    folder = RunFolder(root / "run")
    folder.path.mkdir()
    table, _ = fit_and_predict(model, config, data, folder)
    # Only the test rows are checked: patients may lie in several splits here.
    test = Predictions(table[table["split"] == "test"])
    reported = accuracy_and_auc(test.targets, test.probabilities, np.ones((1, len(test))))[0]
    # A file's name is the number of its image.
    split_of = data.manifest.table.set_index("path")["split"]
    number = split_of.index.str.extract(r"(\d+)\.", expand=False).astype(int).to_numpy()
    tested, trained = number[split_of == "test"], number[split_of == "train"]
    best = Classifier.load_from_checkpoint(folder.checkpoints / "best.ckpt", weights_only=True)
    fresh_probs = probabilities(best, fresh)
    true = accuracy_and_auc(fresh.targets, fresh_probs, np.ones((1, len(fresh_probs))))[0]
    row = {
        "arm": arm,
        "seed": seed,
        "train images": len(trained),
        "test images": len(tested),
        "share with patient in train": _share_in(
            phantoms.patients[tested], phantoms.patients[trained]
        ),
        "share with copy in train": _share_in(origin[tested], origin[trained]),
        "reported": dict(zip(METRICS, reported.round(4).tolist(), strict=True)),
        "true": dict(zip(METRICS, true.round(4).tolist(), strict=True)),
    }
    return row, fresh_probs


def _share_in(values: np.ndarray, train_values: np.ndarray) -> float:
    return round(float(np.isin(values, train_values).mean()), 3)


def summarize(
    rows: Sequence[dict[str, Any]], probs: Sequence[np.ndarray], fresh: Phantoms
) -> dict[str, Any]:
    """Means over seeds with 95 % intervals, which account for trainings and fresh patients."""
    names, ids = np.unique(fresh.patients, return_inverse=True)
    clusters = Clusters(ids, len(names), "patient")
    resampled = [
        bootstrap(partial(accuracy_and_auc, fresh.targets, prob), clusters, resamples=RESAMPLES)
        for prob in probs
    ]
    summary: dict[str, Any] = {arm: {} for arm in ARMS}
    summary |= {f"{left} minus {right}": {} for left, right in COMPARED}
    for place, name in enumerate(METRICS):
        optimism, optimism_draws = {}, {}
        for arm in ARMS:
            runs = [i for i, row in enumerate(rows) if row["arm"] == arm]
            reported = np.array([rows[i]["reported"][name] for i in runs])
            true = np.array([rows[i]["true"][name] for i in runs])
            true_draws = np.stack([resampled[i][:, place] for i in runs], axis=1)
            optimism[arm], optimism_draws[arm] = reported - true, reported - true_draws
            reported_draws = np.broadcast_to(reported, true_draws.shape)
            summary[arm][name] = {
                "reported": _estimate(reported, reported_draws, clusters.count),
                "true": _estimate(true, true_draws, clusters.count),
                "optimism": _estimate(optimism[arm], optimism_draws[arm], clusters.count),
            }
        # The arms of a seed have the same patients, so they are compared seed by seed.
        for left, right in COMPARED:
            summary[f"{left} minus {right}"][name] = _estimate(
                optimism[left] - optimism[right],
                optimism_draws[left] - optimism_draws[right],
                clusters.count,
            )
    return summary


def _estimate(values: np.ndarray, resampled: np.ndarray, clusters: int) -> list[float]:
    """[mean, lower, upper]; the mean alone if all values are equal, which gives no interval."""
    estimate = spread_over_runs(values, resampled, clusters)
    return [round(float(x), 4) for x in (estimate.value, *(estimate.limits() or ()))]


def main() -> None:
    """Generate the phantoms, train every arm with every seed, and write the metrics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/studies"), help="for images")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--patients", type=int, default=60, help="patients per seed")
    parser.add_argument("--fresh", type=int, default=150, help="patients for the true metrics")
    parser.add_argument(
        "--epochs", type=int, default=12, help=f"divided by {COPIES} for the arms with copies"
    )
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument(
        "overrides", nargs="*", help="further overrides of fracnet.train, e.g. optim.lr=1e-4"
    )
    options = parser.parse_args()
    n = options.seeds * options.patients
    pool, fresh = make_phantoms(
        options.folder / "phantoms", seed=5, patients=n, fresh=options.fresh
    )

    def arm_overrides(arm: str) -> list[str]:
        epochs = options.epochs // COPIES if has_copies(arm) else options.epochs
        augment = "none" if has_copies(arm) else "published"
        return [
            *ADAM,
            f"model={options.model}",
            f"trainer.max_epochs={epochs}",
            f"augment={augment}",
            *options.overrides,
        ]

    for arm, name in (("patient", "config.yaml"), ("copies", "config_copies.yaml")):
        write_config([*OVERRIDES, *arm_overrides(arm)], options.out.with_name(name))
    rows, probs = [], []
    for seed, phantoms in enumerate(pool.split_by_patient(options.seeds, seed=0)):
        for arm in ARMS:
            name = arm.replace(", ", "_").replace(" ", "_")
            root = (options.folder / "leakage" / f"{seed}_{name}").resolve()
            row, prob = train(arm, phantoms, fresh, seed, root, arm_overrides(arm))
            print(json.dumps(row), flush=True)
            rows.append(row)
            probs.append(prob)
    names = ("seeds", "patients", "epochs", "model", "overrides")
    settings = {name: getattr(options, name) for name in names} | {
        "copies": COPIES,
        "fresh patients": options.fresh,
        "fresh images": len(fresh.images),
    }
    content = {"settings": settings, "summary": summarize(rows, probs, fresh), "runs": rows}
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["summary"], indent=1))


if __name__ == "__main__":
    main()
