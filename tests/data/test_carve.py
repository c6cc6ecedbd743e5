"""Splits that are made: whole groups, alike in their strata, whatever the order of the rows."""

import numpy as np
import pandas as pd
import pytest

from fracnet.data.splits import carve, folds
from fracnet.utils.errors import UserError

REGIONS = ("elbow", "hand", "wrist", "shoulder")


def made_up(n_patients: int, seed: int = 0, rare: float = 0.3) -> pd.DataFrame:
    """Patients with one or two studies (perhaps of other regions) of one to five views."""
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


def shares(table: pd.DataFrame, chosen: np.ndarray) -> pd.DataFrame:
    grouped = table.assign(chosen=chosen).groupby(["region", "label"])["chosen"]
    return grouped.agg(["mean", "size"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_groups_stay_whole_and_every_stratum_gives_its_share(seed, share):
    table = made_up(800, seed)
    chosen = carve(table, share, seed)
    assert table.assign(chosen=chosen).groupby("patient")["chosen"].nunique().max() == 1
    assert chosen.mean() == pytest.approx(share, abs=0.005)
    off = shares(table, chosen)
    # Within one large patient of the wanted number of images, in each region and label.
    assert ((off["mean"] - share).abs() * off["size"] <= 5).all()
    # Neither the large patients nor the small ones are preferred.
    views = table.groupby("patient").size()
    ratio = views[table.loc[chosen, "patient"].unique()].mean() / views.mean()
    assert ratio == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("deal", [lambda t: carve(t, 0.2, 3), lambda t: folds(t, 4, 3)])
def test_the_order_of_the_rows_does_not_matter_but_the_seed_does(deal):
    table = made_up(120)
    expected = dict(zip(table["path"], deal(table), strict=True))
    mixed = table.sample(frac=1, random_state=1)
    assert dict(zip(mixed["path"], deal(mixed), strict=True)) == expected


def test_another_seed_chooses_others():
    table = made_up(120)
    assert (carve(table, 0.2, 0) != carve(table, 0.2, 1)).any()
    assert (folds(table, 5, 0) != folds(table, 5, 1)).any()


def test_the_choice_is_the_same_for_good():
    rows = [
        (f"{i}/{view}.png", f"p{i}", f"s{i}", REGIONS[i % 2], ("normal", "abnormal")[i % 3 == 0])
        for i in range(30)
        for view in range(1 + i % 4)
    ]
    table = pd.DataFrame(rows, columns=["path", "patient", "study", "region", "label"])
    # Whoever has to change these changes every split that is still to be made.
    assert sorted(table.loc[carve(table, 0.2, 0), "patient"].unique()) == [
        "p0",
        "p16",
        "p17",
        "p2",
        "p24",
        "p27",
        "p7",
    ]
    dealt = table.groupby(folds(table, 3, 0))["patient"].unique()
    assert sorted(dealt[1]) == ["p1", "p10", "p19", "p25", "p26", "p29", "p3", "p6", "p8"]


def test_without_patients_studies_stay_whole_and_without_both_images_do():
    table = made_up(200)
    table["patient"] = np.nan
    chosen = carve(table, 0.2, 0)
    by_study = table.assign(chosen=chosen).groupby("study")["chosen"]
    assert by_study.nunique().max() == 1
    table["study"] = np.nan
    single = carve(table, 0.2, 0)
    assert single.mean() == pytest.approx(0.2, abs=0.01)
    assert table.assign(chosen=single).groupby("region")["chosen"].sum().gt(0).all()


def test_a_stratum_that_is_not_known_is_one_more_stratum():
    table = made_up(300)
    table.loc[table["region"] == "elbow", "region"] = np.nan
    chosen = carve(table, 0.2, 0)
    assert chosen[table["region"].isna()].mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("n_rare", [1, 2, 3])
def test_every_class_keeps_a_train_image_and_comes_in_validation_where_it_can(n_rare):
    table = made_up(40, rare=0)
    table.loc[table["patient"].isin([f"p{i}" for i in range(n_rare)]), "label"] = "abnormal"
    for share in (0.05, 0.5, 0.95):
        chosen = carve(table, share, 0)
        assert set(table.loc[~chosen, "label"]) == {"normal", "abnormal"}
        assert ("abnormal" in set(table.loc[chosen, "label"])) == (n_rare > 1)
        assert "normal" in set(table.loc[chosen, "label"])


def test_one_group_cannot_be_carved():
    table = made_up(60).query("patient == 'p0'")
    with pytest.raises(UserError, match="carved from 1 image in 1 group "):
        carve(table, 0.1, 0)


@pytest.mark.parametrize("seed", range(3))
def test_folds_are_whole_groups_of_equal_size_and_mix(seed):
    table = made_up(500, seed)
    fold = folds(table, 5, seed)
    assert fold.dtype == np.int64
    assert table.assign(fold=fold).groupby("patient")["fold"].nunique().max() == 1
    assert np.abs(np.bincount(fold, minlength=5) - len(table) / 5).max() <= 5
    for k in range(5):
        off = shares(table, fold == k)
        assert ((off["mean"] - 0.2).abs() * off["size"] <= 5).all()


def test_folds_need_groups_enough_groups_and_two_folds():
    table = made_up(4)
    with pytest.raises(UserError, match=r"data\.folds=5: there are only 4 groups"):
        folds(table, 5, 0)
    with pytest.raises(UserError, match=r"data\.folds=1: .* 2 folds"):
        folds(table, 1, 0)
    nobody = table.assign(patient=np.nan, study=np.nan)
    with pytest.raises(UserError, match=rf"need patients or studies.* {len(table)} of the"):
        folds(nobody, 2, 0)
    studies = folds(table.assign(patient=np.nan), 2, 0)
    assert table.assign(fold=studies).groupby("study")["fold"].nunique().max() == 1
