"""How often images of the training's kind are flagged as out of distribution, and how often others.

FRACATLAS_ROOT=<folder> OMP_NUM_THREADS=2 python -m experiments.ood.run
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fracnet
from experiments.ood.photographs import photograph
from experiments.small_phantoms import ADAM
from fracnet.data.image_io import BadImage, read_grey
from fracnet.data.preprocess import Preprocess
from fracnet.inference.predictor import Predictor
from fracnet.metrics.intervals import wilson
from fracnet.models import ood
from fracnet.models.inference import logits_and_features
from fracnet.runs.build import data_from

# As in `make train`, with other patients for each seed.
OVERRIDES = [
    "data=upper_limb_phantom",
    "model=resnet18",
    "model.pretrained=false",
    "image_size=128",
]
OVERRIDES += ADAM
OVERRIDES += ["data.batch_size=16", "explain=none", "logger=none", "trainer.accelerator=cpu"]
UNITS = (8, 20, 50, 120)  # validation images that the limit comes from
DRAWS = 40  # random subsets of each run's validation images
GENERATED = 100  # photographs, noise images


def others(raw: list[np.ndarray]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Images of other kinds than the training's, uint8 [H, W]. raw: the test images."""
    yield "test images, inverted", [255 - image for image in raw]
    yield "photographs", [photograph(seed, 512) for seed in range(GENERATED)]
    rng = np.random.default_rng(0)
    yield "noise", [rng.integers(0, 256, (512, 512), np.uint8) for _ in range(GENERATED)]
    yield "blank", [np.full((512, 512), level, np.uint8) for level in range(256)]
    if root := os.environ.get("FRACATLAS_ROOT"):
        yield "real radiographs", list(_real(Path(root)))


def _real(root: Path) -> Iterator[np.ndarray]:
    for path in sorted(root.rglob("*.jpg")):
        try:
            yield read_grey(path)
        except BadImage:  # the dataset has truncated files
            continue


def measure(seed: int, folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Train once, count what the limit flags, then repeat with fewer validation images."""
    root = (folder / f"phantoms_{seed}").resolve()
    own = [f"seed={seed}", f"data.seed={100 + seed}"]
    run = fracnet.fit(*OVERRIDES, *own, *arguments, data_dir=root, folder=folder / f"run_{seed}")
    model = Predictor(run.folder, device="cpu")
    data = data_from(model.config)
    data.progress = False
    data.setup("fit")
    data.setup("test")
    look = logits_and_features(model.model)

    def sample(images: np.ndarray, rows: np.ndarray) -> ood.Sample:
        return ood.sample_images(images, rows, look, 32)

    rows = {split: np.unique(data.rows(split)) for split in ("train", "val", "test")}
    own_kind = {split: sample(data.cache.images, places) for split, places in rows.items()}
    paths = data.manifest.table["path"].iloc[rows["test"]]
    raw = [read_grey(data.manifest.root / path) for path in paths]
    kinds = {"test images": own_kind["test"]}
    kinds |= {
        name: sample(*_preprocessed(model.preprocess, images)) for name, images in others(raw)
    }

    def flagged(reference: ood.Reference) -> dict[str, tuple[int, int]]:
        above = {
            name: reference.scores_of(s.appearance, s.features) > 1 for name, s in kinds.items()
        }
        return {name: (int(flags.sum()), len(flags)) for name, flags in above.items()}

    assert model.ood is not None
    fewer: dict[str, Any] = {}
    rng = np.random.default_rng(seed)
    for units in UNITS:
        shares = []
        for _ in range(DRAWS if units < len(rows["val"]) else 1):
            some = rng.choice(len(rows["val"]), min(units, len(rows["val"])), replace=False)
            val = ood.Sample(*(v[some] for v in vars(own_kind["val"]).values()))
            counts = flagged(ood.fit_reference(own_kind["train"], val, len(some)))
            shares.append([hit / count for hit, count in counts.values()])
        fewer[str(units)] = {
            "at most 5 % of test": float((np.array(shares)[:, 0] <= ood.CONTENT).mean()),
            "mean flagged": dict(
                zip(kinds, np.mean(shares, axis=0).round(4).tolist(), strict=True)
            ),
        }
    return {"seed": seed, "flagged": flagged(model.ood), "by validation images": fewer}


def _preprocessed(
    preprocess: Preprocess, images: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([preprocess(image) for image in images]), np.arange(len(images))


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares over all seeds, with the lowest and highest seed's."""
    summary: dict[str, Any] = {}
    for kind in runs[0]["flagged"]:
        hits, counts = np.array([run["flagged"][kind] for run in runs]).T
        low, high = wilson(int(hits.sum()), int(counts.sum()))
        summary[kind] = {
            "flagged": int(hits.sum()),
            "of": int(counts.sum()),
            "share": round(float(hits.sum() / counts.sum()), 4),
            "95 % interval, were images independent": [round(low, 4), round(high, 4)],
            "by seed": [round(float(share), 4) for share in hits / counts],
        }
    return summary


def main() -> None:
    """Train with every seed and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("data/ood"), help="for all files")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="further overrides of fracnet.train")
    options = parser.parse_args()
    overrides = options.overrides or ["trainer.max_epochs=6"]
    runs = []
    for seed in range(options.seeds):
        runs.append(measure(seed, options.folder.resolve(), overrides))
        print(json.dumps(runs[-1]), flush=True)
    content = {"overrides": [*OVERRIDES, *overrides], "summary": summarize(runs), "runs": runs}
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["summary"], indent=1))


if __name__ == "__main__":
    main()
