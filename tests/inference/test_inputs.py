"""Which images `input=` selects, and the message where it selects none."""

import os
import shutil
from pathlib import Path

import pytest
from helpers.dicom_files import dicom, with_class
from helpers.tiny import RESIZE, picture
from PIL import Image
from pydicom import uid

from fracnet.data.preprocess import Preprocess
from fracnet.inference.inputs import find_images, read_images, resolve_images
from fracnet.utils.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/1.jpg", "a.png", ".hidden/3.png", "b/.4.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(0)).save(path)
    (tmp_path / "scans" / "notes.txt").write_text("hello")
    return tmp_path / "scans"


def names(arguments: list[str], folder: Path) -> list[str]:
    return [item.path.relative_to(folder).as_posix() for item in find_images(arguments).files]


def test_a_folder_is_searched_and_other_files_are_counted(folder: Path) -> None:
    images = find_images([str(folder)])
    assert names([str(folder)], folder) == ["a.png", "b/1.jpg", "b/2.png"]
    assert images.name == "scans"
    assert images.notes == [f"{folder}: skipped 1 file, not images (.txt 1): notes.txt."]


def test_dicom_is_recognized_by_content(folder: Path) -> None:
    (folder / "IM0001").write_bytes(dicom(picture(1)))
    (folder / "README").write_text("no image")
    assert "IM0001" in names([str(folder)], folder)
    assert "README" not in names([str(folder)], folder)


def test_dicom_files_without_an_image_are_left_out_and_counted_by_class(folder: Path) -> None:
    report = dicom(picture(1), PixelData=None, Rows=None, Columns=None)
    report = with_class(report, uid.BasicTextSRStorage)
    for name in ("IM0001", "b/report.dcm", "report.ima"):
        (folder / name).write_bytes(report)
    (folder / "DICOMDIR").write_bytes(with_class(report, uid.MediaStorageDirectoryStorage))
    (folder / "cut.dcm").write_bytes(dicom(picture(1))[:600])
    images = find_images([str(folder)])
    assert [f.path.name for f in images.files] == ["a.png", "cut.dcm", "1.jpg", "2.png"]
    assert "5 files, not images (Basic Text SR Storage 3," in images.notes[0]
    assert "Media Storage Directory Storage 1" in images.notes[0]
    images = find_images([f"{folder}/*.*", f"{folder}/IM*"])
    assert "report.ima" not in [f.path.name for f in images.files]
    assert any("2 DICOM files without an image (Basic Text SR Storage):" in n for n in images.notes)
    with pytest.raises(UserError, match=r"no image\. Skipped 1 DICOM file without .*Text SR"):
        find_images([f"{folder}/report.ima"])


def test_patterns_files_and_lists_select_each_image_once(folder: Path) -> None:
    assert names([f"{folder}/b/*.png"], folder) == ["b/2.png"]
    assert names([f"{folder}/**"], folder) == ["a.png", "b/1.jpg", "b/2.png"]
    assert names([f"{folder}/b", f"{folder}/b/1.jpg"], folder) == ["b/1.jpg", "b/2.png"]
    assert "listed more than once" in find_images([f"{folder}/b", f"{folder}/b/1.jpg"]).notes[0]


def test_a_missing_path_suggests_a_similar_name_or_lists_the_folder(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder\. Did you mean 'a\.png'\?"):
        find_images([str(folder / "aa.png")])
    with pytest.raises(UserError, match=r"no such file or folder\. .*scans holds .*a\.png"):
        find_images([str(folder / "q")])
    with pytest.raises(UserError, match=r"no such file or folder\. .*nowhere does not exist"):
        find_images([str(folder / "nowhere" / "q")])


def test_messages_call_it_the_current_folder_and_name_only_typed_keys(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    message = "q.dcm: no such file or folder. This folder holds a.png, b/"
    with pytest.raises(UserError) as typed:
        find_images(["q.dcm"])
    assert str(typed.value).startswith(f"input={message}")
    for paths in ("q.dcm", Path("q.dcm"), ["a.png", "q.dcm"]):
        with pytest.raises(UserError) as called:
            resolve_images(paths)
        assert str(called.value).startswith(message)
    with pytest.raises(UserError, match=r"^qq\*: no file matches"):
        resolve_images("qq*")


def test_tables_name_images_and_studies(folder: Path) -> None:
    (folder / "list.csv").write_text("path;patient;study\na.png;p;s1\nb/1.jpg;;\n")
    first, second = find_images([str(folder / "list.csv")]).files
    assert (first.path, first.patient, first.study) == (folder / "a.png", "p", "s1")
    assert (second.patient, second.study) == (None, None)
    (folder / "list.txt").write_text("b/2.png\n\na.png\n")
    assert names([str(folder / "list.txt")], folder) == ["b/2.png", "a.png"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            "a.png;p;s1\n./a.png;p;s2",
            "study=s2, but .*list.csv, line 2 lists it with study=s1; allowed: one",
        ),
        ("a.png;p;s1\na.png;q;s1", "patient=q, but .*list.csv, line 2 lists it with patient=p;"),
        ("a.png;p;s1\na.png;p;", "study=, but .*list.csv, line 2 lists it with study=s1;"),
    ],
)
def test_a_file_listed_with_two_studies_is_refused(rows: str, expected: str, folder: Path) -> None:
    (folder / "list.csv").write_text(f"path;patient;study\n{rows}\n")
    with pytest.raises(UserError, match=rf"list\.csv, line 3 lists a\.png with {expected}"):
        find_images([str(folder / "list.csv")])


def test_a_file_listed_twice_is_one_image_with_its_study(folder: Path) -> None:
    (folder / "list.csv").write_text("path;patient;study\na.png;p;s1\na.png;p;s1\n")
    for arguments in (["list.csv"], ["a.png", "list.csv"], ["list.csv", "a.png"]):
        images = find_images([str(folder / argument) for argument in arguments])
        assert [(item.patient, item.study) for item in images.files] == [("p", "s1")]
        assert "listed more than once and predicted once" in images.notes[0]


def test_a_link_to_a_parent_folder_is_followed_once(folder: Path) -> None:
    (folder / "b" / "up").symlink_to(folder)
    assert names([str(folder)], folder) == ["a.png", "b/1.jpg", "b/2.png"]


def test_the_output_of_an_earlier_prediction_is_skipped(folder: Path) -> None:
    left = folder / "predictions_x" / "overlays"
    left.mkdir(parents=True)
    Image.fromarray(picture(0)).save(left / "1.png")
    (left.parent / "predictions.json").write_text("{}")
    images = find_images([str(folder)])
    assert len(images.files) == 3
    assert any("earlier prediction" in note for note in images.notes)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("scanz", "Did you mean 'scans'?"),
        ("scans/*.dcm", "no file matches"),
        ("empty", "contains no image"),
        ("no/such/place", "does not exist"),
        ("faulty.csv", "no column 'path'"),
    ],
)
def test_an_input_without_images_is_refused(folder: Path, argument: str, expected: str) -> None:
    (folder.parent / "empty").mkdir()
    (folder.parent / "faulty.csv").write_text("file\na.png\n")
    with pytest.raises(UserError, match=r"empty|input=|faulty") as error:
        find_images([str(folder.parent / argument)])
    assert expected in str(error.value)


def test_several_links_to_one_file_are_one_image(folder: Path) -> None:
    (folder / "b" / "link.png").symlink_to(folder / "a.png")
    os.link(folder / "b" / "2.png", folder / "b" / "hard.png")
    images = find_images([str(folder)])
    assert len(images.files) == 3
    assert "2 images are listed more than once" in " ".join(images.notes)


def test_system_folders_are_skipped_and_other_files_named_by_ending(folder: Path) -> None:
    for name in ("@eaDir", "__MACOSX", ".thumbnails"):
        shutil.copytree(folder / "b", folder / name)
    (folder / "a.png").rename(folder / "a.jfif")
    for name in ("x.webp", "y.webp"):
        (folder / name).touch()
    images = find_images([str(folder)])
    assert len(images.files) == 3
    assert "3 files, not images (.webp 2, .txt 1): notes.txt, x.webp" in images.notes[0]


@pytest.mark.parametrize("table", ["list.csv", "list.txt"])
def test_a_table_may_separate_folders_by_backslashes(folder: Path, table: str) -> None:
    (folder / "odd\\name.png").write_bytes((folder / "a.png").read_bytes())
    lines = ["b\\1.jpg", "b/2.png", "odd\\name.png"]
    (folder / table).write_text("\n".join([*(["path"] if table.endswith("csv") else []), *lines]))
    assert names([str(folder / table)], folder) == ["b/1.jpg", "b/2.png", "odd\\name.png"]


@pytest.mark.parametrize("table", ["list.csv", "list.txt"])
def test_form_feeds_and_line_separators_do_not_split_table_rows(folder: Path, table: str) -> None:
    listed = ["a\x0cb.png", "a\x85b.png", "a\u2028b.png"]
    for name in listed:
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    (folder / table).write_text("\n".join([*(["path"] if table.endswith("csv") else []), *listed]))
    assert names([str(folder / table)], folder) == listed


def test_a_name_that_is_not_utf8_is_read_and_becomes_valid_text(folder: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    (folder / "a.png").rename(odd)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xe9.txt")).touch()
    images = find_images([str(folder)])
    loaded = list(read_images(images.files, Preprocess(RESIZE, 16), 1, 2))
    assert [item.error for item in loaded] == ["", "", ""]
    assert f"{folder}/caf\\xe9.png" in [item.path for item in loaded]
    assert all(note.encode() for note in images.notes)


def test_columns_of_a_table_may_be_written_in_any_case_and_unread_ones_are_named(
    folder: Path,
) -> None:
    (folder / "list.csv").write_text("Path,PATIENT,StudyInstanceUID\na.png,p1,s1\n")
    found = find_images([str(folder / "list.csv")])
    assert [(file.path.name, file.patient, file.study) for file in found.files] == [
        ("a.png", "p1", None)
    ]
    assert "the column 'StudyInstanceUID' is not read" in " ".join(found.notes)
