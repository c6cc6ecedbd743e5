"""Which images `input=` selects, and the message where it selects none."""

from pathlib import Path

import pytest
from helpers.dicom_files import dicom
from helpers.tiny import picture
from PIL import Image

from fracnet.inference.inputs import find_images, resolve_images
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


def test_patterns_files_and_lists_select_each_image_once(folder: Path) -> None:
    assert names([f"{folder}/b/*.png"], folder) == ["b/2.png"]
    assert names([f"{folder}/**"], folder) == ["a.png", "b/1.jpg", "b/2.png"]
    assert names([f"{folder}/b", f"{folder}/b/1.jpg"], folder) == ["b/1.jpg", "b/2.png"]
    assert "listed more than once" in find_images([f"{folder}/b", f"{folder}/b/1.jpg"]).notes[0]


def test_a_missing_path_is_answered_with_a_near_name_or_the_content(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder\. Did you mean 'a\.png'\?"):
        find_images([str(folder / "aa.png")])
    with pytest.raises(UserError, match=r"no such file or folder\. .*scans holds .*a\.png"):
        find_images([str(folder / "q")])
    with pytest.raises(UserError, match=r"no such file or folder\. .*nowhere does not exist"):
        find_images([str(folder / "nowhere" / "q")])


def test_the_current_folder_is_described_in_words_and_only_typed_keys_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    message = "q.dcm: no such file or folder. This folder holds a.png, b/"
    with pytest.raises(UserError) as typed:
        find_images(["q.dcm"])
    assert str(typed.value).startswith(f"input={message}")
    for given in ("q.dcm", Path("q.dcm"), ["a.png", "q.dcm"]):
        with pytest.raises(UserError) as called:
            resolve_images(given)
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
