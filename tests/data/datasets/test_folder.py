"""A user's own folders: with and without splits, which class is positive, and what is wrong."""

import numpy as np
import pytest
from helpers.dicom_files import dicom
from helpers.fracture_files import write_folders
from helpers.pictures import encoded, picture

from fracnet.data.datasets.folder import Folder
from fracnet.utils.errors import UserError

SPLIT = "fracnet_split.csv"


def read(root, **options):
    source = Folder(root=str(root), **options)
    source.prepare()
    manifest = source.manifest()
    manifest.check()
    return manifest


def error(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(root, **options)
    assert not (root / SPLIT).exists(), "faulty data must not be split for good"
    return str(caught.value)


def counts(manifest) -> dict[str, int]:
    return manifest.table["split"].value_counts().to_dict()


def test_class_folders_are_split_once(tmp_path):
    root = write_folders(tmp_path, "fractured", "not fractured", n=10)
    manifest = read(root, val_share=0.2, test_share=0.2)
    assert counts(manifest) == {"train": 12, "val": 4, "test": 4}
    assert manifest.table.groupby(["split", "label"]).size().min() == 2
    assert "image,split\nfractured/0.png," in (root / SPLIT).read_text()
    again = read(root, val_share=0.2, test_share=0.2)
    assert again.table.equals(manifest.table)
    assert any("patients are unknown" in note for note in manifest.notes)


def test_split_folders_are_obeyed_in_any_spelling(tmp_path):
    folders = [f"{s}/{c}" for s in ("Training", "valid", "TEST") for c in ("normal", "broken")]
    root = write_folders(tmp_path, *folders, n=2)
    manifest = read(root)
    assert counts(manifest) == {"train": 4, "val": 4, "test": 4}
    assert not (root / SPLIT).exists()


@pytest.mark.parametrize("there", ["val", "test"])
def test_a_lacking_split_is_carved_from_train_alone(tmp_path, there):
    root = write_folders(tmp_path, *(f"{s}/{c}" for s in ("train", there) for c in "ab"), n=10)
    manifest = read(root, class_order=["a", "b"])
    lacking = {"val": "test", "test": "val"}[there]
    assert set(counts(manifest)) == {"train", "val", "test"}
    carved = manifest.table[manifest.table["split"] == lacking]
    assert carved["path"].str.startswith("train/").all()
    text = (root / SPLIT).read_text()
    assert f"data.{lacking}_share" in text
    assert f"data.{there}_share" not in text


def test_images_may_lie_deeper_and_others_are_told(tmp_path):
    root = write_folders(tmp_path, "a/ward 1", "a/ward 2", "b/ward 1", n=4)
    (root / "a" / "notes.txt").write_text("x")
    (root / "a" / ".DS_Store").write_text("x")
    manifest = read(root, class_order=["a", "b"])
    assert manifest.table["label"].value_counts().to_dict() == {"a": 8, "b": 4}
    assert any("1 files are no images" in note for note in manifest.notes)


class TestClasses:
    @pytest.mark.parametrize(
        ("names", "order"),
        [
            (("fractured", "not fractured"), ("not fractured", "fractured")),
            (("Fractured", "Non_fractured"), ("Non_fractured", "Fractured")),
            (("Abnormal", "Normal"), ("Normal", "Abnormal")),
            (("0", "1"), ("0", "1")),
            (("elbow", "hand", "wrist"), ("elbow", "hand", "wrist")),
        ],
    )
    def test_order(self, tmp_path, names, order):
        manifest = read(write_folders(tmp_path, *names))
        assert manifest.classes == order
        assert manifest.task == ("binary" if len(names) == 2 else "multiclass")
        if len(names) == 2:
            assert any(f"{order[1]!r} is taken as the positive" in n for n in manifest.notes)

    def test_the_user_says_the_order(self, tmp_path):
        root = write_folders(tmp_path, "normal", "fractured")
        assert read(root, class_order=["fractured", "normal"]).classes == ("fractured", "normal")

    def test_an_unclear_order_and_a_wrong_one_are_refused(self, tmp_path):
        root = write_folders(tmp_path, "a", "b")
        assert "data.class_order=[a,b] or data.class_order=[b,a]" in error(root)
        assert "has the classes a, b; name each once" in error(root, class_order=["a", "c"])

    def test_one_class_is_not_enough(self, tmp_path):
        root = write_folders(tmp_path, "all/fractured", "all/normal")
        assert "point data.root to their parent" in error(root)


class TestBadFolders:
    def test_splits_beside_classes(self, tmp_path):
        root = write_folders(tmp_path, "train/a", "train/b", "a")
        assert "folders of splits (train) and others (a)" in error(root)

    def test_two_folders_for_one_split(self, tmp_path):
        root = write_folders(tmp_path, "train/a", "val/a", "valid/a")
        assert "two folders for one split" in error(root)

    def test_no_train_and_no_classes(self, tmp_path):
        assert "has no folder train" in error(write_folders(tmp_path / "x", "val/a", "test/a"))
        root = write_folders(tmp_path / "y", "train", "test/a")
        assert "has no class folders" in error(root)

    def test_a_class_that_train_has_not(self, tmp_path):
        root = write_folders(tmp_path, "train/fractured", "train/normal", "test/Fractured")
        told = error(root)
        assert "test has class folders that train has not: Fractured" in told

    def test_empty_and_missing_folders(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        assert "no image in its folders a, b" in error(tmp_path)
        for root, told in ((tmp_path / "gone", "does not exist"), (tmp_path / "a", "no class")):
            with pytest.raises(UserError) as caught:
                read(root)
            assert told in str(caught.value)
            assert "data.csv=labels.csv" in str(caught.value)


def test_dicom_in_class_folders_is_split_by_the_patients_of_its_headers(tmp_path):
    for place, name in enumerate(("normal", "fractured")):
        (tmp_path / name).mkdir()
        for i in range(12):
            pixels = np.asarray(picture(20 * place + i))
            data = dicom(pixels, PatientID=f"p{i % 6}")
            (tmp_path / name / f"IM{i}").write_bytes(data)
    manifest = read(tmp_path, val_share=0.2, test_share=0.2)
    assert manifest.table.groupby("patient")["split"].nunique().max() == 1
    assert manifest.groups == "DICOM headers"
    assert "patient,split\np0," in (tmp_path / SPLIT).read_text()
    told = [note for note in manifest.notes if "DICOM headers" in note]
    assert len(told) == 1


def test_a_broken_image_waits_for_the_policy(tmp_path):
    root = write_folders(tmp_path, "normal", "fractured")
    (root / "normal" / "0.png").write_bytes(encoded(picture(), "PNG")[:200])
    table = read(root).table.set_index("path")
    assert len(table) == 12
