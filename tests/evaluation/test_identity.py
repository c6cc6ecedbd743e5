"""Whose image a row is: names of studies that repeat, and patients that are named for some rows."""

import numpy as np
import pandas as pd
import pytest
from helpers.run_files import two_class_table

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import levels_for, offered, to_level
from fracnet.evaluation.assessment import Assessment, assess, binary_rows
from fracnet.evaluation.decisions import decide
from fracnet.evaluation.predictions import check_apart, clusters_of, identified, identity_notes
from fracnet.utils.errors import UserError

TABLE = two_class_table()
TEST, VAL = TABLE[TABLE["split"] == "test"], TABLE[TABLE["split"] == "val"]
# As in MURA's folders: the last part of a study's name, which every patient has.
SHORT = TABLE.assign(study="study" + TABLE["study"].str[-1] + "_" + TABLE["label"])
OPTIONS = Evaluation(resamples=100)


def judged(table: pd.DataFrame) -> Assessment:
    return assess(table, OPTIONS, decide(table[table["split"] == "val"], OPTIONS))


def test_studies_of_one_name_are_told_apart_by_their_patients() -> None:
    ours, theirs = to_level(TEST, "study"), to_level(SHORT.loc[TEST.index], "study")
    assert sorted(theirs["prob_abnormal"]) == pytest.approx(sorted(ours["prob_abnormal"]))
    assert theirs["path"].is_unique
    assert levels_for(SHORT, "region", ["image", "study"]) == ["image", "study"]
    one, other = judged(TABLE), judged(SHORT)
    for there, here in zip(other.strata, one.strata, strict=True):
        assert (there.level, there.value, there.summary.n) == (
            *(here.level, here.value, here.summary.n),
        )
        figures = [s.summary.metrics["macro_auc"] for s in (there, here)]
        assert figures[0].value == pytest.approx(figures[1].value)
        assert figures[0].low == pytest.approx(figures[1].low)
    (note,) = set(other.notes) - set(one.notes)
    assert note.startswith("names of studies are not unique over the patients (study0_abnormal is")


def test_a_study_that_is_of_one_patient_keeps_its_name() -> None:
    table = TEST.assign(study=np.where(TEST["patient"] == "040", "first", TEST["study"]))
    assert identified(table) is table
    assert identity_notes(table) == []


def test_without_patients_such_a_study_is_left_out_with_cause_and_way_out() -> None:
    mixed = TEST.assign(study="study" + TEST["study"].str[-1], patient=np.nan)
    found = assess(mixed, OPTIONS, None)
    assert {s.level for s in found.strata} == {"image"}
    assert {row.level for row in found.official} == {"image"}
    (note,) = [note for note in found.notes if "study0" in note]
    assert "more than one label (abnormal, normal), and so have 1 more" in note
    assert "the column patient tells which" in note
    with pytest.raises(UserError, match=r"The study study0 has .* the column patient tells which"):
        to_level(mixed, "study")


def test_a_row_without_a_patient_is_that_of_its_study() -> None:
    first = TEST.groupby("study").head(1).index
    gaps = TEST.copy()
    gaps.loc[gaps.index.difference(first), "patient"] = np.nan
    assert clusters_of(gaps).ids.tolist() == clusters_of(TEST).ids.tolist()
    assert offered(gaps)[1] == ["image", "study", "patient"]
    n = len(TEST) - len(first)
    assert identity_notes(gaps)[0].startswith(f"{n} images without a patient are of a study whose")
    assert binary_rows(gaps, 100) == binary_rows(TEST, 100)


def test_images_whose_study_may_be_anyones_are_said() -> None:
    table = SHORT.loc[TEST.index].copy()
    table.loc[table.index[:2], "patient"] = [None, " "]
    assert "2 images without a patient are of studies that several" in identity_notes(table)[1]
    assert identified(table)["patient"].isna().sum() == 1


@pytest.mark.parametrize("column", ["patient", "study"])
def test_who_is_in_val_and_in_test_is_refused(column: str) -> None:
    leaky = TABLE.copy()
    if column == "study":
        leaky["patient"] = np.nan
    rows, name = TEST.index[:5], VAL[column].iloc[0]
    leaky.loc[rows, column] = name
    n = int((VAL[column] == name).sum())
    for act in (check_apart, judged):
        with pytest.raises(UserError, match=rf"5 rows of test are .* val .*{column} {name} ") as e:
            act(leaky)
        assert f"(val {n}, test 5)" in str(e.value)
    check_apart(leaky.loc[TEST.index])


def test_a_patient_whom_a_study_tells_is_found_in_both_splits_too() -> None:
    leaky = TABLE.copy()
    leaky.loc[TEST.index[0], ["patient", "study"]] = [np.nan, VAL["study"].iloc[0]]
    with pytest.raises(UserError, match=r"1 row of test is .* patient 000 "):
        check_apart(leaky)
