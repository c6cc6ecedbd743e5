"""Links, odd names, system folders, foreign layouts and misspelled labels in a user's own data."""

import os
import shlex
import shutil
from pathlib import Path

import pytest
from helpers.fracture_files import write_folders, write_fracatlas, write_grazped
from helpers.mura_files import write_mura
from helpers.patients import PatientDataset
from helpers.tiny import RESIZE
from helpers.upper_limb_files import NAMES, POLYGON, add, write_yaml, write_yolo
from hydra.core.override_parser.overrides_parser import OverridesParser

from fracnet.data.datasets.folder import Folder
from fracnet.data.datasets.fracatlas import FracAtlas
from fracnet.data.datasets.grazped import Grazped
from fracnet.data.datasets.mura import Mura
from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.data.fingerprint import data_fingerprint, files_digest
from fracnet.data.image_cache import ImageCache
from fracnet.data.image_io import read_grey
from fracnet.data.manifest import Manifest, read_table, write_table
from fracnet.data.preprocess import Preprocess
from fracnet.utils.errors import UserError

SPLIT = "fracnet_split.csv"


def read(root: Path, **options) -> Manifest:
    manifest = Folder(root=str(root), **options).manifest()
    manifest.check()
    return manifest


def error(dataset) -> str:
    with pytest.raises(UserError) as caught:
        dataset.manifest().check()
    return str(caught.value)


def folder_error(root: Path, **options) -> str:
    message = error(Folder(root=str(root), **options))
    assert not (root / SPLIT).exists(), "faulty data must not get a split file"
    return message


def notes(manifest: Manifest) -> str:
    return " ".join(manifest.notes)


def typed(note: str, key: str) -> object:
    """The value that Hydra reads where a user types what ends a note, ", set KEY=VALUE."."""
    (argument,) = shlex.split(note.rpartition(", set ")[2].removesuffix("."))
    override = OverridesParser.create().parse_override(argument)
    assert override.key_or_group == key
    return override.value()


def write_csv(root: Path, text: str) -> None:
    (root / "labels.csv").write_text(text, newline="")


def csv_lines(labels: list[str], patients: list[str] | None = None) -> str:
    if patients is None:
        return "".join(f"images/{i}.png,{label}\n" for i, label in enumerate(labels))
    pairs = zip(labels, patients, strict=True)
    return "".join(f"images/{i}.png,{label},{name}\n" for i, (label, name) in enumerate(pairs))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "own", "images", n=12)


class TestLinks:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return write_folders(tmp_path / "own", "normal", "broken", n=10)

    @pytest.mark.parametrize("target", ["normal", "."])
    def test_a_link_to_a_parent_folder_repeats_nothing(self, root, target):
        (root / "normal" / "again").symlink_to(root / target)
        if target == ".":
            assert "are also listed with another label" in folder_error(root)
            return
        manifest = read(root)
        assert len(manifest.table) == 20
        assert "skipped 1 link to a folder that is already read" in notes(manifest)

    def test_links_to_one_file_are_one_image(self, root):
        (root / "broken" / "soft.png").symlink_to(root / "broken" / "1.png")
        os.link(root / "broken" / "2.png", root / "broken" / "hard.png")
        manifest = read(root)
        assert len(manifest.table) == 20
        assert "skipped 2 links to images that are already listed" in notes(manifest)

    @pytest.mark.parametrize("other", ["normal/1.png", "broken/z.png"])
    def test_one_file_in_two_classes_is_an_error(self, root, other):
        (root / other).unlink(missing_ok=True)
        source = "normal/0.png" if other.startswith("broken") else "broken/0.png"
        (root / other).symlink_to(root / source)
        message = folder_error(root)
        assert "1 link to images that are also listed with another label" in message
        assert other in message

    def test_one_file_in_two_splits_is_an_error(self, tmp_path):
        folders = [f"{split}/{name}" for split in ("train", "val") for name in ("normal", "broken")]
        root = write_folders(tmp_path, *folders)
        (root / "test").symlink_to(root / "val")
        assert "with split val and test" in folder_error(root)

    def test_a_linked_class_folder_is_read(self, root, tmp_path):
        (root / "normal").rename(tmp_path / "elsewhere")
        (root / "normal").symlink_to(tmp_path / "elsewhere")
        assert len(read(root).table) == 20

    def test_other_datasets_list_each_image_once(self, tmp_path):
        mura = write_mura(tmp_path / "MURA-v1.1", lists=False)
        n = len(Mura(root=str(mura)).manifest().table)
        (mura / "train" / "XR_ELBOW" / "up").symlink_to(mura / "train")
        manifest = Mura(root=str(mura)).manifest()
        assert len(manifest.table) == n
        assert "already read" in notes(manifest)
        grazped = write_grazped(tmp_path / "grazped")
        (grazped / "images_part3").symlink_to(grazped / "images_part1")
        assert len(Grazped(root=str(grazped)).manifest().table) == 48
        limb = write_yolo(tmp_path / "limb")
        add(limb, "train", "copy", f"0 {POLYGON}\n").unlink()
        image = next((limb / "train" / "images").glob("0_0*"))
        (limb / "train" / "images" / "copy.jpg").symlink_to(image)
        manifest = UpperLimb(root=str(limb)).manifest()
        assert len(manifest.table) == 21
        assert "skipped 1 link to images" in notes(manifest)


ODD_NAMES = [
    b"caf\xe9.png", b"a\nb.png", b"a\rb.png", b"a\r\nb.png", b"a\x0bb.png", b"a\x0cb.png",
    "a\u2028b.png".encode(), "a\x85b.png".encode(), b"#x.png", b'"q.png', b"a,b.png",
    b"literal\\xe9.png", b" blank.png", b"NA.png",
]  # fmt: skip


def test_a_file_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    root = write_folders(tmp_path / "own", "#normal", "broken", n=4)
    folder = os.fsencode(root / "#normal")
    for i, name in enumerate(ODD_NAMES):
        data = (root / "#normal" / f"{i % 4}.png").read_bytes()
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(data)
    (root / "broken").rename(os.fsdecode(os.path.join(os.fsencode(root), b"br\xf6ken")))
    options = {"class_order": ["#normal", "br\\xf6ken"], "val_share": 0.2, "test_share": 0.2}
    manifest = read(root, **options)
    assert len(manifest.table) == 8 + len(ODD_NAMES)
    assert "#normal/caf\\xe9.png" in set(manifest.table["path"])
    for path in manifest.table["path"]:
        assert read_grey(manifest.file(path)).ndim == 2
    assert manifest.table["width"].notna().all()
    assert read(root, **options).table.equals(manifest.table), "the split file is read back"
    write_table(manifest.table, tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv").equals(manifest.table)
    assert data_fingerprint(manifest)
    before = files_digest(manifest)
    with Path(os.fsdecode(os.path.join(folder, b"caf\xe9.png"))).open("ab") as file:
        file.write(b"0")
    assert files_digest(manifest) != before
    cache = ImageCache.open_or_build(manifest, Preprocess(RESIZE, 16), workers=1, progress=False)
    assert not cache.bad


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan", "no", "1.0"])
def test_classes_and_patients_may_be_named_like_missing_values(images, tmp_path, name):
    labels = [name, "fracture"] * 6
    write_csv(
        images,
        "path,label,patient\n" + csv_lines(labels, [name, "p"] * 3 + [f"p{i}" for i in range(6)]),
    )
    manifest = read(images, csv="labels.csv", class_order=[name, "fracture"])
    assert manifest.classes == (name, "fracture")
    assert (manifest.table["patient"] == name).sum() == 3
    write_table(manifest.table, tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv").equals(manifest.table)
    assert read(images, csv="labels.csv", class_order=[name, "fracture"]).table.equals(
        manifest.table
    )


@pytest.mark.parametrize(("order", "name"), [(None, "null"), (True, "true"), (1, "1")])
def test_the_order_of_classes_may_be_given_as_hydra_reads_it(images, order, name):
    write_csv(images, "path,label\n" + csv_lines([name, "fracture"] * 6))
    assert read(images, csv="labels.csv", class_order=[order, "fracture"]).classes[0] == name


def test_jpeg_endings_and_system_folders(tmp_path):
    root = write_folders(tmp_path, "normal", "broken", n=8, suffix=".jpg")
    for i, ending in enumerate((".jfif", ".JPE", ".pjpeg")):
        (root / "normal" / f"{i}.jpg").rename(root / "normal" / f"{i}{ending}")
    for name in ("@eaDir", "__MACOSX", ".thumbnails", "#recycle"):
        shutil.copytree(root / "broken", root / "normal" / name)
        shutil.copytree(root / "broken", root / name)
    for name in ("a.webp", "b.webp", "notes.txt", "README"):
        (root / "broken" / name).write_text("x")
    manifest = read(root)
    assert manifest.classes == ("normal", "broken")
    assert manifest.table["label"].value_counts().to_dict() == {"normal": 8, "broken": 8}
    expected = "4 files, not images (.webp 2, no ending 1, .txt 1): README, a.webp, b.webp, notes"
    assert expected in notes(manifest)


class TestSplitFolders:
    @pytest.mark.parametrize("names", [("Train", "Test"), ("training", "TESTING", "Validation")])
    @pytest.mark.parametrize("deep", ["", "ward 1/"])
    def test_splits_inside_the_classes_are_used(self, tmp_path, names, deep):
        folders = [f"{label}/{deep}{name}" for label in ("normal", "broken") for name in names]
        manifest = read(write_folders(tmp_path, *folders, n=10))
        assert manifest.classes == ("normal", "broken")
        test = manifest.table["path"].str.lower().str.contains("/test")
        assert ((manifest.table["split"] == "test") == test).all()
        assert (tmp_path / SPLIT).exists() == (len(names) == 2), "only validation is carved"

    def test_common_names_of_split_folders(self, tmp_path):
        folders = [f"{s}/{c}" for s in ("training_set", "val data", "Test-Images") for c in "ab"]
        manifest = read(write_folders(tmp_path, *folders, n=2), class_order=["a", "b"])
        assert manifest.table["split"].value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}

    @pytest.mark.parametrize(
        ("folders", "expected"),
        [
            (("a/train", "a/test", "b"), "6 images are in none of them: b/0.png"),
            (("a/train", "a/test", "b/train", "b/ward"), "b/ward/0.png"),
            (("a/test", "b/test"), "no folder train"),
            (("a/val", "a/valid", "a/train", "b/train"), "two folders for one split: val, valid"),
            (("train/a/test", "train/b", "test/a", "test/b"), "6 images name two splits"),
            (("a/train", "b/train", "c/test"), "class folders that train lacks: c"),
        ],
    )
    def test_mixed_splits_are_rejected(self, tmp_path, folders, expected):
        root = write_folders(tmp_path, *folders)
        assert expected in folder_error(root, class_order=["a", "b"])


class TestOtherLayouts:
    @pytest.mark.parametrize(
        "folders",
        [
            ("train2017", "val2017", "test2017"),
            ("trainA", "trainB", "testA", "testB"),
            tuple(f"{n}_{s}/{c}" for n, s in enumerate(("train", "val")) for c in ("no", "yes")),
            ("trainset/a", "trainset/b", "testset/a"),
        ],
    )
    def test_splits_of_other_names_are_no_classes(self, tmp_path, folders):
        root = write_folders(tmp_path, *folders)
        assert "would be the classes, but look like splits" in folder_error(root)
        labels = sorted({folder.split("/")[0] for folder in folders})
        assert read(root, class_order=labels).classes == tuple(labels)

    @pytest.mark.parametrize("above", ["", "train/"])
    def test_folders_above_the_classes_are_no_classes(self, tmp_path, above):
        inner = ("normal", "fractured")
        root = write_folders(tmp_path, *(f"{above}{r}/{c}" for r in ("hand", "leg") for c in inner))
        message = folder_error(root)
        assert "the folders hand, leg would be the classes" in message
        assert "in each of them are the folders fractured, normal" in message
        assert read(root, class_order=["hand", "leg"]).classes == ("hand", "leg")

    @pytest.mark.parametrize("inner", [("fractured", "not fractured"), ("0", "1")])
    def test_other_names_of_classes_below_are_found(self, tmp_path, inner):
        root = write_folders(tmp_path, *(f"{r}/{c}" for r in ("hand", "leg") for c in inner))
        assert f"in each of them are the folders {', '.join(inner)}" in folder_error(root)

    def test_views_below_the_classes_are_no_classes(self, tmp_path):
        inner = ("normal view", "lateral view")
        root = write_folders(
            tmp_path, *(f"{c}/{v}" for c in ("greenstick", "oblique") for v in inner)
        )
        order = ["greenstick", "oblique"]
        assert "unclear which one is positive" in folder_error(root)
        assert read(root, class_order=order).classes == tuple(order)

    def test_folders_below_the_classes_need_no_meaning(self, tmp_path):
        views = ("frontal", "lateral", "no label")
        root = write_folders(
            tmp_path, *(f"{c}/{v}" for c in ("normal", "fractured") for v in views)
        )
        assert read(root).classes == ("normal", "fractured")

    @pytest.mark.parametrize("above", [False, True])
    def test_a_yolo_tree_is_named(self, tmp_path, above):
        base = write_yolo(tmp_path / "BoneFractureYolo8")
        message = folder_error(tmp_path if above else base)
        assert f"{base} is a YOLO tree" in message
        assert f"data=upper_limb data.root={base}" in message
        assert len(UpperLimb(root=str(base)).manifest().table) == 21, "the hint works"

    def test_a_yolo_tree_with_splits_below_images(self, tmp_path):
        root = write_folders(tmp_path, "images/train", "images/val", "labels/train", "labels/val")
        assert "is a YOLO tree" in folder_error(root)

    @pytest.mark.parametrize("name", ["mura", "fracatlas", "grazped"])
    def test_a_published_dataset_is_named(self, tmp_path, name):
        write = {"mura": write_mura, "fracatlas": write_fracatlas, "grazped": write_grazped}[name]
        assert f"data={name} data.root={write(tmp_path / 'x')}." in folder_error(tmp_path / "x")


class TestLabels:
    def test_spellings_of_one_number_are_one_class(self, images):
        write_csv(
            images, "path,label\n" + csv_lines(["0", "0.0", "1", "1.0", "1."] * 2 + ["0", "1"])
        )
        manifest = read(images, csv="labels.csv")
        assert manifest.classes == ("0", "1")
        assert "'0' (3 images), '0.0' (2 images) are one number" in notes(manifest)

    @pytest.mark.parametrize("other", ["fracture", "FRACTURE", "Fracture_x", "Fracture-X"])
    def test_spellings_of_one_name_are_rejected(self, images, other):
        first = "Fracture X" if "x" in other.lower()[8:] else "Fracture"
        write_csv(images, "path,label\n" + csv_lines([first, "normal", other] * 4))
        message = folder_error(images, csv="labels.csv")
        assert f"{first!r} (4 images)" in message
        assert f"{other!r} (4 images)" in message

    def test_folders_count_too_and_listed_classes_are_distinct(self, tmp_path):
        root = write_folders(tmp_path, "Grade", "grade", "normal")
        assert "'Grade' (6 images) and 'grade' (6 images)" in folder_error(root)
        order = ["normal", "grade", "Grade"]
        assert read(root, class_order=order).classes == tuple(order)

    @pytest.mark.parametrize(
        "other",
        [
            "normal ", " normal", "nor\u200bmal", "\ufeffnormal", "\uff4eormal", "normal\xad",
            "normal - Copy", "normal (1)", "normal copy (2)",
        ],
    )  # fmt: skip
    def test_spellings_that_look_alike_are_rejected(self, tmp_path, other):
        root = write_folders(tmp_path, "normal", other, "broken")
        assert f"{other!r} (6 images)" in folder_error(root)

    @pytest.mark.parametrize("other", ["0 - Copy", "0 (1)", "0 copy", "00 (1)"])
    def test_copies_of_numbered_classes_are_rejected(self, tmp_path, other):
        root = write_folders(tmp_path, "0", "1", other)
        assert f"'0' (6 images) and {other!r} (6 images)" in folder_error(root)
        assert len(read(root, class_order=["0", "1", other]).classes) == 3

    def test_numbered_classes_are_no_copies(self, tmp_path):
        root = write_folders(tmp_path, "type (1)", "type (2)", "no copy")
        assert len(read(root).classes) == 3

    @pytest.mark.parametrize("other", ["1 ", "01", "1\u200b"])
    def test_numbers_that_look_alike_are_one_class(self, tmp_path, other):
        manifest = read(write_folders(tmp_path, "0", "1", other))
        assert manifest.classes == ("0", "1")
        assert "are one number and count as one class" in notes(manifest)

    def test_long_numbers_stay_distinct(self, images):
        labels = ["10000000000000000", "10000000000000001", "x"]
        write_csv(images, "path,label\n" + csv_lines(labels * 4))
        assert read(images, csv="labels.csv").classes == tuple(labels)

    def test_similar_names_stay_distinct(self, images):
        write_csv(images, "path,label\n" + csv_lines(["A", "A+", "A-", "a1"] * 3))
        assert len(read(images, csv="labels.csv").classes) == 4


class TestTables:
    @pytest.mark.parametrize(
        "patient", ["#1", "a\x0cb", "a\x0bb", "a\x85b", "a\u2028b", '"x\ny"', '"x\ry"']
    )
    def test_a_patient_may_have_any_id(self, images, patient):
        patients = [patient] * 6 + [f"p{i}" for i in range(6)]
        write_csv(images, "path,label,patient\n" + csv_lines(["normal", "broken"] * 6, patients))
        manifest = read(images, csv="labels.csv")
        assert manifest.table["patient"].nunique() == 7
        assert manifest.classes == ("normal", "broken")
        assert read(images, csv="labels.csv").table.equals(manifest.table)

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_line_ends_of_all_systems(self, images, end):
        text = "path,label\n" + csv_lines(["normal", "broken"] * 6)
        write_csv(images, text.replace("\n", end))
        assert len(read(images, csv="labels.csv").table) == 12

    @pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "sep=;;;"])
    def test_the_line_by_which_excel_names_the_separator(self, images, first):
        text = "path,label\n" + csv_lines(["normal", "broken"] * 6)
        for end in ("\n", "\r\n"):
            write_csv(images, f"{first}\n{text}".replace(",", ";").replace("\n", end))
            assert len(read(images, csv="labels.csv").table) == 12
        write_csv(images, f"{first}\n{text}images/0.png;a;b".replace(",", ";"))
        (images / SPLIT).unlink()
        assert "line 15: 3 cells" in folder_error(images, csv="labels.csv")

    def test_columns_may_be_written_in_any_case(self, images):
        splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
        lines = csv_lines(["normal", "broken"] * 6, [f"{s},p{i}" for i, s in enumerate(splits)])
        write_csv(images, "Path,LABEL,Split,Patient\n" + lines)
        table = read(images, csv="labels.csv").table
        assert table["split"].tolist() == splits
        assert table["patient"].tolist() == [f"p{i}" for i in range(12)]
        write_csv(images, "Path,LABEL,Split,SPLIT\n" + lines)
        assert "has the columns 'Split' and 'SPLIT'" in folder_error(images, csv="labels.csv")

    @pytest.mark.parametrize("name", ["subset", "Subset"])
    def test_a_column_subset_with_splits_is_obeyed(self, images, name):
        splits = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
        lines = csv_lines(["normal", "broken"] * 6, splits)
        write_csv(images, f"path,label,{name}\n{lines}")
        manifest = read(images, csv="labels.csv")
        assert manifest.table["split"].value_counts().to_dict() == {"train": 6, "val": 3, "test": 3}
        assert f"the column {name!r} is used as the split" in notes(manifest)
        assert not (images / SPLIT).exists()
        manifest = read(images, csv="labels.csv", columns={"region": name})
        assert (images / SPLIT).exists(), "the user named another use"
        (images / SPLIT).unlink()
        write_csv(images, f"path,label,{name}\n" + lines.replace("train", "A"))
        assert "subset" not in notes(read(images, csv="labels.csv")).lower(), "no splits"

    @pytest.mark.parametrize("name", ["Old Split", "Set", "split_v1"])
    def test_another_column_with_splits_is_named(self, images, name):
        splits = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
        write_csv(images, f"path,label,{name}\n" + csv_lines(["normal", "broken"] * 6, splits))
        manifest = read(images, csv="labels.csv")
        assert (images / SPLIT).exists(), "the images are split anew"
        (note,) = [note for note in manifest.notes if "but is not read" in note]
        assert f"the column {name!r} holds test, train, valid" in note
        assert typed(note, "data.columns.split") == name
        table = read(images, csv="labels.csv", columns={"split": name}).table
        assert table["split"].value_counts().to_dict() == {"train": 6, "val": 3, "test": 3}

    @pytest.mark.parametrize("name", ["patient_id", "PatientID", "Subject ID", "Patient (ID)"])
    def test_an_unread_column_of_patients_is_named(self, images, name):
        patients = [f"p{i}" for i in range(12)]
        write_csv(images, f"path,label,{name}\n" + csv_lines(["normal", "broken"] * 6, patients))
        manifest = read(images, csv="labels.csv")
        (note,) = [note for note in manifest.notes if "is not read" in note]
        assert f"the column {name!r}" in note
        assert typed(note, "data.columns.patient") == name
        (images / SPLIT).unlink()
        assert "is not read" not in notes(read(images, csv="labels.csv", columns={"patient": name}))

    def test_a_column_chosen_for_one_key_is_not_read_for_another(self, images):
        patients = [f"p{i}" for i in range(12)]
        write_csv(images, "path,label,Study\n" + csv_lines(["normal", "broken"] * 6, patients))
        table = read(images, csv="labels.csv", columns={"patient": "Study"}).table
        assert table["patient"].tolist() == patients
        assert table["study"].isna().all()

    @pytest.mark.parametrize(
        ("one", "other"), [("12", "12.0"), ("\xe9", "e\u0301"), ("p", "p\u200b")]
    )
    def test_ids_that_only_look_different_are_one_patient(self, images, one, other):
        splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
        patients = [one, *(f"p{i}" for i in range(10)), other]
        cells = [f"{s},{p}" for s, p in zip(splits, patients, strict=True)]
        write_csv(images, "path,label,split,patient\n" + csv_lines(["normal", "broken"] * 6, cells))
        assert "1 group in more than one split" in folder_error(images, csv="labels.csv")
        write_csv(images, "path,label,patient\n" + csv_lines(["normal", "broken"] * 6, patients))
        manifest = read(images, csv="labels.csv")
        assert manifest.table["patient"].nunique() == 11
        assert "count as one each" in notes(manifest)

    def test_ids_that_may_be_of_one_patient_are_named(self, images):
        patients = ["7", "007", "a1", "A1", *(f"p{i}" for i in range(8))]
        write_csv(images, "path,label,patient\n" + csv_lines(["normal", "broken"] * 6, patients))
        manifest = read(images, csv="labels.csv")
        assert manifest.table["patient"].nunique() == 12
        assert "ids '007' and '7', 'A1' and 'a1' count as different" in notes(manifest)

    def test_a_column_given_twice_is_an_error(self, images):
        write_csv(images, "path,label, label\n" + csv_lines(["a"] * 12, ["b"] * 12))
        assert "more than one column 'label'" in folder_error(images, csv="labels.csv")

    def test_all_faulty_lines_are_listed(self, images):
        write_csv(images, "path,label\n" + csv_lines(["a,b,c", "b", "c,d"]))
        message = folder_error(images, csv="labels.csv")
        assert "line 2: 4 cells, line 4: 3 cells, but the header has 2" in message
        write_csv(images, "path,label,boxes\n" + csv_lines(["a", "b"] * 3, ["[1]", "[]"] * 3))
        message = folder_error(images, csv="labels.csv")
        assert all(f"line {number} ('[1]')" in message for number in (2, 4, 6))

    @pytest.mark.parametrize("written", ["files", "root", "real"])
    def test_absolute_paths_may_be_written_with_or_without_links(self, images, tmp_path, written):
        (tmp_path / "store").mkdir()
        for image in (images / "images").iterdir():
            image.rename(tmp_path / "store" / image.name)
            if written == "files":
                image.symlink_to(tmp_path / "store" / image.name)
        root = images
        if written != "files":
            (images / "images").rmdir()
            (images / "images").symlink_to(tmp_path / "store")
            root = tmp_path / "link"
            root.symlink_to(images)
        prefix = {"files": images, "root": root, "real": images.resolve()}[written]
        lines = csv_lines(["normal", "broken"] * 6).replace("images/", f"{prefix}/images/")
        write_csv(images, "path,label\n" + lines)
        table = read(root, csv="labels.csv").table
        assert table["path"].tolist() == [f"images/{i}.png" for i in range(12)]

    def test_absolute_paths_outside_are_still_rejected(self, images, tmp_path):
        other = write_folders(tmp_path / "other", "images", n=12)
        lines = csv_lines(["normal", "broken"] * 6).replace("images/", f"{other}/images/")
        write_csv(images, "path,label\n" + lines)
        assert "expected a file in" in folder_error(images, csv="labels.csv")


class TestMissingImages:
    def test_of_a_table(self, images):
        write_csv(
            images,
            "path,label,split\n"
            + "".join(
                f"images/{i}.png,{'ab'[i % 2]},{'train' if i < 500 else 'test'}\n"
                for i in range(600)
            ),
        )
        manifest = read(images, csv="labels.csv", class_order=["a", "b"])
        assert "lists 600 images, of which 588 do not exist (images/12.png" in notes(manifest)

    @pytest.mark.parametrize(
        ("write", "dataset"), [(write_grazped, Grazped), (write_fracatlas, FracAtlas)]
    )
    def test_come_before_the_error_that_they_cause(self, tmp_path, write, dataset):
        root = write(tmp_path / "x")
        files = sorted(path for path in root.glob("images*/**/*") if path.is_file())
        for file in files[3:]:
            file.unlink()
        message = error(dataset(root=str(root)))
        n = len(files)
        assert f"{n - 3} of the {n} images in dataset.csv are missing" in message.split("). ")[0]
        assert "Cannot split off" in message or "has no train image of the class" in message

    def test_of_label_files(self, tmp_path):
        base = write_yolo(tmp_path)
        for image in (base / "test" / "images").iterdir():
            image.unlink()
        message = error(UpperLimb(root=str(base)))
        assert message.startswith(f"{base}: 7 label files have no image (test/labels/0_0")
        assert "no labeled image in the split test" in message


class TestDamagedLabelFiles:
    def test_the_first_twenty_and_their_number(self, tmp_path):
        base = write_yolo(tmp_path, per_class=4)
        for file in sorted((base / "train" / "labels").iterdir())[:25]:
            file.write_text("0 0.1\n")
        message = error(UpperLimb(root=str(base)))
        assert message.startswith("25 label files are damaged:\n")
        assert message.count("1 coordinate is too few") == 20
        assert "and 5 more" in message
        assert message.count("A line is a class id") == 1

    def test_in_other_datasets(self, tmp_path):
        root = write_grazped(tmp_path / "g")
        for file in sorted((root / "folder_structure" / "yolov5" / "labels").iterdir())[:6]:
            file.write_text("3 x 1\n")
        assert error(Grazped(root=str(root))).startswith("6 label files are damaged:")
        base = write_fracatlas(tmp_path / "FracAtlas")
        for i in (0, 3):
            (base / "Annotations" / "YOLO" / f"IMG{i:07d}.txt").write_text("\x00")
        assert error(FracAtlas(root=str(base))).startswith("2 label files are damaged:")

    def test_unknown_class_names_are_all_listed(self, tmp_path):
        base = write_yolo(tmp_path)
        write_yaml(base, ("no", "knee", *NAMES[2:]))
        message = error(UpperLimb(root=str(base)))
        assert "2 class names are unknown: 'no', 'knee'" in message


def test_an_empty_patient_is_unknown(tmp_path):
    dataset = PatientDataset(root=str(tmp_path))
    dataset.prepare()
    rows = [{"path": "p001_0.png", "split": "train", "label": "a", "patient": ""}]
    assert dataset.build(rows, tmp_path, classes=("a",)).table["patient"].isna().all()
