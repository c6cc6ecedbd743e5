"""`data.test_on`: train on one data set, test on another besides."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fracnet.config.instantiate import build, near_miss
from fracnet.config.schema import Config, Data, validated
from fracnet.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fracnet.data.datasets.base import Source
    from fracnet.runs.run_folder import RunFolder


def with_node(plain: dict[str, Any]) -> dict[str, Any]:
    """The resolved config with the named data set's own keys in the place of its name.

    So that a resumed run finds them in its frozen config. Only to be called within a Hydra job.
    """
    name = plain["data"].get("test_on")
    if not isinstance(name, str):
        return plain
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    loader = GlobalHydra.instance().config_loader()
    choices = sorted(loader.get_group_options("data"))
    if name not in choices:
        raise UserError(
            f"data.test_on={name} is not one of the data sets; allowed: {', '.join(choices)}."
            f"{near_miss(name, choices)}"
        )
    words = [f"data={name}", f"data_dir={plain['data_dir']}"]
    node: Any = OmegaConf.to_container(compose("train", words).data, resolve=True)
    root = plain["data"].get("test_root")
    kept = validated(Data, node, "data.test_on").source() | ({"root": root} if root else {})
    kept["on_bad_file"] = plain["data"]["on_bad_file"]  # what is said of images, of all of them
    return {**plain, "data": {**plain["data"], "test_on": kept}}


def check(config: Config, classes: "Sequence[str]") -> None:
    """Raise UserError where the other data set is not there, cannot be read or has other classes.

    Its images are prepared, so that an unreadable one is told before the training.
    """
    node = config.data.test_on
    if node is None:
        for key in ("test_root", "class_map"):
            if (value := getattr(config.data, key)) is not None:
                raise UserError(f"data.{key}={value} goes with data.test_on, and not without.")
        return
    assert isinstance(node, Mapping)
    from fracnet.runs.repredict import open_test, read_all

    source = build(node, "data.test_on")
    try:
        full = read_all(source)
    except UserError as error:
        raise type(error)(f"data.test_on: {_own_keys(error)}{_after_training(source)}") from error
    open_test(source, full, classes, config.data.class_map, config, "data.class_map")


def _own_keys(error: UserError) -> str:
    """The message with the keys that a training has for the other set: sources call them as they
    are called where they are trained on."""
    said = str(error).replace("data.root", "data.test_root")
    return re.sub(
        r"phantoms: data=(\w+) model.pretrained=false", r"phantoms: data.test_on=\1", said
    )


def _after_training(source: "Source") -> str:
    """How a set is tested on that needs keys which cannot be given with data.test_on."""
    if source.name != "folder":
        return ""
    return (
        "\nOf this other data set only data.test_root, data.class_map and data.on_bad_file can be "
        "given here. One that needs data.csv, data.columns or data.class_order is tested after the "
        "training:\n"
        f"python -m fracnet.evaluate run=<folder of the run> data=folder data.root={source.folder} "
        "data.csv=..."
    )


def conclude(folder: "RunFolder", config: Config, in_sweep: bool) -> None:
    """Predict the other set's test split; write evaluations/data-<name>, and print it.

    in_sweep: nothing is printed; whose test figures are shown is the sweep's to decide.
    """
    node = config.data.test_on
    if node is None:
        return
    assert isinstance(node, Mapping)
    from rich.console import Console

    from fracnet.runs import report_run
    from fracnet.runs.checkpoint import load_model
    from fracnet.runs.evaluate_run import draw, judge, present, progress_if
    from fracnet.runs.repredict import on_other_data

    progress = progress_if(config.trainer.progress_bar)
    logits = load_model(folder, config, trust=True)  # of the run that this process has trained
    source = build(node, "data.test_on")
    remade = on_other_data(folder, config, source, config.data.class_map, logits, progress)
    found = judge(folder, name=f"data-{remade.told.data}", remade=remade, progress=progress)
    drawn = draw(found, config.evaluation.figures)
    report_run.write(found.folder, run=folder, images=report_run.shows_images(config))
    if not in_sweep:
        print(f"\nThe same model on another data set, {remade.told.data}:\n")
        present(Console(highlight=False, soft_wrap=False), found, drawn, "Evaluation")
