"""`data.test_on`: train on one data set and test on another, with an explicit class map."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.command import train_here
from helpers.fracture_files import write_fracatlas
from helpers.mura_files import write_mura
from helpers.tiny_words import tiny_words

from fracnet.data.manifest import read_table

MAP = "data.class_map={no_fracture: normal, fracture: abnormal}"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sets")
    write_mura(folder / "MURA-v1.1")
    (folder / "fracatlas").mkdir()
    write_fracatlas(folder / "fracatlas")
    return tiny_words("data=mura", f"data_dir={folder}", "evaluation.figures=false", "logger=csv")


def test_the_other_set_is_measured_besides(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    told = train_here([*words, "data.test_on=fracatlas", MAP, f"hydra.run.dir={run}"], capsys)
    assert told.code == 0, told.err
    assert "The same model on another data set, fracatlas:" in told.out
    out = run / "evaluations" / "data-fracatlas"
    table = read_table(out / "predictions.csv")
    here = table[table["split"] == "test"]
    assert here["path"].str.startswith("images/").all()
    own = json.loads((run / "metrics.json").read_text())
    other = json.loads((out / "metrics.json").read_text())
    assert other["test"]["n"] == len(here) != own["test"]["n"]
    assert other["val"] == own["val"]
    assert other["decisions"] == own["decisions"]
    # The frozen config says by itself what the other set is.
    node = yaml.safe_load((run / "config.yaml").read_text())["data"]["test_on"]
    assert node["_target_"].endswith("FracAtlas")


@pytest.mark.parametrize(
    ("more", "told_of"),
    [
        (["data.test_on=fracatlsa"], ["data.test_on=fracatlsa", "Did you mean 'fracatlas'?"]),
        (
            ["data.test_on=fracatlas"],
            ["'data.class_map={", "no_fracture, fracture", "normal, abnormal"],
        ),
        (["data.test_on=fracatlas", "data.test_root=/nowhere", MAP], ["/nowhere"]),
        (["data.test_root=/nowhere"], ["data.test_root=/nowhere", "data.test_on"]),
        ([MAP], ["data.class_map", "data.test_on"]),
    ],
)
def test_what_cannot_be_tested_is_refused_before_training(
    words: list[str],
    more: list[str],
    told_of: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    told = train_here([*words, *more, f"hydra.run.dir={run}"], capsys)
    assert told.code == 1
    for word in told_of:
        assert word in told.err
    assert not (run / "metrics.csv").exists()
