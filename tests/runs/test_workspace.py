"""The W&B workspace: what the library would send, with its transport replaced."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.command import run_command
from helpers.jobs import add_job

from fracnet.dashboard import dashboard
from fracnet.runs.sweep_summary import collect

pytestmark = [
    pytest.mark.skipif(find_spec("wandb_workspaces") is None, reason="fracnet[dashboard]"),
    # The library's own.
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Variables of each request; the machine seems to be online and to have a key."""
    requests: list[dict[str, Any]] = []

    def execute(api: Any, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        requests.append(variables)
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "x"}}}

    monkeypatch.setattr("wandb_workspaces.workspaces.internal.execute_graphql", execute)
    client = SimpleNamespace(app_url="https://wandb.example")
    monkeypatch.setattr("wandb.Api", lambda: SimpleNamespace(client=client))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.delenv("WANDB_MODE")
    return requests


def panels(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = spec["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_what_is_sent_shows_intervals_what_was_swept_matrices_and_examples(
    sent: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, lr in enumerate(("1e-3", "1e-2")):
        add_job(tmp_path / "sweep_a", number, [f"optim.lr={lr}", "seed=0"], 0.5 + number / 10)
    collect(tmp_path / "sweep_a")
    words = [f"folder={tmp_path / 'sweep_a'}", "project=bones", "entity=me", "keys=[image_size]"]
    result = run_command(dashboard, "dashboard", [*words, f"out={tmp_path / 'out'}"], capsys)
    assert result.code == 0, result.err
    assert "Workspace: https://wandb.example/me/bones" in result.out
    (request,) = sent
    assert (request["entityName"], request["projectName"]) == ("me", "bones")
    spec = json.loads(request["spec"])
    assert spec == json.loads((tmp_path / "out/workspace.json").read_text())["spec"]
    found = panels(spec)
    bars = [
        metric
        for panel in found["Test metrics with 95 % intervals"]
        for metric in panel["config"]["metrics"]
    ]
    for name in ("macro_sensitivity", "macro_specificity", "macro_auc"):
        for end in ("", "_low", "_high"):
            assert f"summary_metrics.test/{name}{end}" in bars
    coordinates = found["What was swept"][0]["config"]
    assert [column["accessor"] for column in coordinates["columns"]] == [
        "config:set/optim/lr.value",
        "config:image_size.value",
        "summary:val/macro_auc",
    ]
    matrices = json.dumps(found["Confusion matrices"])
    assert "test/confusion_matrix_table" in matrices
    assert "test/example_images" in json.dumps(found["Examples"])
    assert "sweep_a" in json.dumps(spec["section"]["runSets"])


def test_offline_the_specification_is_written_and_nothing_is_sent(
    sent: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = run_command(dashboard, "dashboard", ["project=bones", f"out={tmp_path}"], capsys)
    assert result.code == 0, result.err
    assert "Not sent: WANDB_MODE=offline is set." in result.out
    assert "wandb login" in result.out
    assert panels(json.loads((tmp_path / "workspace.json").read_text())["spec"])
    assert not sent


def test_a_folder_that_is_no_sweep_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_command(dashboard, "dashboard", ["project=bones", "folder=somewhere"], capsys)
    assert result.code == 1
    assert "folder=somewhere is not the folder of a sweep" in result.err
