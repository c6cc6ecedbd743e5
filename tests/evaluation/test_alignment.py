"""Runs that do not go together are refused, with which and how many rows."""

import pandas as pd
import pytest
from helpers.run_folders import table_of

from fracnet.evaluation.predictions import align
from fracnet.utils.errors import UserError


def changed(table: pd.DataFrame, row: int, **values: object) -> pd.DataFrame:
    table = table.copy()
    for column, value in values.items():
        table.loc[row, column] = value
    return table


def test_rows_are_brought_into_one_order() -> None:
    one = table_of(1.0)
    two = table_of(2.0, seed=1).sample(frac=1, random_state=0)
    found = align({"a": one, "b": two}, "test")
    assert list(found["a"]["path"]) == list(found["b"]["path"]) == sorted(found["a"]["path"])
    assert set(found["b"]["split"]) == {"test"}


def test_other_test_images_are_refused_with_their_number() -> None:
    one = table_of(1.0)
    two = one[one["path"] != "test/003_1.png"]
    with pytest.raises(UserError) as caught:
        align({"a": one, "b": two, "c": one, "d": two}, "test")
    told = str(caught.value)
    for part in ("2 different sets", "a, c: 120 rows", "b, d: 119 rows", "b lacks 1", "003_1"):
        assert part in told
    assert align({"a": one, "b": two}, "val")  # those are the same


def test_other_labels_patients_and_classes_are_refused() -> None:
    one = table_of(1.0)
    row = int(one.index[one["path"] == "test/000_0.png"][0])
    with pytest.raises(UserError, match=r"a and b have different labels for 1 of 120 test images"):
        align({"a": one, "b": changed(one, row, label="abnormal")}, "test")
    with pytest.raises(UserError, match="do not agree on which test images belong to one patient"):
        align({"a": one, "b": changed(one, row, patient="test009")}, "test")
    renamed = one.rename(columns={"prob_normal": "prob_fine", "logit_normal": "logit_fine"})
    with pytest.raises(UserError, match="different classes"):
        align({"a": one, "b": renamed}, "test")


def test_an_image_twice_and_a_split_without_rows_are_refused() -> None:
    one = table_of(1.0)
    with pytest.raises(UserError, match="more than once"):
        align({"a": one, "b": pd.concat([one, one.tail(1)])}, "test")
    with pytest.raises(UserError, match="b has no val rows"):
        align({"a": one, "b": one[one["split"] == "test"]}, "val")
