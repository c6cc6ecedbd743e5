"""`data.test_on`: train on one dataset, test on another as well."""

import re
from collections.abc import Mapping, Sequence
from functools import partial

from fracnet.config.instantiate import build
from fracnet.config.schema import Config
from fracnet.data.datasets.base import Dataset
from fracnet.runs.checkpoint import load_model
from fracnet.runs.evaluate_run import evaluate_run
from fracnet.runs.report_run import (
    config_shows_images,
    draw_figures,
    print_evaluation,
    write_report,
)
from fracnet.runs.repredict import open_test, predict_external, read_manifest
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.errors import UserError
from fracnet.utils.progress import progress_bar


def check_external_test(config: Config, classes: Sequence[str]) -> None:
    """Raise UserError where the other dataset is missing, unreadable or has other classes.

    Its images are preprocessed, so that an unreadable one is reported before the training.
    """
    node = config.data.test_on
    if node is None:
        for key in ("test_root", "class_map"):
            if (value := getattr(config.data, key)) is not None:
                raise UserError(f"data.{key}={value} has no effect without data.test_on.")
        return
    assert isinstance(node, Mapping)
    dataset = build(node, "data.test_on")
    try:
        manifest = read_manifest(dataset)
    except UserError as error:
        message = f"data.test_on: {_with_test_keys(str(error))}{_alternative(dataset)}"
        raise type(error)(message) from error
    open_test(dataset, manifest, classes, config.data.class_map, config, "data.class_map")


def _with_test_keys(message: str) -> str:
    """The message with the keys of the other dataset: a dataset names the keys of training."""
    message = message.replace("data.root", "data.test_root")
    return re.sub(
        r"phantoms: .*\bdata=(\w+) model.pretrained=false", r"phantoms: data.test_on=\1", message
    )


def _alternative(dataset: Dataset) -> str:
    """How to test on a dataset that needs keys which data.test_on does not accept."""
    if dataset.name != "folder":
        return ""
    return (
        "\nWith data.test_on, only data.test_root, data.class_map and data.on_bad_file describe "
        "the other dataset. If it needs data.csv, data.columns or data.class_order, test after the "
        f"training:\npython -m fracnet.evaluate run=<run folder> data=folder "
        f"data.root={dataset.folder} data.csv=..."
    )


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
