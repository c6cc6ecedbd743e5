"""How far test accuracy flatters where it has chosen the checkpoint, by the size of the test set.

OMP_NUM_THREADS=1 python -m experiments.selection.run
"""

import argparse
import json
import shutil
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

# As the published work has it: the rate stays, no early stopping.
OWN_OVERRIDES = ["scheduler=none", "optim.lr=1e-3", "augment=published"]
OWN_OVERRIDES += ["data.val_share=0.05", "data.test_share=0.05"]  # parts that are not used here
DRAWS = 2000  # of a test set and a validation set from the patients that are kept for them
GROUPS = 15  # of these patients, left out in turn
CHOOSERS = ("test", "validation")


def train(own: Phantoms, kept: Phantoms, seed: int, root: Path, words: list[str]) -> np.ndarray:
    """Probabilities of the `kept` images after each epoch, float32 [E, N, C]; stored, too."""
    shutil.rmtree(root, ignore_errors=True)
    write_dataset(root, own, patient=own.patients)
    here = [f"data.root={root}", f"seed={seed}"]
    config, data, model = build_training([*OVERRIDES, *OWN_OVERRIDES, *here, *words])
    found: list[np.ndarray] = []

    def look(trainer: object, module: object) -> None:
        found.append(probabilities(model, kept).astype(np.float32))

    folder = RunFolder(root / "run")
    folder.path.mkdir()
    trainer, _ = make_trainer(config, folder)
    trainer.callbacks.append(LambdaCallback(on_train_epoch_end=look))
    trainer.fit(model, datamodule=data)
    np.save(root / "epochs.npy", np.stack(found))
    return np.stack(found)


def optimism(right: np.ndarray, count: np.ndarray, orders: np.ndarray, size: int) -> np.ndarray:
    """Means over the draws, float64 [2, 4]; a row for each of CHOOSERS.

    Its columns: accuracy on the test set, on the rest, the epoch, and whether test was above rest.

    right: images of each patient that are named rightly after each epoch, float64 [E, P].
    count: images of each patient, float64 [P].
    orders: patients, int [D, P']; of each draw the first `size` are the test set, the next the
        validation set, and the rest, on whom nothing was chosen, tell the truth.
    """
    parts = orders[:, :size], orders[:, size : 2 * size], orders[:, 2 * size :]
    test, val, rest = (right[:, part].sum(axis=-1) / count[part].sum(axis=-1) for part in parts)
    found = []
    for chooser in (test, val):
        epoch = chooser.argmax(axis=0)  # the first of equals, as a saved best one is
        draws = np.arange(len(orders))
        on_test, on_rest = test[epoch, draws], rest[epoch, draws]
        found.append([on_test, on_rest, 1 + epoch, on_test > on_rest])
    return np.array(found).mean(axis=-1)


def measure(right: np.ndarray, count: np.ndarray, size: int) -> dict[str, Any]:
    """What K trainings show, float64 [K, E, P], with intervals over trainings and patients.

    Patients are left out group by group (jackknife): drawing them with repetition would put one
    patient into the test set and into the rest.
    """
    rng = np.random.default_rng(0)
    orders = np.argsort(rng.random((DRAWS, len(count))), axis=1)
    group = rng.permutation(len(count)) % GROUPS

    def estimates(left_out: int | None) -> np.ndarray:
        draws = orders
        if left_out is not None:
            draws = orders[group[orders] != left_out].reshape(DRAWS, -1)
        return np.stack([optimism(one, count, draws, size) for one in right])

    whole = estimates(None)
    parts = np.stack([estimates(g) for g in range(GROUPS)])
    center = parts.mean(axis=0)
    # Scaled so that their covariance is the jackknife's: (G - 1)^2 / G of that of the parts.
    spreads = center + (parts - center) * (GROUPS - 1) / np.sqrt(GROUPS)

    def told(of: Any) -> list[float]:
        found = spread_over_runs(of(whole), of(spreads), GROUPS)
        return [round(float(x), 4) for x in (found.value, *(found.limits() or ()))]

    found: dict[str, Any] = {"images": round(float(count.mean() * size), 1)}
    for c, chooser in enumerate(CHOOSERS):
        found[f"chosen by {chooser}"] = {
            "reported": told(lambda x, c=c: x[..., c, 0]),
            "true": told(lambda x, c=c: x[..., c, 1]),
            "optimism": told(lambda x, c=c: x[..., c, 0] - x[..., c, 1]),
            "epoch": round(float(whole[:, c, 2].mean()), 1),
            "reported above true": round(float(whole[:, c, 3].mean()), 3),
        }
    found["true figure, by test less by validation"] = told(lambda x: x[..., 0, 1] - x[..., 1, 1])
    return found


def by_patient(prob: np.ndarray, kept: Phantoms) -> tuple[np.ndarray, np.ndarray]:
    """Images of each patient named rightly after each epoch [E, P], and images of each [P]."""
    names, ids = np.unique(kept.patients, return_inverse=True)
    hit = np.stack([predict(one) == kept.targets for one in prob])
    right = np.stack([np.bincount(ids, weights=one, minlength=len(names)) for one in hit])
    return right, np.bincount(ids).astype(np.float64)


def main() -> None:
    """Draw, train with every seed, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/studies"), help="for images")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--patients", type=int, default=60, help="to train on, of each seed")
    parser.add_argument("--fresh", type=int, default=150, help="patients, kept for the rest")
    parser.add_argument("--sizes", type=int, nargs="+", default=[12, 25, 50], help="in patients")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("words", nargs="*", help="further ones of fracnet.train: optim.lr=1e-4")
    parser.add_argument("--count-only", action="store_true", help="of the epochs that are kept")
    asked = parser.parse_args()
    n = asked.seeds * asked.patients
    pool, kept = make_phantoms(asked.folder / "phantoms", seed=5, patients=n, fresh=asked.fresh)
    words = [f"model={asked.model}", f"trainer.max_epochs={asked.epochs}", *asked.words]
    write_config([*OVERRIDES, *OWN_OVERRIDES, *words], asked.out.with_name("config.yaml"))
    found = []
    for seed, own in enumerate(pool.split_by_patient(asked.seeds, seed=0)):
        root = (asked.folder / "selection" / str(seed)).resolve()
        there = asked.count_only
        prob = np.load(root / "epochs.npy") if there else train(own, kept, seed, root, words)
        found.append(by_patient(prob, kept))
    right, count = np.stack([one for one, _ in found]), found[0][1]
    settings = {
        name: getattr(asked, name) for name in ("seeds", "patients", "epochs", "model", "words")
    }
    settings |= {"fresh patients": len(count), "fresh images": int(count.sum()), "draws": DRAWS}
    curves = (right.sum(axis=-1) / count.sum()).round(4).tolist()
    summary = {f"{size} patients": measure(right, count, size) for size in asked.sizes}
    content = {"settings": settings, "summary": summary, "accuracy by seed and epoch": curves}
    asked.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
