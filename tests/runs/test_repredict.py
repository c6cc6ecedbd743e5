"""Another dataset's rows next to the run's own: equal names are different people."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.patients import PatientDataset
from helpers.run_files import two_class_table, write_run

from fracnet.runs.evaluate_run import NewPredictions
from fracnet.runs.repredict import predict_external, with_distinct_ids
from fracnet.runs.run_folder import RunFolder
from fracnet.utils.errors import UserError

TABLE = two_class_table()
VAL = TABLE[TABLE["split"] == "val"]
STEPS = {"steps": [{"name": "resize", "mode": "squash"}]}


def predict_patients(folder: Path, table: pd.DataFrame, data: str = "mura_like") -> NewPredictions:
    """A run on `data` with the predictions `own` predicts the test images of another dataset."""
    run = RunFolder(write_run(folder / "run", table, baseline=False))
    run.fit.write_text(json.dumps({"data": {"name": data}}))
    preprocess = SimpleNamespace(model_dump=lambda: STEPS)
    config: Any = SimpleNamespace(preprocess=preprocess, image_size=32)
    dataset = PatientDataset(root=str(folder / "set"))

    def logits(images: np.ndarray, rows: np.ndarray, show: Any) -> np.ndarray:
        return np.tile([0.0, 1.0], (len(rows), 1))

    return predict_external(run, config, dataset, None, logits)


def with_patient_041() -> pd.DataFrame:
    """The run's own rows, with a validation patient named like one of the other dataset."""
    prefix = TABLE["split"].map({"val": "p", "test": "own"})
    return TABLE.assign(patient=prefix + TABLE["patient"].replace("001", "041"))


def test_equal_names_of_two_datasets_are_made_distinct(tmp_path: Path) -> None:
    table = with_patient_041()
    table.loc[VAL.index[0], "path"] = "p040_0.png"
    new = predict_patients(tmp_path, table)
    test = new.predictions.split("test").table
    assert test["patient"].str.startswith("patients:p04").all()
    assert test["path"].str.startswith("patients:p04").all()
    assert test["study"].str.startswith("p04").all(), "names that are only in one dataset stay"
    val = new.predictions.split("val").table
    assert val["patient"].tolist() == table.loc[VAL.index, "patient"].tolist()


def test_names_in_only_one_dataset_do_not_change(tmp_path: Path) -> None:
    test = predict_patients(tmp_path, TABLE).predictions.split("test").table
    assert test["patient"].str.startswith("p04").all()
    blank = VAL.assign(patient=np.nan, study=None)
    pd.testing.assert_frame_equal(with_distinct_ids(blank, TABLE.iloc[-9:], "other"), blank)


def test_equal_names_in_the_run_s_own_dataset_are_the_same_patients(tmp_path: Path) -> None:
    table = with_patient_041()
    with pytest.raises(UserError, match="patient p041"):
        predict_patients(tmp_path, table, "patients")
