"""The benchmark command from the command line, at sizes that only show that it works."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.command import run_command
from helpers.warm import Warm

from experiments.benchmark import memory_monitor
from experiments.benchmark.run import benchmark

QUICK = ["quick=true", "image_size=32", "batch_size=4", "num_workers=0", "network=custom_cnn"]


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_parts_are_measured_printed_and_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    cache = os.environ["FRACNET_CACHE"]
    overrides = ["part=[pipeline,training,loop]", "out=result.json", f"scratch={scratch}"]
    result = run_command(benchmark, "benchmark", [*QUICK, *overrides], capsys)
    assert result.code == 0, result.err
    content = json.loads((tmp_path / "result.json").read_text())
    assert list(content["parts"]) == ["pipeline", "training", "loop"]
    for name, part in content["parts"].items():
        limited = [measurement for measurement in part["measurements"] if "met" in measurement]
        assert limited, name
        for measurement in part["measurements"]:
            assert measurement["name"][:44] in result.out
    ratios = {
        measurement["name"]: measurement
        for measurement in content["parts"]["pipeline"]["measurements"]
    }
    assert ratios["published pipeline / fracnet"]["value"] > 3
    assert max(map(len, result.out.splitlines())) <= 80 or str(tmp_path) in result.out
    assert "quick=true" in result.out
    assert not list(scratch.iterdir()), "temporary files are removed"
    assert os.environ["FRACNET_CACHE"] == cache


@pytest.mark.slow
def test_memory_is_measured_in_separate_training_processes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = SimpleNamespace(Popen=Warm, PIPE=subprocess.PIPE)
    monkeypatch.setattr(memory_monitor, "subprocess", start)
    result = run_command(benchmark, "benchmark", [*QUICK, "part=memory", "out=result.json"], capsys)
    assert result.code == 0, result.err
    memory = json.loads((tmp_path / "result.json").read_text())["parts"]["memory"]
    assert memory["few"]["steps"] == 40
    assert memory["many"]["steps"] == 100
    assert memory["many"]["rss_anon"] > 100
    assert memory["few"]["processes"] >= 1


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["part=pipelin"], ["part=pipelin", "pipeline, training, loop, cache, memory"]),
        (["num_workers=-1"], ["num_workers=-1", "auto or a number", "0 to 256"]),
        (["netwrk=resnet18"], ["'netwrk'", "Did you mean 'network=resnet18'?"]),
        (["network=resnet81"], ["network=resnet81", "Did you mean 'resnet18'?"]),
        (["network=hog_logistic"], ["network=hog_logistic", "no training steps"]),
        (["scratch=nowhere"], ["scratch=nowhere", "not a folder"]),
        (["out=there.json"], ["out=there.json", "already exists"]),
        (["out=table.csv"], ["out=table.csv", ".json"]),
    ],
    ids=lambda value: value[0],
)
def test_mistakes_give_a_one_paragraph_error(
    overrides: list[str], parts: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "there.json").write_text("{}")
    result = run_command(benchmark, "benchmark", ["quick=true", *overrides], capsys)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")
    assert result.err.count("\n") == 1, result.err
    for part in parts:
        assert part in result.err
    assert {path.name for path in tmp_path.iterdir()} == {"there.json"}
