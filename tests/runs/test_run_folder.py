"""Every command refuses run folders of another version, and builds only what is trusted."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import pytest
import torch
import yaml
from helpers.command import run_command
from helpers.run_files import file_contents, two_class_table, write_run
from helpers.tiny import picture
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import fracnet
from fracnet.config.trust import upload_seal
from fracnet.runs.checkpoint import epochs_done, read_checkpoint, rebuild
from fracnet.runs.provenance import Provenance
from fracnet.runs.run_folder import (
    FORMAT,
    FORMAT_KEY,
    RunFolder,
    csv_text,
    read_baselines,
    read_curves,
    read_mapping,
    read_predictions,
    read_run_metadata,
    read_status,
    with_format,
    write_json,
)
from fracnet.training.resume import frozen_config, trim_curves
from fracnet.utils.errors import UserError
from fracnet.utils.files import cannot_write, config_dir
from fracnet.utils.processes import this_process
from fracnet.utils.result_files import TRACKING

TABLE = two_class_table(8, 8)

BUILDERS: dict[str, Callable[[Path], list[str]]] = {
    "evaluate": lambda run: [f"run={run}", "tta=hflip", "figures=false"],
    "serve": lambda run: [f"run={run}", "port=0"],
    "node": lambda run: [f"run={run}", "port=0", "silent=true", f"spool={run.parent / 'spool'}"],
    "predict": lambda run: [f"run={run}", f"input={run.parent / 'image.png'}"],
    "explain": lambda run: [f"run={run}"],
    "export": lambda run: [f"run={run}"],
    "verify": lambda run: [f"file={run.parent / 'model.onnx'}", f"run={run}"],
    "train": lambda run: [f"resume={run}"],
}
"""Commands that rebuild a run, with their arguments."""
READERS: dict[str, Callable[[Path], list[str]]] = {
    "ensemble": lambda run: [f"runs=[{run},{run.parent / 'other'}]", f"out={run.parent / 'mean'}"],
    "compare": lambda run: [f"runs=[{run},{run.parent / 'other'}]", f"out={run.parent / 'out'}"],
    "sweep": lambda run: [str(run.parent)],
}
"""Commands that only read runs."""
WITHOUT_RUNS = {"audit", "cache", "dashboard"}
NOT_COMMANDS = {"__init__", "__main__", "api"}

NODES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "model": lambda node: {"model": node},
    "loss": lambda node: {"loss": node},
    "optim": lambda node: {"optim": node},
    "scheduler": lambda node: {"scheduler": node},
    "data": lambda node: {"data": node},
    "data.test_on": lambda node: {"data": {"test_on": node}},
    "augment": lambda node: {"augment": {"transforms": [node]}},
    "imbalance": lambda node: {"imbalance": {"transforms": [node]}},
    "callbacks": lambda node: {"callbacks": {"mine": node}},
    "logger": lambda node: {"logger": {"mine": node}},
    "trainer": lambda node: {"trainer": {"strategy": node}},
    "nested": lambda node: {"model": {"_target_": "torch.nn.Sequential", "args": [[node]]}},
}
"""Where a config can name a class."""
ONLY_TRAINED = ("augment", "imbalance")
"""Nodes that only training builds."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(cv2.imencode(".png", picture(0))[1].tobytes())
    for name in ("run", "other"):
        folder = write_run(tmp_path / name, TABLE)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/last.ckpt").touch()
        (folder / "checkpoints/best.ckpt").touch()
        job = {"job": int(name == "other"), "overrides": [], "status": "finished", "reason": ""}
        (folder / "job.json").write_text(json.dumps(job))
    return tmp_path / "run"


def execute(
    command: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and stderr of a command in this process."""
    module = import_module(f"fracnet.{command}")
    if command != "sweep":
        result = run_command(getattr(module, command), command, arguments, capsys)
        return result.code, result.err
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fracnet.sweep", *arguments])
        try:
            module.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, capsys.readouterr().err


def test_every_command_is_covered() -> None:
    modules = {path.stem for path in Path(fracnet.__file__).parent.glob("*.py")}
    assert modules - NOT_COMMANDS == {*BUILDERS, *READERS, *WITHOUT_RUNS}


@pytest.mark.parametrize("command", [*BUILDERS, *READERS])
@pytest.mark.parametrize("written", [None, FORMAT + 1], ids=["unmarked", "newer"])
def test_a_run_folder_of_another_version_is_refused(
    command: str, written: int | None, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"status": "finished"} | ({FORMAT_KEY: written} if written else {})
    (run / "provenance.json").write_text(json.dumps(content))
    code, error = execute(command, (BUILDERS | READERS)[command](run), capsys)
    assert code == 1
    assert "was written by another version of fracnet" in error
    assert len(error.strip().splitlines()) == 1, error


def add_foreign_class(run: Path, *nodes: str) -> Path:
    """Make nodes of the run's config name a function; returns the folder that it would create."""
    marker = run.parent / "built"
    config = yaml.safe_load((run / "config.yaml").read_text())
    for node in nodes:
        config |= NODES[node]({"_target_": "os.mkdir", "path": str(marker)})
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return marker


@pytest.mark.parametrize("command", BUILDERS)
@pytest.mark.parametrize("node", NODES)
def test_a_class_that_is_not_trusted_is_refused(
    command: str, node: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = add_foreign_class(run, node)
    code, error = execute(command, BUILDERS[command](run), capsys)
    assert not marker.exists()
    assert code == 1
    if command == "train" or node not in ONLY_TRAINED:
        assert "os.mkdir" in error
        assert "trust=true" in error


@pytest.mark.usefixtures("blank_charts")
@pytest.mark.parametrize("command", READERS)
def test_commands_that_only_read_runs_build_nothing(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = add_foreign_class(run, *NODES)
    execute(command, READERS[command](run), capsys)
    assert not marker.exists()


def test_a_folder_with_only_predictions_has_no_version(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    folder.mkdir()
    TABLE.to_csv(folder / "predictions.csv", index=False)
    assert RunFolder.open(folder).path == folder
    (folder / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="another version"):
        RunFolder.open(folder)
    (folder / "metrics.json").write_text(json.dumps({FORMAT_KEY: FORMAT}))
    assert RunFolder.open(folder).path == folder


def level(previous: str, name: str) -> str:
    return f"{name}: &{name} [{', '.join([f'*{previous}'] * 9)}]\n"


ALIASES = "a: &a [x]\n" + "".join(map(level, "abcdefghi", "bcdefghij"))
MERGES = (
    "a: &a {x: 1}\n" + ALIASES.replace("[*", "{<<: [*").replace("]\n", "]}\n").partition("\n")[2]
)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.yaml", ALIASES, "its aliases expand to more than"),
        ("config.yaml", MERGES, "merge keys"),
        ("config.yaml", "a: &a [*a]", "inside of what it names"),
        ("config.yaml", "[" * 5000, "recursion"),
        ("config.yaml", "a: " + "x" * 300_000, "allowed: 250,000"),
        ("config.yaml", "a: 1\x1b", "special characters"),
        ("config.yaml", b"\x80\x04K\x01.", "codec can't decode"),
        ("provenance.json", '{"status": "fin', "Unterminated string"),
        ("provenance.json", "", "Expecting value"),
        ("provenance.json", "[" * 100_000, "recursion"),
        ("provenance.json", "[1]", "keys with values"),
    ],
)
def test_a_damaged_or_hostile_file_is_one_sentence_with_its_path(
    name: str, content: str | bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=reason) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(f"{path} cannot be read: ")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("predictions.csv", b""),
        ("predictions.csv", b'path,split,label\n"a.png'),
        ("predictions.csv", b"\x80\x81\xff"),
        ("predictions.csv", b"path,split\na.png,val\nb.png,val,1,2,3"),
        ("predictions.csv", b"path,width\na.png,wide"),
        ("predictions.csv", b"path,boxes\na.png," + b"[" * 100_000),
        ("baselines.csv", b"path,split\na.png,val"),
        ("provenance.json", b'{"fracnet_format": 2, "sha256": ["x"]}'),
        ("fit.json", b'{"data": {"notes": 5}}'),
        ("fit.json", b'{"selected": [5]}'),
        ("config.yaml", b"cited: 5"),
        ("config.yaml", b"data: 5"),
    ],
)
def test_a_damaged_file_of_a_run_is_one_sentence_with_its_path(
    name: str, content: bytes, run: Path
) -> None:
    (run / name).write_bytes(content)
    folder = RunFolder.open(run)
    with pytest.raises(UserError, match=f"^{run / name} cannot be read: ") as caught:
        print(read_run_metadata(folder), read_predictions(folder), read_baselines(folder))
    assert len(str(caught.value)) < 500


def test_shared_values_in_a_config_are_read(tmp_path: Path) -> None:
    shared = {"x": [1, 2]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"a": shared, "b": shared}))
    assert "&id001" in (tmp_path / "config.yaml").read_text()
    assert read_mapping(tmp_path / "config.yaml") == {"a": shared, "b": shared}


def running(run: Path, **process: Any) -> None:
    """Make it the folder of a run that another process trains."""
    content = {"status": "running", "process": this_process() | process}
    (run / "provenance.json").write_text(json.dumps(with_format(content)))


def test_a_run_whose_process_is_gone_becomes_interrupted(run: Path) -> None:
    running(run)
    assert read_status(RunFolder.open(run)) == "running"
    running(run, start="another", machine="another")
    assert read_status(RunFolder.open(run)) == "running", "nobody here can know"
    running(run, start="another")
    RunFolder.open(run)
    stored = json.loads((run / "provenance.json").read_text())
    assert (stored["status"], stored["reason"]) == ("interrupted", "the process died")


def test_a_run_of_another_machine_says_how_to_end_its_status(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running(run, machine="node7 pid:[4026531836]")
    (run / "predictions.csv").unlink()
    code, error = execute("evaluate", [f"run={run}"], capsys)
    assert code == 1
    assert "the run is running on node7 since " in error
    assert f"If it has ended, resume it with: python -m fracnet.train resume={run}." in error
    content = json.loads((run / "provenance.json").read_text()) | {"process": this_process()}
    (run / "provenance.json").write_text(json.dumps(content))
    assert "the run is still running." in execute("evaluate", [f"run={run}"], capsys)[1]


def test_a_run_that_fails_on_a_full_disk_records_that(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(run)
    provenance = Provenance(folder, ["x"], 0, "f00d", "cpu")
    assert read_status(folder) == "running"

    def full(path: Path, content: str) -> None:
        raise cannot_write(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr("fracnet.utils.files.write_atomically", full)
    provenance.finish("failed", "Cannot write metrics.json: No space left on device.")
    stored = json.loads(folder.provenance.read_text())
    assert stored["status"] == "failed"
    assert stored["reason"] == "Cannot write metrics.json: No space left on device."
    assert not list(run.glob(".*.part"))


@pytest.mark.parametrize("command", BUILDERS)
@pytest.mark.parametrize(
    "link", ["figures", "report", "explain/overlays", "evaluations/x", "wandb", "checkpoints"]
)
def test_nothing_is_written_through_a_linked_folder(
    command: str, link: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.parent / "private").mkdir()
    if link == "checkpoints":
        shutil.rmtree(run / link)
    (run / link).parent.mkdir(exist_ok=True)
    (run / link).symlink_to(run.parent / "private")
    code, error = execute(command, BUILDERS[command](run), capsys)
    assert code == 1
    assert f"{link} is a symbolic link to {run.parent / 'private'}" in error
    assert not list((run.parent / "private").iterdir())


def test_a_resumed_run_follows_no_linked_checkpoint(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints/best.ckpt").unlink()
    (run / "checkpoints/best.ckpt").symlink_to(run.parent / "image.png")
    code, error = execute("train", [f"resume={run}"], capsys)
    assert code == 1
    assert "checkpoints/best.ckpt is a symbolic link to" in error


@pytest.mark.parametrize("command", [*BUILDERS, *READERS])
def test_no_command_waits_for_a_pipe_in_a_run_folder(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(run / "metrics.csv")
    code, error = execute(command, (BUILDERS | READERS)[command](run), capsys)
    assert code == 1
    assert "metrics.csv is a named pipe, a socket or a device" in error


def test_a_folder_from_somebody_else_uploads_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = compose_plain()
    plain["logger"]["wandb"] |= {"mode": "online", "entity": "them"}
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    (run / "checkpoints/last.ckpt").touch()
    folder = RunFolder(run)
    write_json(folder.provenance, with_format({"status": "interrupted"}))

    def resumed(*more: str) -> Any:
        mode = more[0].partition("=")[2] if more else None
        composed = {"trust": False, "logger": {"wandb": {"mode": mode}}}
        return frozen_config(folder, composed, more)["logger"]["wandb"]["mode"]

    monkeypatch.setenv("WANDB_MODE", "online")
    plain["logger"]["wandb"]["mode"] = None  # then the environment decides
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    for tracking in ({}, {"id": "x", "seal": ""}, {"id": "x", "seal": "0" * 64}):
        write_json(run / TRACKING, tracking)
        code, error = execute("train", [f"resume={run}"], capsys)
        assert code == 1
        assert "would send its results to Weights & Biases (them/your project)" in error
    assert resumed("logger.wandb.mode=offline") == "offline"
    assert resumed("logger.wandb.mode=online") == "online"
    write_json(run / TRACKING, {"id": "x", "seal": upload_seal("x", "them", None)})
    resumed()  # its user has started it here
    write_json(run / TRACKING, {"id": "x", "seal": upload_seal("x", "me", None)})
    with pytest.raises(UserError, match="would send"):
        resumed()


@pytest.mark.parametrize("command", ["evaluate", "explain", "train"])
def test_a_run_that_another_process_writes_is_refused(
    command: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"evaluate": [f"run={run}"], "explain": [f"run={run}"], "train": [f"resume={run}"]}
    hold = (
        "import sys, time; from pathlib import Path\n"
        "from fracnet.utils.processes import locked\n"
        "with locked(Path(sys.argv[1]), ''):\n    print('held', flush=True); time.sleep(100)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(run / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        config = compose_plain() if command == "explain" else {"seed": 0}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        code, error = execute(command, arguments[command], capsys)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert code == 1
    assert "is in use by another fracnet process" in error
    assert len(error.strip().splitlines()) == 1, error


def compose_plain() -> dict[str, Any]:
    """The whole config of a training, as a run folder holds it."""
    with initialize_config_dir(str(config_dir())):
        composed = compose("train", ["data=upper_limb_phantom", "model=custom_cnn"])
    plain: Any = OmegaConf.to_container(composed, resolve=True)
    return dict(plain)


def test_a_second_run_does_not_touch_the_folder_of_the_first(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file_contents(run)
    overrides = ["data=upper_limb_phantom", "model=custom_cnn", f"hydra.run.dir={run}"]
    code, error = execute("train", overrides, capsys)
    assert code == 1
    assert f"hydra.run.dir={run} holds a run with status 'finished'; choose a new folder" in error
    assert file_contents(run) == before


@pytest.mark.parametrize("more", [[], ["trainer.max_epochs=1"]])
def test_a_finished_run_asks_for_more_epochs(
    more: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").write_text(yaml.safe_dump(compose_plain()))
    code, error = execute("train", [f"resume={run}", *more], capsys)
    assert code == 1
    assert f"resume={run} is finished; add epochs with trainer.max_epochs=" in error
    (run / "checkpoints/last.ckpt").unlink()
    assert "can be added only to a run that has" in execute("train", [f"resume={run}"], capsys)[1]


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    for content in (b"", b"PK\x03\x04 cut", pickle.dumps(Path("x")), pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read: it is"):
            read_checkpoint(path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(UserError, match="it is not a checkpoint of fracnet"):
        read_checkpoint(path)


def test_a_checkpoint_builds_only_what_it_may(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    cnn = {"_target_": "fracnet.models.cnn.CustomCNN", "normalize": "half"}
    given = {"model": cnn, "classes": ["a", "b"], "optim": {"_target_": "torch.optim.Adam"}}
    for change in (
        {"model": {"_target_": "os.mkdir", "path": str(tmp_path / "made")}},
        {"loss": {"_target_": "os.mkdir", "path": str(tmp_path / "made")}},
        {"_instantiator": "os.mkdir"},
    ):
        torch.save({"hyper_parameters": given | change, "state_dict": {}}, path)
        with pytest.raises(UserError, match=str(path)):
            rebuild(read_checkpoint(path), False, path)
        assert not (tmp_path / "made").exists()


def test_a_last_checkpoint_cannot_delete_files_outside_the_run_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    state = {"best": {"kth_best_model_path": f"{folder.checkpoints}/../../private"}}
    content = {"hyper_parameters": {}, "state_dict": {}, "epoch": 1, "callbacks": state}
    torch.save(content, folder.checkpoints / "last.ckpt")
    with pytest.raises(UserError, match="names a file outside of the run folder"):
        epochs_done(folder.checkpoints / "last.ckpt")


@pytest.mark.parametrize(
    ("curves", "rest"),
    [
        ("epoch,lr\n1,0.1\n2,0.1\n3,0.1\n4,0", "epoch,lr\n1,0.1\n2,0.1\n"),
        ("epo", None),
        ("epoch,lr\n1,0.1\n2,", "epoch,lr\n1,0.1\n"),
        ('epoch,lr\n1,0.1,5\n2,"0.1\n3,0\n', 'epoch,lr\n1,0.1,5\n2,"0.1\n'),
    ],
)
def test_a_torn_row_of_the_curves_is_dropped(curves: str, rest: str | None, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.curves.write_text(curves)
    trim_curves(folder, 2)
    assert (folder.curves.read_text() if folder.curves.exists() else None) == rest


def test_damaged_curves_are_an_error_of_the_users(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_curves(folder) is None
    folder.curves.write_text("\n")
    assert read_curves(folder) is None
    with pytest.raises(UserError, match="has no column epoch"):
        trim_curves(folder, 2)
    for rows in ("1,2,3\n", "1,2\n1,2,3\n", '1,"2\n'):
        folder.curves.write_text(f"epoch,lr\n{rows}")
        with pytest.raises(UserError, match=r"metrics\.csv cannot be read"):
            read_curves(folder)


def test_a_csv_keeps_whole_numbers_beside_missing_ones_and_disarms_formulas() -> None:
    table = pd.DataFrame({"n": [3, None], "name": ["=1+1", "-5"]}, dtype=object)
    assert csv_text(table) == "n,name\n3,'=1+1\n,-5\n"
