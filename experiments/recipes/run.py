"""Compare training recipes on few hard phantoms: each step from the old default to the new one.

OMP_NUM_THREADS=1 python -m experiments.recipes.run
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import seed_everything
from scipy.stats import t

from experiments.small_phantoms import ADAM, compose_config
from fracnet.config.checks import check
from fracnet.evaluation.predictions import Predictions
from fracnet.metrics import classification
from fracnet.runs.build import classifier_from, data_from
from fracnet.runs.run_folder import RunFolder
from fracnet.training.run_header import quiet_libraries
from fracnet.training.trainer import fit_and_predict

COMMON = [
    "data=upper_limb_phantom",
    "data.context=wide",
    "data.counts={train: 240, val: 120, test: 400}",
    "data.unlabeled=0",
    "data.num_workers=0",
    "model=efficientnet_lite0",
    "image_size=96",
    "data.batch_size=16",
    "trainer.max_epochs=8",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
    "callbacks.early_stopping=null",
    "logger=none",
    "explain=none",
    "loss.localization=0",
]
ADAMW = ["optim=adamw", "optim.weight_decay=0.05", "scheduler=warmup_cosine"]
PLAIN = ["loss.label_smoothing=0", "callbacks.ema=null"]
SMOOTH = ["loss.label_smoothing=0.1", "callbacks.ema=null"]
AVERAGED = ["loss.label_smoothing=0.1", "callbacks.ema=0.99"]
RECIPES = {
    "Adam 1e-3": [*ADAM, "optim.lr=1e-3", *PLAIN],
    "AdamW 1e-3": [*ADAMW, "optim.lr=1e-3", *PLAIN],
    "AdamW 3e-4": [*ADAMW, "optim.lr=3e-4", *PLAIN],
    "AdamW 1e-3, smoothing": [*ADAMW, "optim.lr=1e-3", *SMOOTH],
    "AdamW 1e-3, smoothing, EMA": [*ADAMW, "optim.lr=1e-3", *AVERAGED],
    "the same, layer decay 0.75": [*ADAMW, "optim.lr=1e-3", *AVERAGED, "optim.layer_decay=0.75"],
    "the same, RandAugment": [*ADAMW, "optim.lr=1e-3", *AVERAGED, "augment=rand"],
    "the same, cutmix and mixup": [
        *(*ADAMW, "optim.lr=1e-3", *AVERAGED),
        *("augment.mixup=0.2", "augment.cutmix=1.0"),
    ],
    "the same, growing images": [
        *(*ADAMW, "optim.lr=1e-3", *AVERAGED),
        *("trainer.image_sizes=[48,64,96]", "model.freeze=1"),
    ],
}
"""Overrides by name; "the same" is AdamW 1e-3 with smoothing and EMA."""
METRICS = ("accuracy", "macro_auc", "log_loss")


def train(overrides: list[str], seed: int, root: Path) -> dict[str, float]:
    """Metrics of the test split at the selected epoch, and what the training took."""
    where = [f"data.root={root / f'phantoms_{seed}'}", f"data.seed={seed}", f"seed={seed}"]
    config = check(compose_config([*COMMON, *overrides, *where]))
    data = data_from(config)
    data.progress = False
    data.prepare_data()
    seed_everything(config.seed, verbose=False)
    model = classifier_from(config, data)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        table, selected = fit_and_predict(model, config, data, RunFolder(Path(folder)))
        seconds = time.perf_counter() - start
    test = Predictions.trusted(table).split("test")
    target, prob = test.targets, test.probabilities
    matrix = classification.confusion(target, classification.predict(prob), prob.shape[1])
    values = {
        "accuracy": classification.accuracy(matrix),
        "macro_auc": classification.macro(classification.auc(target, prob)),
        "log_loss": -np.log(prob[np.arange(len(target)), target].clip(1e-12)).mean(),
        "epoch": selected["epoch"],
        "seconds": seconds,
    }
    return {name: round(float(value), 4) for name, value in values.items()}


def summarize(runs: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Mean of each metric, and its difference to the first recipe with a 95 % interval.

    The interval is Student's t over the seeds, paired: a seed draws the same data for all recipes.
    """
    first = next(iter(runs.values()))
    summary: dict[str, Any] = {}
    for name, by_seed in runs.items():
        seeds = sorted(by_seed.keys() & first.keys())
        row: dict[str, Any] = {"seeds": len(seeds)}
        for metric in METRICS:
            values = np.array([by_seed[seed][metric] for seed in seeds])
            gain = values - [first[seed][metric] for seed in seeds]
            row[metric] = round(float(values.mean()), 4)
            if by_seed is not first and len(seeds) > 1:
                half = t.ppf(0.975, len(seeds) - 1) * gain.std(ddof=1) / np.sqrt(len(seeds))
                row[f"{metric} gain"] = [
                    round(float(gain.mean() + shift), 4) for shift in (0, -half, half)
                ]
        summary[name] = row
    return summary


def main() -> None:
    """Train what results.json lacks, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/recipes"), help="for phantoms")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    options = parser.parse_args()
    quiet_libraries()
    runs = json.loads(options.out.read_text())["runs"] if options.out.is_file() else {}
    for name in options.recipes:
        for seed in options.seeds:
            if str(seed) in runs.setdefault(name, {}):
                continue
            runs[name][str(seed)] = train(RECIPES[name], seed, options.folder.resolve())
            print(name, seed, runs[name][str(seed)], flush=True)
            ordered = {name: runs[name] for name in RECIPES if name in runs}
            content = {"common": COMMON, "summary": summarize(ordered), "runs": ordered}
            options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
