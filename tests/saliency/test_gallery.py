"""Cases are of every kind, drawn by lot, and confident only where validation says so."""

import numpy as np
import pandas as pd
import pytest
from helpers.run_folders import table_of

from fracnet.config.schema import Evaluation
from fracnet.evaluation.decisions import calibrated, decide
from fracnet.evaluation.predictions import classes_of, probabilities
from fracnet.saliency.gallery import KINDS, Case, as_entry, choose

ERROR = 0.05


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return table_of(1.5, count=120)


def chosen(table: pd.DataFrame, each: int = 4, **how: int) -> list[Case]:
    decisions = decide(table[table["split"] == "val"], Evaluation())
    return choose(table, decisions, each, error=ERROR, seed=how.get("seed", 0))[0]


def test_each_kind_has_as_many_as_asked_for_and_what_its_name_says(table: pd.DataFrame) -> None:
    decisions = decide(table[table["split"] == "val"], Evaluation())
    threshold = decisions["operating_point"]["image"]["threshold"]
    prob = probabilities(calibrated(table, decisions["temperature"]))
    cases = chosen(table)
    assert [case.kind for case in cases] == [kind for kind in KINDS for _ in range(4)]
    for case in cases:
        row = table.iloc[case.row]
        assert row["split"] == "test"
        assert classes_of(table)[case.truth] == row["label"]
        assert case.predicted == int(prob[case.row, 1] > threshold)
        assert (case.truth == case.predicted) == case.kind.startswith("right")
        assert case.probability == prob[case.row, case.predicted]


def test_sure_ones_are_further_from_the_other_class(table: pd.DataFrame) -> None:
    """Of one predicted class each sure case has a higher probability than each uncertain one."""
    cases = chosen(table, each=20)
    for named in (0, 1):
        sure = [c.probability for c in cases if c.predicted == named and "uncertain" not in c.kind]
        doubt = [c.probability for c in cases if c.predicted == named and "uncertain" in c.kind]
        assert sure
        assert doubt
        assert min(sure) > max(doubt)


def test_no_patient_is_twice_in_a_kind_and_classes_take_turns(table: pd.DataFrame) -> None:
    cases = chosen(table, each=6)
    for kind in KINDS:
        rows = [case.row for case in cases if case.kind == kind]
        patients = table["patient"].iloc[rows]
        assert patients.is_unique
        assert set(table["label"].iloc[rows]) == {"normal", "abnormal"}


def test_images_without_a_known_patient_are_no_single_patient(table: pd.DataFrame) -> None:
    unknown = table.assign(patient=np.nan, study=np.nan)
    assert len(chosen(unknown, each=3)) == 3 * len(KINDS)
    assert "patient" not in as_entry(chosen(unknown, each=1)[0], unknown)


def test_the_lot_follows_the_seed_and_not_the_order_of_rows(table: pd.DataFrame) -> None:
    def paths(rows: pd.DataFrame, seed: int) -> list[str]:
        return [rows["path"].iloc[case.row] for case in chosen(rows, seed=seed)]

    turned = table.iloc[::-1].reset_index(drop=True)
    assert paths(table, 0) == paths(turned, 0)
    assert paths(table, 0) != paths(table, 1)


def test_none_are_shown_where_none_are_asked_for(table: pd.DataFrame) -> None:
    decisions = decide(table[table["split"] == "val"], Evaluation())
    assert choose(table, decisions, 0, error=ERROR, seed=0) == ([], [])


def test_too_few_validation_images_promise_nothing(table: pd.DataFrame) -> None:
    decisions = decide(table[table["split"] == "val"], Evaluation())
    few = pd.concat([table[table["split"] == "val"].head(12), table[table["split"] == "test"]])
    how = " ".join(choose(few.reset_index(drop=True), decisions, 1, error=ERROR, seed=0)[1])
    assert "so no decision on an image can be confident; it takes 9 of each class" in how
    assert "at most 5 %" not in how


def test_an_entry_is_plain_and_complete(table: pd.DataFrame) -> None:
    case = chosen(table)[0]
    entry = as_entry(case, table)
    assert entry["path"] == table["path"].iloc[case.row]
    assert {type(value) for value in entry.values()} == {str, int, float}
    assert entry["truth"] != entry["predicted"]
    assert entry["patient"] == table["patient"].iloc[case.row]


def test_it_is_said_how_many_of_each_kind_there_are(table: pd.DataFrame) -> None:
    decisions = decide(table[table["split"] == "val"], Evaluation())
    _, (how,) = choose(table, decisions, 2, error=ERROR, seed=0)
    counts = [int(how.split(f"{kind} ")[1].split(",")[0].split(".")[0]) for kind in KINDS]
    assert sum(counts) == (table["split"] == "test").sum()
    assert "by lot, at most 2 of each kind" in how
