"""Training without copies across splits, and folds that keep copies together."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.patients import PatientSource
from helpers.tiny import tiny_manifest
from helpers.tiny_data import tiny_data

from fracnet.data import audit_record
from fracnet.data.fingerprint import data_fingerprint, files_digest
from fracnet.data.manifest import Manifest
from fracnet.data.split_file import deduplicated, folded, joined_groups
from fracnet.utils.errors import UserError


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path / "set")


def paths(manifest: Manifest) -> set[str]:
    return set(manifest.table["path"])


def test_the_earlier_split_gives_its_copies_up(manifest: Manifest) -> None:
    pairs = [
        ("train/0.png", "test/0.png"),
        ("train/1.png", "val/1.png"),
        ("val/2.png", "test/2.png"),
        ("train/3.png", "train/4.png"),
    ]
    found = deduplicated(manifest, pairs)
    assert paths(manifest) - paths(found) == {"train/0.png", "train/1.png", "val/2.png"}
    excluded = found.excluded[found.excluded["reason"].str.contains("verified copy")]
    assert dict(zip(excluded["split"], excluded["n"], strict=True)) == {"train": 2, "val": 1}
    assert "3 images" in found.notes[-1]
    assert list(found.table.index) == list(range(len(found.table)))


def test_copies_of_copies_go_too(manifest: Manifest) -> None:
    pairs = [("train/0.png", "train/1.png"), ("train/1.png", "test/0.png")]
    assert paths(manifest) - paths(deduplicated(manifest, pairs)) == {"train/0.png", "train/1.png"}


def test_where_folds_will_be_dealt_train_and_val_are_one(manifest: Manifest) -> None:
    pairs = [("train/0.png", "val/0.png"), ("train/1.png", "test/1.png")]
    assert paths(manifest) - paths(deduplicated(manifest, pairs, pooled=True)) == {"train/1.png"}


def test_paths_that_the_data_lack_do_no_harm(manifest: Manifest) -> None:
    assert paths(deduplicated(manifest, [("gone.png", "test/0.png")])) == paths(manifest)


def test_patients_that_share_a_picture_are_one_group(tmp_path: Path) -> None:
    source = PatientSource(root=str(tmp_path))
    source.prepare()
    table = source.manifest().table
    groups = joined_groups(table, [("p001_0.png", "p005_2.png")])
    of = dict(zip(table["path"], groups, strict=True))
    assert of["p001_1.png"] == of["p005_0.png"] == "patient p001"
    assert of["p002_0.png"] == "patient p002"
    assert len(set(groups)) == table["patient"].nunique() - 1


def test_folds_keep_copies_together_where_patients_are_unknown(manifest: Manifest) -> None:
    pairs = [("train/0.png", "val/0.png"), ("train/3.png", "val/3.png"), ("val/0.png", "val/6.png")]
    parts = [folded(manifest, 3, fold, pairs) for fold in range(3)]
    for part in parts:
        split = dict(zip(part.table["path"], part.table["split"], strict=True))
        for a, b in pairs:
            assert split[a] == split[b]
        assert "Patients are unknown" in str(part.split_note)
        assert part.table["patient"].isna().all(), "copies make no patients"
    file = manifest.root / "fracnet_folds_3_deduplicated.csv"
    assert "group,fold" in file.read_text()
    assert "image train/0.png" in file.read_text()


def test_folds_without_patients_point_to_the_audit(manifest: Manifest) -> None:
    with pytest.raises(UserError, match=r"data\.split=deduplicated"):
        folded(manifest, 3, 0)


def keep_audit(manifest: Manifest, *pairs: tuple[str, str]) -> None:
    content = {
        "format": audit_record.FORMAT,
        "severity": "leak",
        "line": "Too good.",
        "pairs": [{"a": a, "b": b} for a, b in pairs],
        "fingerprint": {"files": files_digest(manifest)},
        "folder": "audits/x",
    }
    audit_record.write_whole(audit_record.place(data_fingerprint(manifest)), json.dumps(content))


def test_the_data_module_goes_by_the_audit(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    data = tiny_data(tmp_path / "set", split="deduplicated")
    with pytest.raises(UserError, match=r"python -m fracnet\.audit data=tiny"):
        data.setup()
    keep_audit(manifest, ("train/2.png", "test/1.png"))
    data.setup()
    assert len(data.rows("train")) == 20
    assert len(data.cache.images) == len(data.manifest.table) == 35
    about = data.about()
    assert about["source"] == data_fingerprint(manifest) != about["hash"]
    note = "Of the official split; 1 verified copy is left out here."
    assert about["audit"] == {"severity": "leak", "verdict": "Too good.", "note": note}
    official = tiny_data(tmp_path / "set")
    official.setup()
    assert len(official.rows("train")) == 21
    assert official.about()["hash"] == about["source"]
    assert official.about()["audit"] == {"severity": "leak", "verdict": "Too good."}
    folds = tiny_data(tmp_path / "set", split="deduplicated", folds=3, fold=1)
    folds.setup()
    assert len(folds.rows("train")) + len(folds.rows("val")) == 29


def test_a_split_that_loses_a_class_is_refused(manifest: Manifest) -> None:
    pairs = [(f"train/{i}.png", "test/0.png") for i in range(0, 21, 3)]
    with pytest.raises(UserError, match="no train image of the class elbow"):
        replace(deduplicated(manifest, pairs)).check()
