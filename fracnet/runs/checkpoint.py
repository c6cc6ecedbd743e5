"""A finished run's model and data, rebuilt from its folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fracnet.config.instantiate import locate
from fracnet.config.schema import Augment, Config, Imbalance
from fracnet.config.trust import check_trust
from fracnet.data.datamodule import RadiographData
from fracnet.data.fingerprint import data_fingerprint
from fracnet.models.classifier import Classifier, without_weights
from fracnet.models.inference import VIEWS, predict_logits
from fracnet.runs.build import data_from
from fracnet.runs.run_folder import RunFolder, read_mapping
from fracnet.utils.devices import accelerator
from fracnet.utils.errors import UserError
from fracnet.utils.files import explain_disk_fault
from fracnet.utils.progress import Progress
from fracnet.utils.text import near_miss

Logits = Callable[[np.ndarray, np.ndarray, Progress[Any]], np.ndarray]
"""From uint8 images [N, S, S] and rows int64 [n] to logits float64 [n, C]."""


def load_model(run: RunFolder, config: Config, trust: bool, tta: Sequence[str] = ()) -> Logits:
    """The model of the selected checkpoint as a function; nothing is downloaded.

    tta: further views whose probabilities are averaged with those of the image.

    Raises UserError for a checkpoint that is missing or not trusted, and for unknown views.
    """
    _check_tta(tta)
    if config.model.fit == "classical":
        if tta:
            raise UserError(
                f"tta={list(tta)} needs a network; {config.model.target} is not a network."
            )
        classical = load_classical(run, config)
        return lambda images, rows, progress: np.asarray(classical.logits(images, rows, progress))
    model = load_classifier(run, trust)
    device = run_device(config)

    def logits(images: np.ndarray, rows: np.ndarray, progress: Progress[Any]) -> np.ndarray:
        size = config.data.batch_size  # known to fit into memory
        return predict_logits(
            model, images, rows, tta=tta, batch_size=size, device=device, progress=progress
        )

    return logits


def load_classifier(run: RunFolder, trust: bool) -> Classifier:
    """The network of the selected checkpoint, on the CPU; nothing is downloaded.

    Raises UserError for a checkpoint that is missing or not trusted.
    """
    path = checkpoint_file(run, classical=False)
    return rebuild(read_checkpoint(path), trust, path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint, plain values and tensors on the CPU.

    Raises UserError for a file that is cut off, holds other objects or is no checkpoint.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    # Everything: torch raises errors of many types for a damaged file.
    except Exception as error:
        if explain_disk_fault(error):
            raise
        raise UserError(
            f"{path} cannot be read: it is damaged, or holds other objects than numbers and text "
            f"({type(error).__name__})."
        ) from error
    if not isinstance(stored, dict) or not {"hyper_parameters", "state_dict"} <= set(stored):
        raise UserError(f"{path} cannot be read: it is not a checkpoint of fracnet.")
    return stored


def epochs_done(path: Path) -> int:
    """Whole epochs in a checkpoint.

    Raises UserError for one that `read_checkpoint` refuses, names no epoch or a file elsewhere.
    """
    stored = read_checkpoint(path)
    # Lightning deletes files that a checkpoint calls outdated, wherever `..` leads.
    for text in _texts(stored.get("callbacks")):
        if ".." in Path(text).parts:
            raise UserError(f"{path} names a file outside of the run folder: {text}.")
    try:
        # Unlike "epoch" it does not count one that is not over.
        done = stored["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    except (KeyError, TypeError):
        done = None
    if not isinstance(done, int):
        raise UserError(f"{path} cannot be read: it does not name its epoch.")
    return done


def _texts(node: Any) -> Iterator[str]:
    """Every text in nested containers, keys included."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)


def rebuild(stored: Mapping[str, Any], trust: bool, path: Path) -> Classifier:
    """The network of a checkpoint that was read from `path`, on the CPU.

    Raises UserError where the checkpoint names what is not trusted, or does not fit its own model.
    """
    # The checkpoint names classes as well, and those are the ones that will be called.
    parameters = stored["hyper_parameters"]
    if not isinstance(parameters, Mapping) or not isinstance(parameters.get("model"), Mapping):
        raise UserError(f"{path} cannot be read: it does not describe its model.")
    check_trust(parameters, trust, str(path))
    try:
        # Not Lightning's load_from_checkpoint, which calls further things that a file names.
        model = Classifier(**{**parameters, "model": without_weights(parameters["model"])})
        model.load_state_dict(stored["state_dict"])
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: the model cannot be rebuilt from it: {reason}") from error
    return model


def load_classical(run: RunFolder, config: Config) -> Any:
    """The model that was fitted without epochs (`models.hog`); UserError if it is missing."""
    model_class: Any = locate(config.model.target, "model")
    return model_class.load(checkpoint_file(run, classical=True))


def run_device(config: Config) -> str:
    """The device that the run's config selects, by torch's name."""
    return "cuda" if accelerator(config.trainer.accelerator) == "gpu" else "cpu"


def checkpoint_file(run: RunFolder, classical: bool) -> Path:
    """The file of the selected model; UserError if it is missing.

    classical: whether the model was fitted without epochs.
    """
    path = run.checkpoints / ("best.npz" if classical else "best.ckpt")
    if not path.is_file():
        raise UserError(f"{path} is missing; the model cannot be rebuilt without its checkpoint.")
    return path


def _check_tta(tta: Sequence[str]) -> None:
    """Raise UserError for a view that is unknown or named twice."""
    for place, name in enumerate(tta):
        if name not in VIEWS:
            raise UserError(
                f"tta={name} is not allowed; allowed: {', '.join(VIEWS)}.{near_miss(name, VIEWS)}"
            )
        if name in tta[:place]:
            raise UserError(f"tta={list(tta)} names {name} twice.")


def load_run_data(run: RunFolder, config: Config, key: str) -> RadiographData:
    """The data of the run, set up, without what only training needs.

    Raises UserError, which begins with `key`, where the data have changed since the run.
    """
    # Augmentation may name any class; it is not built.
    bare = {"augment": Augment(transforms=[]), "imbalance": Imbalance(method="none")}
    data = data_from(config.model_copy(update=bare))
    data.prepare_data()
    before = read_mapping(run.provenance).get("data_fingerprint")
    now = data_fingerprint(data.manifest)
    if before != now:
        raise UserError(
            f"{key}: the data have changed since the run (fingerprint {before} then, {now} now), "
            "but the images of the run are needed."
        )
    return data
