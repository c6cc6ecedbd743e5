"""Models without epochs, fitted by scikit-learn or the like: `model.fit=classical`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import assemble
from fracnet.models.classifier import build_model
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, progress_bar

UNUSED = "model.freeze, model.head_dropout, augment, optim, loss, scheduler, callbacks, trainer"


class Classical(Protocol):
    """The interface of `_target_`, which is built with the config's keys and `num_classes`.

    images: uint8 [N, S, S], memory-mapped. rows: int64, indices into it.
    """

    def describe(self) -> str:
        """The model in one clause."""

    def fit(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        train: np.ndarray,
        val: np.ndarray,
        class_weights: Sequence[float] | None = None,
        progress: Progress[Any] = ...,
    ) -> dict[str, Any]:
        """Fit to the rows `train`, choose settings by `val`.

        Returns plain values: `by` and `value`, the metric that chose; optionally `tried`, a list of
        mappings with each candidate's setting and that metric, and a `note`.
        """

    def logits(
        self, images: np.ndarray, rows: np.ndarray, progress: Progress[Any] = ...
    ) -> np.ndarray:
        """float64 [n, C]."""

    def save(self, path: Path) -> None:
        """Write it as .npz, without pickle."""


def build_classical(config: Config, data: RadiographData) -> Classical:
    """The unfitted model that the config names.

    Raises UserError for wrong arguments, or a class without the methods of `Classical`.
    """
    node = config.model.plain()
    model: Classical = build_model(node, len(data.classes))
    if missing := [n for n in ("describe", "fit", "logits", "save") if not hasattr(model, n)]:
        raise UserError(
            f"model.fit=classical: {node['_target_']} has no method {', '.join(missing)}; "
            "a network is trained with model.fit=gradient."
        )
    return model


def fit_and_predict(
    model: Classical, config: Config, data: RadiographData, folder: RunFolder
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fit, save, predict val and test: the predictions table, and what validation chose."""
    progress = partial(progress_bar, visible=config.trainer.progress_bar)
    images, targets = data.cache.images, data.manifest.targets()
    train, val, test = (data.rows(split) for split in ("train", "val", "test"))
    selected = model.fit(images, targets, train, val, data.class_weights(), progress)
    print_choice(selected)
    folder.checkpoints.mkdir(exist_ok=True)
    model.save(folder.checkpoints / "best.npz")
    rows = np.concatenate([val, test])
    logits = model.logits(images, rows, progress)
    return assemble(data.table.iloc[rows], data.classes, logits), selected


def print_choice(selected: Mapping[str, Any]) -> None:
    """Print one line per candidate, with a star on the chosen one, like epochs."""
    for candidate in selected.get("tried", ()):
        text = "  ".join(f"{name} {value:.4g}" for name, value in candidate.items())
        print(text + ("  *" if candidate[selected["by"]] == selected["value"] else ""))
    print(selected.get("note", ""), flush=True)
