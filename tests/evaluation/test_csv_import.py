"""A foreign CSV of predictions: columns by name, labels by name, and messages about faults."""

import csv
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.run_files import two_class_table
from hydra.core.override_parser.overrides_parser import OverridesParser

from fracnet.evaluation.csv_import import read_csv_predictions
from fracnet.evaluation.predictions import Predictions
from fracnet.utils.errors import UserError

OURS = two_class_table()
OURS = OURS[OURS["split"] == "test"].reset_index(drop=True)
THEIRS = pd.DataFrame(
    {
        "image": OURS["path"],
        "truth": (OURS["label"] == "abnormal").astype(int),
        "p1": OURS["prob_abnormal"],
        "p0": OURS["prob_normal"],
        "who": OURS["patient"],
        "device": np.where(OURS.index % 2, "A", "NA"),
    }
)
NAMES = {0: "normal", 1: "abnormal"}
COLUMNS = {"path": "image", "label": "truth", "patient": "who"}


def written(folder: Path, table: pd.DataFrame) -> Path:
    path = folder / "preds.csv"
    table.to_csv(path, index=False)
    return path


def test_columns_are_mapped_by_name_and_classes_keep_their_given_order(tmp_path: Path) -> None:
    columns = {**COLUMNS, "prob_normal": "p0", "prob_abnormal": "p1"}
    predictions, notes = read_csv_predictions(written(tmp_path, THEIRS), columns, NAMES)
    assert predictions.classes == ("normal", "abnormal")
    assert (predictions.probabilities == Predictions(OURS).probabilities).all()
    assert predictions.table["label"].tolist() == OURS["label"].tolist()
    assert predictions.table["patient"].tolist() == OURS["patient"].tolist(), "007 stays 007"
    assert set(predictions.table["split"]) == {"test"}
    assert sorted(set(predictions.table["device"])) == ["A", "NA"]
    assert notes == [
        "The table has no column 'split': every row is test, so nothing can be chosen."
    ]


def test_the_probability_of_the_positive_class_is_enough(tmp_path: Path) -> None:
    columns = {**COLUMNS, "prob_abnormal": "p1"}
    predictions, _ = read_csv_predictions(
        written(tmp_path, THEIRS.drop(columns="p0")), columns, NAMES
    )
    assert predictions.classes == ("normal", "abnormal")
    assert predictions.probabilities == pytest.approx(Predictions(OURS).probabilities)


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16")])
def test_a_table_is_read_as_spreadsheets_write_it(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    path = tmp_path / "preds.csv"
    OURS.to_csv(path, index=False, sep=separator, encoding=encoding)
    predictions, _ = read_csv_predictions(path)
    assert (predictions.probabilities == Predictions(OURS).probabilities).all()


@pytest.mark.parametrize("separator", [",", "\t"])
def test_columns_without_a_name_and_blanks_around_cells_are_left_out(
    tmp_path: Path, separator: str
) -> None:
    path = tmp_path / "preds.csv"
    odd = OURS.assign(path='"a"  ,b' + OURS["path"])
    odd.to_csv(path, sep=separator, quoting=csv.QUOTE_NONNUMERIC)
    header, *rows = path.read_text().splitlines()
    lines = [f"{header}{2 * separator}", *(f'{row}{separator}"" {separator}' for row in rows)]
    path.write_text("\n".join(line.replace(f'"{separator}', f'" {separator}') for line in lines))
    predictions, _ = read_csv_predictions(path)
    assert predictions.table["path"].tolist() == odd["path"].tolist()
    assert "" not in predictions.table
    assert (predictions.probabilities == Predictions(OURS).probabilities).all()


def test_a_quotation_mark_without_its_pair_swallows_no_row(tmp_path: Path) -> None:
    path = written(tmp_path, OURS)
    text = path.read_text().splitlines()
    text[3], text[5] = '"' + text[3], '"' + text[5]
    path.write_text("\n".join(text))
    with pytest.raises(UserError, match=r"line 4: a cell cannot be read"):
        read_csv_predictions(path)


def test_a_column_of_copies_joins_their_rows(tmp_path: Path) -> None:
    twins = THEIRS.drop(columns="who").assign(twin=np.where(THEIRS.index < 3, "a", None))
    columns = {"path": "image", "label": "truth", "prob_abnormal": "p1", "copies": "twin"}
    predictions, _ = read_csv_predictions(written(tmp_path, twins), columns, NAMES)
    assert predictions.clusters.unit == "image, joined by copies"
    assert predictions.clusters.count == len(THEIRS) - 2


def test_an_existing_column_with_the_same_name_is_replaced(tmp_path: Path) -> None:
    odd = THEIRS.assign(label="something else")
    predictions, _ = read_csv_predictions(
        written(tmp_path, odd), {**COLUMNS, "prob_abnormal": "p1"}, NAMES
    )
    assert predictions.table["label"].tolist() == OURS["label"].tolist()


def test_logits_alone_give_probabilities(tmp_path: Path) -> None:
    bare = OURS.drop(columns=["prob_normal", "prob_abnormal"])
    predictions, _ = read_csv_predictions(written(tmp_path, bare))
    assert predictions.probabilities == pytest.approx(Predictions(OURS).probabilities)


def test_rows_without_a_path_are_numbered(tmp_path: Path) -> None:
    predictions, notes = read_csv_predictions(written(tmp_path, OURS.drop(columns="path")))
    assert predictions.table["path"].is_unique
    assert any("rows are numbered" in note for note in notes)


@pytest.mark.parametrize(
    ("table", "columns", "labels", "parts"),
    [
        (THEIRS, None, None, ["no column 'label'", "columns={label: truth}", "image, truth, p1"]),
        (THEIRS, {"label": "truht"}, None, ["columns.label=truht", "Did you mean 'truth'?"]),
        (
            THEIRS,
            {"label": "truth"},
            None,
            ["no column prob_<class>", "The file has: image, truth"],
        ),
        (
            THEIRS,
            {"label": "truth", "prob_abnormal": "p1"},
            None,
            ["'abnormal' and one other; they are: 0, 1", "labels={<label>: <class>, ...}"],
        ),
        (
            THEIRS,
            {"label": "truth", "prob_normal": "p0", "prob_abnormal": "p1"},
            None,
            ["the labels are 0, 1", "normal, abnormal", "labels={<label>: <class>, ...}"],
        ),
        (THEIRS, {"label": "truth", "path": "truth"}, None, ["to two of fracnet's"]),
        (OURS.assign(prob_normal=2.0), None, None, ["'prob_normal' holds '2.0'", "from 0 to 1"]),
        (OURS.assign(prob_normal="high"), None, None, ["'prob_normal' holds 'high'"]),
        (OURS.assign(logit_normal="high"), None, None, ["'logit_normal' holds 'high' in row 0"]),
        (OURS.assign(split="train"), None, None, ["'split' holds 'train'", "val, test"]),
        (OURS[:0], None, None, ["has no line below its header"]),
    ],
)
def test_faults_are_reported(
    table: pd.DataFrame, columns: Any, labels: Any, parts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        read_csv_predictions(written(tmp_path, table), columns, labels)
    for part in parts:
        assert part in str(error.value)


ALONE = {**COLUMNS, "prob_abnormal": "p1"}


@pytest.mark.parametrize(
    ("column", "value", "parts"),
    [
        ("p1", np.nan, ["the column 'p1' (prob_abnormal) is empty in row 3 (path test/"]),
        ("p1", "n/a", ["the column 'p1' (prob_abnormal) holds 'n/a' in row 3", "from 0 to 1"]),
        ("p1", 1.5, ["the column 'p1' (prob_abnormal) holds '1.5' in row 3", "from 0 to 1"]),
        ("truth", np.nan, ["the column 'truth' (label) is empty in row 3 (path test/"]),
    ],
)
def test_a_missing_or_odd_field_is_named(
    column: str, value: Any, parts: list[str], tmp_path: Path
) -> None:
    table = THEIRS.astype({column: object})
    table.loc[3, column] = value
    with pytest.raises(UserError) as error:
        read_csv_predictions(written(tmp_path, table), ALONE, NAMES)
    for part in parts:
        assert part in str(error.value)


def test_a_class_that_only_the_map_names_is_a_class(tmp_path: Path) -> None:
    for label in (0, 1):
        path = written(tmp_path, THEIRS[THEIRS["truth"] == label])
        assert read_csv_predictions(path, ALONE, NAMES)[0].classes == ("normal", "abnormal")


def test_only_equal_names_are_proposed_for_labels(tmp_path: Path) -> None:
    named_classes = THEIRS.assign(truth=np.where(THEIRS["truth"] == 1, "Abnormal", "Normal"))
    with pytest.raises(UserError) as error:
        read_csv_predictions(written(tmp_path, named_classes), ALONE)
    assert "labels={Abnormal: abnormal, Normal: <class>}" in str(error.value)
    with pytest.raises(UserError) as error:
        read_csv_predictions(written(tmp_path, named_classes), {**ALONE, "prob_normal": "p0"})
    assert "labels={Abnormal: abnormal, Normal: normal}" in str(error.value)


def test_a_file_that_is_not_a_csv_is_rejected(tmp_path: Path) -> None:
    written(tmp_path, THEIRS)
    with pytest.raises(UserError, match=r"no such file. Did you mean 'preds.csv'\?"):
        read_csv_predictions(tmp_path / "pred.csv")
    with pytest.raises(UserError, match=r"no such file.$"):
        read_csv_predictions(tmp_path / "truth.csv")  # that both are csv makes it no nearer
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    for name in ("empty", "picture", "ragged"):
        with pytest.raises(UserError, match=f"{name}.csv is not a csv"):
            read_csv_predictions(tmp_path / f"{name}.csv")


def test_a_column_given_twice_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, OURS)
    header, rest = path.read_text().split("\n", 1)
    path.write_text(f"{header}, {header.split(',')[0]}\n" + rest.replace("\n", ",x\n"))
    with pytest.raises(UserError, match="has more than one column"):
        read_csv_predictions(path)


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan"])
def test_a_class_may_be_named_like_a_missing_value(name: str, tmp_path: Path) -> None:
    table = THEIRS.assign(truth=np.where(THEIRS["truth"] == 1, "abnormal", name))
    path = written(tmp_path, table)
    columns = {**ALONE, f"prob_{name}": "p0"}
    assert set(read_csv_predictions(path, columns)[0].classes) == {name, "abnormal"}


def test_long_numbers_are_different_labels(tmp_path: Path) -> None:
    rows = ["12345671,0.1", "12345672,0.9", "12345672.0,0.8"]
    (tmp_path / "p.csv").write_text("\n".join(["label,prob_yes", *rows]))
    names = {12345671: "no", 12345672: "yes"}
    predictions, _ = read_csv_predictions(tmp_path / "p.csv", {}, names)
    assert predictions.table["label"].tolist() == ["no", "yes", "yes"]


def test_a_label_of_two_classes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("label,prob_yes\n0,0.1\n1,0.9\n")
    names = {"0": "no", 1: "yes", "1.0": "no"}
    with pytest.raises(UserError, match=r"labels names 1\.0 twice: yes and no"):
        read_csv_predictions(tmp_path / "p.csv", {}, names)


def test_columns_may_be_written_in_any_case_and_unread_ones_are_named(tmp_path: Path) -> None:
    text = "Path,Split,Label,PatientID,prob_yes\na,val,no,p1,0.1\nb,test,yes,p2,0.9\n"
    (tmp_path / "p.csv").write_text(text)
    names = {"no": "no", "yes": "yes"}
    predictions, notes = read_csv_predictions(tmp_path / "p.csv", {}, names)
    assert predictions.table["split"].tolist() == ["val", "test"]
    assert predictions.table["path"].tolist() == ["a", "b"]
    (note,) = notes
    assert "'PatientID' is not read" in note
    assert "columns={patient: PatientID}" in note
    columns = {"patient": "PatientID", "label": "Label"}
    predictions, notes = read_csv_predictions(tmp_path / "p.csv", columns, names)
    assert predictions.table["patient"].tolist() == ["p1", "p2"]
    assert not notes


@pytest.mark.parametrize(("key", "column"), [("label", "Region"), ("patient", "Study")])
def test_a_mapped_column_is_not_read_as_another(tmp_path: Path, key: str, column: str) -> None:
    header = f"{'other' if key == 'label' else 'label'},{column},prob_yes"
    (tmp_path / "p.csv").write_text(f"{header}\nno,no,0.1\nyes,yes,0.9\n")
    names = {"no": "no", "yes": "yes"}
    predictions, _ = read_csv_predictions(tmp_path / "p.csv", {key: column}, names)
    assert predictions.table[key].tolist() == ["no", "yes"]
    assert predictions.table[column.lower()].isna().all()


@pytest.mark.parametrize("name", ["Subject ID", "Patient-ID", "patient_id", "Person_(ID)"])
def test_the_advice_on_an_unread_column_can_be_typed(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.csv").write_text(f"label,{name},prob_yes\nno,p1,0.1\nyes,p2,0.9\n")
    names = {"no": "no", "yes": "yes"}
    _, notes = read_csv_predictions(tmp_path / "p.csv", {}, names)
    (note,) = [note for note in notes if "is not read" in note]
    (argument,) = shlex.split(note.rpartition(", use ")[2].removesuffix("."))
    override = OverridesParser.create().parse_override(argument)
    assert override.key_or_group == "columns"
    assert override.value() == {"patient": name}
