"""MURA with something wrong: one clear paragraph each, and nothing is split for good."""

import shutil

import pytest
from helpers.mura_files import FIRST, add_study, png, write_lists, write_mura

from fracnet.data.datasets.mura import Mura
from fracnet.utils.errors import UserError


def error(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        Mura(root=str(root), **options).manifest()
    told = str(caught.value)
    assert "\n" not in told
    assert not list(root.rglob("fracnet_split.csv")), "faulty data must not be split for good"
    return told


@pytest.fixture
def base(tmp_path):
    return write_mura(tmp_path / "MURA-v1.1")


def test_a_list_naming_missing_files(base):
    with (base / "train_image_paths.csv").open("a") as file:
        for i in range(12):
            file.write(f"MURA-v1.1/{FIRST}/image{50 + i}.png\n")
    told = error(base)
    assert "train_image_paths.csv names 12 images that are not there" in told
    assert f"{FIRST}/image50.png" in told
    assert "and 2 more" in told


@pytest.mark.parametrize("lists", ["both", "labels"])
def test_a_folder_contradicting_the_list(base, lists):
    if lists == "labels":  # the list knows the study by its other name
        (base / "train_image_paths.csv").unlink()
    file = base / "train_labeled_studies.csv"
    wrong = f"{FIRST}/,0" if lists == "both" else f"{FIRST.replace('positive', 'negative')}/,0"
    file.write_text(file.read_text().replace(f"{FIRST}/,1", wrong))
    told = error(base)
    assert "train_labeled_studies.csv contradicts the names of 1 study folder:" in told
    assert f"{FIRST} (normal)" in told


def test_an_unlabeled_study(base):
    file = base / "valid_labeled_studies.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    told = error(base)
    assert "valid_labeled_studies.csv gives no label for 1 study:" in told
    assert lines[0].removeprefix("MURA-v1.1/").partition("/,")[0] in told


def test_a_patient_in_both_parts(base):
    add_study(base, "valid", "WRIST", 1, "study9_negative")
    write_lists(base)
    told = error(base)
    assert "1 patient is in train and in valid" in told
    assert "patient00001" in told


def test_an_unknown_region(base):
    add_study(base, "train", "ANKLE", 900)
    write_lists(base)
    told = error(base)
    assert "train/XR_ANKLE/patient00900/study1_positive" in told
    assert "XR_SHOULDER" in told


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("train_image_paths.csv", "MURA-v1.1/train/XR_ELBOW/image1.png"),
        ("train_image_paths.csv", "MURA-v1.1/valid/XR_ELBOW/patient1/study1_positive/a.png"),
        ("train_labeled_studies.csv", f"MURA-v1.1/{FIRST}/,2"),
        ("train_labeled_studies.csv", f"MURA-v1.1/{FIRST}/,0"),
        ("train_labeled_studies.csv", f"MURA-v1.1/{FIRST}/"),
    ],
)
def test_lines_that_say_nothing(base, name, line):
    n_lines = len((base / name).read_text().splitlines())
    with (base / name).open("a") as file:
        file.write(line)
    told = error(base)
    assert f"{name} has 1 line that" in told
    assert f"line {n_lines + 1} (" in told


def test_lists_of_nothing_and_of_bytes(base):
    (base / "train_image_paths.csv").write_text("path\n")
    assert "train_image_paths.csv names no image" in error(base)
    (base / "train_image_paths.csv").write_bytes(b"\xff\xfe\x00")
    assert "train_image_paths.csv cannot be read" in error(base)


def test_other_layouts(base):
    shutil.rmtree(base / "valid")
    assert "no folders in valid" in error(base)
    other = base.parent / "other"
    for split in ("train", "valid"):
        (other / split / "images").mkdir(parents=True)
        (other / split / "images" / "a.png").write_bytes(png())
    assert "holds no image laid out as {train,valid}/XR_WRIST" in error(other)


@pytest.mark.parametrize("found", ["does not exist", "is empty", "holds MURA-v1.1.zip"])
def test_nothing_there_is_told_in_three_lines(tmp_path, found):
    root = tmp_path / "here"
    if found != "does not exist":
        root.mkdir()
    if "zip" in found:
        (root / "MURA-v1.1.zip").write_bytes(b"")
    for call in (Mura(root=str(root)).prepare, Mura(root=str(root)).manifest):
        with pytest.raises(UserError) as caught:
            call()
        get, point, phantom = str(caught.value).splitlines()
        assert f"{root} {found}" in get
        assert "never downloaded" in get
        assert "aimi.stanford.edu" in get
        assert f"{root}/train/XR_WRIST" in get
        assert "data.root=" in point
        assert "data=mura_phantom" in phantom


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_outside_its_range(tmp_path, share):
    with pytest.raises(UserError, match=r"data\.val_share"):
        Mura(root=str(tmp_path), val_share=share)
