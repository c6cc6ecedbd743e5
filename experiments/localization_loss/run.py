"""What an auxiliary head gains that is trained towards the annotated fractures.

OMP_NUM_THREADS=1 python -m experiments.localization_loss.run
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import seed_everything

from experiments.small_phantoms import compose_config, write_config
from fracnet.config.checks import check
from fracnet.data.annotations import annotation_outlines, outline_mask
from fracnet.metrics import classification
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.hypothesis_tests import spread_over_runs
from fracnet.metrics.intervals import bootstrap
from fracnet.models.inference import predict_logits
from fracnet.runs.build import classifier_from, data_from
from fracnet.runs.checkpoint import read_checkpoint, rebuild
from fracnet.runs.run_folder import RunFolder
from fracnet.saliency.cam import Settings, heatmaps
from fracnet.saliency.localization import center_prior, score_maps
from fracnet.training.run_header import quiet_libraries
from fracnet.training.trainer import make_trainer

OVERRIDES = [
    "data=upper_limb_phantom",
    "data.context=wide",
    "data.counts={train: 320, val: 80, test: 360}",
    "data.unlabeled=0",
    "data.num_workers=0",
    "data.batch_size=16",
    "model=efficientnet_lite0",
    "image_size=160",
    "optim=adamw",
    "optim.lr=5e-4",
    "scheduler=one_cycle",
    "trainer.max_epochs=6",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
    "callbacks.early_stopping=null",
    "logger=none",
]
WEIGHTS = (0, 1, 4)  # loss.localization of each arm


def train(seed: int, weight: float, folder: Path, overrides: list[str]) -> dict[str, np.ndarray]:
    """Train a run; logits [n, C] of val and test at the selected epoch, and hits of maps [n]."""
    quiet_libraries()
    plain = compose_config([*OVERRIDES, f"seed={seed}", f"loss.localization={weight}", *overrides])
    config = check(plain)
    data = data_from(config)
    data.progress = False
    data.prepare_data()
    seed_everything(config.seed, verbose=False)
    model = classifier_from(config, data)
    run = RunFolder(folder)
    run.path.mkdir(parents=True, exist_ok=True)
    run.curves.unlink(missing_ok=True)
    trainer, _ = make_trainer(config, run)
    trainer.fit(model, datamodule=data)
    path = run.checkpoints / "best.ckpt"
    selected = rebuild(read_checkpoint(path), False, path)
    result = {}
    for split in ("val", "test"):
        rows = data.rows(split)
        result[f"{split} logits"] = predict_logits(selected, data.cache.images, rows)
        result[f"{split} target"] = data.manifest.targets()[rows]
    table, size = data.manifest.table, config.image_size
    masks = [
        outline_mask(annotation_outlines(table.iloc[row], data.preprocess), size) for row in rows
    ]
    images, target = data.cache.images[rows], result["test target"]
    for method in ("gradcam", "localization") if weight else ("gradcam",):
        maps = heatmaps(selected, images, target, Settings(method=method))
        result[method] = score_maps(maps, masks).pointing
    center = center_prior(size)[None]
    result["center"] = score_maps((center for _ in rows), masks).pointing
    np.savez(folder / "results.npz", **result)
    return result


def correct(result: dict[str, np.ndarray], split: str = "test") -> np.ndarray:
    """Whether each image is predicted correctly, bool [n]."""
    predicted = classification.predict(result[f"{split} logits"])
    return np.asarray(predicted == result[f"{split} target"])


def estimate(hits: np.ndarray, others: np.ndarray | None = None) -> list[float]:
    """Share of hits [seeds, images], or minus that of others, with its 95 % interval."""
    images = hits.shape[1]
    clusters = Clusters(np.arange(images), images, "image")

    def resampled(values: np.ndarray) -> np.ndarray:
        return bootstrap(lambda weights: weights @ values.T / images, clusters)

    other = () if others is None else (others.mean(axis=1), resampled(others))
    spread = spread_over_runs(hits.mean(axis=1), resampled(hits), images, *other)
    return [round(float(x), 4) for x in (spread.value, *(spread.limits() or ()))]


def summarize(runs: dict[int, list[dict[str, np.ndarray]]]) -> dict[str, Any]:
    """Estimates of each arm and of its difference to the arm without the head."""
    summary: dict[str, Any] = {}
    right = {w: np.stack([correct(run) for run in arm]).astype(float) for w, arm in runs.items()}
    cams = {w: np.stack([run["gradcam"] for run in arm]).astype(float) for w, arm in runs.items()}
    center = np.stack([run["center"] for run in runs[0]]).astype(float)
    for weight, arm in runs.items():
        entry: dict[str, Any] = {
            "validation accuracy": round(float(np.mean([correct(r, "val") for r in arm])), 4),
            "accuracy": estimate(right[weight]),
            "accuracy by seed": right[weight].mean(axis=1).round(4).tolist(),
            "pointing of Grad-CAM": estimate(cams[weight]),
        }
        if weight:
            maps = np.stack([run["localization"] for run in arm]).astype(float)
            entry |= {
                "accuracy, minus without": estimate(right[weight], right[0]),
                "pointing of the head": estimate(maps),
                "pointing of the head, minus Grad-CAM without": estimate(maps, cams[0]),
                "pointing of the head, minus the center": estimate(maps, center),
            }
        summary[str(weight)] = entry
    return summary | {"pointing of the center": round(float(center.mean()), 4)}


def main() -> None:
    """Train every seed with every weight, and write the estimates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/studies/localization_loss"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--weights", type=int, nargs="+", default=list(WEIGHTS))
    parser.add_argument("overrides", nargs="*", help="further overrides of fracnet.train")
    options = parser.parse_args()
    overrides = [f"data.root={options.folder}/phantoms", *options.overrides]
    runs: dict[int, list[dict[str, np.ndarray]]] = {}
    for seed in options.seeds:
        for weight in options.weights:
            folder = options.folder / f"{weight}_{seed}"
            file = folder / "results.npz"
            if file.exists():
                result = dict(np.load(file))
            else:
                result = train(seed, weight, folder, overrides)
            runs.setdefault(weight, []).append(result)
            accuracy = {
                split: round(float(correct(result, split).mean()), 3) for split in ("val", "test")
            }
            hits = {
                name: round(float(result[name].mean()), 3)
                for name in ("gradcam", "localization", "center")
                if name in result
            }
            print(seed, weight, accuracy, hits, flush=True)
    if len(options.seeds) > 1 and 0 in runs:
        summary = summarize(runs)
        options.out.write_text(json.dumps(summary, indent=1) + "\n")
        write_config([*OVERRIDES, *options.overrides], options.out.with_name("config.yaml"))
        print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
