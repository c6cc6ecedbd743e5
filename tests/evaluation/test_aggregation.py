"""From images to studies and patients, and groups of rows by a column."""

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import make_table
from helpers.run_files import two_class_table

from fracnet.evaluation.aggregation import (
    LEVELS,
    UNKNOWN,
    available_levels,
    check_by,
    check_views,
    equals_label,
    groups_by,
    level_problems,
    levels_for_groups,
    to_level,
)
from fracnet.evaluation.assessment import official_metrics
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.utils.errors import UserError

TABLE = two_class_table()


@pytest.mark.parametrize("views", ["mean", "max"])
def test_a_study_is_the_mean_or_the_maximum_of_its_views(views: str) -> None:
    studies = to_level(Predictions(TABLE), "study", views).table.set_index("path")
    by_hand = TABLE.groupby("study")["prob_abnormal"].agg(views)
    assert studies["prob_abnormal"].to_dict() == pytest.approx(by_hand.to_dict(), rel=1e-12)
    assert studies["views"].to_dict() == TABLE.groupby("study").size().to_dict()


def test_a_patient_is_positive_if_any_study_is_positive() -> None:
    patients = to_level(Predictions(TABLE), "patient").table.set_index("path")
    case = (TABLE["label"] == "abnormal").groupby(TABLE["patient"]).any()
    assert (patients["label"] == "abnormal").to_dict() == case.to_dict()
    assert 0 < case.mean() < 1
    studies = TABLE.groupby(["patient", "study"])["prob_abnormal"].mean()
    highest = studies.groupby("patient").max().to_dict()
    assert patients["prob_abnormal"].to_dict() == pytest.approx(highest, rel=1e-12)
    assert patients["studies"].max() == 2


def test_a_patient_is_predicted_positive_if_any_study_is() -> None:
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


ALL = ["image", "study", "patient"]


def test_groups_are_the_values_in_order_and_the_missing_ones_last() -> None:
    groups = dict(groups_by(Predictions(TABLE), "view"))
    assert list(groups) == ["AP", "lateral", UNKNOWN]
    assert sum(len(rows) for rows in groups.values()) == len(TABLE)
    assert groups[UNKNOWN].table["view"].isna().all()
    blank = TABLE.assign(view=TABLE["view"].fillna(" "))
    assert list(dict(groups_by(Predictions(blank), "view"))) == ["AP", "lateral", UNKNOWN]


def test_a_column_that_varies_within_studies_has_groups_of_images_only() -> None:
    assert levels_for_groups(Predictions(TABLE), "region", ALL) == ALL
    assert levels_for_groups(Predictions(TABLE), "view", ALL) == ["image"]
    assert levels_for_groups(Predictions(TABLE), "region", ["image"]) == ["image"]


@pytest.mark.parametrize(
    ("by", "parts"),
    [
        (["regoin"], ["by=regoin", "Did you mean 'region'?", "path, split, label"]),
        (["region", "prob_abnormal"], ["by=prob_abnormal: no such column"]),
        (["path"], ["by=path", "different values", "at most 50"]),
    ],
)
def test_columns_that_cannot_form_groups_are_rejected(by: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        check_by(TABLE, by)
    for part in parts:
        assert part in str(error.value)


def test_a_column_that_repeats_the_label_is_noted() -> None:
    six = make_table((5, 5, 5))
    assert equals_label(six.assign(region=six["label"]), "region")
    assert not equals_label(TABLE, "region")


TIES = ([0.1, 0.9], [0.15, 0.6, 0.75], [0.7, 0.2, 0.6], [0.3, 0.3, 0.9], [0.01, 0.56, 0.44, 0.99])


@pytest.mark.parametrize("views", [*TIES, *(tie[::-1] for tie in TIES)])
def test_a_mean_of_decimals_that_ties_is_exactly_one_half(views: list[float]) -> None:
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(len(views))],
            "split": "test",
            "label": "normal",
            "study": "s",
            "region": "wrist",
            "prob_normal": [1 - view for view in views],
            "prob_abnormal": views,
        }
    )
    study = to_level(Predictions(table), "study")
    assert study.probabilities[:, 1].tolist() == [0.5]
    official = [row for row in official_metrics(Predictions(table), 10) if row.level == "study"]
    assert [row.specificity.value for row in official] == [1.0, 1.0]  # overall and the region
    above = table.assign(prob_abnormal=[views[0] + 1e-12, *views[1:]])
    assert to_level(Predictions(above), "study").probabilities[:, 1][0] > 0.5


def test_studies_of_saturated_views_are_ranked_by_what_remains() -> None:
    logits = np.array([[0, 60], [0, 60], [0, 70], [0, 70], [0, 80], [0, 80]], dtype=float)
    rows = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(6)],
            "split": "test",
            "label": "normal",
            "study": [f"s{i // 2}" for i in range(6)],
        }
    )
    predictions = Predictions(assemble(rows, ("normal", "abnormal"), logits))
    for views in ("mean", "max"):
        studies = to_level(predictions, "study", views)
        assert studies.probabilities[:, 1].tolist() == [1.0, 1.0, 1.0]
        assert (np.diff(studies.scores[:, 1]) > 9).all()
