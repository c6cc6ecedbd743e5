"""Runs that cannot be compared are rejected, with which and how many rows."""

import pandas as pd
import pytest
from helpers.run_folders import table_of

from fracnet.evaluation.predictions import Predictions, align
from fracnet.utils.errors import UserError


def changed(table: pd.DataFrame, row: int, **values: object) -> pd.DataFrame:
    table = table.copy()
    for column, value in values.items():
        table.loc[row, column] = value
    return table


def aligned(runs: dict[str, pd.DataFrame], split: str) -> dict[str, pd.DataFrame]:
    parts = align({name: Predictions(table) for name, table in runs.items()}, split)
    return {name: part.table for name, part in parts.items()}


def test_rows_are_brought_into_one_order() -> None:
    left = table_of(1.0)
    right = table_of(2.0, seed=1).sample(frac=1, random_state=0)
    parts = aligned({"a": left, "b": right}, "test")
    assert list(parts["a"]["path"]) == list(parts["b"]["path"]) == sorted(parts["a"]["path"])
    assert set(parts["b"]["split"]) == {"test"}


def test_other_test_images_are_rejected_with_their_number() -> None:
    left = table_of(1.0)
    right = left[left["path"] != "test/003_1.png"]
    with pytest.raises(UserError) as error:
        aligned({"a": left, "b": right, "c": left, "d": right}, "test")
    message = str(error.value)
    for part in ("2 different sets", "a, c: 120 rows", "b, d: 119 rows", "b lacks 1", "003_1"):
        assert part in message
    assert aligned({"a": left, "b": right}, "val")  # those are the same


def test_other_labels_patients_and_classes_are_rejected() -> None:
    left = table_of(1.0)
    row = int(left.index[left["path"] == "test/000_0.png"][0])
    with pytest.raises(UserError, match=r"a and b have different labels for 1 of 120 test images"):
        aligned({"a": left, "b": changed(left, row, label="abnormal")}, "test")
    with pytest.raises(UserError, match="disagree on which test images belong to the same patient"):
        aligned({"a": left, "b": changed(left, row, patient="test009")}, "test")
    renamed = left.rename(columns={"prob_normal": "prob_fine", "logit_normal": "logit_fine"})
    renamed["label"] = renamed["label"].replace("normal", "fine")
    with pytest.raises(UserError, match="different classes"):
        aligned({"a": left, "b": renamed}, "test")


def test_an_image_twice_and_a_split_without_rows_are_rejected() -> None:
    left = table_of(1.0)
    with pytest.raises(UserError, match="more than once"):
        aligned({"a": left, "b": pd.concat([left, left.tail(1)])}, "test")
    with pytest.raises(UserError, match="b has no val rows"):
        aligned({"a": left, "b": left[left["split"] == "test"]}, "val")
