"""The heatmaps of a run: explain/explain.json and its pictures, at the end and any time later.

explain.json holds: `method`, `layer` (the one that was found), `model_dependent` (whether the maps
changed when the weights were lost; None where that was not asked for, or could not be said),
`cases` (a picture each: kind, path, row of predictions.csv, truth, predicted, probability, patient
where known, overlay, plain), `localization` and `sanity` (see `fracnet.saliency`; None where
nothing is marked, or it was not asked for), and `notes`, sentences.
"""

import json
import os
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fracnet.config.schema import Config, Explain, ExplainCommand
from fracnet.data.datamodule import RadiographData
from fracnet.data.manifest import read_table
from fracnet.evaluation.conformal import DEFAULT_ERROR
from fracnet.models.classifier import Classifier
from fracnet.runs.checkpoint import device_of, load_classifier, own_data, read_config
from fracnet.runs.evaluate_run import progress_if
from fracnet.runs.run_folder import RunFolder, tell, write_json
from fracnet.saliency.cam import find_layer
from fracnet.saliency.gallery import choose, draw_cases, notes
from fracnet.saliency.localization import localize
from fracnet.saliency.sanity_check import lose_weights
from fracnet.utils.errors import UserError
from fracnet.utils.progress import Progress, no_progress
from fracnet.utils.text import counted

NO_MAPS = "{} is no network: it has no layer whose output is a map of the image, so no heatmaps."
LARGEST = 64  # images at a time


def check(config: Config, model: object, in_sweep: bool) -> None:
    """Raise UserError, before hours of training, for a layer that is not there or not found."""
    if config.explain is None or in_sweep or not isinstance(model, Classifier):
        return
    find_layer(model.backbone, config.explain.layer, size=config.image_size)


def conclude(folder: RunFolder, config: Config, data: RadiographData, in_sweep: bool) -> None:
    """Explain the run that has just been trained, unless it is one of many or asks for nothing."""
    if config.explain is None or in_sweep:
        return
    if config.model.fit == "classical":
        content = nothing(config)
        with _replacing(folder) as new:
            write_json(new / folder.explanation.name, content)
    else:
        model = load_classifier(folder, trust=True)  # of the run that this process has trained
        progress = progress_if(config.trainer.progress_bar)
        content = explain(folder, config, config.explain, data, model, progress)
    tell_of(folder, content)


def again(
    run: RunFolder, command: ExplainCommand, progress: Progress[Any] = no_progress
) -> dict[str, Any]:
    """Explain a finished run as a command asks; the content of explain.json.

    Raises UserError for a run that has no maps or is not to be trusted, and for data that have
    changed since.
    """
    tell(run)  # a folder without predictions is told first
    config = read_config(run, command.trust)
    if config.model.fit == "classical":
        raise UserError(f"run={run.path}: {NO_MAPS.format(config.model.target)}")
    model = load_classifier(run, command.trust)
    options = command.changed(config.explain)
    find_layer(model.backbone, options.layer, size=config.image_size, key="layer")
    data = own_data(run, config, f"run={run.path}")
    return explain(run, config, options, data, model, progress)


def nothing(config: Config) -> dict[str, Any]:
    """explain.json of a model that has no maps."""
    parts = dict.fromkeys(("method", "layer", "model_dependent", "localization", "sanity"))
    return parts | {"cases": [], "notes": [NO_MAPS.format(config.model.target)]}


def explain(
    folder: RunFolder,
    config: Config,
    options: Explain,
    data: RadiographData,
    model: Classifier,
    progress: Progress[Any] = no_progress,
) -> dict[str, Any]:
    """Make and write all of a run's explanation, in the place of an earlier one.

    Args:
        folder: with predictions.csv and decisions.json.
        options: which may be others than those of `config`.
        data: of the run, set up.
        model: of the run's checkpoint.
    """
    layer = find_layer(model.backbone, options.layer, size=config.image_size)
    how: dict[str, Any] = {
        "method": options.method,
        "layer": layer.name,
        "batch_size": min(config.data.batch_size, LARGEST),
        "device": device_of(config),
        "progress": progress,
    }
    table = read_table(folder.predictions)
    decisions = json.loads(folder.decisions.read_text(encoding="utf-8"))
    cases, chosen = choose(table, decisions, options.cases, error=DEFAULT_ERROR, seed=config.seed)
    with _replacing(folder) as new:
        entries, empty = draw_cases(model, data, table, cases, new, **how)
        checked = None
        if options.sanity:
            checked = lose_weights(model, data, images=options.sanity, seed=config.seed, **how)
        content = {
            "method": options.method,
            "layer": layer.name,
            "model_dependent": checked and checked["model_dependent"],
            "cases": entries,
            "localization": localize(model, data, **how),
            "sanity": checked,
            "notes": [*notes(layer, options.method, data, len(entries), empty), *chosen],
        }
        write_json(new / folder.explanation.name, content)
    return content


@contextmanager
def _replacing(folder: RunFolder) -> Iterator[Path]:
    """An empty folder that takes the place of `explain` once all is in it."""
    new = folder.explain.with_name(folder.explain.name + ".part")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.explain.exists():
            shutil.rmtree(folder.explain)
        os.replace(new, folder.explain)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # gone already where all went well


def tell_of(folder: RunFolder, content: Mapping[str, Any], everything: bool = False) -> None:
    """Print what was found and where it lies; of the findings the first sentence, or all."""
    told = []
    for part in ("localization", "sanity"):
        sentences = (content[part] or {}).get("sentences", [])
        told += sentences if everything else sentences[:1]
    if everything or not content["method"]:
        told += content["notes"]
    print("\nHeatmaps")
    for sentence in told:
        print(textwrap.fill(sentence, 80, initial_indent="  ", subsequent_indent="    "))
    pictures = counted(len(content["cases"]), "picture")
    print(f"  {folder.explanation.relative_to(folder.path)}, {pictures}", flush=True)
