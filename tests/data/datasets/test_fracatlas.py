"""FracAtlas: its table, boxes and split, faults in a copy, and the real sample."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.fracture_files import write_fracatlas
from helpers.pictures import encoded, picture

from fracnet.data.datasets.fracatlas import FracAtlas
from fracnet.data.image_cache import ImageCache
from fracnet.data.manifest import read_table, write_table
from fracnet.data.preprocess import Preprocess
from fracnet.utils.errors import UserError

SAMPLE = os.environ.get("FRACATLAS_ROOT")
SPLIT = "fracnet_split.csv"


@pytest.fixture
def base(tmp_path):
    return write_fracatlas(tmp_path / "FracAtlas")


@pytest.fixture
def sample(tmp_path):
    """The real sample by links, so that its own folder gets no split file."""
    if not SAMPLE:
        pytest.skip("no FracAtlas sample; set FRACATLAS_ROOT")
    (tmp_path / "sample").mkdir()
    for entry in Path(SAMPLE).iterdir():
        (tmp_path / "sample" / entry.name).symlink_to(entry)
    return tmp_path / "sample"


def read(root, **options):
    dataset = FracAtlas(root=str(root), **({"download": False} | options))
    dataset.prepare()
    manifest = dataset.manifest()
    manifest.check()
    return manifest


def edit(base, old: str, new: str) -> None:
    table = base / "dataset.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new))


def test_a_row_has_label_region_view_hardware_and_boxes(base, tmp_path):
    table = read(base).table.set_index("path")
    row = table.loc["images/Fractured/IMG0000003.jpg"]
    assert (row["label"], row["region"]) == ("fracture", "hand")
    assert (row["hardware"], row["frontal"], row["fracture_count"]) == (1, 1, 1)
    (box,) = row["boxes"]
    assert box["label"] == "fracture"
    assert np.allclose(box["points"], [[0.4, 0.3], [0.6, 0.7]])
    other = table.loc["images/Non_fractured/IMG0000004.jpg"]
    assert (other["label"], other["region"], other["boxes"]) == ("no_fracture", "leg", None)
    assert table["patient"].isna().all()
    write_table(read(base).table, tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv").equals(read(base).table)


def test_the_positive_class_is_last_and_notes_say_that_patients_are_unknown(base):
    manifest = read(base)
    assert (manifest.task, manifest.classes) == ("binary", ("no_fracture", "fracture"))
    assert manifest.groups == "unknown"
    notes = " ".join(manifest.notes)
    for text in ("no patient ids", "Utilities/Fracture Split is not used", SPLIT):
        assert text in notes


def test_root_may_be_the_parent(base):
    assert read(base.parent).table.equals(read(base).table)


def test_the_split_is_stratified_created_once_and_reused(base):
    table = read(base, val_share=0.25, test_share=0.25).table
    counts = table.groupby(["split", "label"]).size().unstack()
    # Columns fracture, no_fracture.
    assert counts.loc[["val", "test"]].to_numpy().tolist() == [[2, 4], [2, 4]]
    text = (base / SPLIT).read_text()
    assert "# data.val_share=0.25\n# data.test_share=0.25\n# data.split_seed=0\n" in text
    first = table.loc[table["split"] == "train", "path"].iloc[0]
    (base / SPLIT).write_text(text.replace(f"{first},train", f"{first},test"))
    reread = read(base, val_share=0.25, test_share=0.25).table.set_index("path")
    assert reread.loc[first, "split"] == "test"
    with pytest.raises(UserError, match=r"data\.val_share=0\.25, but the config says"):
        read(base, test_share=0.25)


def test_the_seed_decides_the_split(base):
    first = read(base).table["split"]
    (base / SPLIT).unlink()
    assert read(base).table["split"].equals(first)
    (base / SPLIT).unlink()
    assert not read(base, split_seed=1).table["split"].equals(first)


def test_byte_identical_files_stay_in_one_split(base):
    folder = base / "images" / "Non_fractured"
    for seed in range(5):
        for i in (1, 2, 4, 5, 7):
            (folder / f"IMG{i:07d}.jpg").write_bytes(encoded(picture(99), "JPEG"))
        table = read(base, split_seed=seed).table.set_index("path")
        same = [f"images/Non_fractured/IMG{i:07d}.jpg" for i in (1, 2, 4, 5, 7)]
        assert table.loc[same, "split"].nunique() == 1
        (base / SPLIT).unlink()


@pytest.mark.parametrize(
    ("parts", "region"),
    [("1,0,0,0,0", "hand"), ("0,0,1,0,0", "hip"), ("0,1,1,0,0", "mixed"), ("1,0,0,0,1", "mixed")],
)
def test_the_region_is_the_only_body_part_or_mixed(base, parts, region):
    edit(base, "IMG0000003.jpg,1,0,0,0,0,", f"IMG0000003.jpg,{parts},")
    table = read(base).table.set_index("path")
    assert table.loc["images/Fractured/IMG0000003.jpg", "region"] == region


def test_an_image_in_both_folders_counts_only_in_the_labeled_one(base):
    fractured = base / "images" / "Fractured" / "IMG0000003.jpg"
    (base / "images" / "Non_fractured" / fractured.name).write_bytes(fractured.read_bytes())
    (base / "images" / "Non_fractured" / "IMG9.jpg").write_bytes(fractured.read_bytes())
    manifest = read(base)
    rows = manifest.table[manifest.table["path"].str.endswith(fractured.name)]
    assert rows["path"].tolist() == ["images/Fractured/IMG0000003.jpg"]
    assert dict(manifest.excluded[["reason", "n"]].to_numpy().tolist()) == {
        "folder and dataset.csv disagree": 1,
        "not in dataset.csv": 1,
    }


def test_boxes_of_a_rotated_image_are_dropped(base):
    exif = picture().getexif()
    exif[0x0112] = 6
    path = base / "images" / "Fractured" / "IMG0000003.jpg"
    path.write_bytes(encoded(picture(3), "JPEG", exif=exif))
    manifest = read(base)
    boxes = manifest.table.set_index("path")["boxes"]
    assert boxes["images/Fractured/IMG0000003.jpg"] is None
    assert boxes["images/Fractured/IMG0000006.jpg"] is not None
    assert any("boxes of 1 images with an orientation tag" in note for note in manifest.notes)


class TestBadInput:
    def error(self, base, **options) -> str:
        with pytest.raises(UserError) as caught:
            read(base, **options)
        assert not (base / SPLIT).exists(), "faulty data must not get a split file"
        return str(caught.value)

    def test_a_missing_column(self, base):
        edit(base, "hardware", "hardwear")
        message = self.error(base)
        assert "no column 'hardware'" in message
        assert "Did you mean 'hardwear'?" in message

    def test_values_that_are_not_flags_or_counts(self, base):
        edit(base, "IMG0000003.jpg,1,0,0,0,0,1,0,1,1", "IMG0000003.jpg,1,0,0,0,0,yes,0,1,1")
        assert "line 5 ('yes'); expected 0 or 1" in self.error(base)
        edit(base, "IMG0000003.jpg,1,0,0,0,0,yes,0,1,1", "IMG0000003.jpg,1,0,0,0,0,1,0,1,x")
        assert "line 5 ('x'); expected a number" in self.error(base)

    def test_a_missing_table_and_a_table_of_other_images(self, base):
        (base / "dataset.csv").rename(base / "original.csv")
        assert "dataset.csv does not exist" in self.error(base)
        (base / "dataset.csv").write_text((base / "original.csv").read_text().replace("IMG0", "X"))
        assert "dataset.csv lists none of its images" in self.error(base)

    def test_two_lines_that_contradict_each_other(self, base):
        text = (base / "dataset.csv").read_text()
        line = text.splitlines()[5]
        (base / "dataset.csv").write_text(f"{text}{line}\n")
        read(base)
        (base / SPLIT).unlink()
        (base / "dataset.csv").write_text(f"{text}{line[:-1]}1\n")
        assert "line 26 ('IMG0000004.jpg')" in self.error(base)

    def test_an_invalid_label_line(self, base):
        (base / "Annotations" / "YOLO" / "IMG0000003.txt").write_text("1 0.5 0.5 0.1 0.1\n")
        assert "class id 1 is not among the names" in self.error(base)

    @pytest.mark.parametrize(("val", "test"), [(0.1, 1), (0.5, 0.5)])
    def test_shares_that_leave_no_training_images(self, base, val, test):
        assert "data." in self.error(base, val_share=val, test_share=test)

    def test_missing_data_is_reported_in_three_lines(self, tmp_path):
        with pytest.raises(UserError) as caught:
            FracAtlas(root=str(tmp_path / "gone"), download=False).prepare()
        get, point, phantom = str(caught.value).splitlines()
        assert "figshare.com" in get
        assert "data.root=" in point
        assert "data=mura_phantom" in phantom


class TestSample:
    def test_it_loads_unchanged(self, sample):
        manifest = read(sample)
        table = manifest.table
        assert table["label"].value_counts().to_dict() == {"no_fracture": 55, "fracture": 51}
        assert table["hardware"].sum() == 20
        assert table["boxes"].notna().sum() == 51
        n_boxes = sum(len(boxes) for boxes in table["boxes"] if boxes)
        assert n_boxes == table["fracture_count"].sum() == 74
        assert table["width"].notna().sum() == 106
        assert set(table["region"]) == {"hand", "leg", "hip", "mixed"}
        copies = table["path"].str.extract(r"(4308|4310|4314|4341|4346|4347)")[0].dropna()
        split = table.loc[copies.index].assign(copy=copies).set_index("copy")["split"]
        for first, second in (("4308", "4347"), ("4310", "4346"), ("4314", "4341")):
            assert split[first] == split[second]

    def test_its_six_truncated_files_are_named_or_skipped(self, sample):
        manifest = read(sample)
        preprocess = Preprocess(({"name": "resize", "mode": "squash"},), 32)
        with pytest.raises(UserError, match="6 of 106 images") as caught:
            ImageCache.open_or_build(manifest, preprocess, progress=False)
        assert "truncated" in str(caught.value)
        cache = ImageCache.open_or_build(manifest, preprocess, on_bad_file="skip", progress=False)
        assert len(cache.images) == 100
        assert cache.images.max(axis=(1, 2)).min() > 50
