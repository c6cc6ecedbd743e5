"""A finished run's model, ready for new images, with the decisions that validation has chosen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fracnet.data.preprocess import Preprocess
from fracnet.evaluation.conformal import DEFAULT_ERROR, limits_by_level
from fracnet.inference.image_predictor import Batch, ImagePredictor, Look, Scores
from fracnet.models.inference import LogitsAndFeatures, logits_and_features
from fracnet.models.ood import FeatureFunction
from fracnet.runs.checkpoint import checkpoint_file, load_classical, load_classifier
from fracnet.runs.evaluate_run import run_decisions
from fracnet.runs.ood_reference import read_ood_reference
from fracnet.runs.run_folder import RunFolder, read_config, read_predictions, read_run_metadata
from fracnet.saliency.cam import Settings, heatmaps
from fracnet.utils.devices import accelerator
from fracnet.utils.errors import UserError
from fracnet.utils.files import sha256_of
from fracnet.utils.progress import no_progress


class Predictor(ImagePredictor):
    """Predicts classes of new images with a finished run. Research use only.

    folder: of the run. ood: the OOD reference, or None. See `ImagePredictor` for the others.
    """

    def __init__(
        self,
        run: Path | str,
        *,
        trust: bool = False,
        error: float | None = None,
        device: str = "auto",
    ) -> None:
        """Read a run folder; only classes of fracnet, timm and torch are built unless `trust`.

        error: maximum rate of confident errors per class; None for 0.05.

        Raises UserError for a folder that is not a finished run or is not trusted, and for
        decisions that were changed since validation chose them.
        """
        folder = RunFolder.open(Path(run).expanduser().resolve())
        metadata = read_run_metadata(folder)
        self.folder, self.config = folder, read_config(folder, trust)
        predictions = read_predictions(folder)
        self.decisions: dict[str, Any] = run_decisions(folder, predictions.split("val"), metadata)
        self.classes = tuple(self.decisions["classes"])
        self.levels = limits_by_level(
            predictions, self.decisions, DEFAULT_ERROR if error is None else error
        )
        self.ood = read_ood_reference(folder, self.config)
        self.ood_description = self.ood.describe() if self.ood else None
        self.path = folder.path
        self.image_size = self.config.image_size
        self.batch_size = self.config.data.batch_size
        self.device = _torch_device(device)
        self.classical = self.config.model.fit == "classical"
        self.why_no_heatmaps = (
            "the model is not a network and has no layer to make a heatmap of"
            if self.classical
            else ""
        )
        self.frame = self.preprocess.frame
        # A Classifier, or a model that was fitted without epochs.
        self.model: Any = (
            load_classical(folder, self.config)
            if self.classical
            else load_classifier(folder, trust)
        )

    def heatmaps(self, batch: Batch) -> list[np.ndarray]:
        """Grad-CAM; see `ImagePredictor`."""
        maps = heatmaps(self.model, batch.images, batch.choices, Settings(device=self.device))
        return [heat for part in maps for heat in part]

    @property
    def checkpoint_sha256(self) -> str:
        """Of the file of the selected model."""
        return sha256_of(checkpoint_file(self.folder, self.classical))

    @property
    def preprocess(self) -> Preprocess:
        """The run's own preprocessing."""
        steps = self.config.preprocess.model_dump().get("steps", ())
        return Preprocess(steps, self.config.image_size)

    def _look(self) -> Look:
        look = self._logits_and_features()

        def scores(readable: Sequence[np.ndarray]) -> Scores:
            images = np.stack(readable)
            logits, features = look(images)
            ood = self.ood.scores(images, features) if self.ood else None
            return Scores(images, logits, ood)

        return scores

    def _logits_and_features(self) -> FeatureFunction:
        """A function from uint8 [n, S, S] to logits and features.

        On a CPU, each image by itself: the last digits of a convolution depend on the size of the
        batch, and an answer must not depend on the other images of a request.
        """
        if not self.classical:
            together = logits_and_features(self.model, self.device)
            return together if self.device != "cpu" else _one_by_one(together)

        def look(images: np.ndarray) -> LogitsAndFeatures:
            return np.asarray(self.model.logits(images, np.arange(len(images)), no_progress)), None

        return look


def _one_by_one(function: FeatureFunction) -> FeatureFunction:
    def look(images: np.ndarray) -> LogitsAndFeatures:
        parts = [function(image[None]) for image in images]
        features = [part[1] for part in parts if part[1] is not None]
        logits = np.concatenate([part[0] for part in parts])
        return logits, np.concatenate(features) if features else None

    return look


def _torch_device(requested: str) -> str:
    """torch's name of the device; UserError for one that this machine does not have."""
    if requested == "gpu" and not torch.cuda.is_available():
        raise UserError("device=gpu: this machine has no GPU; allowed: auto, cpu.")
    return "cuda" if accelerator(requested) == "gpu" else "cpu"
