"""MURA in the forms it is met in: lists and folders, its official counts, and what is wrong."""

import os
import shutil
import time

import pytest
from helpers.mura_files import REGIONS, add_study, png, write_lists, write_mura
from hydra import compose, initialize_config_dir

from fracnet.config import check
from fracnet.data.sources.mura import Mura
from fracnet.errors import UserError
from fracnet.objects import build
from fracnet.paths import config_dir

FIRST = "train/XR_ELBOW/patient00001/study1_positive"


def read(root, **options):
    manifest = Mura(root=str(root), **options).manifest()
    manifest.check()
    return manifest


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
    assert "2 hidden files" in notes
    assert "1 files are no images" in notes
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
    assert "neither with _positive nor with _negative" in error(base)


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


class TestBadInput:
    def test_a_list_naming_missing_files(self, base):
        with (base / "train_image_paths.csv").open("a") as file:
            for i in range(12):
                file.write(f"MURA-v1.1/{FIRST}/image{50 + i}.png\n")
        told = error(base)
        assert "train_image_paths.csv names 12 images that are not there" in told
        assert f"{FIRST}/image50.png" in told
        assert "and 2 more" in told

    @pytest.mark.parametrize("lists", ["both", "labels"])
    def test_a_folder_contradicting_the_list(self, base, lists):
        if lists == "labels":  # the list knows the study by its other name
            (base / "train_image_paths.csv").unlink()
        file = base / "train_labeled_studies.csv"
        wrong = f"{FIRST}/,0" if lists == "both" else f"{FIRST.replace('positive', 'negative')}/,0"
        file.write_text(file.read_text().replace(f"{FIRST}/,1", wrong))
        told = error(base)
        assert "train_labeled_studies.csv contradicts the names of 1 study folders" in told
        assert f"{FIRST} (normal)" in told

    def test_an_unlabelled_study(self, base):
        file = base / "valid_labeled_studies.csv"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[1:]))
        told = error(base)
        assert "valid_labeled_studies.csv gives no label for 1 studies" in told
        assert lines[0].removeprefix("MURA-v1.1/").partition("/,")[0] in told

    def test_a_patient_in_both_parts(self, base):
        add_study(base, "valid", "WRIST", 1, "study9_negative")
        write_lists(base)
        told = error(base)
        assert "1 patients are in train and in valid" in told
        assert "patient00001" in told

    def test_an_unknown_region(self, base):
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
    def test_lines_that_say_nothing(self, base, name, line):
        n_lines = len((base / name).read_text().splitlines())
        with (base / name).open("a") as file:
            file.write(line)
        told = error(base)
        assert f"{name} has 1 lines" in told
        assert f"line {n_lines + 1} (" in told

    def test_lists_of_nothing_and_of_bytes(self, base):
        (base / "train_image_paths.csv").write_text("path\n")
        assert "train_image_paths.csv names no image" in error(base)
        (base / "train_image_paths.csv").write_bytes(b"\xff\xfe\x00")
        assert "train_image_paths.csv cannot be read" in error(base)

    def test_other_layouts(self, base):
        shutil.rmtree(base / "valid")
        assert "no folders in valid" in error(base)
        other = base.parent / "other"
        for split in ("train", "valid"):
            (other / split / "images").mkdir(parents=True)
            (other / split / "images" / "a.png").write_bytes(png())
        assert "holds no image laid out as {train,valid}/XR_WRIST" in error(other)

    @pytest.mark.parametrize("found", ["does not exist", "is empty", "holds MURA-v1.1.zip"])
    def test_nothing_there_is_told_in_three_lines(self, tmp_path, found):
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
    def test_a_share_outside_its_range(self, tmp_path, share):
        with pytest.raises(UserError, match=r"data\.val_share"):
            Mura(root=str(tmp_path), val_share=share)


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
    assert (published.image_size, published.model.normalise) == (150, "half")
    assert composed("data=mura_150", "image_size=64").image_size == 64
    assert composed("data=mura_150", "model.normalise=imagenet").model.normalise == "imagenet"
    own = {"image_size": True, "model": {"normalise": True}}
    assert plain.model_dump(exclude=own) == published.model_dump(exclude=own)
