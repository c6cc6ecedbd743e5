"""MURA in all forms in which copies have it: lists, folders, official counts, and faults."""

import os
import shutil
import time

import pytest
from helpers.mura_files import FIRST, REGIONS, add_study, png, write_lists, write_mura
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fracnet.config.checks import check
from fracnet.config.instantiate import build
from fracnet.data.datasets.mura import Mura
from fracnet.utils.errors import UserError
from fracnet.utils.files import config_dir


def read(root, **options):
    manifest = Mura(root=str(root), **options).manifest()
    manifest.check()
    return manifest


@pytest.fixture
def base(tmp_path):
    return write_mura(tmp_path / "MURA-v1.1")


def error(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        Mura(root=str(root), **options).manifest()
    message = str(caught.value)
    assert "\n" not in message
    assert not list(root.rglob("fracnet_split.csv")), "faulty data must not get a split file"
    return message


def test_a_row_holds_patient_study_region_label_and_size(base):
    table = read(base).table.set_index("path")
    row = table.loc["train/XR_HAND/patient00001/study2_negative/image3.png"]
    assert row["label"] == "normal"
    assert (row["patient"], row["region"]) == ("patient00001", "hand")
    assert row["study"] == "hand/patient00001/study2"
    assert (row["width"], row["height"]) == (10, 9)
    assert row["polygons"] is None
    assert row["boxes"] is None
    assert set(table["region"]) == {region.lower() for region in REGIONS}
    assert table.groupby("study")["patient"].nunique().max() == 1
    assert table.groupby("study")["label"].nunique().max() == 1


def test_the_positive_class_is_last_and_never_named_fracture(base):
    manifest = read(base)
    assert (manifest.task, manifest.classes) == ("binary", ("normal", "abnormal"))
    positive = manifest.table["path"].str.contains("_positive")
    assert manifest.targets().tolist() == positive.astype(int).tolist()
    notes = " ".join(manifest.notes)
    for text in ("plates, casts or marks", "research-use agreement", "207 studies is hidden"):
        assert text in notes
    text = f"{notes} {manifest.classes} {manifest.groups} {manifest.citation} {Mura.how_to_get}"
    assert "fracture" not in text.lower()


def test_official_valid_is_the_test_and_validation_is_whole_train_patients(base):
    table = read(base, val_share=0.25).table
    part = table["path"].str.partition("/")[0]
    assert set(table.loc[part == "valid", "split"]) == {"test"}
    assert set(table.loc[part == "train", "split"]) == {"train", "val"}
    assert table.groupby("patient")["split"].nunique().max() == 1


def test_root_may_be_the_parent_or_start_at_home(base, monkeypatch):
    inner = read(base)
    monkeypatch.setenv("HOME", str(base.parent))
    for root in (base.parent, "~"):
        outer = read(root)
        assert outer.table.equals(inner.table)
        assert outer.root == inner.root


@pytest.mark.parametrize(
    "form",
    [
        {"header": ("path", "label")},
        {"header": ("Path", "Label"), "comma": ",", "newline": "\r\n"},
        {"comma": ",,", "slash": ""},
        {"prefix": "", "slash": ""},
        {"prefix": "./data/MURA-v1.1/"},
        {"header": ("", "path", "label"), "index": True},
        {"start": "\ufeff", "newline": "\n\n"},
        {"separator": "\\"},
    ],
    ids=str,
)
def test_every_form_of_the_lists_and_no_lists_give_the_same_table(base, form):
    official = read(base)
    write_lists(base, **form)
    assert read(base).table.equals(official.table)
    for file in base.glob("*_image_paths.csv"):
        file.unlink()
    by_labels = read(base)
    assert by_labels.table.equals(official.table)
    for file in base.glob("*_labeled_studies.csv"):
        file.unlink()
    by_folders = read(base)
    assert by_folders.table.equals(official.table)
    assert not any("does not exist" in note for note in official.notes)
    assert sum("does not exist" in note for note in by_folders.notes) == 2


def test_images_absent_from_the_lists_are_excluded_and_counted(base):
    add_study(base, "train", "WRIST", 900, "study1_negative", views=3)
    add_study(base, "valid", "WRIST", 901, "study1_negative", views=2)
    manifest = read(base)
    assert not manifest.table["patient"].isin(["patient00900", "patient00901"]).any()
    assert {tuple(row) for row in manifest.excluded.to_numpy()} == {
        ("train", "not in train_image_paths.csv", 3),
        ("test", "not in valid_image_paths.csv", 2),
    }


@pytest.mark.parametrize("lists", [True, False])
def test_files_that_are_not_images_are_skipped_and_reported(tmp_path, lists):
    base = write_mura(tmp_path, lists=lists)
    expected = len(read(base).table)
    (base / FIRST / "._image1.png").write_bytes(b"\x00\x05\x16\x07")
    (base / "train" / ".DS_Store").write_bytes(b"")
    (base / FIRST / "Thumbs.db").write_bytes(b"")
    (base / "train" / "XR_WRIST" / "sheet.png").write_bytes(png())
    if lists:
        with (base / "train_image_paths.csv").open("a") as file:
            file.write(f"MURA-v1.1/{FIRST}/._image1.png\n")
    manifest = read(base)
    assert len(manifest.table) == expected
    notes = " ".join(manifest.notes)
    assert "skipped 2 hidden files" in notes
    assert "skipped 1 file, not images" in notes
    assert "train/XR_WRIST/sheet.png" in notes


def test_a_study_without_a_suffix_takes_its_label_from_the_list(base):
    bare = (base / FIRST).rename((base / FIRST).with_name("study1"))
    for name in ("train_image_paths.csv", "train_labeled_studies.csv"):
        text = (base / name).read_text()
        (base / name).write_text(text.replace(f"{FIRST}/", f"{FIRST.removesuffix('_positive')}/"))
    table = read(base).table
    rows = table[table["path"].str.startswith(bare.relative_to(base).as_posix() + "/")]
    assert set(rows["label"]) == {"abnormal"}
    (base / "train_labeled_studies.csv").unlink()
    (base / "fracnet_split.csv").unlink()
    with pytest.raises(UserError, match="1 study folder without a label, neither"):
        read(base)


def test_studies_with_the_same_number_and_different_labels_stay_apart(base):
    add_study(base, "train", "ELBOW", 1, "study1_negative")
    write_lists(base)
    table = read(base).table
    assert {"elbow/patient00001/study1_positive", "elbow/patient00001/study1_negative"} < set(
        table["study"]
    )


@pytest.mark.slow
def test_the_real_counts_load(tmp_path):
    base = tmp_path / "MURA-v1.1"
    base.mkdir()
    (tmp_path / "image.png").write_bytes(png(size=(512, 400)))
    counts = {"train": (36_808, 13_457, 11_184), "valid": (3_197, 1_199, 783)}
    first = 0
    for part, (images, studies, patients) in counts.items():
        paths = []
        for i in range(studies):
            patient, region = first + i % patients, REGIONS[i % patients % 7]
            ending = "positive" if i * 7919 % 5 < 2 else "negative"
            study = f"study{1 + i // patients}_{ending}"
            paths.append(f"{part}/XR_{region}/patient{patient:05d}/{study}")
            os.makedirs(base / paths[-1])
        image_paths = [f"{paths[i % studies]}/image{1 + i // studies}.png" for i in range(images)]
        for path in image_paths:
            os.link(tmp_path / "image.png", base / path)
        lines = "".join(f"MURA-v1.1/{path}\n" for path in image_paths)
        (base / f"{part}_image_paths.csv").write_text(lines)
        first += patients
    start = time.process_time()
    manifest = read(tmp_path)
    assert time.process_time() - start < 15
    table = manifest.table
    official = table["path"].str.partition("/")[0]
    for part, expected in counts.items():
        rows = table[official == part]
        assert (len(rows), rows["study"].nunique(), rows["patient"].nunique()) == expected
    assert (table["split"] == "test").sum() == 3_197
    assert (table["split"] == "val").sum() / 36_808 == pytest.approx(0.1, abs=0.003)
    assert manifest.excluded.empty
    assert table["width"].eq(512).all()


def composed(*overrides):
    with initialize_config_dir(str(config_dir())):
        node = compose("train", list(overrides))
    return check(OmegaConf.to_container(node, resolve=True))


def test_the_shipped_config_reads_the_dataset(base):
    config = composed("data=mura", f"data.root={base}", "data.val_share=0.2")
    dataset = build(config.data.plain(), "data")
    assert dataset == Mura(root=str(base), val_share=0.2)
    dataset.prepare()
    dataset.manifest().check()
    with pytest.raises(UserError, match=r"data\.val_share=1\.5"):
        build(composed("data=mura", "data.val_share=1.5").data.plain(), "data")


def test_the_published_setting_differs_only_in_size_and_scaling():
    plain, published = composed("data=mura"), composed("data=mura_150")
    assert (published.image_size, published.model.normalize) == (150, "half")
    assert composed("data=mura_150", "image_size=64").image_size == 64
    assert composed("data=mura_150", "model.normalize=imagenet").model.normalize == "imagenet"
    settings = {"image_size": True, "model": {"normalize": True}}
    assert plain.model_dump(exclude=settings) == published.model_dump(exclude=settings)


def test_a_list_that_names_missing_files_is_rejected(base):
    with (base / "train_image_paths.csv").open("a") as file:
        for i in range(12):
            file.write(f"MURA-v1.1/{FIRST}/image{50 + i}.png\n")
    message = error(base)
    assert "train_image_paths.csv names 12 images that are missing" in message
    assert f"{FIRST}/image50.png" in message
    assert "and 2 more" in message


@pytest.mark.parametrize("lists", ["both", "labels"])
def test_a_folder_that_contradicts_the_list_is_rejected(base, lists):
    if lists == "labels":  # the list has the study by its other name
        (base / "train_image_paths.csv").unlink()
    file = base / "train_labeled_studies.csv"
    wrong = f"{FIRST}/,0" if lists == "both" else f"{FIRST.replace('positive', 'negative')}/,0"
    file.write_text(file.read_text().replace(f"{FIRST}/,1", wrong))
    message = error(base)
    assert "train_labeled_studies.csv contradicts the names of 1 study folder:" in message
    assert f"{FIRST} (normal)" in message


def test_an_unlabeled_study_is_rejected(base):
    file = base / "valid_labeled_studies.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    message = error(base)
    assert "1 study folder without a label, neither in valid_labeled_studies.csv" in message
    assert lines[0].removeprefix("MURA-v1.1/").partition("/,")[0] in message


def test_a_patient_in_both_parts_is_rejected(base):
    add_study(base, "valid", "WRIST", 1, "study9_negative")
    write_lists(base)
    message = error(base)
    assert "1 patient is in train and in valid" in message
    assert "patient00001" in message


def test_an_unknown_region_is_rejected(base):
    add_study(base, "train", "ANKLE", 900)
    write_lists(base)
    message = error(base)
    assert "train/XR_ANKLE/patient00900/study1_positive" in message
    assert "XR_SHOULDER" in message


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
def test_list_lines_without_a_path_or_label_are_rejected(base, name, line):
    n_lines = len((base / name).read_text().splitlines())
    with (base / name).open("a") as file:
        file.write(line)
    message = error(base)
    assert f"{name} has 1 line that cannot be parsed" in message
    assert f"line {n_lines + 1} (" in message


def test_a_quotation_mark_without_its_pair_in_a_list_swallows_no_line(base):
    file = base / "train_labeled_studies.csv"
    head, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([head, '"', *rest, "x" * 200_000]))
    assert "Check its quotation marks" in error(base)


def test_empty_and_binary_lists_are_rejected(base):
    (base / "train_image_paths.csv").write_text("path\n")
    assert "train_image_paths.csv names no image" in error(base)
    (base / "train_image_paths.csv").write_bytes(b"\x89PNG\r\n\xff")
    assert "train_image_paths.csv cannot be read" in error(base)


def test_unexpected_layouts_are_rejected(base):
    shutil.rmtree(base / "valid")
    assert "no folders in valid" in error(base)
    other = base.parent / "other"
    for split in ("train", "valid"):
        (other / split / "images").mkdir(parents=True)
        (other / split / "images" / "a.png").write_bytes(png())
    assert "holds no image with the layout {train,valid}/XR_WRIST" in error(other)


@pytest.mark.parametrize("state", ["does not exist", "is empty", "holds MURA-v1.1.zip"])
def test_missing_data_is_reported_in_three_lines(tmp_path, state):
    root = tmp_path / "root"
    if state != "does not exist":
        root.mkdir()
    if "zip" in state:
        (root / "MURA-v1.1.zip").write_bytes(b"")
    for call in (Mura(root=str(root)).prepare, Mura(root=str(root)).manifest):
        with pytest.raises(UserError) as caught:
            call()
        get, point, phantom = str(caught.value).splitlines()
        assert f"{root} {state}" in get
        assert "never downloaded" in get
        assert "aimi.stanford.edu" in get
        assert f"{root}/train/XR_WRIST" in get
        assert "data.root=" in point
        assert "data=mura_phantom" in phantom


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_out_of_range_is_rejected(tmp_path, share):
    with pytest.raises(UserError, match=r"data\.val_share"):
        build(
            {
                "_target_": "fracnet.data.datasets.mura.Mura",
                "root": str(tmp_path),
                "val_share": share,
            },
            "data",
        )
