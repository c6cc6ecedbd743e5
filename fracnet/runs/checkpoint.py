"""A finished run's model, rebuilt, and shown its own images in more views."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fracnet.config.instantiate import check_trust, locate, near_miss
from fracnet.config.schema import Augment, Config, Imbalance, check
from fracnet.data.datamodule import RadiographData
from fracnet.data.fingerprint import data_fingerprint
from fracnet.models.classifier import Classifier
from fracnet.models.inference import VIEWS, predict_logits
from fracnet.runs.build import data_from
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.devices import accelerator
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress


def read_config(run: RunFolder, trust: bool) -> Config:
    """The run's config, checked; UserError where it names classes that are not to be trusted."""
    if not run.config.is_file():
        raise UserError(f"{run.path} has no config.yaml: its model cannot be rebuilt.")
    plain = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    if "ensemble" in plain:
        raise UserError(
            f"run={run.path} is an ensemble: it has no model of its own that could look at images; "
            "allowed: its members, one by one, and an ensemble of what comes out."
        )
    check_trust(plain, trust, str(run.config))
    return check(plain)


Logits = Callable[[np.ndarray, np.ndarray, Progress[Any]], np.ndarray]


def load_model(run: RunFolder, config: Config, trust: bool, tta: Sequence[str] = ()) -> Logits:
    """The function from cached images and rows to logits, float64 [n, C]; nothing is fetched.

    Raises UserError for a checkpoint that is missing, or not to be trusted, or unknown views.
    """
    check_views(tta)
    if config.model.fit == "classical":
        if tta:
            raise UserError(f"tta={list(tta)} is for networks; {config.model.target} is none.")
        classical = load_classical(run, config)
        return lambda images, rows, progress: np.asarray(classical.logits(images, rows, progress))
    model = load_classifier(run, trust)
    device = device_of(config)

    def logits(images: np.ndarray, rows: np.ndarray, progress: Progress[Any]) -> np.ndarray:
        size = config.data.batch_size  # known to fit into memory
        return predict_logits(
            model, images, rows, tta=tta, batch_size=size, device=device, progress=progress
        )

    return logits


def load_classifier(run: RunFolder, trust: bool) -> Classifier:
    """The network of the selected checkpoint, on the CPU; nothing is fetched.

    Raises UserError for a checkpoint that is missing, or not to be trusted.
    """
    path = checkpoint(run, classical=False)
    # The checkpoint names classes as well, and they are the ones that will be called.
    held = torch.load(path, map_location="cpu", weights_only=True)
    check_trust(held["hyper_parameters"], trust, str(path))
    return Classifier.load_from_checkpoint(path, map_location="cpu", weights_only=True)


def load_classical(run: RunFolder, config: Config) -> Any:
    """The model that was fitted in one go (`classical.Classical`); UserError if it is missing."""
    kind: Any = locate(config.model.target, "model")
    return kind.load(checkpoint(run, classical=True))


def device_of(config: Config) -> str:
    """The device, as torch calls it, that the run's config asks for."""
    return "cuda" if accelerator(config.trainer.accelerator) == "gpu" else "cpu"


def checkpoint(run: RunFolder, classical: bool) -> Path:
    """The file of the selected model; UserError if it is missing.

    classical: whether it is one that was fitted in one go.
    """
    path = run.checkpoints / ("best.npz" if classical else "best.ckpt")
    if not path.is_file():
        raise UserError(f"{path} is not there: without its checkpoint a model cannot be rebuilt.")
    return path


def check_views(tta: Sequence[str]) -> None:
    """Raise UserError for a view that is unknown or named twice."""
    for place, name in enumerate(tta):
        if name not in VIEWS:
            raise UserError(
                f"tta={name} is not allowed; allowed: {', '.join(VIEWS)}.{near_miss(name, VIEWS)}"
            )
        if name in tta[:place]:
            raise UserError(f"tta={list(tta)} names {name} twice.")


def own_data(run: RunFolder, config: Config, key: str) -> RadiographData:
    """The data of the run, set up, without what only training needs.

    Raises UserError, which begins with `key`, where they are no longer those of the run.
    """
    # Augmentation may name any class; it is not built.
    bare = {"augment": Augment(transforms=[]), "imbalance": Imbalance(method="none")}
    data = data_from(config.model_copy(update=bare))
    data.prepare_data()
    before = json.loads(run.provenance.read_text(encoding="utf-8"))["data_fingerprint"]
    now = data_fingerprint(data.manifest)
    if before != now:
        raise UserError(
            f"{key}: the data have changed since the run (fingerprint {before} then, {now} now); "
            "its own images are needed."
        )
    return data
