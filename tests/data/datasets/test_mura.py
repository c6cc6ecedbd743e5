"""MURA in the forms it is met in: lists and folders, and its official counts."""

import os
import time

import pytest
from helpers.mura_files import FIRST, REGIONS, add_study, png, write_lists, write_mura
from hydra import compose, initialize_config_dir

from fracnet.config.instantiate import build
from fracnet.config.schema import check
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


def test_negative_comes_first_and_the_task_is_never_called_fracture(base):
    manifest = read(base)
    assert (manifest.task, manifest.classes) == ("binary", ("normal", "abnormal"))
    positive = manifest.table["path"].str.contains("_positive")
    assert manifest.targets().tolist() == positive.astype(int).tolist()
    notes = " ".join(manifest.notes)
    for words in ("plates, casts or marks", "research-use agreement", "207 studies is hidden"):
        assert words in notes
    spoken = f"{notes} {manifest.classes} {manifest.groups} {manifest.citation} {Mura.obtain}"
    assert "fracture" not in spoken.lower()


def test_official_valid_is_the_test_and_validation_is_whole_train_patients(base):
    table = read(base, val_share=0.25).table
    part = table["path"].str.partition("/")[0]
    assert set(table.loc[part == "valid", "split"]) == {"test"}
    assert set(table.loc[part == "train", "split"]) == {"train", "val"}
    assert table.groupby("patient")["split"].nunique().max() == 1


def test_root_may_be_the_parent_and_home(base, monkeypatch):
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
def test_lists_in_every_form_and_no_lists_give_one_table(base, form):
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
    assert not any("is not there" in note for note in official.notes)
    assert sum("is not there" in note for note in by_folders.notes) == 2


def test_lists_decide_and_what_they_leave_out_is_counted(base):
    add_study(base, "train", "WRIST", 900, "study1_negative", views=3)
    add_study(base, "valid", "WRIST", 901, "study1_negative", views=2)
    manifest = read(base)
    assert not manifest.table["patient"].isin(["patient00900", "patient00901"]).any()
    assert {tuple(row) for row in manifest.excluded.to_numpy()} == {
        ("train", "not in train_image_paths.csv", 3),
        ("test", "not in valid_image_paths.csv", 2),
    }


@pytest.mark.parametrize("lists", [True, False])
def test_leavings_are_no_images_and_are_told(tmp_path, lists):
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
    assert "2 hidden files, as macOS" in notes
    assert "left out 1 file with no image's extension" in notes
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
    with pytest.raises(UserError, match="1 study folder with neither _positive nor _negative"):
        read(base)


def test_two_studies_of_one_number_stay_two(base):
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
    (tmp_path / "one.png").write_bytes(png(size=(512, 400)))
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
        named = [f"{paths[i % studies]}/image{1 + i // studies}.png" for i in range(images)]
        for path in named:
            os.link(tmp_path / "one.png", base / path)
        (base / f"{part}_image_paths.csv").write_text("".join(f"MURA-v1.1/{p}\n" for p in named))
        first += patients
    start = time.process_time()
    manifest = read(tmp_path)
    assert time.process_time() - start < 15
    table = manifest.table
    official = table["path"].str.partition("/")[0]
    for part, held in counts.items():
        rows = table[official == part]
        assert (len(rows), rows["study"].nunique(), rows["patient"].nunique()) == held
    assert (table["split"] == "test").sum() == 3_197
    assert (table["split"] == "val").sum() / 36_808 == pytest.approx(0.1, abs=0.003)
    assert manifest.excluded.empty
    assert table["width"].eq(512).all()


def composed(*words):
    from omegaconf import OmegaConf

    with initialize_config_dir(str(config_dir())):
        node = compose("train", list(words))
    return check(OmegaConf.to_container(node, resolve=True))


def test_the_shipped_choice_reads_the_set(base):
    config = composed("data=mura", f"data.root={base}", "data.val_share=0.2")
    source = build(config.data.source(), "data")
    assert source == Mura(root=str(base), val_share=0.2)
    source.prepare()
    source.manifest().check()
    with pytest.raises(UserError, match=r"data\.val_share=1\.5"):
        build(composed("data=mura", "data.val_share=1.5").data.source(), "data")


def test_the_published_setting_differs_in_size_and_scaling_only():
    plain, published = composed("data=mura"), composed("data=mura_150")
    assert (published.image_size, published.model.normalize) == (150, "half")
    assert composed("data=mura_150", "image_size=64").image_size == 64
    assert composed("data=mura_150", "model.normalize=imagenet").model.normalize == "imagenet"
    own = {"image_size": True, "model": {"normalize": True}}
    assert plain.model_dump(exclude=own) == published.model_dump(exclude=own)
