import numpy as np
import pandas as pd
import pytest
from helpers.predictions import make_table

from fracnet.evaluation.predictions import Predictions, assemble, classes_of, clusters_of
from fracnet.utils.errors import UserError


def test_classes_are_read_from_the_columns_in_order_and_may_hold_spaces() -> None:
    table = make_table((2, 3), classes=("no fracture", "a fracture"))
    Predictions(table)
    assert classes_of(table) == ("no fracture", "a fracture")
    assert Predictions(table).targets.tolist() == [0, 0, 1, 1, 1]


def test_assemble_gives_softmax_without_overflow() -> None:
    rows = pd.DataFrame({"path": ["a", "b"], "split": "test", "label": "x"}, index=[7, 3])
    table = assemble(rows, ("x", "y"), np.array([[1000.0, 0.0], [0.0, np.log(3)]]))
    Predictions(table)
    np.testing.assert_allclose(Predictions(table).probabilities, [[1, 0], [0.25, 0.75]])
    assert list(table["path"]) == ["a", "b"]
    assert list(table["logit_x"]) == [1000.0, 0.0]


def spoil(column: str, value: object) -> pd.DataFrame:
    table = make_table((2, 2)).astype({"prob_elbow": object})
    table.loc[1, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        (make_table((2, 2)).drop(columns="label"), ["'label'"]),
        (make_table((2, 2)).drop(columns="prob_elbow"), ["1 column", "at least two"]),
        (make_table((2, 2)).iloc[:0], ["no rows"]),
        (spoil("prob_elbow", np.nan), ["'prob_elbow'", "nan", "row 1", "test/0001.png"]),
        (spoil("prob_elbow", "high"), ["'prob_elbow'", "'high'", "row 1"]),
        (spoil("prob_elbow", 1.5), ["'prob_elbow'", "1.5", "from 0 to 1"]),
        (spoil("prob_elbow", -0.1), ["'prob_elbow'", "-0.1"]),
        (spoil("prob_elbow", np.inf), ["'prob_elbow'", "inf"]),
        (spoil("split", "holdout"), ["'split'", "'holdout'", "row 1", "val, test"]),
        (spoil("label", "knee"), ["'label'", "'knee'", "elbow, fingers"]),
        (spoil("label", None), ["'label'", "row 1"]),
    ],
)
def test_a_faulty_table_is_rejected_naming_column_and_row(
    table: pd.DataFrame, parts: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        Predictions(table)
    for part in parts:
        assert part in str(error.value)


def test_an_image_has_one_row() -> None:
    val = make_table((2, 2), split="val")
    table = pd.concat([val, make_table((2, 2))], ignore_index=True)
    Predictions(table)
    table.loc[5, "path"] = "val/0001.png"
    table.loc[[2, 6], "path"] = "twice.png"
    with pytest.raises(UserError) as error:
        Predictions(table)
    assert "path val/0001.png more than once, in rows 1 (val), 5 (test)" in str(error.value)
    assert "; 1 other path too." in str(error.value)


def test_probabilities_must_sum_to_one_within_the_tolerance() -> None:
    table = make_table((2, 2))
    table["prob_elbow"], table["prob_fingers"] = 0.6, 0.4005
    Predictions(table)
    table["prob_fingers"] = 0.41
    with pytest.raises(UserError, match=r"sum to 1\.01 in row 0"):
        Predictions(table)


def test_clusters_are_patients_else_studies_else_images() -> None:
    table = make_table((3, 3))
    assert clusters_of(table).unit == "image"
    assert clusters_of(table).trivial
    table["study"] = ["s1", "s1", "s2", "s2", None, ""]
    clusters = clusters_of(table)
    assert (clusters.count, clusters.unit) == (4, "study, else image")
    table["patient"] = ["p1", "p1", "p1", "p1", "p2", "p2"]
    clusters = clusters_of(table)
    assert (clusters.count, clusters.unit) == (2, "patient")
    assert clusters.ids.tolist() == [0, 0, 0, 0, 1, 1]


def test_a_patient_and_a_study_of_one_name_are_two_clusters() -> None:
    table = make_table((1, 1))
    table["patient"], table["study"] = ["7", None], [None, "7"]
    assert clusters_of(table).count == 2


def test_a_row_keeps_its_cluster_when_rows_are_reordered() -> None:
    table = make_table((6, 6), views=3)
    turned = table.iloc[::-1].reset_index(drop=True)
    assert clusters_of(turned).ids.tolist() == clusters_of(table).ids.tolist()[::-1]
