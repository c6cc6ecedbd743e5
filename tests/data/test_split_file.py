"""Splits that fracnet makes: created once and reused, without copies, and folds."""

import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import pandas as pd
import pytest
from helpers.mura_files import add_study, write_mura
from helpers.patients import PatientDataset
from helpers.tiny import RESIZE, tiny_manifest
from helpers.tiny_data import tiny_data

from fracnet.data import audit_record, split_file
from fracnet.data.datamodule import RadiographData
from fracnet.data.datasets.mura import Mura
from fracnet.data.fingerprint import data_fingerprint, files_digest
from fracnet.data.manifest import Manifest
from fracnet.data.split_file import (
    apply_fold,
    apply_fraction,
    deduplicate,
    join_copied_groups,
    uneven_classes,
)
from fracnet.utils.errors import UserError
from fracnet.utils.files import write_atomically

# --- files: written next to the data or to the cache, reused unless they do not fit


SPLIT_NAME = "fracnet_split.csv"


@pytest.fixture
def base(tmp_path):
    return write_mura(tmp_path / "MURA-v1.1", lists=False)


@pytest.fixture(autouse=True)
def _separate_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def read_only(base, monkeypatch):
    """The data folder rejects files. Not by its mode: tests may run as root."""

    class Lock(split_file.FileLock):  # type: ignore[misc,valid-type]
        def _acquire(self) -> None:
            if Path(self.lock_file).parent == base:
                raise PermissionError(13, "Permission denied")
            super()._acquire()

    monkeypatch.setattr(split_file, "FileLock", Lock)


def splits(base, **options) -> dict[str, str]:
    table = Mura(root=str(base), **options).manifest().table
    return dict(zip(table["path"], table["split"], strict=True))


def error(base, **options) -> str:
    with pytest.raises(UserError) as caught:
        Mura(root=str(base), **options).manifest()
    return str(caught.value)


def test_the_file_lists_patients_and_settings_and_its_path_is_logged(base, caplog):
    caplog.set_level(logging.INFO)
    split_of = splits(base, val_share=0.2, split_seed=7)
    file = base / SPLIT_NAME
    assert str(file) in caplog.text
    lines = file.read_text().splitlines()
    assert lines[1:4] == ["# data.val_share=0.2", "# data.split_seed=7", "patient,split"]
    patients = {path.split("/")[2]: split for path, split in split_of.items() if split != "test"}
    assert dict(line.split(",") for line in lines[4:]) == patients
    assert sorted(entry.name for entry in base.iterdir()) == [SPLIT_NAME, "train", "valid"]


def test_the_file_is_used_even_if_it_was_edited(base):
    split_of = splits(base)
    first = min(path for path, split in split_of.items() if split == "train")
    patient = first.split("/")[2]
    file = base / SPLIT_NAME
    file.write_text(file.read_text().replace(f"{patient},train", f"{patient},val"))
    changed = splits(base)
    assert changed[first] == "val"
    assert {path for path in split_of if split_of[path] != changed[path]} == {
        path for path in split_of if f"/{patient}/" in path
    }


def test_the_split_file_is_written_only_once(base):
    splits(base)
    before = (base / SPLIT_NAME).stat()
    splits(base)
    after = (base / SPLIT_NAME).stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


def test_another_copy_of_the_data_gets_the_same_split(base, tmp_path):
    split_of = splits(base)
    shutil.copytree(base, tmp_path / "copy", ignore=shutil.ignore_patterns(f"*{SPLIT_NAME}*"))
    assert splits(tmp_path / "copy") == split_of


@pytest.mark.usefixtures("read_only")
def test_the_file_of_read_only_data_is_in_the_cache(base, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    split_of = splits(base)
    assert not (base / SPLIT_NAME).exists()
    (file,) = (tmp_path / "cache" / "splits").glob(f"*/{SPLIT_NAME}")
    assert str(file) in caplog.text
    assert splits(base) == split_of
    assert "val_share=0.3" in error(base, val_share=0.3)


@pytest.mark.usefixtures("read_only")
def test_an_error_names_both_folders_that_are_not_writable(base, tmp_path):
    (tmp_path / "cache").write_text("a file instead of the folder")
    message = error(base)
    assert f"{base} (Permission denied)" in message
    assert "FRACNET_CACHE" in message


def test_other_settings_are_rejected_naming_both(base):
    splits(base)
    message = error(base, val_share=0.3)
    assert str(base / SPLIT_NAME) in message
    assert "made with data.val_share=0.1, but the config says data.val_share=0.3" in message
    assert "delete the file" in message
    message = error(base, val_share=0.3, split_seed=5)
    assert "data.val_share=0.3 and data.split_seed=5" in message


def test_new_patients_are_rejected_and_absent_ones_are_logged(base, caplog):
    splits(base)
    added = add_study(base, "train", "WRIST", 900)
    message = error(base)
    assert f"{SPLIT_NAME} lacks 1 patient of" in message
    assert "patient00900" in message
    shutil.rmtree(added.parent)
    shutil.rmtree(base / "train" / "XR_FINGER" / "patient00002")
    splits(base)
    assert "lists 1 patient that the data lack: patient00002" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patient,split", "patient;split", "line 4 is 'patient;split'"),
        ("patient00001,", "patient00002,", "patient00002,"),
        ("patient00001,train", "patient00001,test", "'patient00001,test'"),
        ("patient00001,", ",", "line 5"),
        ("# data.split_seed=0\n", "", "it lacks the lines # data.val_share=..., # data.split_seed"),
        ("data.val_share=0.1", "data.val_share=much", "it lacks the lines"),
    ],
)
def test_a_damaged_file_is_rejected(base, old, new, message):
    splits(base)
    file = base / SPLIT_NAME
    text = file.read_text().replace("patient00001,val", "patient00001,train")
    text = text.replace("patient00002,train", "patient00002,val")
    assert old in text
    file.write_text(text.replace(old, new))
    error_text = error(base)
    assert f"{file} is not a valid split file" in error_text
    assert message in error_text


def test_an_empty_file_is_rejected_and_crlf_is_accepted(base):
    split_of = splits(base)
    file = base / SPLIT_NAME
    file.write_bytes(file.read_text().replace("\n", "\r\n").encode("utf-8-sig"))
    assert splits(base) == split_of
    file.write_text("")
    assert "it lists no group" in error(base)


@pytest.mark.parametrize(
    "group",
    [
        "#1", "# data.val_share=0.5", "a\nb", "a\rb", "a\r\nb", "a\x0bb", "a\x0cb", "a\x1cb",
        "a\x85b", "a\u2028b", "a\u2029b", '"', 'a"b', "a,b", " a ", "NA", "patient", "\ufeffa",
    ],
)  # fmt: skip
def test_a_group_may_have_any_name(tmp_path, group):
    part_of = {group: "val", "b": "train", "#": "train"}
    file = split_file.SplitFile(
        folder=tmp_path,
        file_name=SPLIT_NAME,
        title="Split of x",
        columns=("patient", "split"),
        parts=("train", "val"),
        recipe={"data.val_share": 0.1},
    )
    assert file.load_or_create(set(part_of), lambda: part_of) == part_of
    assert file.load_or_create(set(part_of), dict) == part_of, "read back from the file"


def test_comments_may_be_added_and_unquoted_groups_may_begin_with_a_hash(base):
    split_of = splits(base)
    file = base / SPLIT_NAME
    text = file.read_text().replace(
        "patient,split\n", "patient,split\n# checked, twice\n#9,train\n"
    )
    file.write_text(text)
    assert splits(base) == split_of


def test_concurrent_jobs_share_one_split(base):
    def job(seed: int) -> dict[str, str] | str:
        try:
            return splits(base, split_seed=seed % 2)
        except UserError as caught:
            return str(caught)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(job, range(8)))
    accepted = [split_of for split_of in results if isinstance(split_of, dict)]
    rejected = [message for message in results if isinstance(message, str)]
    assert len(accepted) == len(rejected) == 4
    assert all(split_of == accepted[0] for split_of in accepted)
    assert all("was made with data.split_seed=" in message for message in rejected)


# --- deduplication, and folds that keep copies together


@pytest.fixture
def tiny(tmp_path: Path) -> Manifest:
    return tiny_manifest(tmp_path / "set")


def paths(tiny: Manifest) -> set[str]:
    return set(tiny.table["path"])


def test_copies_are_removed_from_the_earlier_split(tiny: Manifest) -> None:
    pairs = [
        ("train/0.png", "test/0.png"),
        ("train/1.png", "val/1.png"),
        ("val/2.png", "test/2.png"),
        ("train/3.png", "train/4.png"),
    ]
    result = deduplicate(tiny, pairs)
    assert paths(tiny) - paths(result) == {"train/0.png", "train/1.png", "val/2.png"}
    excluded = result.excluded[result.excluded["reason"].str.contains("verified copy")]
    assert dict(zip(excluded["split"], excluded["n"], strict=True)) == {"train": 2, "val": 1}
    assert "3 images" in result.notes[-1]
    assert list(result.table.index) == list(range(len(result.table)))


def test_uneven_classes_are_counted_by_split(tiny: Manifest) -> None:
    assert uneven_classes(tiny) == ""
    train = tiny.table[(tiny.table["split"] == "train") & (tiny.table["label"] == tiny.classes[0])]
    pairs = [(path, "test/0.png") for path in train["path"].iloc[1:]]
    result = deduplicate(tiny, pairs)
    counts = result.table.loc[result.table["split"] == "train", "label"].value_counts()
    listed = ", ".join(f"{counts[label]} {label}" for label in tiny.classes)
    assert uneven_classes(result) == f"train: {listed}"
    assert f"It leaves train: {listed}." in result.notes[-1]


def test_copies_of_copies_are_removed_too(tiny: Manifest) -> None:
    pairs = [("train/0.png", "train/1.png"), ("train/1.png", "test/0.png")]
    assert paths(tiny) - paths(deduplicate(tiny, pairs)) == {"train/0.png", "train/1.png"}


def test_pooled_train_and_val_count_as_one_split(tiny: Manifest) -> None:
    pairs = [("train/0.png", "val/0.png"), ("train/1.png", "test/1.png")]
    assert paths(tiny) - paths(deduplicate(tiny, pairs, pooled=True)) == {"train/1.png"}


def test_unknown_paths_are_ignored(tiny: Manifest) -> None:
    assert paths(deduplicate(tiny, [("gone.png", "test/0.png")])) == paths(tiny)


def test_patients_with_a_shared_image_are_one_group(tmp_path: Path) -> None:
    dataset = PatientDataset(root=str(tmp_path))
    dataset.prepare()
    table = dataset.manifest().table
    groups = join_copied_groups(table, [("p001_0.png", "p005_2.png")])
    group_of_path = dict(zip(table["path"], groups, strict=True))
    assert group_of_path["p001_1.png"] == group_of_path["p005_0.png"] == "patient p001"
    assert group_of_path["p002_0.png"] == "patient p002"
    assert len(set(groups)) == table["patient"].nunique() - 1


def test_folds_keep_copies_together_if_patients_are_unknown(tiny: Manifest) -> None:
    pairs = [("train/0.png", "val/0.png"), ("train/3.png", "val/3.png"), ("val/0.png", "val/6.png")]
    parts = [apply_fold(tiny, 3, fold, pairs) for fold in range(3)]
    for part in parts:
        split = dict(zip(part.table["path"], part.table["split"], strict=True))
        for a, b in pairs:
            assert split[a] == split[b]
        assert "Patients are unknown" in str(part.split_note)
        assert part.table["patient"].isna().all(), "copies do not become patients"
    file = tiny.root / "fracnet_folds_3_deduplicated.csv"
    assert "group,fold" in file.read_text()
    assert "image train/0.png" in file.read_text()


def test_the_error_for_folds_without_patients_suggests_deduplication(tiny: Manifest) -> None:
    with pytest.raises(UserError, match=r"data\.split=deduplicated"):
        apply_fold(tiny, 3, 0)


def store_audit(tiny: Manifest, *pairs: tuple[str, str]) -> None:
    content = {
        "format": audit_record.FORMAT,
        "severity": "leak",
        "line": "Too good.",
        "pairs": [{"a": a, "b": b} for a, b in pairs],
        "fingerprint": {"files": files_digest(tiny)},
        "folder": "audits/x",
    }
    write_atomically(audit_record.audit_path(data_fingerprint(tiny)), json.dumps(content))


def test_the_data_module_uses_the_audit(
    tiny: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    data = tiny_data(tmp_path / "set", split="deduplicated")
    with pytest.raises(UserError, match=r"python -m fracnet\.audit data=tiny"):
        data.setup()
    store_audit(tiny, ("train/2.png", "test/1.png"))
    data.setup()
    assert len(data.rows("train")) == 20
    assert len(data.cache.images) == len(data.manifest.table) == 35
    metadata = data.metadata()
    assert metadata["dataset"] == data_fingerprint(tiny) != metadata["hash"]
    note = "Of the official split; 1 verified copy is left out here."
    assert metadata["audit"] == {"severity": "leak", "verdict": "Too good.", "note": note}
    official = tiny_data(tmp_path / "set")
    official.setup()
    assert len(official.rows("train")) == 21
    assert official.metadata()["hash"] == metadata["dataset"]
    assert official.metadata()["audit"] == {"severity": "leak", "verdict": "Too good."}
    folds = tiny_data(tmp_path / "set", split="deduplicated", folds=3, fold=1)
    folds.setup()
    assert len(folds.rows("train")) + len(folds.rows("val")) == 29


def test_evaluated_images_that_repeat_others_are_marked(
    tiny: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    plain = tiny_data(tmp_path / "set")
    plain.setup()
    assert "copies" not in plain.table
    first, second = (str(tmp_path / "set" / name) for name in ("test/0.png", "test/3.png"))
    pixels = cv2.imread(first, cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(second, pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])  # another file
    store_audit(tiny, ("train/2.png", "test/1.png"), ("train/2.png", "val/4.png"))
    data = tiny_data(tmp_path / "set")
    data.setup()
    copies = data.table.set_index("path")["copies"].dropna()
    assert copies["test/0.png"] == copies["test/3.png"]
    assert copies["test/1.png"] == copies["val/4.png"] != copies["test/0.png"]
    assert len(copies) == 4, "train images have no predictions"


def test_a_split_that_loses_a_class_is_rejected(tiny: Manifest) -> None:
    pairs = [(f"train/{i}.png", "test/0.png") for i in range(0, 21, 3)]
    with pytest.raises(UserError, match="no train image of the class elbow"):
        replace(deduplicate(tiny, pairs)).check()


# --- cross-validation


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    dataset = PatientDataset(root=str(tmp_path / "data"))
    dataset.prepare()
    return dataset.manifest()


def test_each_image_validates_once_and_test_images_stay(manifest: Manifest) -> None:
    parts = [apply_fold(manifest, 5, fold) for fold in range(5)]
    split = pd.DataFrame({fold: part.table["split"] for fold, part in enumerate(parts)})
    test = manifest.table["split"] == "test"
    assert (split[test] == "test").all(axis=None)
    assert ((split[~test] == "val").sum(axis=1) == 1).all()
    assert ((split[~test] == "train").sum(axis=1) == 4).all()
    for part in parts:
        part.check()  # no patient in two splits, no class without train images


def test_folds_have_a_similar_mix(manifest: Manifest) -> None:
    for fold in range(4):
        val = apply_fold(manifest, 4, fold).table.query("split == 'val'")
        pooled = manifest.table.query("split != 'test'")
        assert len(val) == pytest.approx(len(pooled) / 4, abs=2)
        for column in ("label", "region"):
            shares = val[column].value_counts(normalize=True)
            expected = pooled[column].value_counts(normalize=True)
            assert (shares - expected).abs().max() < 0.12, column


def test_rows_keep_their_order_so_that_folds_share_a_cache(manifest: Manifest) -> None:
    other = apply_fold(manifest, 5, 2).table
    pd.testing.assert_frame_equal(other.drop(columns="split"), manifest.table.drop(columns="split"))


def test_the_folds_file_is_written_once_and_reused(manifest: Manifest) -> None:
    apply_fold(manifest, 5, 0)
    path = manifest.root / "fracnet_folds_5.csv"
    first = path.read_text()
    assert "# data.folds=5" in first
    assert "patient,fold" in first
    apply_fold(manifest, 5, 3)
    assert path.read_text() == first
    lines = [line.rsplit(",", 1)[0] + ",4" if line.startswith("p0") else line
             for line in first.splitlines()]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    assert (apply_fold(manifest, 5, 4).table["split"] != "train").all(), "the file decides"


def test_each_number_of_folds_has_its_own_file(manifest: Manifest) -> None:
    apply_fold(manifest, 5, 0)
    apply_fold(manifest, 3, 0)
    assert len(list(manifest.root.glob("fracnet_folds_*.csv"))) == 2


def test_folds_without_groups_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"data.folds=5: tiny gives no patient or study for 30 of 30"
    ):
        apply_fold(tiny_manifest(tmp_path), 5, 0)
    assert not list(tmp_path.rglob("fracnet_folds*"))


def test_studies_are_the_groups_if_patients_are_unknown(manifest: Manifest) -> None:
    table = manifest.table.assign(patient=None)
    split = apply_fold(replace(manifest, table=table), 5, 0).table["split"]
    assert (split.groupby(table["study"]).nunique() == 1).all()
    assert "study,fold" in (manifest.root / "fracnet_folds_5.csv").read_text()


def test_group_names_include_the_unit_if_units_are_mixed(manifest: Manifest) -> None:
    patient = manifest.table["patient"].where(manifest.table["region"] == "hand")
    apply_fold(replace(manifest, table=manifest.table.assign(patient=patient)), 5, 0)
    text = (manifest.root / "fracnet_folds_5.csv").read_text()
    assert "group,fold" in text
    assert "patient p001" in text
    assert "study p000_s" in text


def drop_a_patient(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("p001")) + "\n"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (drop_a_patient, "lacks 1 patient of"),
        (lambda text: text.replace("data.folds=5", "data.folds=6"), "made with data.folds=6"),
        (lambda text: text.replace("p003,", "p003,7"), "is not a valid split file"),
    ],
)
def test_a_folds_file_that_does_not_fit_is_rejected(
    change: Callable[[str], str], part: str, manifest: Manifest
) -> None:
    apply_fold(manifest, 5, 0)
    path = manifest.root / "fracnet_folds_5.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=part):
        apply_fold(manifest, 5, 0)


def test_the_note_on_the_own_validation_split_is_replaced(tmp_path: Path) -> None:
    manifest = Mura(root=str(write_mura(tmp_path))).manifest()
    assert sum("validation is" in note for note in manifest.notes) == 1
    notes = apply_fold(manifest, 3, 1).notes
    assert not any("validation is" in note or "val_share" in note for note in notes)
    assert sum("fold 1 of 3" in note for note in notes) == 1
    assert len(notes) == len(manifest.notes), "the notes on labels stay"


def test_all_folds_of_a_data_module_share_a_cache(tmp_path: Path) -> None:
    val_rows, paths = [], set()
    for fold in range(3):
        data = RadiographData(
            PatientDataset(root=str(tmp_path)),
            {"steps": list(RESIZE)},
            image_size=32,
            batch_size=8,
            progress=False,
            folds=3,
            fold=fold,
        )
        data.prepare_data()
        val_rows += data.rows("val").tolist()
        paths.add(data.cache.path)
        assert "cross-validation, fold" in " ".join(data.manifest.notes)
    pooled = data.manifest.table["split"] != "test"
    assert sorted(val_rows) == pooled[pooled].index.tolist()
    assert len(paths) == 1


# --- a share of the train images


def test_a_fraction_leaves_validation_and_test_whole_and_says_what_it_uses(
    manifest: Manifest,
) -> None:
    part = apply_fraction(manifest, 0.5, 0)
    split = part.table["split"]
    assert list(part.table["path"]) == list(manifest.table["path"]), "fractions share a cache"
    kept = split.isin(["val", "test"])
    assert (split[kept] == manifest.table["split"][kept]).all()
    used, whole = (split == "train").sum(), (manifest.table["split"] == "train").sum()
    assert abs(used - whole / 2) < whole / 10
    assert f"trains on {used} of {whole} train images" in part.notes[-1]
    assert "validation and test are whole" in part.notes[-1]
    assert part.excluded.iloc[-1].to_dict() == {
        "split": "train",
        "reason": "data.fraction=0.5",
        "n": whole - used,
    }
    fingerprints = {data_fingerprint(apply_fraction(manifest, f, 0)) for f in (0.25, 0.5, 1.0)}
    assert len(fingerprints) == 3


def test_copies_are_used_together(tiny: Manifest) -> None:
    pairs = [("train/0.png", "train/1.png"), ("train/1.png", "train/2.png")]
    for seed in range(5):
        table = apply_fraction(tiny, 0.5, seed, pairs).table.set_index("path")
        assert table.loc[[f"train/{i}.png" for i in range(3)], "split"].nunique() == 1


def test_a_fraction_without_a_class_is_rejected(tiny: Manifest) -> None:
    with pytest.raises(UserError, match=r"data\.fraction=0\.05 leaves .* none of some classes"):
        apply_fraction(tiny, 0.05, 0)


def test_a_data_module_trains_on_its_fraction(tmp_path: Path) -> None:
    whole, part = (tiny_data(tmp_path / "set", fraction=f) for f in (1.0, 0.5))
    for data in (whole, part):
        data.prepare_data()
    assert part.cache.path == whole.cache.path
    assert set(part.rows("train")) < set(whole.rows("train"))
    assert part.metadata()["fraction"] == 0.5
    assert "fraction" not in whole.metadata()
    used = len(part.rows("train"))
    assert sum(part.metadata()["counts"]["train"].values()) == part.train_counts().sum() == used
    assert part.metadata()["images"] == used + len(whole.rows("val")) + len(whole.rows("test"))
    assert (
        part.counts().loc["excluded: data.fraction=0.5", "train"] == len(whole.rows("train")) - used
    )
    for split in ("val", "test"):
        assert (part.rows(split) == whole.rows(split)).all()
