"""`python -m fracnet.export`, `python -m fracnet.verify` and `fracnet.load("model.onnx")`."""

import copy
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from helpers.command import CommandResult, run_command
from helpers.dicom_files import dicom
from helpers.exported import other_weights, rewritten
from starlette.testclient import TestClient

import fracnet
from fracnet.config.overrides import model_as_run
from fracnet.data.image_io import read_grey
from fracnet.evaluation.decisions import seal
from fracnet.export import export
from fracnet.inference.onnx_model import METADATA, OnnxPredictor
from fracnet.models.classifier import Classifier
from fracnet.onnx_export import benchmark, build_model
from fracnet.onnx_export.graph import Graph
from fracnet.onnx_export.network import network_model
from fracnet.onnx_export.preprocess_graph import squash
from fracnet.predict import predict
from fracnet.serving.app import Limits, make_app
from fracnet.utils.errors import UserError
from fracnet.verify import verify, with_key


@pytest.fixture
def run(exported_run: Path) -> Path:
    return exported_run


@pytest.fixture(autouse=True, scope="module")
def _one_network() -> Iterator[None]:
    """Every export is of the same run: torch exports its network once, which takes seconds."""
    networks: dict[tuple[str, int, bool], onnx.ModelProto] = {}

    def network_once(model: Classifier, image_size: int, with_map: bool) -> onnx.ModelProto:
        weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
        key = (sha256(weights).hexdigest(), image_size, with_map)
        if key not in networks:
            networks[key] = network_model(model, image_size, with_map)
        return copy.deepcopy(networks[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_model, "network_model", network_once)
        yield


@pytest.fixture
def views(exported_run: Path) -> Path:
    return exported_run.parent / "views"


@pytest.fixture
def verified(capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    def command(*arguments: object) -> CommandResult:
        return run_command(verify, "verify", with_key([str(a) for a in arguments]), capsys)

    return command


def test_an_export_is_compared_with_all_images_and_reported(exported: Path) -> None:
    names = sorted(path.name for path in exported.parent.iterdir())
    assert names == ["metadata.json", "model.onnx", "report.md", "requirements.txt"]
    report = (exported.parent / "report.md").read_text()
    assert "All validation and test images: 44 images" in report
    assert "no decision differs" in report
    assert "Research use only" in report
    assert "Not measured" in report
    model = onnx.load(exported)
    assert (model.producer_name, model.producer_version) == ("fracnet", fracnet.__version__)
    metadata = json.loads((exported.parent / "metadata.json").read_text())
    assert metadata == json.loads({p.key: p.value for p in model.metadata_props}[METADATA])
    assert metadata["classes"] == ["normal", "abnormal"]
    assert metadata["class_map"] == "exact: its mean is the logit without the bias of its class"
    assert metadata["data_fingerprint"]
    assert "torch" not in (exported.parent / "requirements.txt").read_text()


def test_verify_passes_on_an_untouched_file(
    exported: Path, run: Path, verified: Callable[..., CommandResult]
) -> None:
    result = verified(exported, f"run={run}")
    assert result.code == 0, result.err
    assert "is intact and answers as its run" in result.out
    assert "44 images" in result.out


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, -3])
def test_verify_refuses_a_changed_byte(
    exported: Path, place: float, tmp_path: Path, verified: Callable[..., CommandResult]
) -> None:
    content = bytearray(exported.read_bytes())
    content[int(place * len(content)) if place > 0 else int(place)] ^= 1
    changed = tmp_path / "model.onnx"
    changed.write_bytes(content)
    result = verified(changed)
    assert result.code == 1
    assert "was changed after it was exported" in result.err
    with pytest.raises(UserError, match="was changed after it was exported"):
        fracnet.load(changed)


def test_verify_refuses_wrong_answers_and_stale_hashes(
    exported: Path, run: Path, tmp_path: Path, verified: Callable[..., CommandResult]
) -> None:
    def other_threshold(model: onnx.ModelProto, metadata: dict) -> None:
        metadata["decisions"]["temperature"] = 9.0

    def other_decisions(model: onnx.ModelProto, metadata: dict) -> None:
        metadata["decisions"] = seal(metadata["decisions"] | {"note": "of another run"})

    result = verified(rewritten(exported, tmp_path / "weights.onnx", other_weights))
    assert result.code == 1
    assert "golden cases: the exported model does not answer as the run" in result.err
    result = verified(rewritten(exported, tmp_path / "threshold.onnx", other_threshold))
    assert result.code == 1
    assert "do not match their hash" in result.err
    stale = rewritten(exported, tmp_path / "stale.onnx", other_decisions)
    assert verified(stale).code == 0
    result = verified(stale, f"run={run}")
    assert result.code == 1
    assert "holds other operating points" in result.err


def test_verify_refuses_what_is_no_export(
    tmp_path: Path, verified: Callable[..., CommandResult]
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    assert "was not exported by fracnet" in verified(tmp_path / "model.onnx").err
    assert "no such file" in verified(tmp_path / "none.onnx").err


def test_an_exported_model_predicts_as_the_run_does(
    exported: Path, run: Path, views: Path, tmp_path: Path
) -> None:
    images = sorted((views / "test").glob("*.png"))[:4]
    (tmp_path / "cut.png").write_bytes(images[0].read_bytes()[:90])
    header = {"PatientID": "p7", "StudyInstanceUID": "1.2.3"}
    (tmp_path / "view.dcm").write_bytes(dicom(read_grey(images[1])[:, ::-1], **header))
    deep = np.random.default_rng(0).integers(0, 5000, (70, 90)).astype(np.uint16)
    (tmp_path / "list.csv").write_text(f"path,patient,study\n{images[2]},p1,s1\n")
    given = [images[0], images[1], tmp_path, tmp_path / "list.csv", deep, deep.astype(np.float32)]
    model, original = fracnet.load(exported), fracnet.load(run, device="cpu")
    table, expected = model.predict(given), original.predict(given)
    pd.testing.assert_frame_equal(table, expected, atol=1e-5, rtol=1e-4)
    assert table.attrs["notes"] == expected.attrs["notes"]
    pd.testing.assert_frame_equal(
        model.studies(table), original.studies(expected), atol=1e-5, rtol=1e-4
    )
    with pytest.raises(UserError, match=r"confident_errors=0\.1: the limits in model\.onnx"):
        fracnet.load(exported, error=0.1)
    assert isinstance(fracnet.load(exported, trust=True), OnnxPredictor)


def test_an_exported_model_is_served_and_draws_overlays(
    exported: Path, run: Path, views: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = sorted((views / "test").glob("*.png"))[0]
    answers = []
    for source in (exported, run):
        app = make_app(fracnet.load(source, device="cpu"), Limits(2, 2, 60))
        client = TestClient(app, base_url="http://127.0.0.1")
        response = client.post("/api/predict", files=[("files", (image.name, image.read_bytes()))])
        assert response.status_code == 200, response.text
        answers.append(response.json()["images"][0])
    mine, expected = answers
    assert mine.keys() == expected.keys()
    assert mine["decision"] == expected["decision"]
    assert mine["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
    assert mine["image"] == expected["image"]
    assert mine["heatmap"].startswith("data:image/png")

    arguments = model_as_run(
        [f"model={exported}", f"input={image}", "overlays=true", f"out={tmp_path / 'out'}"]
    )
    assert run_command(predict, "predict", arguments, capsys).code == 0
    assert (tmp_path / "out" / "overlays" / image.name).is_file()


def test_an_exported_model_needs_no_torch(exported: Path, views: Path, tmp_path: Path) -> None:
    code = (
        "import sys, fracnet; table = fracnet.load(sys.argv[1]).predict(sys.argv[2]);"
        "assert not {'torch', 'lightning', 'timm', 'onnx', 'sklearn'} & set(sys.modules);"
        "print(table['decision'].notna().sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported), str(views / "test")],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split() == ["12"]


@pytest.mark.slow
def test_latency_and_memory_are_measured_against_pytorch(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "ROUNDS", 2)
    arguments = [f"run={run}", f"out={tmp_path / 'out'}", "compare=false"]
    result = run_command(export, "export", arguments, capsys)
    assert result.code == 0, result.err
    report = (tmp_path / "out/report.md").read_text()
    assert "Validation and test images were not compared" in report
    memory = re.search(r"PyTorch (\d+) MiB, ONNX Runtime (\d+) MiB", report)
    assert memory
    assert int(memory[2]) < int(memory[1])


def test_nothing_is_written_where_the_answers_differ(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_clahe(g: Graph, image: str, steps: object, side: int) -> str:
        return squash(g, image, side)

    monkeypatch.setattr("fracnet.onnx_export.build_model.preprocess", without_clahe)
    out = tmp_path / "out"
    result = run_command(export, "export", [f"run={run}", f"out={out}"], capsys)
    assert result.code == 1
    assert "Nothing was exported" in result.err
    assert "preprocessed pixels differ" in result.err
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_folder_of_the_export(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as from a write to an open file

    monkeypatch.setattr("fracnet.onnx_export.export_run.write_model", full)
    out = tmp_path / "out"
    result = run_command(export, "export", [f"run={run}", f"out={out}"], capsys)
    assert result.code == 1
    assert result.err.startswith(f"fracnet: error: Cannot write {out}: No space left on device;")
    assert not list(tmp_path.iterdir())


def test_an_export_overwrites_nothing(
    exported: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_command(export, "export", [f"run={run}", f"out={exported.parent}"], capsys)
    assert result.code == 1
    assert "is not empty" in result.err


def test_the_trust_gate_stands_before_an_export(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "run"))
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(
        config.replace("fracnet.models.backbones.timm_backbone", "os.system")
    )
    result = run_command(export, "export", [f"run={other}", f"out={tmp_path / 'out'}"], capsys)
    assert result.code == 1
    assert "os.system" in result.err


@pytest.mark.slow
def test_eight_bits_are_not_written_where_the_metrics_may_change_more_than_the_margin(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = ["quantize=int8", "margin=0.000001", "benchmark=false"]
    result = run_command(export, "export", [f"run={run}", f"out={out}", *options], capsys)
    assert result.code == 0, result.err
    assert "model_int8.onnx was not written: " in result.out
    assert "may change by more than margin=1e-06" in result.out
    assert not (out / "model_int8.onnx").exists()
    assert "| AUC |" in (out / "report.md").read_text().replace("macro AUC", "AUC")
