"""The mean of runs: always in test, in val where no run has trained on the image."""

import numpy as np
import pandas as pd
import pytest
from helpers.run_folders import table_of

from fracnet.evaluation.ensembles import Ensemble, average
from fracnet.evaluation.predictions import Predictions
from fracnet.utils.errors import UserError


def averaged(tables: dict[str, pd.DataFrame]) -> Ensemble:
    return average({name: Predictions(table) for name, table in tables.items()})


def rows(table, split):  # type: ignore[no-untyped-def]
    return table[table["split"] == split].sort_values("path").reset_index(drop=True)


def test_runs_of_the_same_images_are_averaged_in_both_splits() -> None:
    tables = {str(seed): table_of(1.0, seed) for seed in range(3)}
    ensemble = averaged(tables)
    Predictions(ensemble.predictions.table)
    assert (ensemble.validation, len(ensemble.folds)) == ("mean", 1)
    for split in ("val", "test"):
        mean = np.mean([Predictions(rows(t, split)).probabilities for t in tables.values()], axis=0)
        np.testing.assert_allclose(
            Predictions(rows(ensemble.predictions.table, split)).probabilities, mean, rtol=1e-12
        )
    assert list(ensemble.predictions.table.columns) == list(tables["0"].columns)


def test_folds_keep_out_of_fold_predictions_in_val_and_the_mean_in_test() -> None:
    tables = {str(fold): table_of(1.0, fold, fold=fold) for fold in range(3)}
    ensemble = averaged(tables)
    assert (ensemble.validation, ensemble.folds) == ("out_of_fold", (("0",), ("1",), ("2",)))
    val = rows(ensemble.predictions.table, "val")
    assert len(val) == 60
    for table in tables.values():
        validation = rows(table, "val")
        same = val[val["path"].isin(validation["path"])].reset_index(drop=True)
        np.testing.assert_allclose(
            Predictions(same).probabilities, Predictions(validation).probabilities, rtol=1e-12
        )
    mean = np.mean([Predictions(rows(t, "test")).probabilities for t in tables.values()], axis=0)
    np.testing.assert_allclose(
        Predictions(rows(ensemble.predictions.table, "test")).probabilities, mean, rtol=1e-12
    )


def test_several_seeds_of_each_fold_are_averaged_within_it() -> None:
    tables = {f"{f}{s}": table_of(1.0, 10 * f + s, fold=f) for f in range(3) for s in range(2)}
    ensemble = averaged(tables)
    assert ensemble.folds == (("00", "01"), ("10", "11"), ("20", "21"))
    mean = np.mean(
        [Predictions(rows(tables[name], "val")).probabilities for name in ("10", "11")], axis=0
    )
    val = rows(ensemble.predictions.table, "val")
    same = val[val["path"].isin(tables["10"]["path"])].reset_index(drop=True)
    np.testing.assert_allclose(Predictions(same).probabilities, mean, rtol=1e-12)


def test_a_probability_of_0_everywhere_stays_next_to_0_with_a_finite_log() -> None:
    table = table_of(1.0).drop(columns=["logit_normal", "logit_abnormal"])
    table[["prob_normal", "prob_abnormal"]] = [0.0, 1.0]
    ensemble = averaged({"a": table, "b": table})
    assert (ensemble.predictions.table["prob_normal"] < 1e-300).all()
    assert np.isfinite(ensemble.predictions.table["logit_normal"]).all()


def test_runs_that_tie_are_exactly_at_one_half() -> None:
    bare = table_of(1.0).drop(columns=["logit_normal", "logit_abnormal"])
    tables = {
        str(prob): bare.assign(prob_abnormal=prob, prob_normal=round(1 - prob, 2))
        for prob in (0.15, 0.6, 0.75)
    }
    mean = averaged(tables).predictions
    assert (mean.probabilities == 0.5).all()
    assert (mean.scores == 0).all()


def test_dishonest_combinations_are_rejected() -> None:
    whole, fold = table_of(1.0), table_of(1.0, 1, fold=0)
    with pytest.raises(UserError, match=r"a and b share 20 of their val images .* but not all"):
        averaged({"a": whole, "b": fold})
    with pytest.raises(UserError, match="different numbers of runs on each"):
        averaged({"a": fold, "b": table_of(1.0, 2, fold=1), "c": table_of(1.0, 3, fold=1)})
    with pytest.raises(UserError, match="b has no val rows"):
        averaged({"a": whole, "b": whole[whole["split"] == "test"]})
    only_test = dict.fromkeys("ab", whole[whole["split"] == "test"])
    assert averaged(only_test).validation == "none"


def test_a_patient_in_the_validation_of_two_folds_is_refused() -> None:
    tables = {str(fold): table_of(1.0, fold, fold=fold) for fold in range(2)}
    for fold, table in tables.items():
        val = table["split"] == "val"
        table.loc[val, "patient"] = [f"{fold}-{i // 2}" for i in range(int(val.sum()))]
        table.loc[val, "study"] = None
    averaged(tables)
    for table in tables.values():
        table.loc[table.index[table["split"] == "val"][3], "patient"] = "both"
    with pytest.raises(UserError, match="0 and 1 both validate on images of patient both"):
        averaged(tables)
