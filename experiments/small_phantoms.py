"""What the experiments share: small phantoms with patients, and one training by fracnet's parts.

The task is to name the body region, one of seven. At 64 pixels a fracture is too fine to learn from
the few images of an experiment of minutes, and the published six-class set asks for little more
than the body part either.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import pandas as pd
import yaml
from hydra import compose, initialize_config_dir
from lightning.pytorch import seed_everything
from omegaconf import OmegaConf
from scipy.special import softmax

from fracnet.config.checks import check
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.data.datasets.layouts import MURA_FOLDER
from fracnet.data.image_io import read_grey
from fracnet.data.phantoms.mura import write_mura
from fracnet.data.phantoms.render import REGIONS
from fracnet.metrics import classification
from fracnet.models.classifier import Classifier
from fracnet.models.inference import predict_logits
from fracnet.runs.build import classifier_from, data_from
from fracnet.training.run_header import quiet_libraries
from fracnet.utils.files import config_dir

CLASSES = tuple(sorted(REGIONS))  # in the order of data=folder
SIDE = 64
ADAM = ["optim=adam", "optim.weight_decay=0", "scheduler=cosine", "loss.label_smoothing=0"]
"""What was the default when most of the experiments ran."""
OVERRIDES = [
    "data=folder",
    "data.csv=labels.csv",
    "data.num_workers=0",
    "data.batch_size=16",
    f"image_size={SIDE}",
    "preprocess=none",
    "optim.lr=5e-4",
    "callbacks.early_stopping=null",
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
]
"""All experiments train with these; everything else is as in conf/train.yaml."""


class Phantoms(NamedTuple):
    """images: uint8 [N, S, S]; regions: str [N], of CLASSES; patients: str [N]."""

    images: np.ndarray
    regions: np.ndarray
    patients: np.ndarray

    def select(self, rows: np.ndarray) -> "Phantoms":
        """Some of the images, by index or by mask."""
        return Phantoms(*(values[rows] for values in self))

    def split_by_patient(self, count: int, seed: int) -> list["Phantoms"]:
        """All images in `count` shares of whole patients with the same mix of regions."""
        names, first = np.unique(self.patients, return_index=True)
        order = np.lexsort((np.random.default_rng(seed).random(len(names)), self.regions[first]))
        return [self.select(np.isin(self.patients, names[order[k::count]])) for k in range(count)]

    @property
    def targets(self) -> np.ndarray:
        """Indices in CLASSES, int64 [N]."""
        return np.searchsorted(CLASSES, self.regions)


def make_phantoms(folder: Path, seed: int, patients: int, fresh: int) -> tuple[Phantoms, Phantoms]:
    """MURA phantoms to train and test on, and those of `fresh` other patients to measure the truth.

    Generated unless `folder` holds them, and shrunk to SIDE.
    """
    write_mura(folder, seed=seed, patients={"train": patients, "valid": fresh})
    return _read(folder, "train"), _read(folder, "valid")


def _read(folder: Path, part: str) -> Phantoms:
    paths = (folder / MURA_FOLDER / f"{part}_image_paths.csv").read_text().split()
    images = [
        cv2.resize(read_grey(folder / path), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for path in paths
    ]
    # MURA-v1.1/train/XR_WRIST/patient00001/study1_negative/image1.png
    parts = [Path(path).parts for path in paths]
    regions = [part[2].removeprefix("XR_").lower().replace("finger", "fingers") for part in parts]
    return Phantoms(np.stack(images), np.array(regions), np.array([part[3] for part in parts]))


def write_dataset(root: Path, phantoms: Phantoms, **columns: np.ndarray) -> None:
    """Write the images as PNGs below `root`, and labels.csv with path, label and more columns."""
    (root / "images").mkdir(parents=True)
    paths = [f"images/{i:05d}.png" for i in range(len(phantoms.images))]
    for path, image in zip(paths, phantoms.images, strict=True):
        assert cv2.imwrite(str(root / path), image)
    table = pd.DataFrame({"path": paths, "label": phantoms.regions} | columns)
    table.to_csv(root / "labels.csv", index=False, lineterminator="\n")


def compose_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved config of `python -m fracnet.train OVERRIDES`, as plain containers."""
    with initialize_config_dir(str(config_dir())):
        node = compose("train", list(overrides))
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def write_config(overrides: Sequence[str], file: Path) -> None:
    """Write the config of a training, without paths of this machine."""
    plain = compose_config([*overrides, "data.root=data/folder", "data_dir=data"])
    file.write_text(yaml.safe_dump(plain, sort_keys=False))


def build_training(overrides: Sequence[str]) -> tuple[Config, RadiographData, Classifier]:
    """Config, data and untrained network of `python -m fracnet.train OVERRIDES`."""
    quiet_libraries()
    config = check(compose_config(overrides))
    data = data_from(config)
    data.progress = False
    data.prepare_data()
    assert data.classes == CLASSES, data.classes
    seed_everything(config.seed, verbose=False)
    return config, data, classifier_from(config, data)


def probabilities(model: Classifier, phantoms: Phantoms) -> np.ndarray:
    """float64 [N, C] of a network, whose mode does not change."""
    training = model.training
    logits = predict_logits(model, phantoms.images, np.arange(len(phantoms.images)))
    model.train(training)
    return np.asarray(softmax(logits, axis=1))


def accuracy_and_auc(target: np.ndarray, prob: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Accuracy and macro AUC, float64 [B, 2], with rows weighted by `weights` [B, N]."""
    matrix = classification.confusion(target, classification.predict(prob), prob.shape[1], weights)
    areas = classification.macro(classification.auc(target, prob, weights))
    return np.stack([classification.accuracy(matrix), areas], axis=-1)
