"""A head on a frozen network against fine-tuning: accuracy and time; and label errors it finds.

OMP_NUM_THREADS=1 python -m experiments.probe.run --folder data/studies/probe
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

import fracnet
from experiments.small_phantoms import compose_config
from fracnet.config.checks import check
from fracnet.config.instantiate import build
from fracnet.data_audit.label_errors import find_doubts, held_out_probabilities
from fracnet.metrics.intervals import wilson
from fracnet.runs.build import data_from, frozen_features

DATA = [
    "data=upper_limb_phantom",
    "data.counts={train: 300, val: 100, test: 300}",
    "model=efficientnet_lite0",
    "image_size=128",
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
    "data.num_workers=0",
]
RUN = ["explain=none", "callbacks.early_stopping=null", "evaluation.figures=false"]
WAYS = {
    "fine-tuning, 8 epochs": ["trainer.max_epochs=8"],
    "linear head, 50 epochs": ["model.freeze=backbone", "trainer.max_epochs=50"],
    "linear head again, features cached": ["model.freeze=backbone", "trainer.max_epochs=50"],
    "MLP head, 50 epochs": ["model.freeze=backbone", "model.head=mlp", "trainer.max_epochs=50"],
    "logistic regression (experiment=probe)": ["experiment=probe"],
    "nearest neighbors": ["model.freeze=backbone", "model.head=knn"],
    "head, then 8 epochs of all": ["experiment=probe_then_finetune", "trainer.max_epochs=18"],
}
NOISE, NOISE_SEEDS = 0.05, 5


def measure(name: str, overrides: list[str], folder: Path, seed: int) -> dict[str, Any]:
    """One run: validation and test accuracy, wall and processor seconds from start to report."""
    wall, cpu = time.perf_counter(), time.process_time()
    run = fracnet.fit(
        *DATA, *RUN, *overrides, f"seed={seed}", f"data.root={folder / 'phantoms'}",
        folder=folder / f"{seed}-{len(list(folder.iterdir()))}",
    )  # fmt: skip
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    metrics = json.loads((Path(run.folder) / "metrics.json").read_text())
    accuracy = {split: metrics[split]["metrics"]["accuracy"]["value"] for split in ("val", "test")}
    return {"way": name, "seed": seed, **accuracy, **{k: round(v, 1) for k, v in seconds.items()}}


def label_errors(folder: Path) -> list[dict[str, Any]]:
    """Precision and recall for labels of which a share was replaced by another class."""
    plain = compose_config([*DATA, "model.freeze=backbone", f"data.root={folder / 'phantoms'}"])
    config = check(plain)
    dataset = build(config.data.plain(), "data")
    _, features = frozen_features(config, dataset, False)
    data = data_from(config)
    data.prepare_data()
    truth, classes = data.manifest.targets(), data.classes
    groups = [str(i) for i in range(len(truth))]  # a patient each
    results = []
    for seed in range(NOISE_SEEDS):
        rng = np.random.default_rng(seed)
        n = round(NOISE * len(truth))
        wrong = rng.choice(len(truth), n, replace=False)
        targets = truth.copy()
        targets[wrong] = (truth[wrong] + rng.integers(1, len(classes), n)) % len(classes)
        probs = held_out_probabilities(features, targets, groups, len(classes))
        assert not isinstance(probs, str), probs
        doubts = find_doubts(probs, targets, np.arange(len(truth)), classes)
        hits = np.isin([doubt.row for doubt in doubts], wrong)
        results.append(
            {
                "seed": seed,
                "images": len(truth),
                "planted": n,
                "listed": len(doubts),
                "found": int(hits.sum()),
                "found_among_first": int(hits[:n].sum()),
            }
        )
    return results


def main() -> None:
    """Measure, and write results.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for phantoms, cache and runs")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["FRACNET_CACHE"] = str(folder / "cache")
    measure("warm-up", ["debug=fast"], folder, 0)  # phantoms, image cache, imports
    runs = [
        measure(name, overrides, folder, seed)
        for seed in range(arguments.seeds)
        for name, overrides in WAYS.items()
    ]
    table = []
    for name in WAYS:
        of_way = [run for run in runs if run["way"] == name]
        mean = float(np.mean([run["test"] for run in of_way]))
        interval = wilson(mean * 300, 300)
        cpu = float(np.mean([run["cpu_seconds"] for run in of_way]))
        table.append({"way": name, "test": mean, "interval": interval, "cpu_seconds": cpu})
    results = {"table": table, "runs": runs, "label_errors": label_errors(folder)}
    Path(__file__).with_name("results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
