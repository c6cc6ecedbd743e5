"""A csv that names the images: any column names, splits, ids and boxes, and clear errors."""

import json

import pytest
from helpers.fracture_files import write_folders

from fracnet.data.datasets.folder import Folder
from fracnet.utils.errors import UserError

SPLIT = "fracnet_split.csv"


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "own", "images", n=12)


def write(root, lines: list[str], header: str = "path,label,split,patient") -> None:
    (root / "labels.csv").write_text("\n".join([header, *lines]) + "\n")


def lines(n: int = 12) -> list[str]:
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    return [f"images/{i}.png,{('normal', 'broken')[i % 2]},{splits[i]},p{i}" for i in range(n)]


def read(root, **options):
    manifest = Folder(root=str(root), csv="labels.csv", **options).manifest()
    manifest.check()
    return manifest


def error(root, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(root, **options)
    assert not (root / SPLIT).exists(), "faulty data must not be split for good"
    return str(caught.value)


def test_columns_of_the_usual_names_are_found(root):
    write(root, lines())
    manifest = read(root)
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
    table = read(root, columns=columns).table.set_index("path")
    assert table.loc["images/7.png", "study"] == "p7-1"


def test_without_splits_patients_are_kept_together(root):
    write(
        root, [f"images/{i}.png,{'ab'[i % 2]},p{i // 2}" for i in range(12)], "path,label,patient"
    )
    manifest = read(root, class_order=["a", "b"], val_share=0.2, test_share=0.2)
    assert manifest.table.groupby("patient")["split"].nunique().max() == 1
    assert (root / SPLIT).read_text().count("patient,split\np0,") == 1


def test_a_patient_in_two_splits_is_refused(root):
    write(root, [line.replace("p11", "p0") for line in lines()])
    with pytest.raises(UserError, match=r"patient p0 \(train, test\)"):
        read(root)


def test_absolute_paths_below_the_root_will_do(root):
    write(root, [line.replace("images", f"{root}/images") for line in lines()])
    assert read(root).table["path"].tolist() == [f"images/{i}.png" for i in range(12)]


def test_boxes_in_pixels_and_in_shares(root):
    pixels, shares = json.dumps([[7, 5, 35, 25]]), json.dumps([[0.1, 0.1, 0.5, 0.5]])
    quoted = [f'"{pixels}"', f'"{shares}"', "", "[]"]
    rows = [f"{line},{quoted[i % 4]}" for i, line in enumerate(lines())]
    write(root, rows, "path,label,split,patient,boxes")
    boxes = read(root).table["boxes"]
    assert boxes[0] == [{"label": "normal", "points": [[0.1, 0.1], [0.5, 0.5]]}]
    assert boxes[1] == [{"label": "broken", "points": [[0.1, 0.1], [0.5, 0.5]]}]
    assert boxes[2] is None
    assert boxes[3] is None


@pytest.mark.parametrize(
    "box", ["[[7, 5, 35]]", "[[35, 5, 7, 25]]", "[[7, 5, 90, 25]]", "7 5 35 25", "[[NaN, 0, 1, 1]]"]
)
def test_a_box_that_is_none_is_named_with_its_line(root, box):
    write(root, [f'{line},"{box}"' for line in lines()], "path,label,split,patient,boxes")
    told = error(root)
    assert "line 2" in told
    assert "[[x0, y0, x1, y1], ...]" in told


def test_unlabeled_lines_are_counted_and_missing_files_wait_for_the_policy(root):
    rows = lines()
    rows[5] = rows[5].replace("broken", "")
    rows[4] = rows[4].replace("images/4", "images/gone")
    write(root, rows)
    manifest = read(root)
    assert len(manifest.table) == 11
    assert manifest.excluded.values.tolist() == [["train", "no label", 1]]
    assert manifest.table["width"].isna().sum() == 1


class TestBadTables:
    @pytest.mark.parametrize(
        ("columns", "told"),
        [
            ({"label": "labell"}, "no column 'labell'; it has path, label, split, patient. Did"),
            ({"patient": "person"}, "data.columns.patient="),
            ({"lable": "x"}, "data.columns.lable: allowed are path, label"),
        ],
    )
    def test_columns_that_are_not_there(self, root, columns, told):
        write(root, lines())
        assert told in error(root, columns=columns)

    def test_columns_without_a_csv(self, root):
        with pytest.raises(UserError, match="name it too"):
            Folder(root=str(root), columns={"label": "finding"})

    def test_a_split_that_is_none(self, root):
        write(root, [line.replace("val", "vla") for line in lines()])
        told = error(root)
        assert "3 values of the column 'split'" in told
        assert "line 8 ('vla')" in told
        assert "train, val (or valid) and test" in told

    def test_paths_that_lead_nowhere(self, root):
        write(root, [line.replace("images/", "pictures/") for line in lines()])
        told = error(root)
        assert "none of its 12 images is there" in told
        assert f"{root}/pictures/0.png" in told
        write(root, [line.replace("images/0", "../images/0") for line in lines()])
        assert "line 2 ('../images/0.png')" in error(root)

    def test_one_file_twice(self, root):
        write(root, [*lines(), lines()[0]])
        assert "lists the same file twice" in error(root)

    def test_a_table_that_is_none(self, root):
        assert "labels.csv cannot be read" in error(root)
        write(root, [])
        assert "no line below its header" in error(root)
        write(root, [lines()[0] + ",more,cells"])
        assert "line 2: 6 cells, but the header has 4" in error(root)
        (root / "labels.csv").write_bytes(b"\xff\xfe\x00\x00")
        assert "cannot be read" in error(root)
        write(root, [line.replace("normal", "").replace("broken", "") for line in lines()])
        assert "no line has a label" in error(root)
