"""`data.test_on`: train on one dataset and test on another, with an explicit class map."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.command import run_train
from helpers.fracture_files import write_fracatlas
from helpers.mura_files import write_mura
from helpers.tiny_overrides import tiny_overrides

from fracnet.data.manifest import read_table

pytestmark = pytest.mark.usefixtures("without_charts")

MAP = "data.class_map={no_fracture: normal, fracture: abnormal}"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sets") / "a, b {1}"  # both have a meaning to Hydra
    write_mura(folder / "MURA-v1.1")
    (folder / "fracatlas").mkdir()
    write_fracatlas(folder / "fracatlas")
    return tiny_overrides(
        "data=mura", f"data_dir={folder}", "evaluation.figures=false", "logger=none"
    )


def test_the_other_dataset_is_evaluated_as_well(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    result = run_train([*arguments, "data.test_on=fracatlas", MAP, f"hydra.run.dir={run}"], capsys)
    assert result.code == 0, result.err
    assert "The same model on another dataset, fracatlas:" in result.out
    out = run / "evaluations" / "data-fracatlas"
    table = read_table(out / "predictions.csv")
    test = table[table["split"] == "test"]
    assert test["path"].str.startswith("images/").all()
    metrics = json.loads((run / "metrics.json").read_text())
    other = json.loads((out / "metrics.json").read_text())
    assert other["test"]["n"] == len(test) != metrics["test"]["n"]
    assert other["val"] == metrics["val"]
    assert other["decisions"] == metrics["decisions"]
    # The saved config names the other dataset itself.
    node = yaml.safe_load((run / "config.yaml").read_text())["data"]["test_on"]
    assert node["_target_"].endswith("FracAtlas")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["data.test_on=fracatlsa"], ["data.test_on=fracatlsa", "Did you mean 'fracatlas'?"]),
        (
            ["data.test_on=fracatlas"],
            ["'data.class_map={", "no_fracture, fracture", "normal, abnormal"],
        ),
        (
            ["data.test_on=fracatlas", "data.test_root=/nowhere", MAP],
            ["/nowhere", "copy: data.test_root=/path", "phantoms: data.test_on=mura_phantom\n"],
        ),
        (["data.test_root=/nowhere"], ["data.test_root=/nowhere", "data.test_on"]),
        ([MAP], ["data.class_map", "data.test_on"]),
    ],
)
def test_an_impossible_test_dataset_is_rejected_before_training(
    arguments: list[str],
    more: list[str],
    expected: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    result = run_train([*arguments, *more, f"hydra.run.dir={run}"], capsys)
    assert result.code == 1
    for argument in expected:
        assert argument in result.err
    assert not (run / "metrics.csv").exists()
