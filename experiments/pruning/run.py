"""What pruning saves, and what it costs: ten searches of 24 jobs, with and without it.

OMP_NUM_THREADS=1 python -m experiments.pruning.run

Every job is trained to its end once. Trainings repeat exactly (same seed, same run), so a pruned
job is the beginning of the same job without pruning: the decisions are made afterwards, on the
recorded curves, by the pruners that `pruning=median` and `pruning=asha` build.
"""

import argparse
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pandas as pd

from experiments.small_phantoms import (
    OVERRIDES,
    Phantoms,
    build_training,
    compose_config,
    make_phantoms,
    write_config,
    write_dataset,
)
from fracnet.config.checks import check
from fracnet.data.manifest import read_table
from fracnet.evaluation.comparison import Candidate, Member, compare
from fracnet.evaluation.predictions import Predictions
from fracnet.runs.run_folder import RunFolder
from fracnet.training.pruning import Pruning
from fracnet.training.sweep_plan import JobRecord
from fracnet.training.trainer import fit_and_predict
from fracnet.utils.errors import Pruned, UserError

OBJECTIVE = "macro_auc"
PRUNERS = ("median", "asha")
PRUNING_OVERRIDES = [
    "model=custom_cnn",
    "image_size=32",
    "augment=none",
    "scheduler=cosine",
    "loss.label_smoothing=0",
    f"objective={OBJECTIVE}",
    f"callbacks.best.metric={OBJECTIVE}",
]


optuna.logging.set_verbosity(optuna.logging.WARNING)


def sample(seed: int, jobs: int) -> list[dict[str, Any]]:
    """The jobs of one random search from scratch: overrides by key."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found = []
    for _ in range(jobs):
        trial = study.ask()
        found.append(
            {
                "optim": trial.suggest_categorical("optim", ["adam", "sgd"]),
                "optim.lr": trial.suggest_float("optim.lr", 1e-5, 1e-1, log=True),
                "optim.weight_decay": trial.suggest_float("decay", 1e-6, 1e-2, log=True),
                "data.batch_size": trial.suggest_categorical("batch", [16, 32, 64]),
                "model.dropout": trial.suggest_float("dropout", 0.0, 0.6),
            }
        )
    return found


def train(root: Path, job: dict[str, Any], seed: int, epochs: int) -> tuple[list[float], Any]:
    """The validation metric after each epoch, and the validation rows of the best one."""
    folder = RunFolder(root / "run")
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.path.mkdir()
    overrides = [f"{key}={value}" for key, value in job.items()]
    run_overrides = [f"data.root={root}", f"seed={seed}", f"trainer.max_epochs={epochs}"]
    config, data, model = build_training(
        [*OVERRIDES, *PRUNING_OVERRIDES, *run_overrides, *overrides]
    )
    try:
        table, _ = fit_and_predict(model, config, data, folder)
    except UserError:  # it diverged
        curve = pd.read_csv(folder.curves)[f"val/{OBJECTIVE}"] if folder.curves.exists() else []
        return [float(value) for value in curve], None
    curve = pd.read_csv(folder.curves)[f"val/{OBJECTIVE}"]
    return [float(value) for value in curve], table[table["split"] == "val"]


def record(root: Path, phantoms: Phantoms, fresh: Phantoms, seed: int, options: Any) -> None:
    """Train the jobs of one search to their ends; curves and predictions go to `root`."""
    shutil.rmtree(root, ignore_errors=True)
    images = np.concatenate([phantoms.images, fresh.images])
    both = Phantoms(
        images,
        np.concatenate([phantoms.regions, fresh.regions]),
        np.concatenate([phantoms.patients, np.char.add("fresh", fresh.patients)]),
    )
    val = np.arange(len(images)) >= len(phantoms.images)
    # A test split is needed, and nothing looks at it.
    test = np.arange(len(images)) >= len(images) - len(fresh.images) // 10
    split = np.where(test, "test", np.where(val, "val", "train"))
    write_dataset(root, both, split=split)
    curves = []
    for number, job in enumerate(sample(seed, options.jobs)):
        curve, table = train(root, job, seed, options.epochs)
        if table is not None:
            table.to_csv(root / f"{number}.csv", index=False)
        curves.append({"overrides": job, "curve": [round(value, 5) for value in curve]})
        print(f"search {seed}, job {number}: {max(curve, default=0):.3f}", flush=True)
    (root / "curves.json").write_text(json.dumps(curves))


def replay(root: Path, seed: int, name: str, epochs: int) -> dict[str, Any]:
    """What `pruning=<name>` does to the recorded jobs of a search, one after the other."""
    jobs = json.loads((root / "curves.json").read_text())
    sweep = root / name
    shutil.rmtree(sweep, ignore_errors=True)
    trained, finished = 0, {}
    for number, job in enumerate(jobs):
        folder = sweep / str(number)
        folder.mkdir(parents=True)
        JobRecord(folder, {"job": number}).write("running")
        overrides = [*OVERRIDES, *PRUNING_OVERRIDES, f"pruning={name}"]
        callback = Pruning(check(compose_config(overrides)), sweep, folder)
        done = run_epochs(callback, job["curve"], epochs)
        trained += done
        if done == epochs and (root / f"{number}.csv").exists():
            finished[number] = max(job["curve"])
    winner = max(finished, key=lambda number: finished[number])
    return {"trained": trained, "finished": len(finished), "winner": winner}


def run_epochs(callback: Pruning, curve: list[float], epochs: int) -> int:
    """Lead the callback through the epochs of a curve; how many there were."""
    trainer: Any = SimpleNamespace(
        is_global_zero=True,
        max_epochs=epochs,
        strategy=SimpleNamespace(broadcast=lambda value: value),
        callback_metrics={},
    )
    model: Any = None
    callback.on_fit_start(trainer, model)
    for epoch, value in enumerate(curve):
        trainer.current_epoch = epoch
        try:
            callback.on_train_epoch_start(trainer, model)
        except Pruned:
            return epoch
        trainer.callback_metrics = {f"val/{OBJECTIVE}": value}
        callback.on_train_epoch_end(trainer, model)
    callback.on_train_end(trainer, model)
    return len(curve)


def winner_without(root: Path) -> int:
    """The job that wins where all train to their ends."""
    jobs = json.loads((root / "curves.json").read_text())
    scored = [n for n in range(len(jobs)) if (root / f"{n}.csv").exists()]
    return max(scored, key=lambda number: max(jobs[number]["curve"]))


def difference(root: Path, first: int, second: int) -> list[float | None]:
    """Validation metric of the first job minus that of the second, with its 95 % interval."""
    candidates = []
    for number in (second, first):
        rows = read_table(root / f"{number}.csv").assign(split="test")
        name = f"job {number}"
        candidates.append(Candidate(name, (Member(name, Predictions.trusted(rows)),)))
    (row,) = compare(candidates, OBJECTIVE, resamples=100).models
    return [round(end, 4) if end is not None else None for end in (row.value, row.low, row.high)]


def measure(root: Path, seed: int, epochs: int) -> dict[str, Any]:
    """All pruners on one search."""
    jobs = json.loads((root / "curves.json").read_text())
    best = winner_without(root)
    result: dict[str, Any] = {"winner without pruning": best}
    for name in PRUNERS:
        row = replay(root, seed, name, epochs)
        row["share of the epochs"] = round(row["trained"] / sum(len(j["curve"]) for j in jobs), 3)
        row["same winner"] = row["winner"] == best
        if not row["same winner"]:
            row["its metric minus that of the winner without pruning"] = difference(
                root, row["winner"], best
            )
        result[name] = row
    return result


def summarize(searches: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the searches: epochs, winners, and winners that are worse by the interval."""
    key = "its metric minus that of the winner without pruning"
    summary = {}
    for name in PRUNERS:
        rows = [search[name] for search in searches]
        shares = [row["share of the epochs"] for row in rows]
        others = [row[key] for row in rows if key in row]
        summary[name] = {
            "share of the epochs": round(float(np.mean(shares)), 3),
            "at most": max(shares),
            "same winner": sum(row["same winner"] for row in rows),
            "another winner, not worse by the interval": sum(
                high is None or high >= 0 for _, _, high in others
            ),
            "worse by the interval": sum(high is not None and high < 0 for _, _, high in others),
            "differences": [value for value, _, _ in others],
        }
    return summary


def main() -> None:
    """Generate the phantoms, train every job of every search, and write what pruning does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/studies"), help="for images")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seeds", type=int, default=10, help="searches")
    parser.add_argument("--jobs", type=int, default=24, help="of a search")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--patients", type=int, default=30, help="training patients of a search")
    parser.add_argument("--fresh", type=int, default=60, help="validation patients")
    options = parser.parse_args()
    n = options.seeds * options.patients
    pool, fresh = make_phantoms(
        options.folder / "pruning_phantoms", seed=7, patients=n, fresh=options.fresh
    )
    write_config([*OVERRIDES, *PRUNING_OVERRIDES], options.out.with_name("config.yaml"))
    for seed, phantoms in enumerate(pool.split_by_patient(options.seeds, seed=0)):
        root = (options.folder / "pruning" / str(seed)).resolve()
        if not (root / "curves.json").exists():
            record(root, phantoms, fresh, seed, options)
    roots = [options.folder / "pruning" / str(seed) for seed in range(options.seeds)]
    searches = [measure(root, seed, options.epochs) for seed, root in enumerate(roots)]
    names = ("seeds", "jobs", "epochs", "patients", "fresh")
    content = {
        "settings": {name: getattr(options, name) for name in names},
        "summary": summarize(searches),
        "searches": searches,
        "curves": [json.loads((root / "curves.json").read_text()) for root in roots],
    }
    options.out.write_text(json.dumps(content) + "\n")
    print(json.dumps(content["summary"], indent=1))


if __name__ == "__main__":
    main()
