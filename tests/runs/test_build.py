"""What `loss.localization=auto` becomes once the data and the network are known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.command import run_train
from helpers.tiny_overrides import USER_CONF, tiny_overrides
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fracnet.config.checks import check
from fracnet.config.schema import Config
from fracnet.data.datamodule import RadiographData
from fracnet.runs.build import classifier_from, data_from
from fracnet.runs.run_folder import read_mapping
from fracnet.utils.files import config_dir

PRETRAINED = [
    "model=tiny",
    "model._target_=helpers.models.Pretrained",
    "~model.width",
    "~model.dropout",
    "model.pretrained=true",
]


def compose_config(*overrides: str) -> Config:
    search = f"hydra.searchpath=[file://{USER_CONF}]"
    with initialize_config_dir(str(config_dir())):
        node: Any = OmegaConf.to_container(compose("train", [search, *overrides]), resolve=True)
    return check(node)


def prepared(config: Config) -> RadiographData:
    data = data_from(config)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize(
    ("more", "weight"),
    [
        ([], 4.0),
        (["loss=focal"], 4.0),
        (["loss.localization=0"], 0.0),
        (["loss.localization=0.5"], 0.5),
        (["model.pretrained=false"], 0.0),
        (["model.freeze=backbone"], 0.0),
        (["model.freeze=1", "trainer.max_epochs=2"], 0.0),
        (["+model.flat=true"], 0.0),
    ],
    ids=str,
)
def test_a_pretrained_network_that_is_fine_tuned_learns_where_the_fracture_is(
    more: list[str], weight: float, phantom_overrides: list[str]
) -> None:
    config = compose_config(*phantom_overrides, *PRETRAINED, "image_size=32", *more)
    model = classifier_from(config, prepared(config))
    assert model.localization == weight
    assert (model.localizer is not None) == (weight > 0)
    assert model.hparams["loss"]["localization"] == weight


def test_only_where_images_of_every_class_are_annotated(phantom_overrides: list[str]) -> None:
    config = compose_config(*phantom_overrides, *PRETRAINED, "image_size=32")
    data = prepared(config)
    table = data.manifest.table.copy()
    elbows = table["label"] == data.classes[0]
    for column in ("polygons", "boxes"):
        table[column] = [
            None if elbow else v for v, elbow in zip(table[column], elbows, strict=True)
        ]
    data.manifest = replace(data.manifest, table=table)
    assert classifier_from(config, data).localization == 0.0


@pytest.mark.parametrize(("pretrained", "weight"), [("true", 4.0), ("false", 0.0)])
def test_the_run_folder_holds_the_number(
    pretrained: str,
    weight: float,
    phantom_overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    without_report: None,
) -> None:
    run = tmp_path / "run"
    more = [*phantom_overrides, *PRETRAINED[1:-1], f"model.pretrained={pretrained}"]
    result = run_train([*tiny_overrides(*more), "logger=none", f"hydra.run.dir={run}"], capsys)
    assert result.code == 0, result.err
    assert ("auxiliary head that finds the annotations, weight 4" in result.out) == bool(weight)
    assert read_mapping(run / "config.yaml")["loss"]["localization"] == weight
    columns = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert ("val/pointing_game" in columns) == bool(weight)
