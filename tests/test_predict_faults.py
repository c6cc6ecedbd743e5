"""Failures while a folder is predicted leave complete rows and a correct predictions.json."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
import pytest
import torch
from helpers.dicom_files import dicom
from helpers.predicting import train_on_views, write_views
from helpers.tiny import picture
from helpers.warm import Warm

import fracnet
from fracnet.inference.batch_predict import predict_into
from fracnet.inference.inputs import find_images
from fracnet.inference.predictor import Predictor
from fracnet.utils.errors import Terminated, UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    views = write_views(tmp_path_factory.mktemp("set") / "views")
    return train_on_views(views, tmp_path_factory.mktemp("runs") / "trained")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """60 images, which are eight batches."""
    folder = tmp_path / "many"
    folder.mkdir()
    packed = cv2.imencode(".png", picture(1))[1].tobytes()
    for n in range(60):
        (folder / f"{n:02d}.png").write_bytes(packed)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def status(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "predictions.json").read_text())
    return content


def test_a_full_disk_is_reported_and_earlier_rows_stay_complete(
    run: Path, many: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, images = fracnet.load(run, trust=True), find_images([str(many)])
    write, left = os.write, 4000

    def full(file: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(file, data[:left])
        left -= done
        return done

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"No space left on device\. The first \d+ of 60 images"):
        predict_into(out, predictor, images)
    monkeypatch.undo()
    rows = pd.read_csv(out / "predictions.csv")
    assert 0 < len(rows) < 60
    assert len(rows) % 8 == 0
    assert rows["prob_abnormal"].notna().all()
    assert status(out)["images"]["done"] == len(rows)
    assert status(out)["status"] == "unfinished"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_a_signal_leaves_the_rows_so_far(
    stop: type[BaseException], run: Path, many: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, images, count = fracnet.load(run, trust=True), find_images([str(many)]), 0
    batch = Predictor._batch

    def interrupted(self: Predictor, *args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise stop
        return batch(self, *args)

    monkeypatch.setattr(Predictor, "_batch", interrupted)
    with pytest.raises(KeyboardInterrupt, match="24 of 60 images are in"):
        predict_into(out, predictor, images)
    assert len(pd.read_csv(out / "predictions.csv")) == 24
    assert status(out)["status"] == "interrupted"
    assert status(out)["images"] == status(out)["images"] | {"requested": 60, "done": 24}


def test_a_file_removed_meanwhile_is_unreadable(run: Path, many: Path, out: Path) -> None:
    images = find_images([str(many)])
    (many / "07.png").unlink()
    summary = predict_into(out, fracnet.load(run, trust=True), images)
    assert [Path(path).name for path, _ in summary.unreadable] == ["07.png"]
    assert "does not exist" in summary.unreadable[0][1]
    assert summary.n == 60
    assert status(out)["status"] == "finished"


def test_a_folder_without_a_readable_image_gives_only_errors(
    run: Path, many: Path, out: Path
) -> None:
    for path in many.iterdir():
        path.write_bytes(b"")
    summary = predict_into(out, fracnet.load(run, trust=True), find_images([str(many)]))
    assert len(summary.unreadable) == 60
    assert pd.read_csv(out / "predictions.csv")["decision"].isna().all()


def test_a_study_with_a_broken_view_is_uncertain_with_the_reason(
    run: Path, tmp_path: Path, out: Path
) -> None:
    pixels = picture(1)
    for name, study, broken in (("a", "1.2.3", 0), ("b", "1.2.3", 1), ("c", "1.2.4", 1)):
        header = {"PatientID": "p7", "StudyInstanceUID": study}
        whole = dicom(pixels, **header)
        cut = whole[: len(whole) - pixels.size // 2] if broken else whole
        (tmp_path / f"{name}.dcm").write_bytes(cut)
    (tmp_path / "d.dcm").write_bytes(dicom(pixels)[:200])  # cut off within its header
    summary = predict_into(
        out, fracnet.load(run, trust=True), find_images([str(tmp_path / "*.dcm")])
    )
    assert [Path(path).stem for path, _ in summary.unreadable] == ["b", "c", "d"]
    rows = pd.read_csv(out / "predictions.csv", dtype={"study": str})
    assert list(rows["study"].fillna("")) == ["1.2.3", "1.2.3", "1.2.4", ""]
    half, none = pd.read_csv(out / "studies.csv", dtype={"study": str}).to_dict("records")
    assert (half["study"], half["patient"], half["views"], half["unreadable"]) == (
        "1.2.3", "p7", 1, 1,
    )  # fmt: skip
    assert half["uncertain"] is True
    assert "a view cannot be read" in half["reason"]
    assert half["decision"] in ("normal", "abnormal")
    assert (none["study"], none["views"], none["unreadable"]) == ("1.2.4", 0, 1)
    assert none["uncertain"] is True
    assert none["reason"] == "no view can be read"
    assert pd.isna(none["decision"])
    assert summary.studies == 2


def test_a_reference_of_another_checkpoint_is_not_used(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    path = other / "checkpoints" / "best.ckpt"
    held = torch.load(path, weights_only=True)
    for name, weights in held["state_dict"].items():
        held["state_dict"][name] = weights * 1.01
    torch.save(held, path)
    with pytest.raises(UserError, match=r"ood\.npz belongs to another checkpoint"):
        fracnet.load(other, trust=True)
    (other / "ood.npz").unlink()
    assert fracnet.load(other, trust=True).predict(picture(1))["ood"].isna().all()


def test_other_inputs_are_refused_and_skipped_files_are_noted(run: Path, many: Path) -> None:
    model = fracnet.load(run, trust=True)
    for odd in (None, 3, [[1, 2]], [None], b"scan.png", {"a": 1}, "", [" "]):
        with pytest.raises(UserError, match=r"allowed: a path .* a grey array \[height, width\]"):
            model.predict(odd)  # type: ignore[arg-type]
    (many / "notes.txt").write_text("no image")
    table = model.predict(many)
    assert "notes.txt" in " ".join(table.attrs["notes"])
    assert list(model.predict([]).columns) == list(table.columns)


def test_images_are_not_kept_in_memory(run: Path, many: Path) -> None:
    predictor, held, most = fracnet.load(run, trust=True), 0, 0
    items = find_images([str(many)]).files * 20

    def counted() -> Any:
        nonlocal held
        for item in items:
            held += 1
            yield item

    done = 0
    for batch in predictor.batches(counted(), workers=2):
        done += len(batch.table)
        most = max(most, held - done)
    assert done == len(items)
    assert most <= 2 * 8  # one batch read ahead, and the current one


@pytest.mark.slow
def test_ctrl_c_stops_the_command(run: Path, many: Path, tmp_path: Path) -> None:
    for n in range(3000):
        shutil.copy(many / "00.png", many / f"more{n}.png")
    arguments = [f"run={run}", f"input={many}", "out=out", "trust=true"]
    started = Warm(
        [sys.executable, "-m", "fracnet.predict", *arguments],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    rows = tmp_path / "out" / "predictions.csv"
    while started.poll() is None and not (rows.is_file() and rows.stat().st_size > 2000):
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    table = pd.read_csv(rows)
    assert 0 < len(table) < 3060
    assert status(tmp_path / "out")["images"]["done"] == len(table)
