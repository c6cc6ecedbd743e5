"""How far a test figure flatters where copies of one image, or one patient, lie on both sides.

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

FIGURES = ("accuracy", "macro_auc")
COPIES = 4  # of each image, itself among them, as the six-class set has about three
# fracnet splits by patient where labels.csv names the patient, else by file.
ARMS = {
    "patient": "split by patient, augmented in training",
    "file": "split by file, augmented in training",
    "copies": f"{COPIES} copies of each image, then split by file",
    "copies, by patient": f"{COPIES} copies of each image, then split by patient",
}
# Two arms that differ in more than the split by copies, and two that differ in the split alone.
COMPARED = (("copies", "patient"), ("copies", "copies, by patient"))
PUBLISHED = [
    {"_target_": "albumentations.Affine", "rotate": [-15, 15], "scale": [0.9, 1.1], "p": 1.0},
    {"_target_": "albumentations.HorizontalFlip", "p": 0.5},
    {"_target_": "albumentations.VerticalFlip", "p": 0.5},
]


def with_copies(own: Phantoms, seed: int) -> tuple[Phantoms, np.ndarray]:
    """Each image followed by its altered copies; and of which image each is one, int64."""
    origin = np.repeat(np.arange(len(own.images)), COPIES)
    found = own.select(origin)
    augment = build_augment(PUBLISHED)
    for i, row in enumerate(origin):
        if copy := i % COPIES:
            found.images[i] = augment(own.images[row], seed=seed, epoch=copy, row=int(row))
    return found, origin


def copied(arm: str) -> bool:
    """Whether the arm is trained on copies, made once, in place of augmentation."""
    return arm.startswith("copies")


def train(
    arm: str, own: Phantoms, fresh: Phantoms, seed: int, root: Path, words: Sequence[str]
) -> tuple[dict[str, Any], np.ndarray]:
    """What one run reports and what is true of it, and its probabilities of the fresh images."""
    shutil.rmtree(root, ignore_errors=True)
    origin = np.arange(len(own.images))
    if copied(arm):
        own, origin = with_copies(own, seed)
    write_dataset(root, own, **({"patient": own.patients} if arm.endswith("patient") else {}))
    more = [f"data.root={root}", f"seed={seed}", f"data.split_seed={seed}"]
    config, data, model = build_training([*OVERRIDES, *more, *words])
    folder = RunFolder(root / "run")
    folder.path.mkdir()
    table, _ = fit_and_predict(model, config, data, folder)
    # Only the test rows are checked: patients may lie in several splits here.
    test = Predictions(table[table["split"] == "test"])
    reported = accuracy_and_auc(test.targets, test.probabilities, np.ones((1, len(test))))[0]
    # Where a file came from, by the number that is its name.
    split_of = data.manifest.table.set_index("path")["split"]
    number = split_of.index.str.extract(r"(\d+)\.", expand=False).astype(int).to_numpy()
    tested, trained = number[split_of == "test"], number[split_of == "train"]
    best = Classifier.load_from_checkpoint(folder.checkpoints / "best.ckpt", weights_only=True)
    of_fresh = probabilities(best, fresh)
    true = accuracy_and_auc(fresh.targets, of_fresh, np.ones((1, len(of_fresh))))[0]
    row = {
        "arm": arm,
        "seed": seed,
        "train images": len(trained),
        "test images": len(tested),
        "of a patient in train": _share(own.patients[tested], own.patients[trained]),
        "of an image in train": _share(origin[tested], origin[trained]),
        "reported": dict(zip(FIGURES, reported.round(4).tolist(), strict=True)),
        "fresh": dict(zip(FIGURES, true.round(4).tolist(), strict=True)),
    }
    return row, of_fresh


def _share(these: np.ndarray, known: np.ndarray) -> float:
    return round(float(np.isin(these, known).mean()), 3)


def summarize(
    rows: Sequence[dict[str, Any]], probs: Sequence[np.ndarray], fresh: Phantoms
) -> dict[str, Any]:
    """Means over seeds with 95 % intervals, over trainings and over the fresh patients alike."""
    names, ids = np.unique(fresh.patients, return_inverse=True)
    clusters = Clusters(ids, len(names), "patient")
    resampled = [
        bootstrap(partial(accuracy_and_auc, fresh.targets, prob), clusters, resamples=RESAMPLES)
        for prob in probs
    ]
    found: dict[str, Any] = {arm: {} for arm in ARMS}
    found |= {f"{one} less {other}": {} for one, other in COMPARED}
    for place, name in enumerate(FIGURES):
        gap, moved = {}, {}
        for arm in ARMS:
            mine = [i for i, row in enumerate(rows) if row["arm"] == arm]
            reported = np.array([rows[i]["reported"][name] for i in mine])
            true = np.array([rows[i]["fresh"][name] for i in mine])
            again = np.stack([resampled[i][:, place] for i in mine], axis=1)
            gap[arm], moved[arm] = reported - true, reported - again
            fixed = np.broadcast_to(reported, again.shape)
            found[arm][name] = {
                "reported": _told(reported, fixed, clusters.count),
                "fresh": _told(true, again, clusters.count),
                "optimism": _told(gap[arm], moved[arm], clusters.count),
            }
        # The arms of a seed have the same patients, so they are compared seed by seed.
        for one, other in COMPARED:
            more = _told(gap[one] - gap[other], moved[one] - moved[other], clusters.count)
            found[f"{one} less {other}"][name] = more
    return found


def _told(values: np.ndarray, resampled: np.ndarray, clusters: int) -> list[float]:
    """[mean, lower, upper]; the mean alone where equal figures have no interval."""
    found = spread_over_runs(values, resampled, clusters)
    return [round(float(x), 4) for x in (found.value, *(found.limits() or ()))]


def main() -> None:
    """Draw, train every arm with every seed, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/studies"), help="for images")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--patients", type=int, default=60, help="of each seed")
    parser.add_argument("--fresh", type=int, default=150, help="patients that tell the truth")
    parser.add_argument("--epochs", type=int, default=12, help=f"of the copies: one in {COPIES}")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("words", nargs="*", help="further ones of fracnet.train: optim.lr=1e-4")
    asked = parser.parse_args()
    n = asked.seeds * asked.patients
    pool, fresh = make_phantoms(asked.folder / "phantoms", seed=5, patients=n, fresh=asked.fresh)

    def words(arm: str) -> list[str]:
        epochs = asked.epochs // COPIES if copied(arm) else asked.epochs
        augment = "none" if copied(arm) else "published"
        own = [f"model={asked.model}", f"trainer.max_epochs={epochs}", f"augment={augment}"]
        return [*own, *asked.words]

    write_config([*OVERRIDES, *words("patient")], asked.out.with_name("config.yaml"))
    write_config([*OVERRIDES, *words("copies")], asked.out.with_name("config_copies.yaml"))
    rows, probs = [], []
    for seed, own in enumerate(pool.split_by_patient(asked.seeds, seed=0)):
        for arm in ARMS:
            name = arm.replace(", ", "_").replace(" ", "_")
            root = (asked.folder / "leakage" / f"{seed}_{name}").resolve()
            row, prob = train(arm, own, fresh, seed, root, words(arm))
            print(json.dumps(row), flush=True)
            rows.append(row)
            probs.append(prob)
    settings = {
        name: getattr(asked, name) for name in ("seeds", "patients", "epochs", "model", "words")
    }
    settings |= {"copies": COPIES, "fresh patients": asked.fresh, "fresh images": len(fresh.images)}
    content = {"settings": settings, "summary": summarize(rows, probs, fresh), "runs": rows}
    asked.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["summary"], indent=1))


if __name__ == "__main__":
    main()
