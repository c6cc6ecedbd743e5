"""What surrounds a command: a reader that goes away, and versions of Hydra."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import run_train
from helpers.jobs import add_job

import fracnet
from fracnet.config import hydra_cli


@pytest.mark.parametrize(
    "arguments",
    [["fracnet.train", "--help"], ["fracnet.train", "--cfg", "job"], ["fracnet.cache"]],
    ids=" ".join,
)
def test_closing_the_output_pipe_early_is_no_error(arguments: list[str], tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()  # before any output; `head -1` might close it too late
    assert command.stderr.read() == b""
    command.stderr.close()
    assert command.wait(60) == 141


@pytest.mark.parametrize("closed", [">&-", "<&-", ">&- <&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m fracnet.train optim.lr=-1 {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    expected = b"" if "2>" in closed else b"fracnet: error: optim.lr=-1 is not allowed: it must be"
    assert done.stderr.startswith(expected)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "sentence"),
    [
        (signal.SIGTERM, 143, "fracnet: interrupted; by SIGTERM.\n"),
        (signal.SIGHUP, 143, "fracnet: interrupted; by SIGHUP.\n"),
        (signal.SIGINT, 130, "fracnet: interrupted.\n"),
    ],
)
@pytest.mark.parametrize("hydra", [True, False], ids=["hydra", "plain"])
def test_each_command_ends_with_a_sentence_at_a_signal(
    number: int,
    code: int,
    sentence: str,
    hydra: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["fracnet.compare", "runs=x", f"out={tmp_path / 'out'}"])

    def end() -> None:
        if hydra:
            hydra_cli.run(lambda cfg: os.kill(os.getpid(), number), "compare")
        with hydra_cli.without_hydra():
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as caught:
            end()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert caught.value.code == code
    assert capsys.readouterr().err == sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["short", "x" * 100_000], ids=["at the end", "at once"])
def test_work_continues_without_standard_output_on_a_full_disk(
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["fracnet.compare", "runs=x", f"out={tmp_path / 'out'}"])

    def task(cfg: object) -> None:
        print(text)
        (tmp_path / "out/result").write_text("done")

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as caught:
            hydra_cli.run(task, "compare")
    assert caught.value.code == 1
    assert (tmp_path / "out/result").exists()
    sentence = "fracnet: error: Cannot write to standard output: No space left on device; no more "
    sentence += "is printed there, and the work continues.\n"
    assert capsys.readouterr().err == sentence


def test_a_closed_terminal_is_no_error() -> None:
    script = "import sys; from fracnet.config import hydra_cli\n"
    script += "with hydra_cli.quiet_on_closed_pipe(): print('x', file=sys.stderr)\nsys.exit(3)"
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", script], stderr=full).returncode == 3


def test_a_removed_current_folder_is_one_sentence(tmp_path: Path) -> None:
    script = f"mkdir x; cd x; rmdir ../x; {sys.executable} -m fracnet.train optim.lr=-1"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(b"fracnet: error: The current folder has been")


def test_a_missing_file_of_hydra_is_not_taken_for_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hydra.core.utils.configure_log", fail)
    with pytest.raises(FileNotFoundError):
        run_train([], capsys)


def test_a_full_disk_where_hydra_writes_its_files_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hydra.core.utils.configure_log", fail)
    result = run_train([f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert result.code == 1
    assert result.err.startswith(f"fracnet: error: Cannot write {tmp_path / 'run'}: No space left")


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_program_that_a_launcher_lacks_is_not_taken_for_a_folder(
    jobs: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def launch(*args: object, **kwargs: object) -> None:
        if jobs:
            add_job(tmp_path / "out/swept", 0, ["seed=1"], status="running")
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "srun")

    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    joblib = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    monkeypatch.setattr(f"{joblib}.launch", launch)
    sweep = ["-m", "launcher=joblib", "hydra.sweep.dir=out/swept", "seed=1,2"]
    result = run_train(sweep, capsys)
    assert result.code == 1
    assert "Cannot create the folder" not in result.err
    if jobs:
        assert "finish the sweep with: python -m fracnet.sweep resume=" in result.err
    else:
        assert "launcher=joblib started no job (FileNotFoundError: " in result.err
        assert [path.name for path in tmp_path.rglob("*")] == ["out"]


@pytest.mark.parametrize(
    ("before", "override", "after"),
    [
        ("out", "hydra.run.dir=out/x", ["out"]),
        ("out/x", "hydra.run.dir=out/x", ["out", "out/x"]),
        ("out", "hydra.run.dir=out/x/${hydra:job.name}/y", ["out"]),
        ("out", "hydra.run.dir=../here/new/x", ["out"]),
    ],
)
def test_a_failed_run_removes_the_folders_it_created_and_no_others(
    before: str,
    override: str,
    after: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    (here / before).mkdir(parents=True)
    monkeypatch.chdir(here)
    # Another machine's clock, as of a network file system.
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert run_train([override, "optim.lr=-1"], capsys).code == 1
    assert sorted(path.relative_to(here).as_posix() for path in here.rglob("*")) == after


@pytest.mark.parametrize(
    ("version", "release"), [("1.4.0rc3", (1, 4)), ("1.10.0", (1, 10)), ("1.3.8", (1, 3))]
)
def test_releases_are_compared_as_numbers(version: str, release: tuple[int, int]) -> None:
    assert hydra_cli._release(version) == release
    assert hydra_cli._release("1.10.0") > hydra_cli._release("1.4.0")


@pytest.mark.parametrize("override", ["-m", "--multirun", "--multi", "hydra.mode=MULTIRUN"])
def test_a_command_without_sweeps_rejects_multirun_first(
    override: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fracnet.compare", override, "runs=a,b"])
    with pytest.raises(SystemExit) as stop:
        hydra_cli.run(lambda cfg: None, "compare", instead="runs= takes several")
    assert stop.value.code == 1
    result = capsys.readouterr().err
    assert result == "fracnet: error: fracnet.compare has no -m: runs= takes several.\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("has_other", [False, True], ids=["alone", "beside others"])
def test_a_run_that_fails_before_training_leaves_no_folder(
    has_other: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if has_other:
        (tmp_path / "runs/other").mkdir(parents=True)
        (tmp_path / "runs/other/config.yaml").write_text("")
    result = run_train(["data=folder", "data.root=nowhere"], capsys)
    assert result.code == 1
    assert "nowhere does not exist" in result.err
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert sorted(left) == (["runs", "runs/other", "runs/other/config.yaml"] if has_other else [])


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


def test_version_prints_the_fracnet_version(
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
    groups, keys = capsys.readouterr().out.split("Keys (key=value)")
    assert re.search(r"^model: .*\bresnet18\b", groups, re.MULTILINE)
    lines = {line.partition(":")[0]: line for line in keys.splitlines()}
    assert "# of weights, order, augmentation and dropout" in lines["seed"]
    assert "train images used for validation" in lines["  val_share"], "a comment of the base"
    assert lines["  momentum"].startswith("  momentum: ")


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


def test_names_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with hydra_cli.quiet_on_closed_pipe():
        print("\x1b]0;title\x07 \x1b[2J \x9b31m \x1b[31mred\x1b[0m bar\r é")
        print("\x1b[2J", file=sys.stderr)
    result = capsys.readouterr()
    assert result.out == (r"\x1b]0;title\x07 \x1b[2J \x9b31m \x1b[31mred\x1b[0m bar" + "\r é\n")
    assert result.err == "\\x1b[2J\n"


def test_a_terminal_gets_colors_and_no_other_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with hydra_cli.quiet_on_closed_pipe():
        print("\x1b[31mred\x1b[0m \x1b]52;c;eA==\x07")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m \\x1b]52;c;eA==\\x07\n"


def test_a_folder_whose_name_looks_like_an_interpolation_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "${now}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["fracnet.train", "hydra.run.dir=run"])
    outputs: list[Path] = []
    hydra_cli.run(lambda cfg: outputs.append(hydra_cli.output_dir()), "train")
    assert outputs == [folder / "run"]


def test_ctrl_c_during_the_imports_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "hydra.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, "-m", "fracnet.train"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGINT, "130 in a shell"
    assert done.stderr == "\nfracnet: interrupted.\n"
