"""Groups: overlap between splits, new splits and folds of complete groups."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from fracnet.data.splits import assign_folds, group_overlap, nested_share, sample_groups
from fracnet.utils.errors import UserError


def table(*rows: tuple[str, object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["split", "patient", "study"], dtype=object)


def test_patients_in_two_splits_are_listed_with_their_number_of_images():
    overlap = group_overlap(
        table(
            ("test", "7", np.nan),
            ("train", "7", np.nan),
            ("train", "7", np.nan),
            ("val", "8", np.nan),
            ("val", "8", np.nan),
        )
    )
    assert overlap.to_dict("records") == [
        {"unit": "patient", "group": "7", "splits": "train, test", "n": 3}
    ]


def test_the_study_counts_only_if_the_patient_is_unknown():
    rows = table(
        ("train", "1", "s"), ("test", "2", "s"), ("train", np.nan, "t"), ("val", np.nan, "t")
    )
    assert group_overlap(rows)[["unit", "group"]].values.tolist() == [["study", "t"]]


def test_a_patient_and_a_study_with_the_same_name_are_two_groups():
    assert group_overlap(table(("train", "a", np.nan), ("test", np.nan, "a"))).empty


def test_unknown_groups_are_not_compared():
    overlap = group_overlap(table(("train", np.nan, np.nan), ("test", np.nan, np.nan)))
    assert overlap.empty
    assert list(overlap.columns) == ["unit", "group", "splits", "n"]


# --- new splits and folds


REGIONS = ("elbow", "hand", "wrist", "shoulder")


def random_table(n_patients: int, seed: int = 0, rare: float = 0.3) -> pd.DataFrame:
    """Patients with one or two studies (possibly of other regions) of one to five views."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(n_patients):
        for study in range(1 + int(rng.random() < 0.25)):
            region = REGIONS[rng.choice(4, p=[0.5, 0.3, 0.15, 0.05])]
            label = "abnormal" if rng.random() < rare else "normal"
            name = f"p{patient}/{region}{study}"
            for view in range(rng.integers(1, 6)):
                rows.append((f"{name}/{view}.png", f"p{patient}", name, region, label))
    columns = ["path", "patient", "study", "region", "label"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def chosen_shares(table: pd.DataFrame, chosen: np.ndarray) -> pd.DataFrame:
    grouped = table.assign(chosen=chosen).groupby(["region", "label"])["chosen"]
    return grouped.agg(["mean", "size"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_groups_stay_together_and_every_stratum_has_its_share(seed, share):
    table = random_table(800, seed)
    chosen = sample_groups(table, share, seed)
    assert table.assign(chosen=chosen).groupby("patient")["chosen"].nunique().max() == 1
    assert chosen.mean() == pytest.approx(share, abs=0.005)
    strata = chosen_shares(table, chosen)
    # Off by at most one large patient, in each region and label.
    assert ((strata["mean"] - share).abs() * strata["size"] <= 5).all()
    # Neither large nor small patients are preferred.
    views = table.groupby("patient").size()
    ratio = views[table.loc[chosen, "patient"].unique()].mean() / views.mean()
    assert ratio == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "choose", [lambda t: sample_groups(t, 0.2, 3), lambda t: assign_folds(t, 4, 3)]
)
def test_the_order_of_the_rows_does_not_matter_but_the_seed_does(choose):
    table = random_table(120)
    expected = dict(zip(table["path"], choose(table), strict=True))
    mixed = table.sample(frac=1, random_state=1)
    assert dict(zip(mixed["path"], choose(mixed), strict=True)) == expected


def test_another_seed_chooses_other_groups():
    table = random_table(120)
    assert (sample_groups(table, 0.2, 0) != sample_groups(table, 0.2, 1)).any()
    assert (assign_folds(table, 5, 0) != assign_folds(table, 5, 1)).any()


def test_the_choice_is_stable_across_versions():
    rows = [
        (f"{i}/{view}.png", f"p{i}", f"s{i}", REGIONS[i % 2], ("normal", "abnormal")[i % 3 == 0])
        for i in range(30)
        for view in range(1 + i % 4)
    ]
    table = pd.DataFrame(rows, columns=["path", "patient", "study", "region", "label"])
    # Changing these values changes every split that is created from then on.
    assert sorted(table.loc[sample_groups(table, 0.2, 0), "patient"].unique()) == [
        "p0",
        "p16",
        "p17",
        "p2",
        "p24",
        "p27",
        "p7",
    ]
    patients_of_fold = table.groupby(assign_folds(table, 3, 0))["patient"].unique()
    assert sorted(patients_of_fold[1]) == [
        "p1",
        "p10",
        "p19",
        "p25",
        "p26",
        "p29",
        "p3",
        "p6",
        "p8",
    ]


def test_studies_stay_together_without_patients_and_images_are_groups_without_both():
    table = random_table(200)
    table["patient"] = np.nan
    chosen = sample_groups(table, 0.2, 0)
    by_study = table.assign(chosen=chosen).groupby("study")["chosen"]
    assert by_study.nunique().max() == 1
    table["study"] = np.nan
    single = sample_groups(table, 0.2, 0)
    assert single.mean() == pytest.approx(0.2, abs=0.01)
    assert table.assign(chosen=single).groupby("region")["chosen"].sum().gt(0).all()


def test_unknown_values_are_a_stratum_of_their_own():
    table = random_table(300)
    table.loc[table["region"] == "elbow", "region"] = np.nan
    chosen = sample_groups(table, 0.2, 0)
    assert chosen[table["region"].isna()].mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("n_rare", [1, 2, 3])
def test_every_class_keeps_a_train_image_and_is_in_validation_if_possible(n_rare):
    table = random_table(40, rare=0)
    table.loc[table["patient"].isin([f"p{i}" for i in range(n_rare)]), "label"] = "abnormal"
    for share in (0.05, 0.5, 0.95):
        chosen = sample_groups(table, share, 0)
        assert set(table.loc[~chosen, "label"]) == {"normal", "abnormal"}
        assert ("abnormal" in set(table.loc[chosen, "label"])) == (n_rare > 1)
        assert "normal" in set(table.loc[chosen, "label"])


def test_a_single_group_cannot_be_split():
    table = random_table(60).query("patient == 'p0'")
    with pytest.raises(UserError, match="Cannot split off a part of 1 image in 1 group "):
        sample_groups(table, 0.1, 0)


@pytest.mark.parametrize("seed", range(3))
def test_folds_keep_groups_together_and_have_equal_size_and_mix(seed):
    table = random_table(500, seed)
    fold = assign_folds(table, 5, seed)
    assert fold.dtype == np.int64
    assert table.assign(fold=fold).groupby("patient")["fold"].nunique().max() == 1
    assert np.abs(np.bincount(fold, minlength=5) - len(table) / 5).max() <= 5
    for k in range(5):
        strata = chosen_shares(table, fold == k)
        assert ((strata["mean"] - 0.2).abs() * strata["size"] <= 5).all()


def test_folds_need_enough_groups():
    table = random_table(4)
    with pytest.raises(UserError, match=r"data\.folds=5: there are only 4 groups"):
        assign_folds(table, 5, 0)
    studies = assign_folds(table.assign(patient=np.nan), 2, 0)
    assert table.assign(fold=studies).groupby("study")["fold"].nunique().max() == 1


# --- shares of the train images


SHARES = (0.05, 0.1, 0.25, 0.5, 0.9, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_a_smaller_share_is_part_of_a_larger_and_has_the_same_mix(seed):
    table = random_table(800, seed)
    parts = [nested_share(table, share, seed) for share in SHARES]
    for share, part in zip(SHARES, parts, strict=True):
        assert part.mean() == pytest.approx(share, abs=0.004)
        assert table.assign(chosen=part).groupby("patient")["chosen"].nunique().max() == 1
        strata = chosen_shares(table, part)
        off = (strata["mean"] - share).abs() * strata["size"]
        assert off.max() < 20, "images, of a few patients in each region and label"
    assert all((small <= large).all() for small, large in pairwise(parts))


def test_the_share_depends_on_the_seed_and_not_on_the_order_of_rows():
    table = random_table(100)
    mixed = table.sample(frac=1, random_state=1)
    chosen = dict(zip(table["path"], nested_share(table, 0.3, 5), strict=True))
    again = dict(zip(mixed["path"], nested_share(mixed, 0.3, 5), strict=True))
    assert chosen == again
    assert (nested_share(table, 0.3, 6) != nested_share(table, 0.3, 5)).any()
