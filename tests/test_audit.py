"""`python -m fracnet.audit`: findings, files, output and exit codes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from helpers.audited import (
    folder_overrides,
    read_picture,
    run_audit_command,
    write_picture,
    write_set,
)
from helpers.command import in_quick_process, in_warm_process
from helpers.warm import Warm

from fracnet.data import audit_record
from fracnet.data_audit import run_audit

RESULTS: dict[Path, run_audit.AuditResult] = {}


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fracnet.data_audit.shortcuts.TREES", {"all": 5, "family": 2})
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with copies of two train images in test, one of them mirrored."""
    root = write_set(tmp_path_factory.mktemp("leaky") / "set")
    for name, first, step in (("same", "train00", 1), ("mirrored", "train02", -1)):
        image = read_picture(root / f"train/normal/{first}.png")
        write_picture(root / f"test/normal/{name}.png", image[:, ::step])
    return root


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch, leaky: Path) -> Path:
    """The same dataset, whose audit is computed once for several commands."""
    compute = run_audit.run_audit

    def once(*arguments: Any, **settings: Any) -> run_audit.AuditResult:
        if leaky not in RESULTS:
            RESULTS[leaky] = compute(*arguments, **settings)
        return RESULTS[leaky]

    monkeypatch.setattr(run_audit, "run_audit", once)
    return leaky


def test_an_audit_replaces_no_page_of_another_command(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "comparison.json").write_text("{}")
    (out / "index.html").write_text("theirs")
    result = run_audit_command(folder_overrides(audited, out), capsys)
    assert result.code == 1
    assert "holds comparison.json, as a comparison does; name another folder" in result.err
    assert (out / "index.html").read_text() == "theirs"
    (out / "comparison.json").unlink()
    for _ in range(2):  # an audit replaces its own files
        assert run_audit_command(folder_overrides(audited, out), capsys).code == 0


def test_finds_planted_copies_and_writes_the_report(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = folder_overrides(leaky, tmp_path / "out")
    result = run_audit_command(overrides, capsys)
    assert result.code == 0, result.err
    assert "leak     2 of 10 test images (20.0 %) have a verified copy" in result.out
    assert str(tmp_path / "out/index.html") in result.out
    assert max(len(line) for line in result.out.split("page ")[0].splitlines()) <= 80
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "audit.json",
        "index.html",
    ]
    content = json.loads((tmp_path / "out/audit.json").read_text())
    assert content["severity"] == "leak"
    assert {(frozenset((pair["a"], pair["b"])), pair["kind"]) for pair in content["pairs"]} == {
        (frozenset(("train/normal/train00.png", "test/normal/same.png")), "same bytes"),
        (frozenset(("train/normal/train02.png", "test/normal/mirrored.png")), "copy"),
    }
    assert content["fingerprint"]["counts"]["test"] == {"normal": 6, "fractured": 4}
    stored = audit_record.audit_path(content["fingerprint"]["hash"])
    assert json.loads(stored.read_text()) == content
    assert content["command"][1:] == ["-m", "fracnet.audit", *overrides]
    page = unescape((tmp_path / "out/index.html").read_text())
    assert shlex.join(content["command"]) in page
    assert str(leaky) in page


@pytest.mark.parametrize(("fail_on", "code"), [("hint", 2), ("leak", 2), ("error", 0), ("null", 0)])
def test_exit_code_depends_on_fail_on(
    fail_on: str, code: int, audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_audit_command(
        [*folder_overrides(audited, tmp_path / "out"), f"fail_on={fail_on}"], capsys
    )
    assert result.code == code
    assert (tmp_path / "out/audit.json").is_file(), "written first"
    assert ("worst finding is leak" in result.err) == (code == 2)


def test_a_planted_shortcut_reaches_fail_on_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images without and with a corner mark on those of one class."""
    monkeypatch.setattr("fracnet.data_audit.shortcuts.TREES", {"all": 20, "family": 5})
    root = write_set(tmp_path / "set", train=44, val=8, test=8)
    command = [*folder_overrides(root, tmp_path / "out"), "fail_on=warning"]
    plain = run_audit_command(command, capsys)
    assert plain.code == 0, plain.out
    for path in root.rglob("fractured/*.png"):
        image = read_picture(path)
        image[4:12, 4:12] = 255
        write_picture(path, image)
    planted = run_audit_command(command, capsys)
    assert planted.code == 2
    assert "warning  The class can be predicted from" in planted.out
    assert "worst finding is warning, and fail_on=warning" in planted.err


def test_a_truncated_file_is_an_error_or_a_warning_by_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set", train=12)
    cut = root / "train/normal/train04.png"
    cut.write_bytes(cut.read_bytes()[:300])
    overrides = folder_overrides(root, tmp_path / "out")
    result = run_audit_command([*overrides, "fail_on=error"], capsys)
    assert result.code == 2
    assert "error    1 of 26 files cannot be read." in result.out
    (first,) = json.loads((tmp_path / "out/audit.json").read_text())["findings"][:1]
    assert first["details"][0]["path"] == "train/normal/train04.png"
    assert (
        run_audit_command([*overrides, "data.on_bad_file=skip", "fail_on=error"], capsys).code == 0
    )


def test_no_readable_file_is_an_error_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set", train=4, val=2, test=2)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    result = run_audit_command(folder_overrides(root, tmp_path / "deep/out"), capsys)
    assert result.code == 1
    assert "None of the 8 images" in result.err
    assert not (tmp_path / "deep").exists()


def test_the_folder_is_named_by_the_data_and_their_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set", train=4, val=2, test=2)
    assert run_audit_command(folder_overrides(root, tmp_path)[:-1], capsys).code == 0
    (folder,) = (tmp_path / "audits").iterdir()
    content = json.loads((folder / "audit.json").read_text())
    assert folder.name == f"folder-{content['fingerprint']['hash']}"


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["fail_on=leek"], ["fail_on=leek", "is not allowed; allowed: hint, warning, leak"]),
        (["data=uper_limb"], ["data=uper_limb", "Did you mean 'upper_limb'?"]),
        (["data.folds=5"], ["'data.folds'", "on_bad_file"]),
        (["pictures=many"], ["pictures=many", "integer"]),
        (["workers=0"], ["workers=0", "1"]),
        (["data=folder", "data.root=nowhere"], ["nowhere", "does not exist"]),
        (["image_size=150"], ["'image_size'"]),
        (["model=resnet18"], ["There is no key 'model'; allowed: data, data_dir"]),
        (["out=/proc/audit", "data=upper_limb_phantom", "data.root=/dev/null"], ["/dev/null"]),
    ],
)
def test_a_mistake_causes_no_traceback(
    overrides: list[str], parts: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = run_audit_command(overrides, capsys)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")
    for part in parts:
        assert part in result.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_created_is_reported_before_the_work(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    result = run_audit_command(folder_overrides(leaky, tmp_path / "file/out"), capsys)
    assert result.code == 1
    assert "Cannot create out=" in result.err


def test_an_option_that_sets_more_than_data_works_in_an_audit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_audit_command(["data=mura_150", f"data.root={tmp_path}/none"], capsys)
    assert "No mura data" in result.err, "image size and model keys are not an error"


def test_a_full_disk_is_reported_and_leaves_no_partial_file(
    audited: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fracnet.utils.files.os.fsync", full)
    result = run_audit_command(folder_overrides(audited, tmp_path / "out"), capsys)
    assert result.code == 1
    assert f"Cannot write {tmp_path / 'out/audit.json'}: No space left on device" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_audits_of_one_set_into_one_folder_both_succeed(leaky: Path, tmp_path: Path) -> None:
    code = (
        "from fracnet.audit import audit; from fracnet.config import hydra_cli;"
        "from fracnet.data_audit import shortcuts; shortcuts.TREES.update(all=5, family=2);"
        "hydra_cli.run(audit, 'audit')"
    )
    codes = []

    def run() -> None:
        overrides = [*folder_overrides(leaky, tmp_path / "out"), "workers=1"]
        codes.append(in_warm_process(["-c", code, *overrides], tmp_path).code)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0]
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert json.loads((tmp_path / "out/audit.json").read_text())["severity"] == "leak"


def test_an_interrupt_stops_reading_and_leaves_nothing(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", train=12)
    os.mkfifo(tmp_path / "gate")
    code = """
import time
import fracnet.data_audit.image_scan as image_scan
from fracnet.config import hydra_cli
from fracnet.audit import audit

def slow(path):
    with open("reads", "a") as reads:
        reads.write("x")
    if open("reads").read() == "x":
        open("gate", "w").write("x")
    time.sleep(0.5)
    raise image_scan.BadImage(path, "slow")

image_scan.read_grey = slow
hydra_cli.run(audit, "audit")
"""
    overrides = [*folder_overrides(root, tmp_path / "out"), "workers=1"]
    process = Warm(
        [sys.executable, "-c", code, *overrides], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    with open(tmp_path / "gate") as gate:
        assert gate.read(1) == "x"  # an image is being read
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "fracnet: interrupted" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    assert len((tmp_path / "reads").read_text()) < 26, "it does not wait for the other images"


@pytest.mark.parametrize(
    "overrides", [["--help"], ["fail_on=leek"]], ids=lambda overrides: overrides[0]
)
def test_light_commands_are_fast(overrides: list[str], tmp_path: Path) -> None:
    result = in_quick_process(["fracnet.audit", *overrides], tmp_path)
    if overrides == ["--help"]:
        for part in ("not a medical device", "fail_on: null", "ok < hint < warning < leak < error"):
            assert part in result.out
