"""What a run keeps at its end to tell images that are unlike its own: novelty.npz."""

import os
from dataclasses import replace
from typing import Any

import numpy as np

from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import clusters_of
from fracnet.models import ood
from fracnet.models.inference import watched
from fracnet.models.ood import Look, Reference, Sample
from fracnet.runs.checkpoint import checkpoint, device_of, load_classifier
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.progress import Progress, no_progress


def conclude(
    folder: RunFolder, config: Config, data: RadiographData, progress: Progress[Any] = no_progress
) -> Reference | None:
    """Write novelty.npz of the selected checkpoint; None, and no file, where the data are too few.

    At most `novelty.MOST` images of train are kept, drawn with the run's seed. Test images choose
    nothing: how many of them are flagged is counted, to be reported.
    """
    folder.novelty.unlink(missing_ok=True)  # of a run that had this folder before
    table = data.manifest.table
    train, val, test = (np.unique(data.rows(split)) for split in ("train", "val", "test"))
    units = clusters_of(table.iloc[val]).count
    if len(train) < ood.FEWEST_TRAIN or units < ood.FEWEST_UNITS:
        return None
    if len(train) > ood.MOST:
        drawn = np.random.default_rng(config.seed).choice(train, ood.MOST, replace=False)
        train = np.sort(drawn)
    look: Look | None = None
    classical = config.model.fit == "classical"
    if not classical:
        look = watched(load_classifier(folder, trust=True), device_of(config))

    def sample(rows: np.ndarray) -> Sample:
        return ood.sample(data.cache.images, rows, look, config.data.batch_size)

    parts = [sample(rows) for rows in progress((train, val, test), 3, "novelty")]
    found = ood.fit(parts[0], parts[1], units)
    flagged = {
        f"{name}_flagged": int((found.of(part.looks, part.features) > 1).sum())
        for name, part in (("val", parts[1]), ("test", parts[2]))
    }
    found = replace(found, counts=found.counts | {"test": len(test)} | flagged)
    draft = folder.novelty.with_name(".novelty.npz")
    ood.save(found, draft, checkpoint(folder, classical))
    os.replace(draft, folder.novelty)
    return found


def kept(folder: RunFolder, config: Config) -> Reference | None:
    """What `conclude` has left; None where there is no file.

    Raises UserError for a file that is not whole, or goes with another checkpoint than the run's.
    """
    if not folder.novelty.is_file():
        return None
    return ood.load(folder.novelty, checkpoint(folder, config.model.fit == "classical"))
