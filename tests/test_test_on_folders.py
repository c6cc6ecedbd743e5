"""Testing on another dataset of the same kind, `folder`: names, labels and faults."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.command import run_evaluate, run_train
from helpers.pictures import encoded, picture
from helpers.tiny_overrides import tiny_overrides
from pydantic import TypeAdapter, ValidationError

from fracnet.config.fields import Labels
from fracnet.data.manifest import read_table
from fracnet.data.splits import SPLITS

pytestmark = pytest.mark.usefixtures("without_charts")

CLASSES = ("normal", "fracture")
N = 8


def write_set(root: Path, seed: int, classes: tuple[str, ...] = CLASSES) -> Path:
    """A table labels.csv and images; with another seed, the same names are in other splits."""
    root.mkdir()
    rows = []
    for number in range(3 * N):
        path, split = f"{number}.png", SPLITS[(number // N + seed) % 3]
        (root / path).write_bytes(encoded(picture(100 * seed + number, 40, 36), "PNG"))
        label = classes[number % 2]
        rows.append({"path": path, "label": label, "split": split, "patient": f"p{number}"})
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


def write_class_folders(root: Path, seed: int, classes: tuple[str, ...] = CLASSES) -> Path:
    """The same layout in folders split/class."""
    for split in SPLITS:
        for number in range(N):
            path = root / split / classes[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = picture(1000 * seed + 100 * len(split) + number, 40, 36)
            path.write_bytes(encoded(grey, "PNG"))
    return root


def training(root: Path, run: Path, *more: str) -> list[str]:
    return tiny_overrides(
        "data=folder",
        f"data.root={root}",
        "evaluation.figures=false",
        "logger=none",
        f"hydra.run.dir={run}",
        *more,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The dataset with its table, and the run trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    root, run = write_set(folder / "first", 1), folder / "run"

    class Silent:
        def readouterr(self) -> tuple[str, str]:
            return "", ""

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = training(root, run, "data.csv=labels.csv")
        assert run_train(arguments, Silent()).code == 0  # type: ignore[arg-type]
    return root, run


def evaluation(run: Path, root: Path, *more: str) -> list[str]:
    arguments = [f"run={run}", "data=folder", f"data.root={root}", "data.csv=labels.csv"]
    return [*arguments, "figures=false", "trust=true", *more]


def test_two_folders_with_the_same_names_are_two_datasets(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_set(tmp_path / "second", 2)
    result = run_evaluate(evaluation(trained[1], other), capsys)
    assert result.code == 0, result.err
    out = trained[1] / "evaluations" / "data-folder-second"
    test = read_table(out / "predictions.csv").query("split == 'test'")
    assert len(test) == json.loads((out / "metrics.json").read_text())["test"]["n"] == N
    assert test["path"].str.startswith("folder-second:").all()
    assert test["patient"].str.startswith("folder-second:").all()


def test_a_copy_of_the_dataset_is_the_same_dataset(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(trained[0], tmp_path / "copy"))
    result = run_evaluate(evaluation(trained[1], copy), capsys)
    assert result.code == 0, result.err
    test = read_table(trained[1] / "evaluations" / "data-folder" / "predictions.csv")
    assert test["path"].isin(read_table(copy / "labels.csv")["path"]).all()


def test_equal_rows_with_other_pixels_are_another_dataset(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(trained[0], tmp_path / "other"))
    for path in other.glob("*.png"):
        path.write_bytes(encoded(picture(int(path.stem) + 5000, 40, 36), "PNG"))
    result = run_evaluate(evaluation(trained[1], other), capsys)
    assert result.code == 0, result.err
    assert (trained[1] / "evaluations" / "data-folder-other").is_dir()


def test_train_on_one_folder_and_test_on_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (write_class_folders(tmp_path / name, i) for i, name in enumerate("ab"))
    run = tmp_path / "run"
    arguments = training(first, run, "data.test_on=folder", f"data.test_root={second}")
    result = run_train(arguments, capsys)
    assert result.code == 0, result.err
    assert "The same model on another dataset, folder-b:" in result.out
    assert (run / "evaluations" / "data-folder-b" / "metrics.json").is_file()


def test_labels_that_are_numbers_are_mapped(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_set(tmp_path / "numbered", 2, ("0", "1"))
    result = run_evaluate(
        evaluation(trained[1], other, "class_map={0: normal, 1: fracture}"), capsys
    )
    assert result.code == 0, result.err
    test = read_table(trained[1] / "evaluations" / "data-folder-numbered" / "predictions.csv")
    assert set(test["label"]) == set(CLASSES)


@pytest.mark.parametrize(
    "class_map", [{"normal": 0, "fracture": 1}, {"normal": "0", "fracture": "1"}]
)
def test_a_class_map_may_have_numbers_on_either_side(class_map: dict[str, Any]) -> None:
    labels = TypeAdapter(Labels)
    assert labels.validate_python(class_map) == {"normal": "0", "fracture": "1"}
    turned = {value: key for key, value in class_map.items()}
    assert labels.validate_python(turned) == {"0": "normal", "1": "fracture"}
    assert labels.validate_python({0: None}) == {"0": None}


@pytest.mark.parametrize("class_map", [{True: "fracture"}, {"normal": False}])
def test_a_label_that_yaml_reads_as_a_boolean_must_be_quoted(class_map: dict[Any, Any]) -> None:
    with pytest.raises(ValidationError, match="put the label into quotes"):
        TypeAdapter(Labels).validate_python(class_map)


def test_an_unreadable_file_of_the_other_dataset_is_reported_before_training_or_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (write_class_folders(tmp_path / name, i) for i, name in enumerate("ab"))
    broken = second / "test" / "normal" / "0.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    run = tmp_path / "run"
    arguments = training(first, run, "data.test_on=folder", f"data.test_root={second}")
    result = run_train(arguments, capsys)
    assert result.code == 1
    assert "test/normal/0.png" in result.err
    assert "data.on_bad_file=skip" in result.err
    assert not (run / "metrics.csv").exists()
    result = run_train([*arguments, "data.on_bad_file=skip"], capsys)
    assert result.code == 0, result.err
    metrics = json.loads((run / "evaluations" / "data-folder-b" / "metrics.json").read_text())
    assert metrics["test"]["n"] == N - 1


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("table", [True, False])
def test_a_dataset_that_needs_more_keys_is_tested_after_training(
    trained: tuple[Path, Path], table: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write = write_set if table else write_class_folders
    other = write(tmp_path / f"needy_{table}", 2, ("a", "b"))
    arguments = ["data.csv=labels.csv", "data.test_on=folder", f"data.test_root={other}"]
    result = run_train(training(trained[0], tmp_path / "run", *arguments), capsys)
    assert result.code == 1
    flat = " ".join(result.err.split())
    assert f"python -m fracnet.evaluate run=<run folder> data=folder data.root={other}" in flat
    assert ("data.csv=labels.csv" if table else "data.class_order=[a,b]") in flat
    arguments = [f"run={trained[1]}", "data=folder", f"data.root={other}", "data.class_order=[a,b]"]
    arguments += ["class_map={a: normal, b: fracture}", "trust=true", "figures=false"]
    result = run_evaluate([*arguments, *(["data.csv=labels.csv"] if table else [])], capsys)
    assert result.code == 0, result.err
    assert (trained[1] / "evaluations" / f"data-folder-needy_{table}" / "metrics.json").is_file()
