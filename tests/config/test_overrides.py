"""Names of files may hold what has a meaning to Hydra, and need no quotes within quotes."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import Told, here, train_here
from hydra.core.override_parser.overrides_parser import OverridesParser

from fracnet.config.overrides import quote_paths, shell_quoted
from fracnet.predict import predict

NAMES = [
    "scan (1).dcm", "my scans", "a=b.png", "x[1].png", "{a}.png", "#1.png", "\u00e4.png", "~/a.png",
    "it's.png", "12", "1e3", "a&b;c.png", "a'b c\\\\", "\u4e2d.png", "(1).png", "a,",
]  # fmt: skip


def understood(word: str) -> Any:
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_what_wquote_paths(name: str) -> None:
    (word,) = quote_paths([f"input={name}"], multirun=False)
    assert understood(word) == name


def test_any_text_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng, signs = np.random.default_rng(0), "ab1 .,=()[]{}:;&%#!?~'\"\\$\u00e4"
    for _ in range(300):
        name = "x" + "".join(rng.choice(list(signs), size=6))
        if "," in name or "${" in name or name != name.strip():
            continue  # may be several, may be a reference; Hydra strips the ends
        assert understood(quote_paths([f"out={name}"], multirun=False)[0]) == name


@pytest.mark.parametrize(
    "word",
    [
        "input=[a.png,b.png]", "input=scans/**/*.png", "input='a b'", 'input="a (1)"', "out=null",
        "run=runs/2026-01-02_03-04-05_ab12", "input=", "runs=runs/*", "lr=a(", "a(", "-m",
        "input=[a (1).png,b.png]", "data.root=a,b", "input=${data_dir}",
    ],
)  # fmt: skip
def test_all_else_is_left_as_it_is(word: str) -> None:
    assert quote_paths([word], multirun=False) == [word]


def test_a_name_with_a_comma_is_one_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.png", "[x].png", "[1,2]"):
        Path(name).touch()
        assert understood(quote_paths([f"input={name}"], multirun=False)[0]) == name
    assert quote_paths(["data.root=a,b.png"], multirun=True) == ["data.root=a,b.png"]
    assert quote_paths(["data.root=\u00e4,b"], multirun=True) == ["data.root=\u00e4,b"]


@pytest.mark.parametrize("name", [*NAMES, 'say "a".png', "a${b}.png", "c,d.png"])
def test_the_line_to_type_gives_the_name(name: str) -> None:
    (word,) = shlex.split(shell_quoted(f"input={name}"))
    value = understood(word)
    assert value.replace("\\${", "${") == name


def test_in_a_sweep_each_value_keeps_its_quotes_and_its_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (word,) = shlex.split(shell_quoted("data.root=/x/\u00e4,/y/b", multirun=True))
    override = OverridesParser.create().parse_override(word)
    assert override.is_sweep_override()
    assert [str(value) for value in override.sweep_string_iterator()] == ['"/x/\u00e4"', "/y/b"]
    told = train_here(["-m", "data.root=/x/\u00e4,/y/b"], capsys)
    assert told.code == 1
    assert """Try: 'data.root="/x/\u00e4",/y/b'""" in told.err


def told_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> Told:
    return here(predict, "predict", words, capsys)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run=no (1)", "input=\u00e4 [2].png"], "input=\u00e4 [2].png: nothing is called so"),
        (["run=r", "input=a=b.png"], "input=a=b.png: there is no such file"),
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
def test_the_command_says_what_it_was_given_or_what_shell_quoted(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    found = told_of(words, capsys)
    assert found.code == 1
    assert told in found.err
    assert found.err.count("\n") == 1


def test_other_keys_are_told_what_shell_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    told = train_here(["model.name=a (1)"], capsys)
    assert told.code == 1
    assert """Try: 'model.name="a (1)"'""" in told.err
    told = train_here(["optim.lr=1,2"], capsys)
    assert "add -m" in told.err
