"""Groups by a column: which there are, at which levels, and what is refused."""

import numpy as np
import pytest
from helpers.predictions import make_table
from helpers.run_files import two_class_table

from fracnet.evaluation.aggregation import UNKNOWN, check_by, groups, is_class, levels_for, why_not
from fracnet.utils.errors import UserError

TABLE = two_class_table()
ALL = ["image", "study", "patient"]


def test_groups_are_the_values_in_order_and_the_missing_ones_last() -> None:
    found = dict(groups(TABLE, "view"))
    assert list(found) == ["AP", "lateral", UNKNOWN]
    assert sum(len(rows) for rows in found.values()) == len(TABLE)
    assert found[UNKNOWN]["view"].isna().all()
    blank = TABLE.assign(view=TABLE["view"].fillna(" "))
    assert list(dict(groups(blank, "view"))) == ["AP", "lateral", UNKNOWN]


def test_a_column_that_varies_within_studies_has_groups_of_images_only() -> None:
    assert levels_for(TABLE, "region", ALL) == ALL
    assert levels_for(TABLE, "view", ALL) == ["image"]
    assert levels_for(TABLE, "region", ["image"]) == ["image"]


@pytest.mark.parametrize(
    ("by", "parts"),
    [
        (["regoin"], ["by=regoin", "Did you mean 'region'?", "path, split, label"]),
        (["region", "prob_abnormal"], ["by=prob_abnormal: there is no such column"]),
        (["path"], ["by=path", "different values", "at most 50"]),
    ],
)
def test_what_makes_no_groups_is_refused(by: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as told:
        check_by(TABLE, by)
    for part in parts:
        assert part in str(told.value)


def test_a_column_that_is_the_class_or_is_empty_gives_no_groups() -> None:
    six = make_table((5, 5, 5))
    assert is_class(six.assign(region=six["label"]), "region")
    assert not is_class(TABLE, "region")
    assert "not known for any image" in why_not(six.assign(region=np.nan), "region")
    assert why_not(TABLE, "region") == ""
