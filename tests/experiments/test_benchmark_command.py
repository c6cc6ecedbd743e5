"""`python -m experiments.benchmark.run` as a person uses it, at sizes that show that it works."""

import json
import os
from pathlib import Path

import pytest
from helpers.command import here

from experiments.benchmark.run import benchmark

QUICK = ["quick=true", "image_size=32", "batch_size=4", "num_workers=0", "network=custom_cnn"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_parts_are_measured_printed_and_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    cache = os.environ["FRACNET_CACHE"]
    words = ["part=[pipeline,training,loop]", "out=found.json", f"scratch={scratch}"]
    told = here(benchmark, "benchmark", [*QUICK, *words], capsys)
    assert told.code == 0, told.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["parts"]) == ["pipeline", "training", "loop"]
    for name, part in found["parts"].items():
        judged = [figure for figure in part["figures"] if "met" in figure]
        assert judged, name
        for figure in part["figures"]:
            assert figure["name"][:44] in told.out
    ratios = {figure["name"]: figure for figure in found["parts"]["pipeline"]["figures"]}
    assert ratios["published way / fracnet"]["value"] > 3
    assert max(map(len, told.out.splitlines())) <= 80 or str(tmp_path) in told.out
    assert "quick=true" in told.out
    assert not list(scratch.iterdir()), "what was written for the measurement is gone"
    assert os.environ["FRACNET_CACHE"] == cache


@pytest.mark.slow
def test_memory_is_that_of_trainings_in_processes_of_their_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = here(benchmark, "benchmark", [*QUICK, "part=memory", "out=found.json"], capsys)
    assert told.code == 0, told.err
    memory = json.loads((tmp_path / "found.json").read_text())["parts"]["memory"]
    assert memory["few"]["steps"] == 40
    assert memory["many"]["steps"] == 100
    assert memory["many"]["rss_anon"] > 100
    assert memory["few"]["processes"] >= 1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["part=pipelin"], ["part=pipelin", "pipeline, training, loop, cache, memory"]),
        (["num_workers=-1"], ["num_workers=-1", "auto or a number", "0 to 256"]),
        (["netwrk=resnet18"], ["'netwrk'", "Did you mean 'network'?"]),
        (["network=resnet81"], ["network=resnet81", "Did you mean 'resnet18'?"]),
        (["network=hog_logistic"], ["network=hog_logistic", "fitted in one go"]),
        (["scratch=nowhere"], ["scratch=nowhere", "no folder"]),
        (["out=there.json"], ["out=there.json", "is there already"]),
        (["out=table.csv"], ["out=table.csv", ".json"]),
    ],
    ids=lambda value: value[0],
)
def test_mistakes_are_answered_in_one_paragraph(
    words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "there.json").write_text("{}")
    told = here(benchmark, "benchmark", ["quick=true", *words], capsys)
    assert told.code == 1
    assert told.err.startswith("fracnet: error: ")
    assert told.err.count("\n") == 1, told.err
    for part in parts:
        assert part in told.err
    assert {path.name for path in tmp_path.iterdir()} == {"there.json"}
