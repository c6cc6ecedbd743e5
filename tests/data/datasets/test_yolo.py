"""YOLO labels: lines and class names, and errors about them."""

import pytest

from fracnet.data.datasets.yolo import read_marks, read_names
from fracnet.utils.errors import UserError

NAMES = {0: "elbow positive", 1: "wrist positive"}


def marks(tmp_path, content: str):
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode())
    return read_marks(path, NAMES)


def test_polygons_boxes_and_line_endings(tmp_path):
    polygon, box = marks(tmp_path, "1 0.1 0.2 0.3 0.4 0.5 0.625\r\n0 0.5 0.5 0.5 0.25 \r\n\r\n\n")
    assert polygon.class_id == 1
    assert polygon.points == ((0.1, 0.2), (0.3, 0.4), (0.5, 0.625))
    assert not polygon.is_box
    assert box.points == ((0.25, 0.375), (0.75, 0.625))
    assert box.is_box


def test_coordinates_rounded_beyond_the_edge_are_moved_onto_it(tmp_path):
    (mark,) = marks(tmp_path, "0 -0.001 0 1.0000001 0 1 1")
    assert mark.points == ((0, 0), (1, 0), (1, 1))


@pytest.mark.parametrize("class_id", ["1", "1.0", "1.", "01", "1e0"])
def test_a_class_id_may_be_written_as_a_float(tmp_path, class_id):
    assert marks(tmp_path, f"{class_id} 0.5 0.5 0.2 0.2")[0].class_id == 1


def test_names_stay_text(tmp_path):
    names = ["no", "null", "1.0", "~", "NA", "yes"]
    (tmp_path / "data.yaml").write_text(f"names: [{', '.join(names)}]")
    assert list(read_names(tmp_path / "data.yaml").values()) == names


@pytest.mark.parametrize("content", ["", "\n", " \r\n\r\n"])
def test_an_empty_file_has_no_annotations(tmp_path, content):
    assert marks(tmp_path, content) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 0.1 0.2 0.3 0.4 0.5", "5 coordinates do not make x,y pairs"),
        ("0 0.1 0.2", "2 coordinates are too few"),
        ("0 0.1", "1 coordinate is too few"),
        ("0", "0 coordinates are too few"),
        ("elbow 0.1 0.2 0.3 0.4 0.5 0.6", "not all values are numbers"),
        ("nan 0.1 0.2 0.3 0.4 0.5 0.6", "not finite"),
        ("inf 0.1 0.2 0.3 0.4 0.5 0.6", "not finite"),
        ("0.5 0.1 0.2 0.3 0.4 0.5 0.6", "0.5 is not a class id"),
        ("0 0.1 0.2 0.3 x 0.5 0.6", "not all values are numbers"),
        ("0 0.1 0.2 0.3 nan 0.5 0.6", "not finite"),
        ("0 0.1 0.2 0.3 inf 0.5 0.6", "not finite"),
        ("0 0.1 0.2 0.3 1.2 0.5 0.6", "outside the image"),
        ("0 0.1 0.2 0.3 -0.2 0.5 0.6", "outside the image"),
        ("0 120 200 130 240 50 60", "outside the image"),
        ("0 0.9 0.5 0.8 0.1", "outside the image"),
        ("0 0.5 0.5 0 0.1", "above 0"),
    ],
)
def test_an_invalid_line_is_reported_with_file_number_and_text(tmp_path, line, why):
    with pytest.raises(UserError) as caught:
        marks(tmp_path, f"1 0.1 0.2 0.3 0.4 0.5 0.6\n\n{line}\n")
    message = str(caught.value)
    assert f"{tmp_path / 'a.txt'}, line 3: " in message
    assert why in message
    assert repr(line) in message
    assert "\n" not in message


@pytest.mark.parametrize("class_id", [2, -1, 99])
def test_an_unknown_class_id(tmp_path, class_id):
    with pytest.raises(UserError) as caught:
        marks(tmp_path, f"{class_id} 0.1 0.2 0.3 0.4 0.5 0.6")
    message = str(caught.value)
    assert f"a.txt, line 1: class id {class_id} " in message
    assert "0 elbow positive, 1 wrist positive" in message


def test_a_binary_label_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"a\.txt"):
        read_marks(tmp_path / "a.txt", NAMES)


@pytest.mark.parametrize(
    "content", ["names: [a, b", "names: 3", "nc: 7", "names: {a: b}", "names: []", "", "- a"]
)
def test_an_invalid_data_yaml_is_reported(tmp_path, content):
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(UserError, match=r"data\.yaml"):
        read_names(tmp_path / "data.yaml")
