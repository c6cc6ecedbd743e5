"""How optimistic test accuracy is if it chooses the checkpoint, by the size of the test set.

OMP_NUM_THREADS=1 python -m experiments.selection.run
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.callbacks import LambdaCallback

from experiments.small_phantoms import (
    OVERRIDES,
    Phantoms,
    build_training,
    make_phantoms,
    probabilities,
    write_config,
    write_dataset,
)
from fracnet.metrics.classification import predict
from fracnet.metrics.hypothesis_tests import spread_over_runs
from fracnet.runs.run_folder import RunFolder
from fracnet.training.trainer import make_trainer

# As in the published work: a constant learning rate, no early stopping.
SELECTION_OVERRIDES = [
    "optim=adam",
    "optim.weight_decay=0",
    "loss.label_smoothing=0",
    "scheduler=none",
    "optim.lr=1e-3",
    "augment=published",
    # fracnet's own validation and test splits are not used here.
    "data.val_share=0.05",
    "data.test_share=0.05",
]
DRAWS = 2000  # random divisions of the fresh patients into test, validation and rest
GROUPS = 15  # of the fresh patients, left out in turn
CHOOSERS = ("test", "validation")


def train(
    phantoms: Phantoms, fresh: Phantoms, seed: int, root: Path, overrides: list[str]
) -> np.ndarray:
    """Probabilities of the fresh images after each epoch, float32 [E, N, C]; also stored."""
    shutil.rmtree(root, ignore_errors=True)
    write_dataset(root, phantoms, patient=phantoms.patients)
    run_overrides = [f"data.root={root}", f"seed={seed}"]
    config, data, model = build_training(
        [*OVERRIDES, *SELECTION_OVERRIDES, *run_overrides, *overrides]
    )
    epochs: list[np.ndarray] = []

    def predict_fresh(trainer: object, module: object) -> None:
        epochs.append(probabilities(model, fresh).astype(np.float32))

    folder = RunFolder(root / "run")
    folder.path.mkdir()
    trainer, _ = make_trainer(config, folder)
    trainer.callbacks.append(LambdaCallback(on_train_epoch_end=predict_fresh))
    trainer.fit(model, datamodule=data)
    np.save(root / "epochs.npy", np.stack(epochs))
    return np.stack(epochs)


def optimism(correct: np.ndarray, count: np.ndarray, orders: np.ndarray, size: int) -> np.ndarray:
    """Means over the draws, float64 [2, 4]; a row for each of CHOOSERS.

    Columns: accuracy on the test set, accuracy on the rest, the epoch, whether the first is higher.

    correct: correctly predicted images of each patient after each epoch, float64 [E, P].
    count: images of each patient, float64 [P].
    orders: patients, int [D, P']; in each draw the first `size` are the test set, the next `size`
        the validation set, and the rest, which chose nothing, give the true accuracy.
    """
    parts = orders[:, :size], orders[:, size : 2 * size], orders[:, 2 * size :]
    test, val, rest = (correct[:, part].sum(axis=-1) / count[part].sum(axis=-1) for part in parts)
    rows = []
    for chooser in (test, val):
        epoch = chooser.argmax(axis=0)  # the first of equals, as when saving the best checkpoint
        draws = np.arange(len(orders))
        on_test, on_rest = test[epoch, draws], rest[epoch, draws]
        rows.append([on_test, on_rest, 1 + epoch, on_test > on_rest])
    return np.array(rows).mean(axis=-1)


def measure(correct: np.ndarray, count: np.ndarray, size: int) -> dict[str, Any]:
    """Estimates from K trainings, float64 [K, E, P], with intervals over trainings and patients.

    Patients are left out group by group (jackknife): resampling them with replacement would put one
    patient into the test set and into the rest.
    """
    rng = np.random.default_rng(0)
    orders = np.argsort(rng.random((DRAWS, len(count))), axis=1)
    group = rng.permutation(len(count)) % GROUPS

    def means(left_out: int | None) -> np.ndarray:
        draws = orders
        if left_out is not None:
            draws = orders[group[orders] != left_out].reshape(DRAWS, -1)
        return np.stack([optimism(training, count, draws, size) for training in correct])

    whole = means(None)
    parts = np.stack([means(g) for g in range(GROUPS)])
    center = parts.mean(axis=0)
    # Scaled so that their covariance is the jackknife's: (G - 1)^2 / G of that of the parts.
    spreads = center + (parts - center) * (GROUPS - 1) / np.sqrt(GROUPS)

    def estimate(column: Callable[[np.ndarray], np.ndarray]) -> list[float]:
        mean = spread_over_runs(column(whole), column(spreads), GROUPS)
        return [round(float(x), 4) for x in (mean.value, *(mean.limits() or ()))]

    result: dict[str, Any] = {"images": round(float(count.mean() * size), 1)}
    for c, chooser in enumerate(CHOOSERS):
        result[f"chosen by {chooser}"] = {
            "reported": estimate(lambda x, c=c: x[..., c, 0]),
            "true": estimate(lambda x, c=c: x[..., c, 1]),
            "optimism": estimate(lambda x, c=c: x[..., c, 0] - x[..., c, 1]),
            "epoch": round(float(whole[:, c, 2].mean()), 1),
            "reported above true": round(float(whole[:, c, 3].mean()), 3),
        }
    result["true accuracy, chosen by test minus by validation"] = estimate(
        lambda x: x[..., 0, 1] - x[..., 1, 1]
    )
    return result


def by_patient(prob: np.ndarray, fresh: Phantoms) -> tuple[np.ndarray, np.ndarray]:
    """Correctly predicted images of each patient per epoch [E, P], and images of each [P]."""
    names, ids = np.unique(fresh.patients, return_inverse=True)
    hits = np.stack([predict(epoch) == fresh.targets for epoch in prob])
    correct = np.stack([np.bincount(ids, weights=hit, minlength=len(names)) for hit in hits])
    return correct, np.bincount(ids).astype(np.float64)


def main() -> None:
    """Generate the phantoms, train with every seed, and write the estimates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/studies"), help="for images")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--patients", type=int, default=60, help="training patients per seed")
    parser.add_argument("--fresh", type=int, default=150, help="patients for test and validation")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[12, 25, 50], help="patients of the test set"
    )
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument(
        "overrides", nargs="*", help="further overrides of fracnet.train, e.g. optim.lr=1e-4"
    )
    parser.add_argument(
        "--skip-training", action="store_true", help="use the predictions of the last training"
    )
    options = parser.parse_args()
    n = options.seeds * options.patients
    pool, fresh = make_phantoms(
        options.folder / "phantoms", seed=5, patients=n, fresh=options.fresh
    )
    overrides = [
        f"model={options.model}",
        f"trainer.max_epochs={options.epochs}",
        *options.overrides,
    ]
    write_config(
        [*OVERRIDES, *SELECTION_OVERRIDES, *overrides], options.out.with_name("config.yaml")
    )
    trainings = []
    for seed, phantoms in enumerate(pool.split_by_patient(options.seeds, seed=0)):
        root = (options.folder / "selection" / str(seed)).resolve()
        if options.skip_training:
            prob = np.load(root / "epochs.npy")
        else:
            prob = train(phantoms, fresh, seed, root, overrides)
        trainings.append(by_patient(prob, fresh))
    correct, count = np.stack([hits for hits, _ in trainings]), trainings[0][1]
    names = ("seeds", "patients", "epochs", "model", "overrides")
    settings = {name: getattr(options, name) for name in names} | {
        "fresh patients": len(count),
        "fresh images": int(count.sum()),
        "draws": DRAWS,
    }
    curves = (correct.sum(axis=-1) / count.sum()).round(4).tolist()
    summary = {f"{size} patients": measure(correct, count, size) for size in options.sizes}
    content = {"settings": settings, "summary": summary, "accuracy by seed and epoch": curves}
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
