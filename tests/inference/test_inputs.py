"""What `input=` may be, and what is said where it means nothing."""

from pathlib import Path

import pytest
from helpers.dicom_files import dicom
from helpers.tiny import picture
from PIL import Image

from fracnet.inference.inputs import find, meant
from fracnet.utils.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/1.jpg", "a.png", ".hidden/3.png", "b/.4.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(0)).save(path)
    (tmp_path / "scans" / "notes.txt").write_text("hello")
    return tmp_path / "scans"


def names(words: list[str], folder: Path) -> list[str]:
    return [item.path.relative_to(folder).as_posix() for item in find(words).items]


def test_a_folder_is_looked_through_and_other_files_are_counted(folder: Path) -> None:
    found = find([str(folder)])
    assert names([str(folder)], folder) == ["a.png", "b/1.jpg", "b/2.png"]
    assert found.name == "scans"
    assert found.notes == [f"{folder}: 1 file is no image by name (notes.txt)."]


def test_dicom_is_found_by_content(folder: Path) -> None:
    (folder / "IM0001").write_bytes(dicom(picture(1)))
    (folder / "README").write_text("no image")
    assert "IM0001" in names([str(folder)], folder)
    assert "README" not in names([str(folder)], folder)


def test_patterns_files_and_lists_name_each_image_once(folder: Path) -> None:
    assert names([f"{folder}/b/*.png"], folder) == ["b/2.png"]
    assert names([f"{folder}/**"], folder) == ["a.png", "b/1.jpg", "b/2.png"]
    assert names([f"{folder}/b", f"{folder}/b/1.jpg"], folder) == ["b/1.jpg", "b/2.png"]
    assert "named more than once" in find([f"{folder}/b", f"{folder}/b/1.jpg"]).notes[0]


def test_of_what_is_not_there_the_next_best_name_is_told_or_what_there_is(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder\. Did you mean 'a\.png'\?"):
        find([str(folder / "aa.png")])
    with pytest.raises(UserError, match=r"no such file or folder\. .*scans holds .*a\.png"):
        find([str(folder / "q")])
    with pytest.raises(UserError, match=r"no such file or folder\. .*nowhere does not exist"):
        find([str(folder / "nowhere" / "q")])


def test_this_folder_is_told_in_words_and_no_key_where_none_was_typed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    said = "q.dcm: there is no such file or folder. This folder holds a.png, b/"
    with pytest.raises(UserError) as typed:
        find(["q.dcm"])
    assert str(typed.value).startswith(f"input={said}")
    for given in ("q.dcm", Path("q.dcm"), ["a.png", "q.dcm"]):
        with pytest.raises(UserError) as called:
            meant(given)
        assert str(called.value).startswith(said)
    with pytest.raises(UserError, match=r"^qq\*: nothing is called so"):
        meant("qq*")


def test_tables_name_images_and_studies(folder: Path) -> None:
    (folder / "list.csv").write_text("path;patient;study\na.png;p;s1\nb/1.jpg;;\n")
    first, second = find([str(folder / "list.csv")]).items
    assert (first.path, first.patient, first.study) == (folder / "a.png", "p", "s1")
    assert (second.patient, second.study) == (None, None)
    (folder / "list.txt").write_text("b/2.png\n\na.png\n")
    assert names([str(folder / "list.txt")], folder) == ["b/2.png", "a.png"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("a.png;p;s1\n./a.png;p;s2", "study=s2, but .*list.csv, line 2, .* study=s1; allowed: one"),
        ("a.png;p;s1\na.png;q;s1", "patient=q, but .*list.csv, line 2, .* patient=p;"),
        ("a.png;p;s1\na.png;p;", "study=, but .*list.csv, line 2, .* study=s1;"),
    ],
)
def test_a_file_that_a_table_names_for_two_studies_is_told(
    rows: str, told: str, folder: Path
) -> None:
    (folder / "list.csv").write_text(f"path;patient;study\n{rows}\n")
    with pytest.raises(UserError, match=rf"list\.csv, line 3: a\.png is of {told}"):
        find([str(folder / "list.csv")])


def test_a_file_named_twice_is_one_image_and_a_table_s_study_is_kept(folder: Path) -> None:
    (folder / "list.csv").write_text("path;patient;study\na.png;p;s1\na.png;p;s1\n")
    for words in (["list.csv"], ["a.png", "list.csv"], ["list.csv", "a.png"]):
        found = find([str(folder / word) for word in words])
        assert [(item.patient, item.study) for item in found.items] == [("p", "s1")]
        assert "named more than once and predicted once" in found.notes[0]


def test_a_link_that_leads_back_ends(folder: Path) -> None:
    (folder / "b" / "up").symlink_to(folder)
    assert names([str(folder)], folder) == ["a.png", "b/1.jpg", "b/2.png"]


def test_what_an_earlier_prediction_has_left_is_not_looked_at(folder: Path) -> None:
    left = folder / "predictions_x" / "overlays"
    left.mkdir(parents=True)
    Image.fromarray(picture(0)).save(left / "1.png")
    (left.parent / "predictions.json").write_text("{}")
    found = find([str(folder)])
    assert len(found.items) == 3
    assert any("earlier prediction" in note for note in found.notes)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("scanz", "Did you mean 'scans'?"),
        ("scans/*.dcm", "nothing is called so"),
        ("empty", "holds no image"),
        ("no/such/place", "does not exist"),
        ("faulty.csv", "no column 'path'"),
    ],
)
def test_a_word_that_means_nothing_is_told(folder: Path, word: str, told: str) -> None:
    (folder.parent / "empty").mkdir()
    (folder.parent / "faulty.csv").write_text("file\na.png\n")
    with pytest.raises(UserError, match=r"empty|input=|faulty") as error:
        find([str(folder.parent / word)])
    assert told in str(error.value)
