"""What training does with an audit: its verdict, its fingerprint, a split without copies."""

import json
from pathlib import Path

import pytest
from helpers.audited import audit_here, folder_words, read_picture, write_picture, write_set
from helpers.command import Told, train_here
from helpers.tiny_words import tiny_words


@pytest.fixture
def words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """Arguments of a training on an audited set with a copy of a train image in test."""
    monkeypatch.setattr("fracnet.data_audit.shortcuts.TREES", {"all": 10, "family": 3})
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    root = write_set(tmp_path / "set")
    image = read_picture(root / "train/normal/train00.png")
    write_picture(root / "test/normal/copy.png", image[::-1])
    assert audit_here(folder_words(root, tmp_path / "out"), capsys).code == 0
    quick = ["evaluation.figures=false", "evaluation.resamples=100"]
    return tiny_words(*folder_words(root, tmp_path)[:-1], *quick, batch=8)


def trained(words: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    result = train_here([*words, f"hydra.run.dir={run}"], capsys)
    assert result.code == 0, result.err
    return result


def test_a_run_prints_the_verdict_and_stores_the_fingerprint(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = trained(words, tmp_path / "run", capsys)
    audit = json.loads((tmp_path / "out/audit.json").read_text())
    unwrapped = " ".join(result.out.split())
    assert f"audit leak: {audit['line']}" in unwrapped
    assert "1 of 9 test images (11.1 %) has a verified copy" in unwrapped
    stored = json.loads((tmp_path / "run/provenance.json").read_text())
    assert stored["data_fingerprint"] == audit["fingerprint"]["hash"]
    assert stored["data"]["audit"] == {"severity": "leak", "verdict": audit["line"]}
    for key in ("counts", "width", "file_size", "mean"):
        assert stored["data"][key] == audit["fingerprint"][key], key


def test_other_data_get_no_verdict(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set/train/normal/train00.png").unlink()
    result = trained(words, tmp_path / "run", capsys)
    assert "\naudit " not in result.out
    assert json.loads((tmp_path / "run/provenance.json").read_text())["data"]["audit"] is None


def test_the_deduplicated_split_leaves_the_copied_image_out_of_train(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = trained([*words, "data.split=deduplicated"], tmp_path / "run", capsys)
    unwrapped = " ".join(result.out.split())
    assert "34 images (19 train, 6 val, 9 test)" in unwrapped
    assert "left out: 1 (verified copy in a later split)" in unwrapped
    assert "of the official split, leak:" in unwrapped
    stored = json.loads((tmp_path / "run/provenance.json").read_text())
    audit = json.loads((tmp_path / "out/audit.json").read_text())
    assert stored["data_fingerprint"] != stored["data"]["dataset"] == audit["fingerprint"]["hash"]


def test_folds_of_a_set_without_patients_are_dealt_by_copies(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folds = [*words, "data.folds=3", "data.fold=1"]
    rejected = train_here([*folds, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert rejected.code == 1
    assert "data.split=deduplicated" in rejected.err
    result = trained([*folds, "data.split=deduplicated"], tmp_path / "run", capsys)
    assert "Patients are unknown" in " ".join(result.out.split())


def test_without_an_audit_the_command_is_named(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stored in (tmp_path / "cache/audits").iterdir():
        stored.unlink()
    result = train_here([*words, "data.split=deduplicated"], capsys)
    assert result.code == 1
    assert "python -m fracnet.audit data=folder" in result.err
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
