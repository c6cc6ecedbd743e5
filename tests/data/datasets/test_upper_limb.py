"""The upper-limb dataset in all its layouts, with the measured counts of the real one."""

import time

import numpy as np
import pytest
from helpers.upper_limb_files import (
    NAMES,
    POLYGON,
    add,
    jpeg,
    write_class_folders,
    write_yaml,
    write_yolo,
)

from fracnet.config.instantiate import build
from fracnet.data.datasets.layouts import UPPER_LIMB_CLASSES as CLASSES
from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.utils.errors import UserError

# Measured on the real dataset: labeled images by class, and images with an empty label file.
MEASURED = {
    "train": ((306, 433, 283, 299, 315, 168), 1827),
    "valid": ((28, 41, 37, 31, 19, 17), 175),
    "test": ((13, 22, 13, 14, 15, 6), 86),
}
RAW_ID = {"elbow": 0, "fingers": 1, "forearm": 2, "humerus": 3, "shoulder": 5, "wrist": 6}


def error(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        UpperLimb(root=str(root), download=False, **options).manifest()
    return str(caught.value)


def test_a_copy_of_the_measured_size_loads_with_the_measured_counts(tmp_path):
    base = tmp_path / "BoneFractureYolo8"
    write_yaml(base)
    picture = jpeg()
    for split, (per_class, empty) in MEASURED.items():
        for name, n in zip(CLASSES, per_class, strict=True):
            for i in range(n):
                ids = [RAW_ID[name]]
                if name == "humerus":
                    # The two humerus ids alternate; three train images carry both.
                    ids = [3, 4] if split == "train" and i < 3 else [3 + i % 2]
                lines = "".join(f"{raw} {POLYGON}\n" for raw in ids)
                add(base, split, f"{name}{i}_jpg.rf.{i:032x}", lines, picture)
        for i in range(empty):
            add(base, split, f"plain{i}", "", picture)
    start = time.process_time()
    manifest = UpperLimb(root=str(tmp_path)).manifest()
    assert time.process_time() - start < 10
    manifest.check()
    table = manifest.table
    assert table["split"].value_counts().to_dict() == {"train": 1804, "val": 173, "test": 83}
    for split, (per_class, _) in MEASURED.items():
        rows = table[table["split"] == split.replace("valid", "val")]
        assert tuple(rows["label"].value_counts()[list(CLASSES)]) == per_class
    assert manifest.excluded.to_dict("records") == [
        {"split": "train", "reason": "empty label file", "n": 1827},
        {"split": "val", "reason": "empty label file", "n": 175},
        {"split": "test", "reason": "empty label file", "n": 86},
    ]
    both = table[table["polygons"].map(len) == 2]
    assert len(both) == 3
    assert set(both["label"]) == {"humerus"}


def test_a_row_holds_only_what_is_known(tmp_path):
    base = write_yolo(tmp_path / "BoneFractureYolo8")
    add(base, "train", "wide", f"2 {POLYGON}\n", jpeg(size=(12, 5)))
    manifest = UpperLimb(root=str(tmp_path)).manifest()
    row = manifest.table.set_index("path").loc["train/images/wide.jpg"]
    assert (manifest.root / "train/images/wide.jpg").is_file()
    assert (row["label"], row["region"], row["width"], row["height"]) == ("forearm",) * 2 + (12, 5)
    assert row["polygons"] == [
        {"label": "forearm", "points": [[0.25, 0.25], [0.75, 0.25], [0.5, 0.75]]}
    ]
    assert row["boxes"] is None
    assert manifest.table[["patient", "study"]].isna().all(axis=None)
    assert manifest.groups == "unknown"
    notes = " ".join(manifest.notes)
    assert "MURA is no external test set" in notes
    assert "there is no normal class" in notes


@pytest.mark.parametrize("val", ["val", "valid"])
def test_root_may_be_the_folder_itself_and_gives_the_same_table(tmp_path, val):
    base = write_yolo(tmp_path / "BoneFractureYolo8", val=val)
    outer, inner = (UpperLimb(root=str(root)).manifest() for root in (tmp_path, base))
    assert outer.table.equals(inner.table)
    assert outer.root == inner.root
    assert set(outer.table["split"]) == {"train", "val", "test"}


def test_names_may_be_a_mapping_or_absent(tmp_path):
    base = write_yolo(tmp_path)
    expected = UpperLimb(root=str(base)).manifest()
    lines = "".join(f"  {i}: {name}\n" for i, name in enumerate(NAMES))
    (base / "data.yaml").write_text(f"names:\n{lines}")
    assert UpperLimb(root=str(base)).manifest().table.equals(expected.table)
    (base / "data.yaml").unlink()
    bare = UpperLimb(root=str(base)).manifest()
    assert bare.table.equals(expected.table)
    assert any("no data.yaml" in note for note in bare.notes)


def test_names_may_have_another_order(tmp_path):
    base = write_yolo(tmp_path)
    write_yaml(base, NAMES[::-1])
    table = UpperLimb(root=str(base)).manifest().table
    assert set(table.loc[table["path"].str.contains("/0_0"), "label"]) == {"wrist"}


def test_plain_class_folders(tmp_path):
    base = write_class_folders(
        tmp_path / "mine",
        {"Train": ["Elbow", *CLASSES[1:]], "valid": NAMES, "test": CLASSES},
        n=2,
    )
    (base / "Train" / "Elbow" / ".hidden.jpg").write_bytes(b"")
    (base / "Train" / "Elbow" / "Thumbs.db").write_bytes(b"")
    for suffix in ("jpeg", "PNG", "gif", "bmp", "tif"):
        (base / "test" / "wrist" / f"x.{suffix}").write_bytes(jpeg())
    manifest = UpperLimb(root=str(base)).manifest()
    manifest.check()
    counts = manifest.table.groupby(["split", "label"]).size()
    assert counts["train", "elbow"] == 2
    assert counts["val", "humerus"] == 4
    assert counts["test", "wrist"] == 7
    assert manifest.table["polygons"].map(lambda polygons: polygons is None).all()
    assert any("skipped 1 file, not images" in note for note in manifest.notes)


def test_images_without_labels_are_excluded_by_reason(tmp_path):
    base = write_yolo(tmp_path)
    add(base, "train", "empty", "\r\n \n")
    add(base, "train", "none", None)
    add(base, "train", ".hidden", f"0 {POLYGON}\n")
    (base / "test" / "labels" / "orphan.txt").write_text(f"0 {POLYGON}\n")
    manifest = UpperLimb(root=str(base)).manifest()
    assert len(manifest.table) == 21
    assert {tuple(row) for row in manifest.excluded.values} == {
        ("train", "empty label file", 1),
        ("train", "no label file", 1),
    }
    assert any("1 label file has no image (test/labels/orphan)" in note for note in manifest.notes)


class TestTwoClasses:
    @pytest.fixture
    def base(self, tmp_path):
        base = write_yolo(tmp_path)
        add(base, "train", "mixed", f"6 {POLYGON}\n0 {POLYGON}\n")
        add(base, "train", "humerus", f"4 {POLYGON}\n3 {POLYGON}\n4 {POLYGON}\n")
        add(base, "train", "twice", f"6 {POLYGON}\n6 {POLYGON}\n")
        return base

    def test_are_an_error_that_lists_them(self, base):
        message = error(base)
        assert "train/images/mixed.jpg (wrist and elbow)" in message
        assert "1 image marked" in message
        assert "data.on_ambiguous=drop" in message
        assert "data.on_ambiguous=first" in message

    def test_are_listed_up_to_ten(self, base):
        for i in range(14):
            add(
                base,
                "val" if (base / "val").exists() else "valid",
                f"m{i}",
                f"0 {POLYGON}\n1 {POLYGON}",
            )
        message = error(base)
        assert "15 images" in message
        assert "and 5 more" in message

    def test_may_be_dropped_and_are_counted(self, base):
        manifest = UpperLimb(root=str(base), on_ambiguous="drop").manifest()
        assert len(manifest.table) == 23
        assert manifest.excluded.values.tolist() == [["train", "two classes", 1]]

    def test_may_use_the_first(self, base):
        table = UpperLimb(root=str(base), on_ambiguous="first").manifest().table
        row = table.set_index("path").loc["train/images/mixed.jpg"]
        assert row["label"] == "wrist"
        assert [shape["label"] for shape in row["polygons"]] == ["wrist", "elbow"]

    @pytest.mark.parametrize(
        ("key", "value"), [("on_ambiguous", "frist"), ("on_bad_file", "ignore")]
    )
    def test_unknown_policies_are_rejected(self, base, key, value):
        node = {"_target_": "fracnet.data.datasets.upper_limb.UpperLimb", "root": str(base)}
        with pytest.raises(UserError, match=rf"data\.{key}={value} is not allowed; allowed: "):
            build(node | {key: value}, "data")


def remove(folder):
    for entry in folder.iterdir():
        remove(entry) if entry.is_dir() else entry.unlink()
    folder.rmdir()


def test_errors_about_layouts_name_actual_and_expected_folders(tmp_path):
    base = write_yolo(tmp_path / "set")
    (base / "val").mkdir()
    assert "both val and valid" in error(base)
    remove(base / "val")
    remove(base / "test")
    assert "no folder for the split test" in error(base)
    assert "data.yaml, train/, valid/" in error(base)
    remove(base / "train" / "labels")
    (base / "test").mkdir()
    assert "has no folder labels" in error(base)
    write_class_folders(tmp_path / "other", {"train": ["elbow", "knee"], "val": [], "test": []})
    for split in ("val", "test"):
        (tmp_path / "other" / split).mkdir()
    assert "knee" in error(tmp_path / "other")
    assert "shoulder" in error(tmp_path / "other")


def test_an_unknown_class_name_is_reported_with_file_and_known_names(tmp_path):
    base = write_yolo(tmp_path)
    write_yaml(base, (*NAMES[:6], "knee positive"))
    message = error(base)
    for text in ("data.yaml", "'knee positive'", "wrist positive"):
        assert text in message


def test_unreadable_headers_are_left_to_on_bad_file(tmp_path):
    base = write_yolo(tmp_path)
    bad = add(base, "test", "bad", f"0 {POLYGON}\n", b"not an image")
    table = UpperLimb(root=str(base)).manifest().table
    row = table.set_index("path").loc[bad.relative_to(base).as_posix()]
    assert row[["width", "height"]].isna().all()
    assert table["width"].notna().sum() == len(table) - 1


def test_order_does_not_depend_on_the_file_system(tmp_path):
    names = [f"{i:03d}" for i in range(40)]
    rng = np.random.default_rng(0)
    tables = []
    for turn in range(2):
        base = write_yolo(tmp_path / str(turn))
        for name in rng.permutation(names):
            add(base, "train", name, f"1 {POLYGON}\n")
        tables.append(UpperLimb(root=str(base)).manifest().table)
    assert tables[0].equals(tables[1])
