"""A run folder is evaluated again: same metrics, same decisions; other options get a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.run_files import (
    NOTE,
    file_contents,
    two_class_table,
    with_annotation_columns,
    write_run,
)

from fracnet.config.commands import EvaluateCommand
from fracnet.config.schema import Evaluation
from fracnet.data.manifest import write_table
from fracnet.evaluation.decisions import decide, rows_digest
from fracnet.evaluation.predictions import Predictions
from fracnet.runs.evaluate_run import evaluate_run, evaluate_table
from fracnet.runs.find_runs import find_two_or_more
from fracnet.runs.run_folder import RunFolder, predictions_hashes, with_format
from fracnet.utils.errors import UserError

TABLE = two_class_table()
VAL = Predictions(TABLE).split("val")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(write_run(tmp_path / "run", TABLE))


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def relabeled(table: pd.DataFrame, split: str, seed: int = 0) -> pd.DataFrame:
    """The table with random labels for the studies of one split."""
    table = table.copy()
    rows = table["split"] == split
    studies = sorted(table.loc[rows, "study"].unique())
    labels = np.random.default_rng(seed).choice(["normal", "abnormal"], len(studies))
    table.loc[rows, "label"] = table.loc[rows, "study"].map(dict(zip(studies, labels, strict=True)))
    return table


def test_evaluating_again_changes_no_byte(run: RunFolder) -> None:
    evaluation = evaluate_run(run)
    before = file_contents(run.path)
    repeated = evaluate_run(run)
    assert file_contents(run.path) == before
    assert repeated.assessment.to_dict() == evaluation.assessment.to_dict()
    stored = content(run.metrics)
    assert list(stored)[:5] == ["fracnet_format", "objective", "selected", "val", "test"]
    assert stored["selected"] == {"epoch": 2}
    assert stored["objective"]["value"] == stored["val"]["metrics"]["macro_auc"]["value"]
    assert stored["decisions"] == content(run.decisions)
    assert evaluation.metadata.notes == (NOTE,)


@pytest.mark.parametrize("seed", range(3))
def test_changing_test_labels_changes_no_choice(run: RunFolder, seed: int, tmp_path: Path) -> None:
    evaluate_run(run)
    other = relabeled(TABLE, "test", seed)
    assert (other["label"] != TABLE["label"]).sum() > 10
    changed = RunFolder(write_run(tmp_path / "other", other))
    evaluate_run(changed)
    assert changed.decisions.read_bytes() == run.decisions.read_bytes()
    original, relabeled_metrics = content(run.metrics), content(changed.metrics)
    for key in ("objective", "selected", "val", "decisions"):
        assert original[key] == relabeled_metrics[key]
    assert original["test"] != relabeled_metrics["test"], "the labels do change this"


def test_other_test_rows_or_none_change_no_choice(run: RunFolder, tmp_path: Path) -> None:
    evaluate_run(run)
    val, test = (TABLE[TABLE["split"] == split] for split in ("val", "test"))
    scores = {c: test[c].to_numpy()[::-1] for c in test if c.startswith(("prob_", "logit_"))}
    for i, rows in enumerate((test[: len(test) // 2], test.assign(**scores), test[:0])):
        changed = write_run(tmp_path / str(i), pd.concat([rows, val]), baseline=False)
        evaluate_run(RunFolder(changed))
        assert (changed / "decisions.json").read_bytes() == run.decisions.read_bytes()


def test_changed_validation_rows_are_refused(run: RunFolder) -> None:
    evaluate_run(run)
    before = file_contents(run.path)
    write_table(with_annotation_columns(relabeled(TABLE, "val")), run.predictions)
    with pytest.raises(UserError, match="other validation rows"):
        evaluate_run(run)
    write_table(with_annotation_columns(TABLE), run.predictions)
    evaluate_run(run)
    assert file_contents(run.path) == before


@pytest.mark.parametrize("file", ["predictions.csv", "baselines.csv"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_predictions_changed_since_the_run_wrote_them_are_refused(
    run: RunFolder, file: str, split: str
) -> None:
    stored = content(run.provenance) | {"sha256": predictions_hashes(run)}
    run.provenance.write_text(json.dumps(stored))
    evaluate_run(run)
    run.decisions.unlink()  # which must not let changed rows choose again
    path = run.path / file
    path.write_text(path.read_text().replace(",abnormal,", ",normal,", 1))
    if split == "test":  # baselines have no other rows
        path.write_text(path.read_text()[:-1] + "0\n")
    before = file_contents(run.path)
    with pytest.raises(UserError, match=rf"run/{file} was changed after the run wrote it"):
        evaluate_run(run)
    if file == "predictions.csv":
        with pytest.raises(UserError, match=r"Restore the file.*fracnet\.evaluate table=<csv>"):
            find_two_or_more([str(run.path), str(run.path)], "a comparison")
    assert file_contents(run.path) == before


def test_a_threshold_changed_by_hand_is_refused(run: RunFolder) -> None:
    evaluate_run(run)
    stored = content(run.decisions)
    stored["operating_point"]["study"]["threshold"] = 0.123
    run.decisions.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="changed after it was written"):
        evaluate_run(run)
    run.decisions.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        evaluate_run(run)


def test_a_rule_changed_in_the_config_is_refused(run: RunFolder) -> None:
    evaluate_run(run)
    config = yaml.safe_load(run.config.read_text())
    config["evaluation"]["operating_point"] = {"sensitivity": 0.99}
    run.config.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"rule=youden, .* has rule=\{sensitivity: 0.99\}"):
        evaluate_run(run)


def test_another_rule_gets_its_own_folder(run: RunFolder) -> None:
    evaluate_run(run)
    before = file_contents(run.path)
    evaluation = evaluate_run(run, {"operating_point": {"sensitivity": 0.95}}, "sensitive")
    assert evaluation.folder.path == run.evaluations / "sensitive"
    after = file_contents(run.path)
    assert {name: after[name] for name in before} == before
    decisions = content(evaluation.folder.decisions)
    assert decisions["rule"] == {"sensitivity": 0.95}
    assert decisions["operating_point"]["image"]["sensitivity"] >= 0.95
    assert decisions["validation"]["sha256"] == rows_digest(VAL)
    assert content(evaluation.folder.metrics)["decisions"] == decisions


def test_other_groups_leave_the_decisions_as_they_are(run: RunFolder) -> None:
    evaluate_run(run)
    evaluation = evaluate_run(run, {"by": ["view"]}, "by-view")
    assert not evaluation.folder.decisions.exists()
    stored = content(evaluation.folder.metrics)
    assert stored["decisions"] == content(run.decisions)
    assert {row["by"] for row in stored["test_strata"]} == {"overall", "view"}
    assert stored["test"] == content(run.metrics)["test"]


def test_baselines_decisions_and_fit_are_optional(run: RunFolder) -> None:
    for path in (run.baselines, run.fit):
        path.unlink()
    run.config.write_text("objective: loss\n")
    evaluate_run(run)
    assert "selected" not in content(run.metrics)
    assert "baselines_on_test" not in content(run.metrics)
    val = content(run.metrics)["val"]["metrics"]
    assert content(run.metrics)["objective"]["value"] == pytest.approx(val["log_loss"]["value"])
    assert run.decisions.exists()


def test_published_metrics_of_the_config_are_stored_and_others_only_returned(
    tmp_path: Path,
) -> None:
    cited = {"metric": "kappa", "level": "study", "value": 0.705, "n": 207, "source": "MURA"}
    run = RunFolder(write_run(tmp_path / "run", TABLE, cited=[cited]))
    evaluation = evaluate_run(run)
    ((stored),) = content(run.metrics)["cited"]
    assert (
        "Published kappa by study: 0.705 (no interval: not a proportion; n = 207"
        in (stored["published"])
    )
    assert "on mura_like: " in stored["ours"]
    repeated = evaluate_run(run, cited=evaluation.metadata.cited)
    assert len(repeated.cited) == 2
    assert len(content(run.metrics)["cited"]) == 1


def test_each_kind_of_folder_without_predictions_has_its_own_message(tmp_path: Path) -> None:
    (tmp_path / "run_1").mkdir()
    (tmp_path / "run_1/provenance.json").write_text(
        json.dumps(with_format({"status": "interrupted"}))
    )
    for job in range(2):
        (tmp_path / f"sweep/{job}").mkdir(parents=True)
        (tmp_path / f"sweep/{job}/job.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for name, part in (
        ("run_1", "the run has status 'interrupted'"),
        ("run_2", r"no such folder. Did you mean 'run_1'\?"),
        ("sweep", r"is a sweep folder; name one of its jobs \(0, 1\), e.g. run=.*sweep/0"),
        ("empty", "is not a run folder"),
    ):
        with pytest.raises(UserError, match=part):
            evaluate_run(RunFolder.open(tmp_path / name))


@pytest.mark.parametrize("name", ["config.yaml", "fit.json"])
def test_a_broken_file_is_named(run: RunFolder, name: str) -> None:
    for text in ("{", "[1]"):
        (run.path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            evaluate_run(run)


def test_a_leaky_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    leaky = TABLE.assign(patient=TABLE["patient"].replace("041", "001"))
    run = RunFolder(write_run(tmp_path / "run", leaky))
    before = file_contents(run.path)
    with pytest.raises(UserError, match=r"also in val .*patient 001 \(val"):
        evaluate_run(run)
    assert file_contents(run.path) == before


def test_a_foreign_table_gets_decisions_if_it_has_validation_rows(tmp_path: Path) -> None:
    table, test = tmp_path / "preds.csv", tmp_path / "test.csv"
    TABLE.to_csv(table, index=False)
    TABLE[TABLE["split"] == "test"].to_csv(test, index=False)
    unset = dict.fromkeys(EvaluateCommand.model_fields)
    command = EvaluateCommand.model_construct(**unset | {"resamples": 100})
    evaluate_table(table, command, tmp_path / "a")
    assert content(tmp_path / "a/decisions.json") == decide(VAL, Evaluation(resamples=100))
    evaluate_table(test, command, tmp_path / "a")
    assert not (tmp_path / "a/decisions.json").exists(), "decisions from other rows are removed"
    assert content(tmp_path / "a/metrics.json")["decisions"] is None
