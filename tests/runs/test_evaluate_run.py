"""A run folder judged again: same figures, frozen decisions, other options beside."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.run_files import NOTE, files, full, two_class_table, write_run

from fracnet.config.schema import Evaluation
from fracnet.data.manifest import write_table
from fracnet.evaluation.decisions import decide, fingerprint
from fracnet.runs.evaluate_run import judge, judge_table
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.errors import UserError

TABLE = two_class_table()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(write_run(tmp_path / "run", TABLE))


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def relabeled(table: pd.DataFrame, split: str, seed: int = 0) -> pd.DataFrame:
    """Labels of one split's studies drawn anew."""
    table = table.copy()
    rows = table["split"] == split
    studies = sorted(table.loc[rows, "study"].unique())
    drawn = np.random.default_rng(seed).choice(["normal", "abnormal"], len(studies))
    table.loc[rows, "label"] = table.loc[rows, "study"].map(dict(zip(studies, drawn, strict=True)))
    return table


def test_judging_again_changes_no_byte(run: RunFolder) -> None:
    found = judge(run)
    before = files(run.path)
    again = judge(run)
    assert files(run.path) == before
    assert again.assessment.to_dict() == found.assessment.to_dict()
    stored = content(run.metrics)
    assert list(stored)[:4] == ["objective", "selected", "val", "test"]
    assert stored["selected"] == {"epoch": 2}
    assert stored["objective"]["value"] == stored["val"]["metrics"]["macro_auc"]["value"]
    assert stored["decisions"] == content(run.decisions)
    assert found.told.notes == (NOTE,)


@pytest.mark.parametrize("seed", range(3))
def test_changing_test_labels_changes_no_choice(run: RunFolder, seed: int, tmp_path: Path) -> None:
    judge(run)
    other = relabeled(TABLE, "test", seed)
    assert (other["label"] != TABLE["label"]).sum() > 10
    changed = RunFolder(write_run(tmp_path / "other", other))
    judge(changed)
    assert changed.decisions.read_bytes() == run.decisions.read_bytes()
    one, two = content(run.metrics), content(changed.metrics)
    for key in ("objective", "selected", "val", "decisions"):
        assert one[key] == two[key]
    assert one["test"] != two["test"], "which the labels do change"


def test_nor_do_other_test_rows_or_none(run: RunFolder, tmp_path: Path) -> None:
    judge(run)
    val, test = (TABLE[TABLE["split"] == split] for split in ("val", "test"))
    scores = {c: test[c].to_numpy()[::-1] for c in test if c.startswith(("prob_", "logit_"))}
    for i, rows in enumerate((test[: len(test) // 2], test.assign(**scores), test[:0])):
        changed = write_run(tmp_path / str(i), pd.concat([rows, val]), baseline=False)
        judge(RunFolder(changed))
        assert (changed / "decisions.json").read_bytes() == run.decisions.read_bytes()


def test_changed_validation_rows_are_refused(run: RunFolder) -> None:
    judge(run)
    before = files(run.path)
    write_table(full(relabeled(TABLE, "val")), run.predictions)
    with pytest.raises(UserError, match="other rows of validation"):
        judge(run)
    write_table(full(TABLE), run.predictions)
    judge(run)
    assert files(run.path) == before


def test_a_threshold_changed_by_hand_is_refused(run: RunFolder) -> None:
    judge(run)
    stored = content(run.decisions)
    stored["operating_point"]["study"]["threshold"] = 0.123
    run.decisions.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="changed since it was written"):
        judge(run)
    run.decisions.write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        judge(run)


def test_a_rule_changed_in_the_config_is_refused(run: RunFolder) -> None:
    judge(run)
    config = yaml.safe_load(run.config.read_text())
    config["evaluation"]["operating_point"] = {"sensitivity": 0.99}
    run.config.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"rule=youden, .* says rule=\{sensitivity: 0.99\}"):
        judge(run)


def test_another_rule_gets_a_folder_of_its_own(run: RunFolder) -> None:
    judge(run)
    before = files(run.path)
    found = judge(run, {"operating_point": {"sensitivity": 0.95}}, "sensitive")
    assert found.folder == run.evaluations / "sensitive"
    after = files(run.path)
    assert {name: after[name] for name in before} == before
    own = content(found.folder / "decisions.json")
    assert own["rule"] == {"sensitivity": 0.95}
    assert own["operating_point"]["image"]["sensitivity"] >= 0.95
    assert own["validation"]["sha256"] == fingerprint(TABLE[TABLE["split"] == "val"])
    assert content(found.folder / "metrics.json")["decisions"] == own


def test_other_groups_leave_the_decisions_as_they_are(run: RunFolder) -> None:
    judge(run)
    found = judge(run, {"by": ["view"]}, "by-view")
    assert not (found.folder / "decisions.json").exists()
    stored = content(found.folder / "metrics.json")
    assert stored["decisions"] == content(run.decisions)
    assert {row["by"] for row in stored["test_strata"]} == {"overall", "view"}
    assert stored["test"] == content(run.metrics)["test"]


def test_a_run_of_before_there_were_decisions_is_judged_too(run: RunFolder) -> None:
    for path in (run.baselines, run.fit):
        path.unlink()
    run.config.write_text("objective: loss\n")
    run.metrics.write_text(json.dumps({"selected": {"epoch": 7}}))
    judge(run)
    assert content(run.metrics)["selected"] == {"epoch": 7}
    assert "baselines_on_test" not in content(run.metrics)
    val = content(run.metrics)["val"]["metrics"]
    assert content(run.metrics)["objective"]["value"] == pytest.approx(val["log_loss"]["value"])
    assert run.decisions.exists()


def test_published_figures_of_the_config_are_kept_and_others_only_shown(tmp_path: Path) -> None:
    cited = {"metric": "kappa", "level": "study", "value": 0.705, "n": 207, "source": "MURA"}
    run = RunFolder(write_run(tmp_path / "run", TABLE, cited=[cited]))
    found = judge(run)
    ((stored),) = content(run.metrics)["cited"]
    assert (
        "Published kappa by study: 0.705 (no interval: it is no proportion; n = 207"
        in (stored["published"])
    )
    assert "on mura_like: " in stored["here"]
    again = judge(run, beside=found.told.cited)
    assert len(again.cited) == 2
    assert len(content(run.metrics)["cited"]) == 1


def test_folders_without_predictions_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "run_1").mkdir()
    (tmp_path / "run_1/provenance.json").write_text(json.dumps({"status": "interrupted"}))
    for job in range(2):
        (tmp_path / f"sweep/{job}").mkdir(parents=True)
        (tmp_path / f"sweep/{job}/job.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for name, part in (
        ("run_1", "the run is 'interrupted'"),
        ("run_2", r"no such folder. Did you mean 'run_1'\?"),
        ("sweep", "folder of a sweep; name one of its jobs, 0, 1, as in run=.*sweep/0"),
        ("empty", "is no run folder"),
    ):
        with pytest.raises(UserError, match=part):
            judge(RunFolder(tmp_path / name))


@pytest.mark.parametrize("name", ["config.yaml", "fit.json"])
def test_a_broken_file_is_named(run: RunFolder, name: str) -> None:
    for text in ("{", "[1]"):
        (run.path / name).write_text(text)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            judge(run)


def test_a_leaky_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    leaky = TABLE.assign(patient=TABLE["patient"].replace("041", "001"))
    run = RunFolder(write_run(tmp_path / "run", leaky))
    before = files(run.path)
    for judged in (
        lambda: judge(run),
        lambda: judge_table(leaky, "preds.csv", [], Evaluation(resamples=100), tmp_path / "a"),
    ):
        with pytest.raises(UserError, match=r"in val too.*patient 001 \(val"):
            judged()
    assert files(run.path) == before
    assert not (tmp_path / "a").exists()


def test_anyones_table_gets_decisions_where_it_has_validation_rows(tmp_path: Path) -> None:
    options = Evaluation(resamples=100)
    judge_table(TABLE, "preds.csv", ["told"], options, tmp_path / "a")
    val = TABLE[TABLE["split"] == "val"]
    assert content(tmp_path / "a/decisions.json") == decide(val, options)
    judge_table(TABLE[TABLE["split"] == "test"], "preds.csv", [], options, tmp_path / "a")
    assert not (tmp_path / "a/decisions.json").exists(), "those of other rows do not stay"
    assert content(tmp_path / "a/metrics.json")["decisions"] is None
