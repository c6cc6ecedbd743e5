"""What training does with an audit: its verdict, its fingerprint, a split without copies."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.audited import (
    folder_overrides,
    read_picture,
    run_audit_command,
    write_picture,
    write_set,
)
from helpers.command import CommandResult, run_train
from helpers.predicting import Silent
from helpers.tiny_overrides import tiny_overrides

pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an audited dataset, with a copy of a train image in test; and the cache."""
    folder = tmp_path_factory.mktemp("audited")
    root = write_set(folder / "set")
    image = read_picture(root / "train/normal/train00.png")
    write_picture(root / "test/normal/copy.png", image[::-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fracnet.data_audit.shortcuts.TREES", {"all": 10, "family": 3})
        patch.setenv("FRACNET_CACHE", str(folder / "cache"))
        result = run_audit_command(folder_overrides(root, folder / "out"), Silent())  # type: ignore[arg-type]
    assert result.code == 0
    return folder


@pytest.fixture
def overrides(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a training on it, with a cache of its own that holds the audit."""
    shutil.copytree(audited / "cache/audits", tmp_path / "cache/audits")
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    quick = ["evaluation.figures=false", "evaluation.resamples=100"]
    return tiny_overrides(*folder_overrides(audited / "set", tmp_path)[:-1], *quick, batch=8)


def trained(overrides: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> CommandResult:
    result = run_train([*overrides, f"hydra.run.dir={run}"], capsys)
    assert result.code == 0, result.err
    return result


def test_a_run_prints_the_verdict_and_stores_the_fingerprint(
    audited: Path, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = trained(overrides, tmp_path / "run", capsys)
    audit = json.loads((audited / "out/audit.json").read_text())
    unwrapped = " ".join(result.out.split())
    assert f"audit leak: {audit['line']}" in unwrapped
    assert "1 of 9 test images (11.1 %) has a verified copy" in unwrapped
    stored = json.loads((tmp_path / "run/provenance.json").read_text())
    assert stored["data_fingerprint"] == audit["fingerprint"]["hash"]
    assert stored["data"]["audit"] == {"severity": "leak", "verdict": audit["line"]}
    for key in ("counts", "width", "file_size", "mean"):
        assert stored["data"][key] == audit["fingerprint"][key], key


@pytest.mark.usefixtures("without_report")
def test_other_data_get_no_verdict(
    audited: Path, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(audited / "set", tmp_path / "set")
    (other / "train/normal/train00.png").unlink()
    result = trained([*overrides, f"data.root={other}"], tmp_path / "run", capsys)
    assert "\naudit " not in result.out
    assert json.loads((tmp_path / "run/provenance.json").read_text())["data"]["audit"] is None


@pytest.mark.usefixtures("without_report")
def test_the_deduplicated_split_leaves_the_copied_image_out_of_train(
    audited: Path, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = trained([*overrides, "data.split=deduplicated"], tmp_path / "run", capsys)
    unwrapped = " ".join(result.out.split())
    assert "34 images (19 train, 6 val, 9 test)" in unwrapped
    assert "left out: 1 (verified copy in a later split)" in unwrapped
    assert "of the official split, leak:" in unwrapped
    stored = json.loads((tmp_path / "run/provenance.json").read_text())
    audit = json.loads((audited / "out/audit.json").read_text())
    assert stored["data_fingerprint"] != stored["data"]["dataset"] == audit["fingerprint"]["hash"]


@pytest.mark.usefixtures("without_report")
def test_folds_without_patients_keep_copies_together(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = [*overrides, "data.folds=3", "data.fold=1"]
    rejected = run_train([*folds, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert rejected.code == 1
    assert "data.split=deduplicated" in rejected.err
    result = trained([*folds, "data.split=deduplicated"], tmp_path / "run", capsys)
    assert "Patients are unknown" in " ".join(result.out.split())


def test_without_an_audit_the_error_names_the_audit_command(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stored in (tmp_path / "cache/audits").iterdir():
        stored.unlink()
    result = run_train([*overrides, "data.split=deduplicated"], capsys)
    assert result.code == 1
    assert "python -m fracnet.audit data=folder" in result.err
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
