"""The files that a prediction writes."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from fracnet.inference.batch_predict import _RowFile, _write_jsonl, output_folder
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
