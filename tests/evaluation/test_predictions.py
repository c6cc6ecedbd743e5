"""The predictions table: checks, patients and studies, several runs in one order."""

import re

import numpy as np
import pandas as pd
import pytest
from helpers.predictions import make_table
from helpers.run_files import two_class_table
from helpers.run_folders import table_of

from fracnet.config.schema import Evaluation
from fracnet.evaluation.aggregation import available_levels, levels_for_groups, to_level
from fracnet.evaluation.assessment import Assessment, evaluate, official_metrics
from fracnet.evaluation.decisions import decide
from fracnet.evaluation.predictions import (
    Predictions,
    align,
    assemble,
    classes_of,
    clusters_of,
    identity_notes,
    known_groups,
    resolve_identities,
)
from fracnet.utils.errors import UserError


def test_classes_are_read_from_the_columns_in_order_and_may_hold_spaces() -> None:
    table = make_table((2, 3), classes=("no fracture", "a fracture"))
    Predictions(table)
    assert classes_of(table) == ("no fracture", "a fracture")
    assert Predictions(table).targets.tolist() == [0, 0, 1, 1, 1]


def test_assemble_gives_softmax_without_overflow() -> None:
    rows = pd.DataFrame({"path": ["a", "b"], "split": "test", "label": "x"}, index=[7, 3])
    table = assemble(rows, ("x", "y"), np.array([[1000.0, 0.0], [0.0, np.log(3)]]))
    Predictions(table)
    np.testing.assert_allclose(Predictions(table).probabilities, [[1, 0], [0.25, 0.75]])
    assert list(table["path"]) == ["a", "b"]
    assert list(table["logit_x"]) == [1000.0, 0.0]


def spoil(column: str, value: object) -> pd.DataFrame:
    table = make_table((2, 2)).astype({"prob_elbow": object})
    table.loc[1, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        (make_table((2, 2)).drop(columns="label"), ["'label'"]),
        (make_table((2, 2)).drop(columns="prob_elbow"), ["1 column", "at least two"]),
        (make_table((2, 2)).iloc[:0], ["no rows"]),
        (spoil("prob_elbow", np.nan), ["'prob_elbow'", "nan", "row 1", "test/0001.png"]),
        (spoil("prob_elbow", "high"), ["'prob_elbow'", "'high'", "row 1"]),
        (spoil("prob_elbow", 1.5), ["'prob_elbow'", "1.5", "from 0 to 1"]),
        (spoil("prob_elbow", -0.1), ["'prob_elbow'", "-0.1"]),
        (spoil("prob_elbow", np.inf), ["'prob_elbow'", "inf"]),
        (spoil("split", "holdout"), ["'split'", "'holdout'", "row 1", "val, test"]),
        (spoil("label", "knee"), ["'label'", "'knee'", "elbow, fingers"]),
        (spoil("label", None), ["'label'", "row 1"]),
    ],
)
def test_a_faulty_table_is_rejected_naming_column_and_row(
    table: pd.DataFrame, parts: list[str]
) -> None:
    with pytest.raises(UserError) as error:
        Predictions(table)
    for part in parts:
        assert part in str(error.value)


def test_an_image_has_one_row() -> None:
    val = make_table((2, 2), split="val")
    table = pd.concat([val, make_table((2, 2))], ignore_index=True)
    Predictions(table)
    table.loc[5, "path"] = "val/0001.png"
    table.loc[[2, 6], "path"] = "twice.png"
    with pytest.raises(UserError) as error:
        Predictions(table)
    assert "path val/0001.png more than once, in rows 1 (val), 5 (test)" in str(error.value)
    assert "; 1 other path too." in str(error.value)


def test_probabilities_must_sum_to_one_within_the_tolerance() -> None:
    table = make_table((2, 2)).drop(columns=["logit_elbow", "logit_fingers"])
    table["prob_elbow"], table["prob_fingers"] = 0.6, 0.4005
    Predictions(table)
    table["prob_fingers"] = 0.41
    with pytest.raises(UserError, match=r"sum to 1\.01 in row 0"):
        Predictions(table)


def test_clusters_are_patients_else_studies_else_images() -> None:
    table = make_table((3, 3))
    assert clusters_of(table).unit == "image"
    assert clusters_of(table).trivial
    table["study"] = ["s1", "s1", "s2", "s2", None, ""]
    clusters = clusters_of(table)
    assert (clusters.count, clusters.unit) == (4, "study, else image")
    table["patient"] = ["p1", "p1", "p1", "p1", "p2", "p2"]
    clusters = clusters_of(table)
    assert (clusters.count, clusters.unit) == (2, "patient")
    assert clusters.ids.tolist() == [0, 0, 0, 0, 1, 1]


def test_a_split_without_rows_has_no_groups() -> None:
    table = make_table((2, 2)).assign(patient="p", study="s", copies="x")
    empty = Predictions(table).split("val").identified.table
    assert (len(empty), clusters_of(empty).count, known_groups(empty)) == (0, 0, set())


def test_a_patient_and_a_study_of_one_name_are_two_clusters() -> None:
    table = make_table((1, 1))
    table["patient"], table["study"] = ["7", None], [None, "7"]
    assert clusters_of(table).count == 2


def test_groups_with_copies_of_one_picture_are_one_cluster() -> None:
    table = make_table((4, 4))
    table["copies"] = ["x", "x", "y", "y", "y", np.nan, "", "z"]
    clusters = clusters_of(table)
    assert (clusters.count, clusters.unit) == (5, "image, joined by copies")
    assert len(set(clusters.ids[:2])) == len(set(clusters.ids[2:5])) == 1
    table["patient"] = ["p1", "p2", "p2", "p3", "p4", "p4", "p5", "p6"]
    clusters = clusters_of(table)
    assert (clusters.count, clusters.unit) == (3, "patient, joined by copies")
    assert len(set(clusters.ids[:6])) == 1, "a copy links patients, and they link their images"
    (note,) = identity_notes(table)
    assert note.startswith("3 of 8 test images repeat another test image")
    table["copies"] = ["x", "y", "z", "a", "b", "b", np.nan, np.nan]
    (note,) = identity_notes(table)
    assert note.startswith("1 of 8 test images repeats another test image")
    assert clusters_of(table).unit == "patient", "copies of one patient join nothing"


def test_copies_of_images_join_their_studies() -> None:
    table = two_class_table()
    table = table[table["split"] == "test"]
    studies = table["study"].unique()
    rows = table.groupby("study").tail(1).set_index("study")["path"]
    pairs = dict(zip(rows[studies[::2]], rows[studies[1::2]], strict=True))
    copies = table["path"].map(pairs).fillna(table["path"])
    joined = table.assign(copies=copies.where(copies.duplicated(keep=False)))
    plain, wide = (
        to_level(Predictions(t.assign(patient=np.nan)), "study") for t in (table, joined)
    )
    assert len(wide) == len(plain) == plain.clusters.count == 2 * wide.clusters.count


def test_copies_widen_intervals() -> None:
    table = make_table((20, 20)).assign(region="all")
    twins = pd.concat([table, table.assign(path=table["path"] + "2")], ignore_index=True)
    marked = twins.assign(copies=[*table["path"], *table["path"]])
    plain, alone, wide = (
        evaluate(Predictions(t), OPTIONS, None).strata[0].summary.metrics["accuracy"]
        for t in (twins, table, marked)
    )
    assert None not in (plain.low, alone.low, wide.low)
    assert wide.high - wide.low > 1.2 * (plain.high - plain.low)
    assert wide.high - wide.low > 0.9 * (alone.high - alone.low)


def test_a_row_keeps_its_cluster_when_rows_are_reordered() -> None:
    table = make_table((6, 6), views=3)
    turned = table.iloc[::-1].reset_index(drop=True)
    assert clusters_of(turned).ids.tolist() == clusters_of(table).ids.tolist()[::-1]


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


def test_a_study_of_a_single_patient_keeps_its_name() -> None:
    table = TEST.assign(study=np.where(TEST["patient"] == "040", "first", TEST["study"]))
    assert resolve_identities(table) is table
    assert identity_notes(table) == []


def test_without_patients_an_ambiguous_study_is_left_out_with_a_hint() -> None:
    mixed = TEST.assign(study="study" + TEST["study"].str[-1], patient=np.nan)
    assessment = evaluate(Predictions(mixed), OPTIONS, None)
    assert {s.level for s in assessment.strata} == {"image"}
    assert {row.level for row in assessment.official} == {"image"}
    (note,) = [note for note in assessment.notes if "study0" in note]
    assert "different labels (abnormal, normal), as have 1 more" in note
    assert "add the column patient" in note
    with pytest.raises(UserError, match=r"The study study0 has .* add the column patient"):
        to_level(Predictions(mixed), "study")


def test_a_row_without_a_patient_inherits_that_of_its_study() -> None:
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


def test_copies_that_only_one_run_knows_count_for_all() -> None:
    left = two_class_table()
    copies = np.where(left.index < 2, "x", None)
    parts = align({"a": Predictions(left), "b": Predictions(left.assign(copies=copies))}, "val")
    assert parts["a"].clusters.ids.tolist() == parts["b"].clusters.ids.tolist()


def test_an_image_twice_and_a_split_without_rows_are_rejected() -> None:
    left = table_of(1.0)
    with pytest.raises(UserError, match="more than once"):
        aligned({"a": left, "b": pd.concat([left, left.tail(1)])}, "test")
    with pytest.raises(UserError, match="b has no val rows"):
        aligned({"a": left, "b": left[left["split"] == "test"]}, "val")


def test_logits_that_contradict_the_probabilities_are_an_error() -> None:
    table = make_table((10, 10, 10), 1.0)
    rounded = table.round({c: 4 for c in table if str(c).startswith(("prob_", "logit_"))})
    Predictions(rounded)
    names = [c for c in table if str(c).startswith("logit_")]
    other = table.copy()
    other.loc[7:, names] = 2 * table.loc[7:, names]
    given = table["prob_elbow"][7]
    logits = other.loc[7, names].to_numpy(dtype=float)
    gives = np.exp(logits[0]) / np.exp(logits).sum()
    message = (
        f"prob_elbow is {given:.6g} in row 7 (path {table['path'][7]}), but the softmax of the "
        f"logit_<class> columns gives {gives:.6g}"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        Predictions(other)
    other = table.copy()
    other.loc[3, names[0]] = np.nan
    with pytest.raises(UserError, match=r"in row 3 .* gives nan"):
        Predictions(other)
    Predictions(other.drop(columns=names))
