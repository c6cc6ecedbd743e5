"""Groups by a column: which there are, at which levels, and what is refused."""

import pytest
from helpers.predictions import make_table
from helpers.run_files import two_class_table

from fracnet.evaluation.aggregation import (
    UNKNOWN,
    check_by,
    equals_label,
    groups_by,
    levels_for_groups,
)
from fracnet.evaluation.predictions import Predictions
from fracnet.utils.errors import UserError

TABLE = two_class_table()
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


def test_a_column_that_repeats_the_label_is_noticed() -> None:
    six = make_table((5, 5, 5))
    assert equals_label(six.assign(region=six["label"]), "region")
    assert not equals_label(TABLE, "region")
