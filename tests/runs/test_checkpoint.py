"""Another data set's rows beside the run's own: equal names of two sets are not one patient."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.patients import PatientSource
from helpers.run_files import two_class_table, write_run

from fracnet.evaluation.predictions import check, check_apart
from fracnet.runs.repredict import on_other_data, told_apart
from fracnet.runs.run_folder import Remade, RunFolder
from fracnet.utils.errors import UserError

TABLE = two_class_table()
VAL = TABLE[TABLE["split"] == "val"]
IDS = ["path", "patient", "study"]


STEPS = {"steps": [{"name": "resize", "mode": "squash"}]}


def scored_elsewhere(folder: Path, own: pd.DataFrame, data: str = "mura_like") -> Remade:
    """A run on `data` with the predictions `own`, shown the test images of made-up patients."""
    run = RunFolder(write_run(folder / "run", own, baseline=False))
    run.fit.write_text(json.dumps({"data": {"name": data}}))
    preprocess = SimpleNamespace(model_dump=lambda: STEPS)
    config: Any = SimpleNamespace(preprocess=preprocess, image_size=32)
    source = PatientSource(root=str(folder / "set"))

    def logits(images: np.ndarray, rows: np.ndarray, show: Any) -> np.ndarray:
        return np.tile([0.0, 1.0], (len(rows), 1))

    return on_other_data(run, config, source, None, logits)


def test_equal_names_of_two_sets_are_told_apart(tmp_path: Path) -> None:
    own = TABLE.copy()
    own["patient"] = "p" + own["patient"].replace("001", "041")  # as the other set has one
    own.loc[VAL.index[0], "path"] = "p040_0.png"
    found = scored_elsewhere(tmp_path, own)
    check(found.table)
    check_apart(found.table)
    test = found.test()
    assert test["patient"].str.startswith("patients:p04").all()
    assert test["path"].str.startswith("patients:p04").all()
    assert test["study"].str.startswith("p04").all(), "names that are not in both stay"
    val = found.table[found.table["split"] == "val"]
    assert val["patient"].tolist() == own.loc[VAL.index, "patient"].tolist()


def test_names_that_are_not_in_both_stay_as_they_are(tmp_path: Path) -> None:
    test = scored_elsewhere(tmp_path, TABLE).test()
    assert test["patient"].str.startswith("p04").all()
    blank = VAL.assign(patient=np.nan, study=None)
    pd.testing.assert_frame_equal(told_apart(blank, TABLE.iloc[-9:], "other"), blank)


def test_the_runs_own_set_has_the_same_patients(tmp_path: Path) -> None:
    own = TABLE.copy()
    own["patient"] = "p" + own["patient"].replace("001", "041")
    found = scored_elsewhere(tmp_path, own, "patients")
    with pytest.raises(UserError, match="patient p041"):
        check_apart(found.table)
