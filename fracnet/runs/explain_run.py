"""The heatmaps of a run: explain/explain.json and its pictures, after training or any time later.

explain.json holds: `method`, `layer` (the resolved one), `model_dependent` (whether the maps change
when the weights are randomized; None where that was not requested or could not be determined),
`cases` (each: kind, path, row of predictions.csv, truth, predicted, probability, patient where
known, and its pictures overlay and plain), `localization` and `sanity` (see `fracnet.saliency`;
None without annotations, or where not requested), and `notes`, sentences.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fracnet.config.commands import ExplainCommand
from fracnet.config.schema import Config, Explain
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.conformal import DEFAULT_ERROR
from fracnet.models.classifier import Classifier
from fracnet.models.feature_maps import find_layer
from fracnet.models.localizer import check_method
from fracnet.runs.checkpoint import load_classifier, load_run_data, run_device
from fracnet.runs.evaluate_run import RunEvaluation
from fracnet.runs.run_folder import RunFolder, write_json
from fracnet.saliency.cam import Settings
from fracnet.saliency.gallery import choose_cases, draw_cases, heatmap_notes
from fracnet.saliency.localization import better_method, localize
from fracnet.saliency.methods import LOCALIZATION
from fracnet.saliency.sanity_check import run_sanity_check
from fracnet.utils.errors import UserError
from fracnet.utils.files import atomic_folder
from fracnet.utils.progress import Progress, no_progress, progress_bar
from fracnet.utils.text import counted

NO_MAPS = "{} is not a network: it has no spatial layer, so there are no heatmaps."
PARTS = ("method", "layer", "model_dependent", "localization", "sanity")
MAX_BATCH = 64


def explain_new_run(
    evaluation: RunEvaluation, config: Config, data: RadiographData, in_sweep: bool
) -> None:
    """Explain the run that has just been trained, unless it is a sweep job or explain=none."""
    if config.explain is None or in_sweep:
        return
    folder = evaluation.folder
    if config.model.fit == "classical":
        content: dict[str, Any] = dict.fromkeys(PARTS)
        content |= {"cases": [], "notes": [NO_MAPS.format(config.model.target)]}
        with atomic_folder(folder.explain) as new:
            write_json(new / folder.explanation.name, content)
    else:
        model = load_classifier(folder, trust=True)  # this process has trained it
        progress = partial(progress_bar, visible=config.trainer.progress_bar)
        content = write_heatmaps(evaluation, config, config.explain, data, model, progress)
    print_heatmap_summary(folder, content)


def explain_finished_run(
    evaluation: RunEvaluation,
    config: Config,
    command: ExplainCommand,
    progress: Progress[Any] = no_progress,
) -> dict[str, Any]:
    """Explain a finished run with the options of the command; returns the content of explain.json.

    Raises UserError for a model without heatmaps or one that is not trusted, and for changed data.
    """
    run = evaluation.folder
    if config.model.fit == "classical":
        raise UserError(f"run={run.path}: {NO_MAPS.format(config.model.target)}")
    model = load_classifier(run, command.trust)
    options = command.merged_with(config.explain)
    find_layer(model.backbone, options.layer, size=config.image_size, key="layer")
    check_method(options.method, options.layer, model.localizer, "")
    data = load_run_data(run, config, f"run={run.path}")
    return write_heatmaps(evaluation, config, options, data, model, progress)


def write_heatmaps(
    evaluation: RunEvaluation,
    config: Config,
    options: Explain,
    data: RadiographData,
    model: Classifier,
    progress: Progress[Any] = no_progress,
) -> dict[str, Any]:
    """Make and write the explanation of a run, replacing an earlier one.

    Args:
        evaluation: the run's own; it sorts the cases into right and wrong.
        options: may differ from those of `config`.
        data: of the run, set up.
        model: of the run's checkpoint.
    """
    settings = Settings(
        layer=options.layer,
        batch_size=min(config.data.batch_size, MAX_BATCH),
        device=run_device(config),
        progress=progress,
    )
    method, why = str(options.method), ""
    if method == "auto":
        method, why = better_method(model, data, settings)
    name = options.layer
    if method == LOCALIZATION and model.localizer is not None:
        name = model.localizer.layer
    layer = find_layer(model.backbone, name, size=config.image_size)
    settings = replace(settings, method=method, layer=layer.name)
    folder, predictions = evaluation.folder, evaluation.predictions
    decisions = evaluation.assessment.decisions
    assert decisions is not None, "a trained run has validation rows"
    cases, case_notes = choose_cases(
        predictions, decisions, options.cases, error=DEFAULT_ERROR, seed=config.seed
    )
    with atomic_folder(folder.explain) as new:
        entries, empty = draw_cases(model, data, predictions.table, cases, new, settings)
        sanity = None
        if options.sanity:
            sanity = run_sanity_check(
                model, data, settings, images=options.sanity, seed=config.seed
            )
        content = {
            "method": method,
            "layer": layer.name,
            "model_dependent": sanity and sanity["model_dependent"],
            "cases": entries,
            "localization": localize(model, data, settings),
            "sanity": sanity,
            "notes": [
                *heatmap_notes(layer, method, data, len(entries), empty),
                *([why] if why else []),
                *case_notes,
            ],
        }
        write_json(new / folder.explanation.name, content)
    return content


def print_heatmap_summary(
    folder: RunFolder, content: Mapping[str, Any], everything: bool = False
) -> None:
    """Print the findings and where the heatmaps are; one sentence per part, or all of them."""
    sentences = []
    for part in ("localization", "sanity"):
        of_part = (content[part] or {}).get("sentences", [])
        sentences += of_part if everything else of_part[:1]
    if everything or not content["method"]:
        sentences += content["notes"]
    print("\nHeatmaps")
    for sentence in sentences:
        print(textwrap.fill(sentence, 80, initial_indent="  ", subsequent_indent="    "))
    pictures = counted(len(content["cases"]), "picture")
    print(f"  {folder.explanation.relative_to(folder.path)}, {pictures}", flush=True)
