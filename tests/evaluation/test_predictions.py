import numpy as np
import pandas as pd
import pytest
from helpers.predictions import make_table

from fracnet.evaluation.predictions import (
    assemble,
    check,
    classes_of,
    clusters_of,
    probabilities,
    targets,
)
from fracnet.utils.errors import UserError


def test_classes_are_read_from_the_columns_in_order_and_may_hold_spaces() -> None:
    table = make_table((2, 3), classes=("no fracture", "a fracture"))
    check(table)
    assert classes_of(table) == ("no fracture", "a fracture")
    assert targets(table).tolist() == [0, 0, 1, 1, 1]


def test_assemble_gives_softmax_without_overflow() -> None:
    rows = pd.DataFrame({"path": ["a", "b"], "split": "test", "label": "x"}, index=[7, 3])
    table = assemble(rows, ("x", "y"), np.array([[1000.0, 0.0], [0.0, np.log(3)]]))
    check(table)
    np.testing.assert_allclose(probabilities(table), [[1, 0], [0.25, 0.75]])
    assert list(table["path"]) == ["a", "b"]
    assert list(table["logit_x"]) == [1000.0, 0.0]


def spoil(column: str, value: object) -> pd.DataFrame:
    table = make_table((2, 2)).astype({"prob_elbow": object})
    table.loc[1, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "said"),
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
def test_a_faulty_table_is_refused_naming_column_and_row(
    table: pd.DataFrame, said: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        check(table)
    for words in said:
        assert words in str(caught.value)


def test_an_image_stands_in_one_row() -> None:
    val = make_table((2, 2), split="val")
    table = pd.concat([val, make_table((2, 2))], ignore_index=True)
    check(table)
    table.loc[5, "path"] = "val/0001.png"
    table.loc[[2, 6], "path"] = "twice.png"
    with pytest.raises(UserError) as told:
        check(table)
    assert "path val/0001.png more than once, in the rows 1 (val), 5 (test)" in str(told.value)
    assert "and so 1 other path;" in str(told.value)


def test_probabilities_must_sum_to_one_within_the_tolerance() -> None:
    table = make_table((2, 2))
    table["prob_elbow"], table["prob_fingers"] = 0.6, 0.4005
    check(table)
    table["prob_fingers"] = 0.41
    with pytest.raises(UserError, match=r"sum to 1\.01 in row 0"):
        check(table)


def test_clusters_are_patients_else_studies_else_images() -> None:
    table = make_table((3, 3))
    assert clusters_of(table).unit == "image"
    assert clusters_of(table).trivial
    table["study"] = ["s1", "s1", "s2", "s2", None, ""]
    found = clusters_of(table)
    assert (found.count, found.unit) == (4, "study, else image")
    table["patient"] = ["p1", "p1", "p1", "p1", "p2", "p2"]
    found = clusters_of(table)
    assert (found.count, found.unit) == (2, "patient")
    assert found.ids.tolist() == [0, 0, 0, 0, 1, 1]


def test_a_patient_and_a_study_of_one_name_are_two_clusters() -> None:
    table = make_table((1, 1))
    table["patient"], table["study"] = ["7", None], [None, "7"]
    assert clusters_of(table).count == 2


def test_a_row_keeps_its_cluster_when_rows_are_reordered() -> None:
    table = make_table((6, 6), views=3)
    turned = table.iloc[::-1].reset_index(drop=True)
    assert clusters_of(turned).ids.tolist() == clusters_of(table).ids.tolist()[::-1]
