"""Whose image a row is: names of studies that repeat, and patients that are named for some rows."""

import numpy as np
import pandas as pd
import pytest
from helpers.run_files import two_class_table

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import available_levels, levels_for_groups, to_level
from fracnet.evaluation.assessment import Assessment, evaluate, official_metrics
from fracnet.evaluation.decisions import decide
from fracnet.evaluation.predictions import (
    Predictions,
    clusters_of,
    identity_notes,
    resolve_identities,
)
from fracnet.utils.errors import UserError

TABLE = two_class_table()
TEST, VAL = TABLE[TABLE["split"] == "test"], TABLE[TABLE["split"] == "val"]
# As in MURA's folders: the last part of a study's name, which every patient has.
SHORT = TABLE.assign(study="study" + TABLE["study"].str[-1] + "_" + TABLE["label"])
OPTIONS = Evaluation(resamples=100)


def assessed(table: pd.DataFrame) -> Assessment:
    predictions = Predictions(table)
    return evaluate(predictions, OPTIONS, decide(predictions.split("val"), OPTIONS))


def test_studies_of_one_name_are_distinguished_by_their_patients() -> None:
    short_test = Predictions(SHORT.loc[TEST.index])
    ours, theirs = (to_level(p, "study").table for p in (Predictions(TEST), short_test))
    assert sorted(theirs["prob_abnormal"]) == pytest.approx(sorted(ours["prob_abnormal"]))
    assert theirs["path"].is_unique
    assert levels_for_groups(Predictions(SHORT), "region", ["image", "study"]) == ["image", "study"]
    full, short = assessed(TABLE), assessed(SHORT)
    for left, right in zip(short.strata, full.strata, strict=True):
        assert (left.level, left.value, left.summary.n) == (
            *(right.level, right.value, right.summary.n),
        )
        areas = [stratum.summary.metrics["macro_auc"] for stratum in (left, right)]
        assert areas[0].value == pytest.approx(areas[1].value)
        assert areas[0].low == pytest.approx(areas[1].low)
    (note,) = set(short.notes) - set(full.notes)
    assert note.startswith("study names are not unique across patients (study0_abnormal belongs")


def test_a_study_that_is_of_one_patient_keeps_its_name() -> None:
    table = TEST.assign(study=np.where(TEST["patient"] == "040", "first", TEST["study"]))
    assert resolve_identities(table) is table
    assert identity_notes(table) == []


def test_without_patients_such_a_study_is_left_out_with_cause_and_remedy() -> None:
    mixed = TEST.assign(study="study" + TEST["study"].str[-1], patient=np.nan)
    assessment = evaluate(Predictions(mixed), OPTIONS, None)
    assert {s.level for s in assessment.strata} == {"image"}
    assert {row.level for row in assessment.official} == {"image"}
    (note,) = [note for note in assessment.notes if "study0" in note]
    assert "different labels (abnormal, normal), as have 1 more" in note
    assert "add the column patient" in note
    with pytest.raises(UserError, match=r"The study study0 has .* add the column patient"):
        to_level(Predictions(mixed), "study")


def test_a_row_without_a_patient_is_that_of_its_study() -> None:
    first = TEST.groupby("study").head(1).index
    gaps = TEST.copy()
    gaps.loc[gaps.index.difference(first), "patient"] = np.nan
    assert clusters_of(gaps).ids.tolist() == clusters_of(TEST).ids.tolist()
    assert available_levels(Predictions(gaps)) == ["image", "study", "patient"]
    n = len(TEST) - len(first)
    assert identity_notes(gaps)[0].startswith(f"{n} images without a patient are of a study whose")
    assert official_metrics(Predictions(gaps), 100) == official_metrics(Predictions(TEST), 100)


def test_images_of_an_ambiguous_study_are_noted() -> None:
    table = SHORT.loc[TEST.index].copy()
    table.loc[table.index[:2], "patient"] = [None, " "]
    assert "2 images without a patient are of study names that several" in identity_notes(table)[1]
    assert resolve_identities(table)["patient"].isna().sum() == 1


@pytest.mark.parametrize("column", ["patient", "study"])
def test_a_patient_or_study_in_val_and_in_test_is_rejected(column: str) -> None:
    leaky = TABLE.copy()
    if column == "study":
        leaky["patient"] = np.nan
    rows, name = TEST.index[:5], VAL[column].iloc[0]
    leaky.loc[rows, column] = name
    n = int((VAL[column] == name).sum())
    message = rf"5 test rows are .* val .*{column} {name} "
    with pytest.raises(UserError, match=message) as error:
        Predictions(leaky)
    assert f"(val {n}, test 5)" in str(error.value)
    Predictions(leaky.loc[TEST.index])


def test_a_patient_inferred_from_a_study_counts_in_both_splits_too() -> None:
    leaky = TABLE.copy()
    leaky.loc[TEST.index[0], ["patient", "study"]] = [np.nan, VAL["study"].iloc[0]]
    with pytest.raises(UserError, match=r"1 test row is .* patient 000 "):
        Predictions(leaky)
