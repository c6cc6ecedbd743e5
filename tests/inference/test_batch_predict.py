"""The files that a prediction writes."""

import json
from pathlib import Path

import pandas as pd
import pytest

from fracnet.inference.batch_predict import _write_jsonl


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan", "007", "1.0", "True"])
def test_the_json_lines_hold_text_as_it_is(tmp_path: Path, name: str) -> None:
    row = {
        "path": f"{name}.png", "patient": name, "study": name, "likeliest": name, "prob_x": 0.25,
        "decision": name, "reason": None, "overlay": None, "error": "",
    }  # fmt: skip
    pd.DataFrame([row]).to_csv(tmp_path / "predictions.csv", index=False)
    _write_jsonl(tmp_path / "predictions.csv")
    (line,) = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert json.loads(line) == {**row, "error": None}
