"""From images to studies and patients."""

import numpy as np
import pytest
from helpers.predictions import make_table
from helpers.run_files import two_class_table

from fracnet.evaluation.aggregation import (
    LEVELS,
    available_levels,
    check_views,
    level_problems,
    to_level,
)
from fracnet.evaluation.predictions import Predictions
from fracnet.utils.errors import UserError

TABLE = two_class_table()


@pytest.mark.parametrize("views", ["mean", "max"])
def test_a_study_is_the_mean_or_the_maximum_of_its_views(views: str) -> None:
    studies = to_level(Predictions(TABLE), "study", views).table.set_index("path")
    by_hand = TABLE.groupby("study")["prob_abnormal"].agg(views)
    assert studies["prob_abnormal"].to_dict() == pytest.approx(by_hand.to_dict(), rel=1e-12)
    assert studies["views"].to_dict() == TABLE.groupby("study").size().to_dict()


def test_a_patient_is_positive_if_any_study_is() -> None:
    patients = to_level(Predictions(TABLE), "patient").table.set_index("path")
    case = (TABLE["label"] == "abnormal").groupby(TABLE["patient"]).any()
    assert (patients["label"] == "abnormal").to_dict() == case.to_dict()
    assert 0 < case.mean() < 1
    studies = TABLE.groupby(["patient", "study"])["prob_abnormal"].mean()
    highest = studies.groupby("patient").max().to_dict()
    assert patients["prob_abnormal"].to_dict() == pytest.approx(highest, rel=1e-12)
    assert patients["studies"].max() == 2


def test_a_patient_is_predicted_positive_where_any_study_is_at_any_threshold() -> None:
    studies = to_level(Predictions(TABLE), "study").table
    patients = to_level(Predictions(TABLE), "patient").table.set_index("patient")
    for threshold in np.linspace(0.05, 0.95, 7):
        any_study = (studies["prob_abnormal"] > threshold).groupby(studies["patient"]).any()
        positive = patients["prob_abnormal"] > threshold
        assert positive.to_dict() == any_study.to_dict()


def test_the_order_of_rows_changes_nothing() -> None:
    shuffled = TABLE.sample(frac=1, random_state=3)
    for level in LEVELS:
        left, right = (to_level(Predictions(t), level).table for t in (TABLE, shuffled))
        assert left["path"].tolist() == right["path"].tolist()
        assert left["prob_abnormal"].tolist() == right["prob_abnormal"].tolist()


def test_levels_are_available_where_their_columns_are_complete() -> None:
    assert available_levels(Predictions(TABLE)) == ["image", "study", "patient"]
    gap = TABLE.copy()
    gap.loc[gap.index[:3], "study"] = [np.nan, None, "  "]
    assert available_levels(Predictions(gap)) == ["image"]
    assert (
        level_problems(Predictions(gap))["study"]
        == f"the study is not known for 3 of {len(gap)} images"
    )
    assert available_levels(Predictions(TABLE.drop(columns="patient"))) == ["image", "study"]
    six = make_table((9, 9, 9), views=3).assign(study=lambda t: t["patient"])
    assert available_levels(Predictions(six)) == ["image", "study"]


def test_a_study_with_two_labels_is_rejected() -> None:
    table = TABLE.copy()
    row = table.index[table["study"].duplicated(keep=False)][0]
    table.loc[row, "label"] = "abnormal" if table.loc[row, "label"] == "normal" else "normal"
    with pytest.raises(UserError, match="images with different labels"):
        to_level(Predictions(table), "study")


def test_the_maximum_is_for_two_classes() -> None:
    check_views("max", 2)
    check_views("mean", 6)
    with pytest.raises(UserError, match=r"evaluation\.views=max needs two classes; there are 6"):
        check_views("max", 6, "evaluation.views")
