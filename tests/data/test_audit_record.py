"""Audits are kept by fingerprint, found again, and do not outlive their data."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import tiny_manifest

from fracnet.data import audit_record
from fracnet.data.fingerprint import data_fingerprint, files_digest, fingerprint
from fracnet.data.image_features import FEATURE_NAMES
from fracnet.data.manifest import Manifest
from fracnet.utils.errors import UserError


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    return tiny_manifest(tmp_path / "set")


def keep(manifest: Manifest, **changes: object) -> Path:
    content = {
        "format": audit_record.FORMAT,
        "severity": "leak",
        "line": "Too good.",
        "pairs": [{"a": "train/0.png", "b": "test/0.png", "kind": "copy"}],
        "fingerprint": {"files": files_digest(manifest)},
        "folder": "audits/x",
    } | changes
    path = audit_record.place(data_fingerprint(manifest))
    audit_record.write_whole(path, json.dumps(content))
    return path


def test_is_found_by_its_data(manifest: Manifest) -> None:
    assert audit_record.find(manifest) is None
    keep(manifest)
    found = audit_record.find(manifest)
    assert found == audit_record.Audit(
        "leak", "Too good.", (("train/0.png", "test/0.png"),), "audits/x"
    )
    assert audit_record.required(manifest, "it") == found


def test_a_file_that_was_exchanged_makes_it_stale(
    manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    keep(manifest)
    path = manifest.root / manifest.table["path"][3]
    path.write_bytes(path.read_bytes() + b"x")
    with caplog.at_level(logging.WARNING):
        assert audit_record.find(manifest) is None
    assert "have changed since it was audited" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "\x00"])
def test_a_damaged_one_does_not_count(manifest: Manifest, text: str) -> None:
    keep(manifest).write_text(text)
    assert audit_record.find(manifest) is None


def test_where_there_is_none_the_command_is_named(manifest: Manifest) -> None:
    with pytest.raises(UserError, match=r"have not been audited. Run the command first"):
        audit_record.required(manifest, "the command")


def test_fingerprint_counts_and_sorts_what_can_be_read(manifest: Manifest) -> None:
    features = np.tile(np.arange(len(manifest.table), dtype=float)[:, None], len(FEATURE_NAMES))
    features = np.repeat(features[:, :1], len(FEATURE_NAMES), axis=1)
    features[0] = np.nan
    found = fingerprint(manifest, features)
    assert (found["images"], found["unreadable"]) == (35, 1)
    assert found["counts"]["train"] == {"elbow": 6, "forearm": 7, "wrist": 7}
    assert found["width"][0] == 1
    assert found["width"][-1] == 35
    assert found["hash"] == data_fingerprint(manifest)
    assert fingerprint(manifest, np.full_like(features, np.nan))["mean"] is None


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep/a.json"
    audit_record.write_whole(path, "one")
    assert path.read_text() == "one"
    assert path.stat().st_mode & 0o444 == 0o444, "others may read it"

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fracnet.data.audit_record.os.fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        audit_record.write_whole(path, "two")
    assert path.read_text() == "one"
    assert [other.name for other in path.parent.iterdir()] == ["a.json"]
