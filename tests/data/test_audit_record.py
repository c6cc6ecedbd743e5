"""Audits are stored by fingerprint and ignored once the data change; data summaries."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import tiny_manifest

from fracnet.data import audit_record
from fracnet.data.fingerprint import data_fingerprint, describe_data, files_digest
from fracnet.data.image_features import SHORTCUT_NAMES
from fracnet.data.manifest import Manifest
from fracnet.utils.errors import UserError
from fracnet.utils.files import write_atomically


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    return tiny_manifest(tmp_path / "set")


def store_audit(manifest: Manifest, **changes: object) -> Path:
    content = {
        "format": audit_record.FORMAT,
        "severity": "leak",
        "line": "Too good.",
        "pairs": [{"a": "train/0.png", "b": "test/0.png", "kind": "copy"}],
        "fingerprint": {"files": files_digest(manifest)},
        "folder": "audits/x",
    } | changes
    path = audit_record.audit_path(data_fingerprint(manifest))
    write_atomically(path, json.dumps(content))
    return path


def test_an_audit_is_found_by_its_data(manifest: Manifest) -> None:
    assert audit_record.find_audit(manifest) is None
    store_audit(manifest)
    result = audit_record.find_audit(manifest)
    assert result == audit_record.AuditRecord(
        "leak", "Too good.", (("train/0.png", "test/0.png"),), "audits/x"
    )
    assert audit_record.require_audit(manifest, "the command") == result


def test_a_replaced_file_makes_the_audit_stale(
    manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    store_audit(manifest)
    path = manifest.root / manifest.table["path"][3]
    path.write_bytes(path.read_bytes() + b"x")
    with caplog.at_level(logging.WARNING):
        assert audit_record.find_audit(manifest) is None
    assert "changed since its audit" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "\x00"])
def test_a_damaged_audit_is_ignored(manifest: Manifest, text: str) -> None:
    store_audit(manifest).write_text(text)
    assert audit_record.find_audit(manifest) is None


def test_the_error_without_an_audit_names_the_command(manifest: Manifest) -> None:
    with pytest.raises(UserError, match=r"have not been audited. Run the command first"):
        audit_record.require_audit(manifest, "the command")


def test_a_data_summary_counts_and_measures_readable_images(manifest: Manifest) -> None:
    features = np.tile(np.arange(len(manifest.table), dtype=float)[:, None], len(SHORTCUT_NAMES))
    features = np.repeat(features[:, :1], len(SHORTCUT_NAMES), axis=1)
    features[0] = np.nan
    result = describe_data(manifest, features)
    assert (result["images"], result["unreadable"]) == (35, 1)
    assert result["counts"]["train"] == {"elbow": 6, "forearm": 7, "wrist": 7}
    assert result["width"][0] == 1
    assert result["width"][-1] == 35
    assert result["hash"] == data_fingerprint(manifest)
    assert describe_data(manifest, np.full_like(features, np.nan))["mean"] is None
