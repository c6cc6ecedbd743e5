"""The reference by which a run detects out-of-distribution (OOD) images: ood.npz."""

from dataclasses import replace
from typing import Any

import numpy as np
import xxhash

from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import clusters_of
from fracnet.models import ood
from fracnet.models.inference import logits_and_features
from fracnet.models.ood import FeatureFunction, Reference, Sample
from fracnet.runs.checkpoint import checkpoint_file, load_classifier, run_device
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.files import atomic_file
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.shared import shared


def write_ood_reference(
    folder: RunFolder, config: Config, data: RadiographData, progress: Progress[Any] = no_progress
) -> Reference | None:
    """Write ood.npz for the selected checkpoint; None, and no file, where there are too few data.

    At most `ood.MAX_TRAIN` train images are stored, drawn with the run's seed. Test images choose
    nothing: only how many of them are flagged is counted, for the report.
    """
    folder.ood.unlink(missing_ok=True)  # of an earlier run in this folder
    table = data.table
    train, val, test = (np.unique(data.rows(split)) for split in ("train", "val", "test"))
    units = clusters_of(table.iloc[val]).count
    if len(train) < ood.MIN_TRAIN or units < ood.MIN_UNITS:
        return None
    if len(train) > ood.MAX_TRAIN:
        train = np.sort(
            np.random.default_rng(config.seed).choice(train, ood.MAX_TRAIN, replace=False)
        )
    look: FeatureFunction | None = None
    classical = config.model.fit == "classical"
    frozen = data.features if data.features and data.features.epochs is None else None
    if not classical and frozen is None:
        look = logits_and_features(load_classifier(folder, trust=True), run_device(config))

    def sample(rows: np.ndarray) -> Sample:
        images = ood.sample_images(data.cache.images, rows, look, config.data.batch_size)
        return images if frozen is None else replace(images, features=frozen.images[rows])

    def fit() -> Reference:
        parts = [sample(rows) for rows in progress((train, val, test), 3, "OOD reference")]
        reference = ood.fit_reference(parts[0], parts[1], units)
        flagged = {
            f"{name}_flagged": int((reference.scores_of(part.appearance, part.features) > 1).sum())
            for name, part in (("val", parts[1]), ("test", parts[2]))
        }
        return replace(reference, counts=reference.counts | {"test": len(test)} | flagged)

    key = None  # the features of a network that was trained are its own
    if frozen is not None:
        key = data.opened, xxhash.xxh3_128_digest(frozen.images.data), config.seed
    reference = shared("OOD reference", key, fit)
    with atomic_file(folder.ood) as file:
        ood.save_reference(reference, file, checkpoint_file(folder, classical))
    return reference


def read_ood_reference(folder: RunFolder, config: Config) -> Reference | None:
    """The stored reference; None where there is no file.

    Raises UserError for a damaged file, and for one of another checkpoint.
    """
    if not folder.ood.is_file():
        return None
    return ood.load_reference(folder.ood, checkpoint_file(folder, config.model.fit == "classical"))
