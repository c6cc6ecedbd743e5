"""Names of files may hold what has a meaning to Hydra, and need no quotes within quotes."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import CommandResult, run_command, run_train
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fracnet.config.overrides import quote_paths, shell_quoted
from fracnet.predict import predict

NAMES = [
    "scan (1).dcm", "my scans", "a=b.png", "x[1].png", "{a}.png", "#1.png", "\u00e4.png", "~/a.png",
    "it's.png", "12", "1e3", "a&b;c.png", "a'b c\\\\", "\u4e2d.png", "(1).png", "a,",
]  # fmt: skip


def parsed_value(override: str) -> Any:
    return OverridesParser.create().parse_override(override).value()


@pytest.mark.parametrize("name", NAMES)
def test_a_quoted_path_parses_to_itself(name: str) -> None:
    (override,) = quote_paths([f"input={name}"], multirun=False)
    assert parsed_value(override) == name


def test_any_quoted_text_parses_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng, signs = np.random.default_rng(0), "ab1 .,=()[]{}:;&%#!?~'\"\\$\u00e4"
    for _ in range(300):
        name = "x" + "".join(rng.choice(list(signs), size=6))
        if "," in name or "${" in name or name != name.strip():
            continue  # may be several, may be a reference; Hydra strips the ends
        assert parsed_value(quote_paths([f"out={name}"], multirun=False)[0]) == name


@pytest.mark.parametrize(
    "override",
    [
        "input=[a.png,b.png]", "input=scans/**/*.png", "input='a b'", 'input="a (1)"', "out=null",
        "run=runs/2026-01-02_03-04-05_ab12", "input=", "runs=runs/*", "lr=a(", "a(", "-m",
        "input=[a (1).png,b.png]", "data.root=a,b", "input=${data_dir}",
    ],
)  # fmt: skip
def test_other_overrides_stay_unchanged(override: str) -> None:
    assert quote_paths([override], multirun=False) == [override]


def test_a_name_with_a_comma_is_one_path_if_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.png", "[x].png", "[1,2]"):
        Path(name).touch()
        assert parsed_value(quote_paths([f"input={name}"], multirun=False)[0]) == name
    assert quote_paths(["data.root=a,b.png"], multirun=True) == ["data.root=a,b.png"]
    assert quote_paths(["data.root=\u00e4,b"], multirun=True) == ["data.root=\u00e4,b"]


@pytest.mark.parametrize("name", [*NAMES, 'say "a".png', "a${b}.png", "c,d.png"])
def test_the_suggested_command_line_parses_to_the_name(name: str) -> None:
    (override,) = shlex.split(shell_quoted(f"input={name}"))
    value = parsed_value(override)
    assert value.replace("\\${", "${") == name


def test_quoted_values_in_a_sweep_give_one_job_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (word,) = shlex.split(shell_quoted("data.root=/x/\u00e4,/y/b", multirun=True))
    override = OverridesParser.create().parse_override(word)
    assert override.is_sweep_override()
    assert [str(value) for value in override.sweep_string_iterator()] == ['"/x/\u00e4"', "/y/b"]
    result = run_train(["-m", "data.root=/x/\u00e4,/y/b"], capsys)
    assert result.code == 1
    assert """Try: 'data.root="/x/\u00e4",/y/b'""" in result.err


def run_predict(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    return run_command(predict, "predict", overrides, capsys)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run=no (1)", "input=\u00e4 [2].png"], "input=\u00e4 [2].png: no file matches"),
        (["run=r", "input=a=b.png"], "input=a=b.png: no such file or folder"),
        (
            ["run=r", "input=[scan (1).dcm,b.png]"],
            """Try: 'input=["scan (1).dcm",b.png]'""",
        ),
        (
            ["run=r", "input=a.png,b.png"],
            """For several values type 'input=[a.png,b.png]', for one value with a comma in it """
            """'input="a.png,b.png"'.""",
        ),
    ],
)
def test_predict_errors_show_the_input_or_the_quoting_to_type(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_predict(overrides, capsys)
    assert result.code == 1
    assert message in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("trainer={max_epochs: 3}", "trainer.max_epochs", 3),
        ("optim={lr: 0.5}", "optim.lr", 0.5),
        ("callbacks={early_stopping: null}", "callbacks.early_stopping", None),
    ],
)
def test_a_mapping_overrides_keys_of_a_group(
    override: str,
    key: str,
    value: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_train([override, "--cfg", "job"], capsys)
    assert result.code == 0, result.err
    config = OmegaConf.create(result.out)
    assert OmegaConf.select(config, key, default="missing") == value
    assert config.trainer.precision  # the others stay


def test_errors_of_other_keys_show_the_quoting_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_train(["model.name=a (1)"], capsys)
    assert result.code == 1
    assert """Try: 'model.name="a (1)"'""" in result.err
    result = run_train(["optim.lr=1,2"], capsys)
    assert "add -m" in result.err
