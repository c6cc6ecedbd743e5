"""Models that are fitted in one go, without epochs: `model.fit=classical`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import assemble
from fracnet.models.classifier import OWN_KEYS
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, progress_bar

UNUSED = "model.freeze, model.head_dropout, augment, optim, loss, scheduler, callbacks, trainer"


class Classical(Protocol):
    """What `_target_` must be; it is built with the config's keys and `num_classes`.

    images: uint8 [N, S, S], a file mapped into memory. rows: int64, places in it.
    """

    def describe(self) -> str:
        """What it is, in one clause."""

    def fit(
        self,
        images: np.ndarray,
        targets: np.ndarray,
        train: np.ndarray,
        val: np.ndarray,
        class_weights: Sequence[float] | None = None,
        progress: Progress[Any] = ...,
    ) -> dict[str, Any]:
        """Learn from the rows `train`, choose by `val`.

        Returns plain values: `by` and `value`, the figure that chose; perhaps `tried`, a list of
        mappings of each candidate's setting and that figure, and a `note`.
        """

    def logits(
        self, images: np.ndarray, rows: np.ndarray, progress: Progress[Any] = ...
    ) -> np.ndarray:
        """float64 [n, C]."""

    def save(self, path: Path) -> None:
        """Write it as .npz, without pickle."""


def build_classical(config: Config, data: RadiographData) -> Classical:
    """The model that the config names, not fitted yet.

    Raises UserError for wrong arguments, or a class that cannot be fitted in one go.
    """
    node = {key: value for key, value in config.model.plain().items() if key not in OWN_KEYS}
    model: Classical = build(node, "model", num_classes=len(data.classes))
    if lacking := [n for n in ("describe", "fit", "logits", "save") if not hasattr(model, n)]:
        raise UserError(
            f"model.fit=classical: {node['_target_']} has no method {', '.join(lacking)}; "
            "a network is trained by model.fit=gradient."
        )
    return model


def fit_and_predict(
    model: Classical, config: Config, data: RadiographData, folder: RunFolder
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fit, store, predict val and test: the predictions table, and what validation chose."""
    progress = partial(progress_bar, visible=config.trainer.progress_bar)
    images, targets = data.cache.images, data.manifest.targets()
    train, val, test = (data.rows(split) for split in ("train", "val", "test"))
    selected = model.fit(images, targets, train, val, data.class_weights(), progress)
    print_choice(selected)
    folder.checkpoints.mkdir(exist_ok=True)
    model.save(folder.checkpoints / "best.npz")
    rows = np.concatenate([val, test])
    logits = model.logits(images, rows, progress)
    return assemble(data.manifest.table.iloc[rows], data.classes, logits), selected


def print_choice(selected: Mapping[str, Any]) -> None:
    """A line for each candidate, with a star on the chosen one, as epochs have it."""
    for one in selected.get("tried", ()):
        figures = "  ".join(f"{name} {value:.4g}" for name, value in one.items())
        print(figures + ("  *" if one[selected["by"]] == selected["value"] else ""))
    print(selected.get("note", ""), flush=True)
