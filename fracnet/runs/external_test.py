"""`data.test_on`: train on one dataset, test on another as well."""

from collections.abc import Mapping
from functools import partial

from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.runs.checkpoint import load_model
from fracnet.runs.evaluate_run import evaluate_run
from fracnet.runs.report_run import (
    config_shows_images,
    draw_figures,
    print_evaluation,
    write_report,
)
from fracnet.runs.repredict import predict_external
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.progress import progress_bar


def run_external_test(folder: RunFolder, config: Config, in_sweep: bool) -> None:
    """Predict the other dataset's test split; write evaluations/data-<name>, and print it.

    in_sweep: print nothing; the sweep decides whose test metrics are shown.
    """
    node = config.data.test_on
    if node is None:
        return
    assert isinstance(node, Mapping)
    progress = partial(progress_bar, visible=config.trainer.progress_bar)
    logits = load_model(folder, config, trust=True)  # this process has trained it
    dataset = build(node, "data.test_on")
    new = predict_external(folder, config, dataset, config.data.class_map, logits, progress)
    name = new.metadata.data
    evaluation = evaluate_run(folder, name=f"data-{name}", new=new, progress=progress)
    figures = draw_figures(evaluation, config.evaluation.figures)
    write_report(evaluation, folder, images=config_shows_images(config))
    if not in_sweep:
        print(f"\nThe same model on another dataset, {name}:\n")
        print_evaluation(evaluation, figures, "Evaluation", folder)
