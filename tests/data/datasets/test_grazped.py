"""GRAZPEDWRI-DX as published: its table, 16-bit images, boxes, and split by patient."""

import pytest
from helpers.fracture_files import write_grazped

from fracnet.data.datasets.grazped import Grazped
from fracnet.data.image_io import read_grey
from fracnet.data.manifest import read_table, write_table
from fracnet.utils.errors import UserError

FIRST = "0001_0000000001_01_WRI-L1_M012"


@pytest.fixture
def root(tmp_path):
    return write_grazped(tmp_path / "grazped")


def read(root, **options):
    dataset = Grazped(root=str(root), **options)
    dataset.prepare()
    manifest = dataset.manifest()
    manifest.check()
    return manifest


def edit(root, old: str, new: str) -> None:
    text = (root / "dataset.csv").read_text()
    assert old in text
    (root / "dataset.csv").write_text(text.replace(old, new))


def error(root) -> str:
    with pytest.raises(UserError) as caught:
        read(root)
    assert not (root / "fracnet_split.csv").exists(), "faulty data must not get a split file"
    return str(caught.value)


def test_a_row_has_patient_study_label_and_fracture_boxes(root, tmp_path):
    manifest = read(root)
    assert manifest.classes == ("no_fracture", "fracture")
    row = manifest.table.set_index("path").loc[f"images_part2/{FIRST}.png"]
    assert (row["patient"], row["study"]) == ("1", "1/1")
    assert (row["label"], row["region"], row["cast"], row["metal"]) == ("fracture", "wrist", 1, 0)
    assert (row["projection"], row["age"]) == ("1", "12.5")
    assert [box["label"] for box in row["boxes"]] == ["fracture"]
    assert manifest.table["boxes"].notna().equals(manifest.table["label"] == "fracture")
    assert (row["width"], row["height"]) == (70, 50)
    write_table(manifest.table, tmp_path / "table.csv")
    reread = read_table(tmp_path / "table.csv")
    assert reread["patient"].tolist() == manifest.table["patient"].tolist()


def test_its_16_bits_fill_the_grey_scale(root):
    grey = read_grey(root / "images_part2" / f"{FIRST}.png")
    assert (grey.min(), grey.max()) == (0, 255)


def test_patients_stay_together_and_the_split_is_reused(root):
    table = read(root, val_share=0.25, test_share=0.25).table
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert table["split"].value_counts().to_dict() == {"train": 24, "val": 12, "test": 12}
    assert table.groupby("split")["label"].nunique().min() == 2
    assert "patient,split\n1," in (root / "fracnet_split.csv").read_text()
    assert read(root, val_share=0.25, test_share=0.25).table["split"].equals(table["split"])


def test_images_may_be_in_one_folder_and_boxes_missing(root):
    (root / "images").mkdir()
    for part in ("images_part1", "images_part2"):
        for image in (root / part).iterdir():
            image.rename(root / "images" / image.name)
    (root / "folder_structure").rename(root / ".hidden")
    manifest = read(root)
    assert len(manifest.table) == 48
    assert manifest.table["boxes"].isna().all()
    assert any("no boxes" in note for note in manifest.notes)


def test_uncertain_missing_and_unlisted_images_are_reported(root):
    edit(root, "M,12.5,L,1,1,,1,,,1,,0.144", "M,12.5,L,1,1,,1,1,,1,,0.144")
    (root / "images_part2" / f"{FIRST}.png").rename(root / "images_part2" / "other.png")
    manifest = read(root)
    notes = " ".join(manifest.notes)
    assert f"1 of the 48 images in dataset.csv is missing ({FIRST})" in notes
    assert "diagnosis of 11 images is uncertain" in notes
    assert manifest.table["diagnosis_uncertain"].sum() == 11
    assert manifest.excluded["reason"].tolist() == ["not in dataset.csv"]


def test_faults_are_reported(root, tmp_path):
    edit(root, "filestem,patient_id", "filestem,patient")
    assert "no column 'patient_id'" in error(root)
    edit(root, "filestem,patient", "filestem,patient_id")
    edit(root, f"{FIRST},1,", f"{FIRST},,")
    assert "expected an id" in error(root)
    edit(root, f"{FIRST},,", f"{FIRST},1,")
    edit(root, "M,12.5,L,1,1,,1,,,1,", "M,12.5,L,1,1,,1,,,maybe,")
    assert "'fracture_visible' are invalid" in error(root)
    edit(root, "maybe", "1")
    copy = root / "images_part1" / f"{FIRST}.png"
    copy.write_bytes((root / "images_part2" / f"{FIRST}.png").read_bytes())
    assert "holds 1 images twice" in error(root)
    with pytest.raises(UserError) as caught:
        Grazped(root=str(tmp_path / "gone")).prepare()
    assert "figshare.14825193" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3
