"""Folds keep patients together, are written once, obeyed, and leave the test alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers.mura_files import write_mura
from helpers.patients import PatientSource
from helpers.tiny import RESIZE, tiny_manifest

from fracnet.data.datamodule import RadiographData
from fracnet.data.datasets.mura import Mura
from fracnet.data.manifest import Manifest
from fracnet.data.split_file import folded
from fracnet.utils.errors import UserError


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    source = PatientSource(root=str(tmp_path / "data"))
    source.prepare()
    return source.manifest()


def test_each_image_validates_once_and_the_test_stays(manifest: Manifest) -> None:
    parts = [folded(manifest, 5, fold) for fold in range(5)]
    split = pd.DataFrame({fold: part.table["split"] for fold, part in enumerate(parts)})
    test = manifest.table["split"] == "test"
    assert (split[test] == "test").all(axis=None)
    assert ((split[~test] == "val").sum(axis=1) == 1).all()
    assert ((split[~test] == "train").sum(axis=1) == 4).all()
    for part in parts:
        part.check()  # no patient in two splits, no class without train images


def test_folds_are_alike(manifest: Manifest) -> None:
    for fold in range(4):
        val = folded(manifest, 4, fold).table.query("split == 'val'")
        whole = manifest.table.query("split != 'test'")
        assert len(val) == pytest.approx(len(whole) / 4, abs=2)
        for column in ("label", "region"):
            shares = val[column].value_counts(normalize=True)
            wanted = whole[column].value_counts(normalize=True)
            assert (shares - wanted).abs().max() < 0.12, column


def test_rows_and_their_order_stay_so_that_the_cache_is_shared(manifest: Manifest) -> None:
    other = folded(manifest, 5, 2).table
    pd.testing.assert_frame_equal(other.drop(columns="split"), manifest.table.drop(columns="split"))


def test_the_file_is_written_once_and_obeyed(manifest: Manifest) -> None:
    folded(manifest, 5, 0)
    path = manifest.root / "fracnet_folds_5.csv"
    first = path.read_text()
    assert "# data.folds=5" in first
    assert "patient,fold" in first
    folded(manifest, 5, 3)
    assert path.read_text() == first
    lines = [line.rsplit(",", 1)[0] + ",4" if line.startswith("p0") else line
             for line in first.splitlines()]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    assert (folded(manifest, 5, 4).table["split"] != "train").all(), "the file decides, not we"


def test_other_numbers_of_folds_have_files_of_their_own(manifest: Manifest) -> None:
    folded(manifest, 5, 0)
    folded(manifest, 3, 0)
    assert len(list(manifest.root.glob("fracnet_folds_*.csv"))) == 2


def test_without_groups_folds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.folds=5: tiny does not say of 30 of these 30"):
        folded(tiny_manifest(tmp_path), 5, 0)
    assert not list(tmp_path.rglob("fracnet_folds*"))


def test_studies_serve_where_patients_are_unknown(manifest: Manifest) -> None:
    table = manifest.table.assign(patient=None)
    split = folded(replace(manifest, table=table), 5, 0).table["split"]
    assert (split.groupby(table["study"]).nunique() == 1).all()
    assert "study,fold" in (manifest.root / "fracnet_folds_5.csv").read_text()


def test_where_some_patients_are_unknown_both_are_named(manifest: Manifest) -> None:
    patient = manifest.table["patient"].where(manifest.table["region"] == "hand")
    folded(replace(manifest, table=manifest.table.assign(patient=patient)), 5, 0)
    text = (manifest.root / "fracnet_folds_5.csv").read_text()
    assert "group,fold" in text
    assert "patient p001" in text
    assert "study p000_s" in text


def folds_file_of_other_data(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("p001")) + "\n"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (folds_file_of_other_data, "says nothing of 1 patient of"),
        (lambda text: text.replace("data.folds=5", "data.folds=6"), "made with data.folds=6"),
        (lambda text: text.replace("p003,", "p003,7"), "is no split file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    change: Callable[[str], str], part: str, manifest: Manifest
) -> None:
    folded(manifest, 5, 0)
    path = manifest.root / "fracnet_folds_5.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=part):
        folded(manifest, 5, 0)


def test_what_the_source_says_of_its_own_validation_goes_with_that(tmp_path: Path) -> None:
    manifest = Mura(root=str(write_mura(tmp_path))).manifest()
    assert sum("validation is" in note for note in manifest.notes) == 1
    notes = folded(manifest, 3, 1).notes
    assert not any("validation is" in note or "val_share" in note for note in notes)
    assert sum("fold 1 of 3" in note for note in notes) == 1
    assert len(notes) == len(manifest.notes), "what is said of the labels stays"


def test_all_folds_of_a_data_module_read_one_cache(tmp_path: Path) -> None:
    seen, paths = [], set()
    for fold in range(3):
        data = RadiographData(
            PatientSource(root=str(tmp_path)),
            {"steps": list(RESIZE)},
            image_size=32,
            batch_size=8,
            progress=False,
            folds=3,
            fold=fold,
        )
        data.prepare_data()
        seen += data.rows("val").tolist()
        paths.add(data.cache.path)
        assert "cross-validation, fold" in " ".join(data.manifest.notes)
    pooled = data.manifest.table["split"] != "test"
    assert sorted(seen) == pooled[pooled].index.tolist()
    assert len(paths) == 1
