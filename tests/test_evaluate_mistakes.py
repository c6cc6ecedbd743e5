"""Mistakes in `python -m fracnet.evaluate`, or in a training's evaluation, are reported early."""

from pathlib import Path

import pandas as pd
import pytest
from helpers.command import CommandResult, in_new_process, in_quick_process, run_evaluate, run_train
from helpers.predictions import make_table
from helpers.run_files import file_contents, two_class_table, write_foreign_csv, write_run
from helpers.tiny_overrides import tiny_overrides

pytestmark = pytest.mark.usefixtures("without_charts")

TABLE = two_class_table()
SPLITS = ("val", "test")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs/mine", TABLE)


CASES = [
    ([], ["either run=<folder> or table=<csv> (neither is given)"]),
    (["run=runs/mine", "table=x.csv"], ["both are given"]),
    (["rn=runs/mine"], ["'rn'", "Did you mean 'run=runs/mine'?"]),
    (["+rnu=runs/mine"], ["'rnu'", "Did you mean 'run=runs/mine'?"]),
    (["run=runs/mien"], ["no such folder", "Did you mean 'mine'?"]),
    (["run=runs"], ["is not a run folder"]),
    (["run=runs/mine", "by=[regoin]"], ["by=regoin", "Did you mean 'region'?"]),
    (["run=runs/mine", "by=[path]"], ["by=path", "at most 50"]),
    (
        ["run=runs/mine", "operating_point=youdn"],
        ["operating_point=youdn", "youden, {sensitivity: 0.9}"],
    ),
    (["run=runs/mine", "operating_point={sensitivity: 90}"], ["sensitivity is a share"]),
    (["run=runs/mine", "operating_point={cost_ratio: 0}"], ["cost_ratio is what a miss costs"]),
    (
        ["run=runs/mine", "operating_point={sensitivity: 0.9, specificity: 0.9}"],
        ["allowed: youden"],
    ),
    (["run=runs/mine", "views=median"], ["views=median", "allowed: mean, max."]),
    (["run=runs/mine", "calibrate=maybe"], ["calibrate=maybe", "true or false is needed"]),
    (["run=runs/mine", "resamples=10"], ["resamples=10", "100"]),
    (["run=runs/mine", "name=a/b", "by=[]"], ["name=a/b", "allowed: a name of a folder"]),
    (["run=runs/mine", "name=mine"], ["name=mine", "views, operating_point"]),
    (["run=runs/mine", "columns={label: truth}"], ["columns=", "is only allowed with table="]),
    (["table=preds.csv", "name=mine"], ["name=mine is only allowed with run="]),
    (["table=pred.csv"], ["no such file", "Did you mean 'preds.csv'?"]),
    (["table=preds.csv"], ["no column 'label'"]),
    (["run=runs/mine", "cited=no.yaml"], ["cited=no.yaml: no such file"]),
    (["run=runs/mine", "cited=bad.yaml"], ["cited=bad.yaml cannot be read"]),
    (["run=runs/mine", "cited=words.yaml"], ["must hold a list of published metrics"]),
    (["run=runs/mine", "cited=odd.yaml"], ["cited.0.metric=acuracy", "allowed: accuracy,"]),
]


@pytest.mark.parametrize(("arguments", "parts"), CASES, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_gives_a_one_paragraph_error(
    arguments: list[str],
    parts: list[str],
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_foreign_csv(TABLE, tmp_path)
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "odd.yaml").write_text("- {metric: acuracy, value: 0.9, n: 3, source: x}")
    (tmp_path / "words.yaml").write_text("just words")
    before = set(file_contents(tmp_path))
    result: CommandResult = run_evaluate(arguments, capsys)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")
    assert result.err.count("\n") == 1, result.err
    for part in parts:
        assert part in result.err
    assert set(file_contents(tmp_path)) - before <= {"runs/mine/decisions.json"}


def test_a_mistyped_evaluation_is_reported_before_training(
    phantom_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tiny_overrides(*phantom_overrides)
    for argument, part in (
        ("evaluation.by=[regoin]", "evaluation.by=regoin"),
        ("evaluation.views=max", "evaluation.views=max needs two classes; there are 6"),
        ("evaluation.operating_point=yuden", "evaluation.operating_point=yuden is not allowed"),
        ("evaluation.bye=[]", "Did you mean 'evaluation.by=[]'?"),
    ):
        result = run_train([*arguments, argument, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
        assert result.code == 1
        assert part in result.err
        assert not (tmp_path / "run").exists()


def test_help_and_typos_are_fast(tmp_path: Path) -> None:
    for arguments in (["--help"], ["rn=x"]):
        result = in_quick_process(["fracnet.evaluate", *arguments], tmp_path)
        assert ("never on test rows" in result.out) == (arguments == ["--help"])
    result = in_new_process(["fracnet.evaluate", "run=x", "-m"], tmp_path)
    assert (result.code, result.err) == (
        1,
        "fracnet: error: fracnet.evaluate has no -m: name one run.\n",
    )


def test_an_empty_current_folder_survives_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_evaluate(["run=nope"], capsys).code == 1
    assert tmp_path.is_dir()


def test_a_rule_for_a_threshold_needs_two_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = pd.concat([make_table((8, 9, 10), seed=i, split=s) for i, s in enumerate(SPLITS)])
    write_run(tmp_path / "run", table.assign(region=None), baseline=False)
    arguments = ["operating_point={sensitivity: 0.9}", "figures=false"]
    for of in ("run=run", "table=run/predictions.csv"):
        result = run_evaluate([of, *arguments], capsys)
        assert result.code == 1
        assert (
            "operating_point={sensitivity: 0.9} chooses a threshold for two classes" in result.err
        )
        assert "there are 3, and" in result.err
        assert run_evaluate([of, arguments[1]], capsys).code == 0
