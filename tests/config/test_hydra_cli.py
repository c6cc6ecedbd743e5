"""What surrounds a command: a reader that goes away, and versions of Hydra."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import train_here

import fracnet
from fracnet.config import hydra_cli


@pytest.mark.parametrize(
    "words",
    [["fracnet.train", "--help"], ["fracnet.train", "--cfg", "job"], ["fracnet.cache"]],
    ids=" ".join,
)
def test_output_may_be_cut_short(words: list[str], tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()  # before a word of it, unlike `head -1`, which may come too late
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(60) == 141


@pytest.mark.parametrize(
    ("version", "release"), [("1.4.0rc3", (1, 4)), ("1.10.0", (1, 10)), ("1.3.8", (1, 3))]
)
def test_releases_are_compared_as_numbers(version: str, release: tuple[int, int]) -> None:
    assert hydra_cli._release(version) == release
    assert hydra_cli._release("1.10.0") > hydra_cli._release("1.4.0")


@pytest.mark.parametrize("word", ["-m", "--multirun", "--multi", "hydra.mode=MULTIRUN"])
def test_a_verb_that_cannot_be_swept_says_so_before_it_does_anything(
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fracnet.compare", word, "runs=a,b"])
    with pytest.raises(SystemExit) as stop:
        hydra_cli.run(lambda cfg: None, "compare", instead="runs= takes several")
    assert stop.value.code == 1
    told = capsys.readouterr().err
    assert told == "fracnet: error: fracnet.compare has no -m: runs= takes several.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [False, True], ids=["alone", "beside others"])
def test_a_run_that_never_began_leaves_no_folder(
    kept: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if kept:
        (tmp_path / "runs/other").mkdir(parents=True)
        (tmp_path / "runs/other/config.yaml").write_text("")
    told = train_here(["data=folder", "data.root=nowhere"], capsys)
    assert told.code == 1
    assert "nowhere does not exist" in told.err
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert sorted(left) == (["runs", "runs/other", "runs/other/config.yaml"] if kept else [])


def test_an_interrupted_run_that_wrote_nothing_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(cfg: object) -> None:
        assert list((tmp_path / "runs").iterdir())
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fracnet.train"])
    with pytest.raises(SystemExit) as stop:
        hydra_cli.run(stopped, "train")
    assert stop.value.code == 130
    assert not list(tmp_path.iterdir())


def test_version_is_fracnets_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fracnet.train", "--version"])
    hydra_cli.run(lambda cfg: None, "train")
    assert capsys.readouterr().out == f"fracnet {fracnet.__version__}\n"


def test_help_shows_each_key_with_its_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fracnet.train", "--help", "data=mura_150", "optim=sgd"])
    hydra_cli.run(lambda cfg: None, "train")
    lines = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "# of weights, order, augmentation and dropout" in lines["seed"]
    assert "share of the train images that validates" in lines["  val_share"], "a base's comment"
    assert lines["  momentum"].startswith("  momentum: ")
    assert "resnet18" in lines["model"]


def test_help_of_every_command_describes_its_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("audit", "compare", "ensemble", "evaluate", "explain", "predict"):
        monkeypatch.setattr(sys, "argv", [f"fracnet.{name}", "--help"])
        hydra_cli.run(lambda cfg: None, name)
        text = capsys.readouterr().out
        assert "Research use only" in text or name in ("ensemble", "compare", "audit"), name
        assert "  # " in text, name


def test_the_console_script_runs_commands_and_lists_them(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fracnet", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    listing = run("--help")
    assert listing.returncode == 0
    for name in ("train", "sweep", "evaluate", "compare", "predict", "audit"):
        assert f"\n  {name} " in listing.stdout
    assert run("train", "--cfg", "job").stdout.startswith("seed: 0\n")
    mistake = run("trian", "model=resnet18")
    assert mistake.returncode == 1
    assert "Did you mean 'train'?" in mistake.stderr
    assert "Did you mean 'sweep'?" in run("study").stderr
