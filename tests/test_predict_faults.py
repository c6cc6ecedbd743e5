"""What goes wrong while a folder is predicted leaves whole rows and a true account."""

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
from helpers.predicting import trained_on_views, write_views
from helpers.tiny import picture

import fracnet
from fracnet.inference.batch_predict import predict_into
from fracnet.inference.inputs import find
from fracnet.inference.predictor import Predictor
from fracnet.utils.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    views = write_views(tmp_path_factory.mktemp("set") / "views")
    return trained_on_views(views, tmp_path_factory.mktemp("runs") / "trained")


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


def test_a_full_disk_is_told_and_the_rows_before_it_stay_whole(
    run: Path, many: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, asked = fracnet.load(run, trust=True), find([str(many)])
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
        predict_into(out, predictor, asked)
    monkeypatch.undo()
    rows = pd.read_csv(out / "predictions.csv")
    assert 0 < len(rows) < 60
    assert len(rows) % 8 == 0
    assert rows["prob_abnormal"].notna().all()
    assert status(out)["images"]["done"] == len(rows)
    assert status(out)["status"] == "unfinished"


def test_ctrl_c_between_two_rows_leaves_what_was_done(
    run: Path, many: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, asked, seen = fracnet.load(run, trust=True), find([str(many)]), 0
    batch = Predictor._batch

    def interrupted(self: Predictor, *given: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise KeyboardInterrupt
        return batch(self, *given)

    monkeypatch.setattr(Predictor, "_batch", interrupted)
    with pytest.raises(KeyboardInterrupt, match="24 of 60 images are in"):
        predict_into(out, predictor, asked)
    assert len(pd.read_csv(out / "predictions.csv")) == 24
    assert status(out)["status"] == "interrupted"
    assert status(out)["images"] == status(out)["images"] | {"asked": 60, "done": 24}


def test_a_file_that_goes_away_meanwhile_is_one_more_that_cannot_be_read(
    run: Path, many: Path, out: Path
) -> None:
    asked = find([str(many)])
    (many / "07.png").unlink()
    told = predict_into(out, fracnet.load(run, trust=True), asked)
    assert [Path(path).name for path, _ in told.lost] == ["07.png"]
    assert "no such file" in told.lost[0][1]
    assert told.n == 60
    assert status(out)["status"] == "finished"


def test_a_folder_without_a_readable_image_is_an_account_of_that(
    run: Path, many: Path, out: Path
) -> None:
    for path in many.iterdir():
        path.write_bytes(b"")
    told = predict_into(out, fracnet.load(run, trust=True), find([str(many)]))
    assert len(told.lost) == 60
    assert pd.read_csv(out / "predictions.csv")["decision"].isna().all()


def test_a_study_with_a_broken_view_is_unsure_and_says_so(
    run: Path, tmp_path: Path, out: Path
) -> None:
    pixels = picture(1)
    for name, study, broken in (("a", "1.2.3", 0), ("b", "1.2.3", 1), ("c", "1.2.4", 1)):
        header = {"PatientID": "p7", "StudyInstanceUID": study}
        whole = dicom(pixels, **header)
        cut = whole[: len(whole) - pixels.size // 2] if broken else whole
        (tmp_path / f"{name}.dcm").write_bytes(cut)
    (tmp_path / "d.dcm").write_bytes(dicom(pixels)[:200])  # cut off within its header
    told = predict_into(out, fracnet.load(run, trust=True), find([str(tmp_path / "*.dcm")]))
    assert [Path(path).stem for path, _ in told.lost] == ["b", "c", "d"]
    rows = pd.read_csv(out / "predictions.csv", dtype={"study": str})
    assert list(rows["study"].fillna("")) == ["1.2.3", "1.2.3", "1.2.4", ""]
    half, none = pd.read_csv(out / "studies.csv", dtype={"study": str}).to_dict("records")
    assert (half["study"], half["patient"], half["views"], half["unreadable"]) == (
        "1.2.3", "p7", 1, 1,
    )  # fmt: skip
    assert half["uncertain"] is True
    assert "a view cannot be read" in half["why"]
    assert half["decision"] in ("normal", "abnormal")
    assert (none["study"], none["views"], none["unreadable"]) == ("1.2.4", 0, 1)
    assert none["uncertain"] is True
    assert none["why"] == "no view can be read"
    assert pd.isna(none["decision"])
    assert told.studies == 2


def test_a_reference_of_another_checkpoint_is_not_used(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    path = other / "checkpoints" / "best.ckpt"
    held = torch.load(path, weights_only=True)
    for name, weights in held["state_dict"].items():
        held["state_dict"][name] = weights * 1.01
    torch.save(held, path)
    with pytest.raises(UserError, match=r"novelty\.npz goes with another checkpoint"):
        fracnet.load(other, trust=True)
    (other / "novelty.npz").unlink()
    assert fracnet.load(other, trust=True).predict(picture(1))["unlike"].isna().all()


def test_what_is_no_image_is_told_and_what_is_left_out_noted(run: Path, many: Path) -> None:
    model = fracnet.load(run, trust=True)
    for odd in (None, 3, [[1, 2]], [None], b"scan.png", {"a": 1}, "", [" "]):
        with pytest.raises(UserError, match=r"allowed: a path .* a grey array \[height, width\]"):
            model.predict(odd)  # type: ignore[arg-type]
    (many / "notes.txt").write_text("no image")
    table = model.predict(many)
    assert "notes.txt" in " ".join(table.attrs["notes"])
    assert list(model.predict([]).columns) == list(table.columns)


def test_images_are_not_held(run: Path, many: Path) -> None:
    predictor, held, most = fracnet.load(run, trust=True), 0, 0
    items = find([str(many)]).items * 20

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
    assert most <= 2 * 8  # what is read ahead: a batch of the run's size, and one under way


@pytest.mark.slow
def test_ctrl_c_of_the_command(run: Path, many: Path, tmp_path: Path) -> None:
    for n in range(3000):
        shutil.copy(many / "00.png", many / f"more{n}.png")
    words = [f"run={run}", f"input={many}", "out=out", "trust=true"]
    started = subprocess.Popen(
        [sys.executable, "-m", "fracnet.predict", *words],
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
