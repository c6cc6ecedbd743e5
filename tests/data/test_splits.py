"""Groups that reach over splits are found, at the level that is known."""

import numpy as np
import pandas as pd

from fracnet.data.splits import group_overlap


def table(*rows: tuple[str, object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["split", "patient", "study"], dtype=object)


def test_patients_in_two_splits_are_listed_with_their_images():
    found = group_overlap(
        table(
            ("test", "7", np.nan),
            ("train", "7", np.nan),
            ("train", "7", np.nan),
            ("val", "8", np.nan),
            ("val", "8", np.nan),
        )
    )
    assert found.to_dict("records") == [
        {"unit": "patient", "group": "7", "splits": "train, test", "n": 3}
    ]


def test_study_counts_only_where_the_patient_is_unknown():
    rows = table(
        ("train", "1", "s"), ("test", "2", "s"), ("train", np.nan, "t"), ("val", np.nan, "t")
    )
    assert group_overlap(rows)[["unit", "group"]].values.tolist() == [["study", "t"]]


def test_a_patient_and_a_study_of_one_name_are_two_groups():
    assert group_overlap(table(("train", "a", np.nan), ("test", np.nan, "a"))).empty


def test_unknown_groups_are_not_compared():
    found = group_overlap(table(("train", np.nan, np.nan), ("test", np.nan, np.nan)))
    assert found.empty
    assert list(found.columns) == ["unit", "group", "splits", "n"]
