"""`python -m fracnet.evaluate` after a training, on a run folder and on a csv."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from helpers.command import in_new_process, run_evaluate
from helpers.run_files import file_contents, two_class_table, write_foreign_csv, write_run
from helpers.tiny_overrides import TESTS, tiny_overrides
from scipy.stats import binomtest

TABLE = two_class_table()


@pytest.fixture(scope="module")
def trained(
    phantom_overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A short run with all figures, trained in an ASCII locale: its folder and its output."""
    folder = tmp_path_factory.mktemp("trained") / "l\u00e4uf"
    more = ["logger=none", "evaluation.figures=true", f"hydra.run.dir={folder}"]
    arguments = tiny_overrides(*phantom_overrides, *more, epochs=2)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = ascii_only | {"PYTHONPATH": str(TESTS), "PYTHONIOENCODING": ""}
    result = in_new_process(["fracnet.train", *arguments], folder.parent, **environment)
    assert result.code == 0, result.err
    assert not (folder / "report/index.html").read_text(encoding="utf-8").isascii()
    return folder, result.out


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path / "runs/mine", TABLE)


@pytest.mark.slow
def test_evaluating_a_trained_run_gives_identical_metrics(
    trained: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, printed = trained
    printed = printed.replace("l\\xe4uf", folder.name)  # what an ASCII locale cannot print
    before = file_contents(folder)
    assert {"metrics.json", "decisions.json", "baselines.csv", "fit.json"} < set(before)
    assert "figures/roc_test.svg" in before
    for name in before:
        if name.startswith("figures/") or name == "metrics.json":
            (folder / name).unlink()
    result = run_evaluate([f"run={folder}"], capsys)
    assert result.code == 0, result.err
    after = file_contents(folder)
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name]] == []
    figures, _, report = result.out.partition("\nReport  ")
    assert figures in printed, "training prints the same lines"
    assert report in printed, "after its heatmaps"
    assert figures.splitlines()[-1].strip().startswith("figures/")


def test_other_options_write_a_separate_folder(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["operating_point={sensitivity: 0.95}", "by=[region,view]", "figures=false"]
    result = run_evaluate(["run=runs/mine", *arguments], capsys)
    assert result.code == 0, result.err
    folder = run / "evaluations/operating_point-sensitivity-0.95_by-region-view"
    assert f"Evaluation folder: {folder}" in result.out
    assert "chosen on validation (sensitivity 0.95)" in result.out
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored["evaluation"]["operating_point"] == {"sensitivity": 0.95}
    assert not (run / "metrics.json").exists()
    assert run_evaluate(["run=runs/mine", *arguments, "name=mine"], capsys).code == 0
    assert json.loads((run / "evaluations/mine/metrics.json").read_text()) == stored


def test_evaluate_leaves_no_files_in_the_current_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(file_contents(tmp_path))
    assert run_evaluate(["run=runs/mine", "figures=false"], capsys).code == 0
    new = {name for name in file_contents(tmp_path) if name not in before}
    assert all(name.startswith("runs/mine/") for name in new)
    assert "runs/mine/metrics.json" in new


ARGUMENTS = ["table=preds.csv", "labels={0: normal, 1: abnormal}", "figures=false"]
COLUMNS = "columns={path: image, label: truth, patient: person, prob_abnormal: score}"


def test_a_foreign_csv_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_foreign_csv(TABLE, tmp_path)
    result = run_evaluate([*ARGUMENTS, COLUMNS], capsys)
    assert result.code == 0, result.err
    assert "abnormal above 0.5, without validation to choose a threshold" in result.out
    assert "intervals by patient" in result.out
    assert "The table has no column 'split'" in result.out
    stored = json.loads((tmp_path / "preds_evaluation/metrics.json").read_text())
    assert stored["test"]["n"] == (TABLE["split"] == "test").sum()
    assert stored["table"] == {
        "file": "preds.csv",
        "sha256": hashlib.sha256((tmp_path / "preds.csv").read_bytes()).hexdigest(),
        "columns": {
            "path": "image",
            "label": "truth",
            "patient": "person",
            "prob_abnormal": "score",
        },
        "labels": {"0": "normal", "1": "abnormal"},
    }
    assert run_evaluate([*ARGUMENTS, COLUMNS, "out=other/x"], capsys).code == 0
    assert json.loads((tmp_path / "other/x/metrics.json").read_text()) == stored


def test_a_table_replaces_no_files_of_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file_contents(tmp_path)
    write_foreign_csv(TABLE, tmp_path)
    result = run_evaluate([*ARGUMENTS, COLUMNS, "out=runs/mine"], capsys)
    assert result.code == 1
    assert "runs/mine holds config.yaml, as a run does; name another folder" in result.err
    after = file_contents(tmp_path)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("kind", ["an evaluation", "a sweep"])
def test_a_table_replaces_no_files_of_other_results(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    write_foreign_csv(TABLE, tmp_path)
    out = run / "evaluations/mine"
    if kind == "a sweep":
        out = tmp_path / "sweep"
        out.mkdir()
        (out / "plan.json").write_text("{}")
    else:
        options = ["run=runs/mine", "by=[region]", "figures=false", "name=mine"]
        assert run_evaluate(options, capsys).code == 0
    before = file_contents(tmp_path)
    result = run_evaluate([*ARGUMENTS, COLUMNS, f"out={out}"], capsys)
    assert result.code == 1
    assert f", as {kind} does; name another folder" in result.err
    assert file_contents(tmp_path) == before


def test_a_table_is_evaluated_again_into_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_foreign_csv(TABLE, tmp_path)
    for by in ("[region]", "[]"):
        result = run_evaluate([*ARGUMENTS, COLUMNS, f"by={by}", "out=x"], capsys)
        assert result.code == 0, result.err
    assert json.loads((tmp_path / "x/metrics.json").read_text())["evaluation"]["by"] == []


def test_the_table_of_a_run_gives_the_metrics_of_the_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["by=[]", "resamples=100", "figures=false"]
    assert run_evaluate(["run=runs/mine", "figures=false"], capsys).code == 0
    assert run_evaluate(["table=runs/mine/predictions.csv", "out=x", *same], capsys).code == 0
    of_run = json.loads((run / "metrics.json").read_text())
    of_table = json.loads((tmp_path / "x/metrics.json").read_text())
    for key in ("val", "test", "test_by_level_and_region", "decisions", "test_strata"):
        assert of_table[key] == of_run[key]


def test_published_metrics_are_compared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [
        {"metric": "accuracy", "value": 0.89, "n": 83, "source": "a report"},
        {"metric": "kappa", "level": "study", "value": 0.705, "n": 207, "source": "MURA"},
        {"metric": "sensitivity", "level": "study", "value": 0.815, "n": None, "source": "MURA"},
    ]
    (tmp_path / "cited.yaml").write_text(yaml.safe_dump({"cited": figures}))
    result = run_evaluate(["run=runs/mine", "cited=cited.yaml", "figures=false"], capsys)
    assert result.code == 0, result.err
    flat = " ".join(result.out.split())
    limits = binomtest(74, 83).proportion_ci(method="wilson")
    wilson = f"95 % CI {limits.low:.3f}-{limits.high:.3f} by Wilson, n = 83"
    assert f"Published accuracy: 0.890 ({wilson}; a report)" in flat
    assert "Published kappa by study: 0.705 (no interval: not a proportion; n = 207" in flat
    stored = json.loads((run / "metrics.json").read_text())
    row = next(
        row
        for row in stored["test_by_level_and_region"]
        if (row["level"], row["region"]) == ("study", "overall")
    )
    assert f"This run, on mura_like: {row['kappa']['value']:.3f}" in flat
    assert f"{row['sensitivity']['value']:.3f}" in flat
    assert "Run folder" in result.out, "it changes no option, so the folder is the run's own"
