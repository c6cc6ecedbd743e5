"""A user's own images: class folders with and without splits, a CSV file, and faults."""

import json
import os
import shlex
from functools import partial

import numpy as np
import pytest
from helpers.dicom_files import dicom, with_class
from helpers.fracture_files import write_folders
from helpers.pictures import encoded, picture
from pydicom import uid

from fracnet.data.datasets.folder import Folder
from fracnet.utils.errors import UserError

SPLIT = "fracnet_split.csv"


def read(root, **options):
    dataset = Folder(root=str(root), **options)
    dataset.prepare()
    manifest = dataset.manifest()
    manifest.check()
    return manifest


def error(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(root, **options)
    assert not (root / SPLIT).exists(), "faulty data must not get a split file"
    return str(caught.value)


def counts(manifest) -> dict[str, int]:
    return manifest.table["split"].value_counts().to_dict()


def test_class_folders_are_split_once(tmp_path):
    root = write_folders(tmp_path, "fractured", "not fractured", n=10)
    manifest = read(root, val_share=0.2, test_share=0.2)
    assert counts(manifest) == {"train": 12, "val": 4, "test": 4}
    assert manifest.table.groupby(["split", "label"]).size().min() == 2
    assert "image,split\nfractured/0.png," in (root / SPLIT).read_text()
    second = read(root, val_share=0.2, test_share=0.2)
    assert second.table.equals(manifest.table)
    assert any("patients are unknown" in note for note in manifest.notes)


def test_split_folders_are_used_in_any_spelling(tmp_path):
    folders = [f"{s}/{c}" for s in ("Training", "valid", "TEST") for c in ("normal", "broken")]
    root = write_folders(tmp_path, *folders, n=2)
    manifest = read(root)
    assert counts(manifest) == {"train": 4, "val": 4, "test": 4}
    assert not (root / SPLIT).exists()


@pytest.mark.parametrize("present", ["val", "test"])
def test_a_missing_split_is_taken_from_train_only(tmp_path, present):
    root = write_folders(tmp_path, *(f"{s}/{c}" for s in ("train", present) for c in "ab"), n=10)
    manifest = read(root, class_order=["a", "b"])
    absent = {"val": "test", "test": "val"}[present]
    assert set(counts(manifest)) == {"train", "val", "test"}
    carved = manifest.table[manifest.table["split"] == absent]
    assert carved["path"].str.startswith("train/").all()
    text = (root / SPLIT).read_text()
    assert f"data.{absent}_share" in text
    assert f"data.{present}_share" not in text


def test_images_may_be_deeper_and_other_files_are_reported(tmp_path):
    root = write_folders(tmp_path, "a/ward 1", "a/ward 2", "b/ward 1", n=4)
    (root / "a" / "notes.txt").write_text("x")
    (root / "a" / ".DS_Store").write_text("x")
    manifest = read(root, class_order=["a", "b"])
    assert manifest.table["label"].value_counts().to_dict() == {"a": 8, "b": 4}
    assert any("skipped 1 file, not images" in note for note in manifest.notes)


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

    def test_the_user_sets_the_order(self, tmp_path):
        root = write_folders(tmp_path, "normal", "fractured")
        assert read(root, class_order=["fractured", "normal"]).classes == ("fractured", "normal")

    def test_an_unclear_or_wrong_order_is_rejected(self, tmp_path):
        root = write_folders(tmp_path, "a", "b")
        assert "'data.class_order=[a,b]' or 'data.class_order=[b,a]'" in error(root)
        assert "has the classes a, b; name each once" in error(root, class_order=["a", "c"])
        root = write_folders(tmp_path / "commas", "0,0", "1,0")
        assert "data.class_order=['0,0', '1,0']" in "".join(shlex.split(error(root)))

    def test_one_class_is_not_enough(self, tmp_path):
        root = write_folders(tmp_path, "all/fractured", "all/normal")
        assert "point data.root to their parent" in error(root)


class TestBadFolders:
    def test_splits_mixed_with_classes(self, tmp_path):
        root = write_folders(tmp_path, "train/a", "train/b", "a")
        assert "folders of splits (train) and others (a)" in error(root)

    def test_two_folders_for_one_split(self, tmp_path):
        root = write_folders(tmp_path, "train/a", "val/a", "valid/a")
        assert "two folders for one split" in error(root)

    def test_no_train_and_no_classes(self, tmp_path):
        assert "has no folder train" in error(write_folders(tmp_path / "x", "val/a", "test/a"))
        root = write_folders(tmp_path / "y", "train", "test/a")
        assert "has no class folders" in error(root)

    def test_a_class_that_train_lacks(self, tmp_path):
        root = write_folders(tmp_path, "train/fractured", "train/normal", "test/Fractured")
        message = error(root)
        assert "test has class folders that train lacks: Fractured" in message

    def test_empty_and_missing_folders(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        assert "no image in its folders a, b" in error(tmp_path)
        (tmp_path / "a" / "1.webp").write_bytes(b"x")
        assert "not images (.webp 1)" in error(tmp_path)
        (tmp_path / "a" / "1.webp").unlink()
        for root, expected in ((tmp_path / "gone", "does not exist"), (tmp_path / "a", "no class")):
            with pytest.raises(UserError) as caught:
                read(root)
            assert expected in str(caught.value)
            assert "data.csv=labels.csv" in str(caught.value)
        with pytest.raises(UserError, match=r"the paths in a\.csv are relative to it"):
            read(tmp_path / "gone", csv="a.csv")


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
    id_notes = [note for note in manifest.notes if "DICOM headers" in note]
    assert len(id_notes) == 1


def test_dicom_files_without_an_image_are_left_out_and_counted_by_class(tmp_path):
    root = write_folders(tmp_path, "normal", "fractured")
    report = with_class(dicom(np.asarray(picture(1)), PixelData=None), uid.BasicTextSRStorage)
    (root / "normal" / "report.dcm").write_bytes(report)
    manifest = read(root)
    assert len(manifest.table) == 12
    assert any("not images (Basic Text SR Storage 1): report.dcm" in n for n in manifest.notes)
    lines = [f"{path},{label}" for path, label in manifest.table[["path", "label"]].to_numpy()]
    (root / "all.csv").write_text("\n".join(["path,label", *lines, "normal/report.dcm,normal"]))
    manifest = read(root, csv="all.csv")
    assert len(manifest.table) == 12
    assert manifest.excluded["reason"].tolist() == ["no image (Basic Text SR Storage)"]


def test_a_pipe_and_links_to_themselves_neither_block_nor_raise(tmp_path, request):
    root = write_folders(tmp_path, "fractured", "normal", n=6)
    os.mkfifo(root / "normal" / "pipe.png")
    os.mkfifo(root / "normal" / "pipe")
    for name in ("written.png", "written"):
        os.mkfifo(root / "normal" / name)
        writer = os.open(root / "normal" / name, os.O_RDWR)
        request.addfinalizer(partial(os.close, writer))
    (root / "loop").symlink_to("loop")
    (root / "normal" / "loop.png").symlink_to("loop.png")
    manifest = read(root)
    unreadable = manifest.table.loc[manifest.table["width"].isna(), "path"]
    assert sorted(unreadable) == [f"normal/{name}.png" for name in ("loop", "pipe", "written")]


def test_what_belongs_to_no_class_is_named(tmp_path):
    root = write_folders(tmp_path, "fractured", "normal", n=6)
    (root / "implant").mkdir()
    (root / "cast").symlink_to("gone")
    (root / "loose.png").write_bytes(encoded(picture(), "PNG"))
    (root / "readme.txt").write_text("none of these")
    notes = read(root).notes
    assert any(
        "images or broken links outside the class folders (cast, loose.png)" in n for n in notes
    )
    assert f"{root}/implant holds no image and does not count as a class." in notes
    for file in (root / "normal").iterdir():
        file.unlink()
    (root / "normal" / "all.zip").write_bytes(b"PK")
    (root / SPLIT).unlink()
    assert "all.zip. " + f"{root}/normal holds no image" in error(root)


def test_a_class_of_train_may_lack_images_in_another_split(tmp_path):
    root = write_folders(tmp_path, "train/a", "train/b", "val/a", "val/b", "test/a", n=4)
    for name in ("train/c", "test/b", "test/c"):
        (root / name).mkdir()
    notes = read(root, class_order=["a", "b"]).notes
    assert sorted(note for note in notes if "holds no image" in note) == [
        f"{root}/test/b holds no image.",
        f"{root}/test/c holds no image.",
        f"{root}/train/c holds no image and does not count as a class.",
    ]


def test_a_broken_image_is_left_to_on_bad_file(tmp_path):
    root = write_folders(tmp_path, "normal", "fractured")
    (root / "normal" / "0.png").write_bytes(encoded(picture(), "PNG")[:200])
    table = read(root).table.set_index("path")
    assert len(table) == 12


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "own", "images", n=12)


def write(root, lines: list[str], header: str = "path,label,split,patient") -> None:
    (root / "labels.csv").write_text("\n".join([header, *lines]) + "\n")


def lines(n: int = 12) -> list[str]:
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    return [f"images/{i}.png,{('normal', 'broken')[i % 2]},{splits[i]},p{i}" for i in range(n)]


def read_csv(root, **options):
    return read(root, csv="labels.csv", **options)


def csv_error(root, **options) -> str:
    return error(root, csv="labels.csv", **options)


def test_columns_with_the_usual_names_are_used(root):
    write(root, lines())
    manifest = read_csv(root)
    row = manifest.table.set_index("path").loc["images/7.png"]
    assert (row["label"], row["split"], row["patient"]) == ("broken", "val", "p7")
    assert manifest.classes == ("normal", "broken")
    assert manifest.groups == "the column patient of labels.csv"
    assert not (root / SPLIT).exists()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_may_have_any_name_and_other_separators(root, separator):
    header = "file,finding,part,person,exam"
    renamed = [f"{line},{line[-2:]}-1".replace("images/", "images\\") for line in lines()]
    write(root, [line.replace(",", separator) for line in renamed], header.replace(",", separator))
    columns = {
        "path": "file",
        "label": "finding",
        "split": "part",
        "patient": "person",
        "study": "exam",
    }
    table = read_csv(root, columns=columns).table.set_index("path")
    assert table.loc["images/7.png", "study"] == "p7-1"


@pytest.mark.parametrize("cell", ['"p1', '"p1" 2', '"'])
def test_a_quotation_mark_without_its_pair_swallows_no_line(root, cell):
    rows = lines()
    rows[3] = rows[3].rpartition(",")[0] + "," + cell
    write(root, rows)
    assert "line 5: a cell cannot be read" in csv_error(root)


def test_a_cell_of_any_length_is_read(root):
    """Such as a report's text or a base64 thumbnail in a column that nobody reads."""
    write(root, [row + "," + "word " * 40_000 for row in lines()], "path,label,split,patient,text")
    assert len(read_csv(root).table) == 12


def test_a_table_in_another_encoding_is_read_or_named(root):
    write(root, lines())
    file = root / "labels.csv"
    text = file.read_text()
    file.write_text(text, encoding="utf-16")
    assert len(read_csv(root).table) == 12
    file.write_bytes(text.replace("normal", "gesund-\xe4").encode("latin-1"))
    assert "it is not UTF-8 text" in csv_error(root)
    file.write_bytes(text.encode("utf-16")[:-1])
    assert "it is not UTF-16 text" in csv_error(root)
    file.write_bytes(text.encode("utf-16-le"))
    assert "character 2 is NUL, as in UTF-16 without its mark" in csv_error(root)
    file.write_bytes(b"PK\3\4\xb5")
    assert "it is an Excel workbook or ZIP file" in csv_error(root)


def test_a_created_split_keeps_patients_together(root):
    write(
        root, [f"images/{i}.png,{'ab'[i % 2]},p{i // 2}" for i in range(12)], "path,label,patient"
    )
    manifest = read_csv(root, class_order=["a", "b"], val_share=0.2, test_share=0.2)
    assert manifest.table.groupby("patient")["split"].nunique().max() == 1
    assert (root / SPLIT).read_text().count("patient,split\np0,") == 1


def test_a_patient_in_two_splits_is_rejected(root):
    write(root, [line.replace("p11", "p0") for line in lines()])
    with pytest.raises(UserError, match=r"patient p0 \(train, test\)"):
        read_csv(root)


def test_absolute_paths_below_the_root_are_accepted(root):
    write(root, [line.replace("images", f"{root}/images") for line in lines()])
    assert read_csv(root).table["path"].tolist() == [f"images/{i}.png" for i in range(12)]


def test_boxes_in_pixels_and_in_shares(root):
    pixels, shares = json.dumps([[7, 5, 35, 25]]), json.dumps([[0.1, 0.1, 0.5, 0.5]])
    quoted = [f'"{pixels}"', f'"{shares}"', "", "[]"]
    rows = [f"{line},{quoted[i % 4]}" for i, line in enumerate(lines())]
    write(root, rows, "path,label,split,patient,boxes")
    boxes = read_csv(root).table["boxes"]
    assert boxes[0] == [{"label": "normal", "points": [[0.1, 0.1], [0.5, 0.5]]}]
    assert boxes[1] == [{"label": "broken", "points": [[0.1, 0.1], [0.5, 0.5]]}]
    assert boxes[2] is None
    assert boxes[3] is None


@pytest.mark.parametrize(
    "box", ["[[7, 5, 35]]", "[[35, 5, 7, 25]]", "[[7, 5, 90, 25]]", "7 5 35 25", "[[NaN, 0, 1, 1]]"]
)
def test_an_invalid_box_is_reported_with_its_line(root, box):
    write(root, [f'{line},"{box}"' for line in lines()], "path,label,split,patient,boxes")
    message = csv_error(root)
    assert "line 2" in message
    assert "[[x0, y0, x1, y1], ...]" in message


def test_unlabeled_lines_are_counted_and_missing_files_are_left_to_on_bad_file(root):
    rows = lines()
    rows[5] = rows[5].replace("broken", "")
    rows[4] = rows[4].replace("images/4", "images/gone")
    write(root, rows)
    manifest = read_csv(root)
    assert len(manifest.table) == 11
    assert manifest.excluded.values.tolist() == [["train", "no label", 1]]
    assert manifest.table["width"].isna().sum() == 1


class TestInvalidTables:
    @pytest.mark.parametrize(
        ("columns", "expected"),
        [
            ({"label": "labell"}, "no column 'labell'; it has path, label, split, patient. Did"),
            ({"patient": "person"}, "data.columns.patient="),
            ({"lable": "x"}, "data.columns.lable: allowed are path, label"),
        ],
    )
    def test_missing_columns(self, root, columns, expected):
        write(root, lines())
        assert expected in csv_error(root, columns=columns)

    def test_columns_without_a_csv(self, root):
        with pytest.raises(UserError, match="needs a CSV file"):
            Folder(root=str(root), columns={"label": "finding"})

    def test_an_unknown_split(self, root):
        write(root, [line.replace("val", "vla") for line in lines()])
        message = csv_error(root)
        assert "3 values of the column 'split'" in message
        assert "line 8 ('vla')" in message
        assert "train, val (or valid) or test" in message

    def test_paths_to_no_image(self, root):
        write(root, [line.replace("images/", "pictures/") for line in lines()])
        message = csv_error(root)
        assert "none of its 12 images exists" in message
        assert f"{root}/pictures/0.png" in message
        write(root, [line.replace("images/0", "../images/0") for line in lines()])
        assert "line 2 ('../images/0.png')" in csv_error(root)

    def test_a_duplicate_file(self, root):
        write(root, [*lines(), lines()[0]])
        assert "lists the same file twice" in csv_error(root)

    def test_invalid_tables(self, root):
        assert "labels.csv cannot be read" in csv_error(root)
        write(root, [])
        assert "no line below its header" in csv_error(root)
        write(root, [lines()[0] + ",more,cells"])
        assert "line 2: 6 cells, but the header has 4" in csv_error(root)
        (root / "labels.csv").write_bytes(b"\x89PNG\r\n\xff")
        assert "cannot be read" in csv_error(root)
        write(root, [line.replace("normal", "").replace("broken", "") for line in lines()])
        assert "no line has a label" in csv_error(root)
