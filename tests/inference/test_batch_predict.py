"""The files that a prediction writes."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from fracnet.evaluation.conformal import Limits
from fracnet.inference.batch_predict import (
    PredictionSummary,
    _RowFile,
    _write_jsonl,
    output_folder,
    print_summary,
)
from fracnet.inference.prediction_page import rules
from fracnet.models.ood import NO_REFERENCE
from fracnet.serving.web_page import describe_model
from fracnet.utils.errors import UserError


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


def test_names_that_begin_like_a_formula_are_text_in_a_spreadsheet_and_exact_as_json(
    tmp_path: Path,
) -> None:
    names = ["=1+1.png", "'=1.png", "-5", "@SUM(A1)", "+a", "\t=1", "plain.png"]
    row = {"path": "a.png", "prob_x": -0.5, "reason": "-", "error": ""}
    with _RowFile(tmp_path / "predictions.csv") as rows:
        rows.add(pd.DataFrame([row | {"path": name, "patient": name} for name in names]))
    with (tmp_path / "predictions.csv").open(newline="") as file:
        cells = [row["path"] for row in csv.DictReader(file)]
    assert [cell for cell in cells if cell[0] in "=+-@\t\r"] == ["-5"], "a number"
    _write_jsonl(tmp_path / "predictions.csv")
    stored = [json.loads(x) for x in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [row["path"] for row in stored] == [row["patient"] for row in stored] == names
    assert stored[0]["prob_x"] == -0.5


def test_a_new_folder_is_one_that_no_other_command_has_made_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, made = Path.mkdir, []

    def second(path: Path, *details: object) -> None:
        if not made:
            make(path)  # by the other command
        made.append(path)
        make(path)

    monkeypatch.setattr(Path, "mkdir", second)
    with output_folder(None, "scan 1") as folder:
        assert [*map(str, made)] == [folder.name.removesuffix("_2"), folder.name]

    def refuse(path: Path, *details: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    reason = rf"Cannot write to {tmp_path} \(Permission denied\); name another folder with out=\."
    with pytest.raises(UserError, match=reason), output_folder(None, "scan 1"):
        pass


def test_all_say_alike_why_no_image_is_called_out_of_distribution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = Limits(("a", "b"), 0.05, (0.1,) * 2, (0.05,) * 2, (40,) * 2)
    level = {"threshold": None, "limits": limits}
    predictor: Any = SimpleNamespace(
        path=tmp_path, classes=("a", "b"), levels={"image": level}, ood_description=None,
        decisions={"temperature": 1.0, "sha256": "0", "views": "mean"}, why_no_heatmaps="",
        predict=lambda _: pd.DataFrame(),
    )  # fmt: skip
    print_summary(PredictionSummary(tmp_path, ood=None), predictor)
    assert NO_REFERENCE in " ".join(capsys.readouterr().out.split())
    assert NO_REFERENCE in rules(predictor)
    assert describe_model(predictor, "run", "PNG", {})["ood_unknown"] == NO_REFERENCE
    predictor.ood_description = {"by": "appearance"}
    print_summary(PredictionSummary(tmp_path, ood=0), predictor)
    assert "unknown" not in capsys.readouterr().out
    assert NO_REFERENCE not in rules(predictor)
    assert describe_model(predictor, "run", "PNG", {})["ood_unknown"] == ""
