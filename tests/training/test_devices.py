"""One run on two processes (CPU, gloo): the same test table, curves over all rows, one printer."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from helpers.command import CommandResult, in_warm_process
from helpers.models import ADAM, TINY
from helpers.tiny_overrides import tiny_overrides
from helpers.warm import NESTED, Warm

from fracnet.config.checks import check
from fracnet.config.instantiate import build
from fracnet.data.datamodule import RadiographData
from fracnet.data.manifest import write_table
from fracnet.models.classifier import Classifier
from fracnet.runs.run_folder import RunFolder
from fracnet.training import trainer as trainer_module
from fracnet.training.rehearsal import check_devices
from fracnet.training.trainer import gather
from fracnet.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parents[1]


class Run(NamedTuple):
    folder: Path
    result: CommandResult


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    # With 18 validation images in batches of 20 the second process has none.
    return tiny_overrides(
        *phantom_overrides,
        "optim.lr=0.01",
        "logger=none",
        model="tiny_norm",
        batch=20,
        epochs=2,
        explain=True,
    )


def train(overrides: list[str], folder: Path) -> Run:
    command = ["-m", "fracnet.train", *overrides, "trainer.devices=2"]
    # Without a fixed folder: both processes have to find the one with the unique name.
    result = in_warm_process(command, folder, PYTHONPATH=str(TESTS), OMP_NUM_THREADS="1")
    assert result.code == 0, result.err
    (run,) = (folder / "runs").iterdir()
    return Run(run, result)


@pytest.fixture(scope="module")
def run(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(overrides, tmp_path_factory.mktemp("two"))


@pytest.mark.slow
def test_one_process_prints_and_writes(run: Run) -> None:
    assert run.result.out.count("epoch 1/2") == 1
    assert run.result.out.count("data    upper_limb_phantom") == 1
    assert "device  2 processes" in run.result.out
    assert "Traceback" not in run.result.err
    assert "sync_dist" not in run.result.err
    assert pd.read_csv(run.folder / "metrics.csv")["epoch"].tolist() == [1, 2]
    provenance = json.loads((run.folder / "provenance.json").read_text())
    assert provenance["status"] == "finished"
    assert not any("train_ddp_process" in word for word in provenance["command"])


@pytest.mark.slow
def test_validation_metrics_count_each_row_once(run: Run) -> None:
    """What two processes logged is what the checkpoint gives for the whole split afterwards."""
    curves = pd.read_csv(run.folder / "metrics.csv")
    table = pd.read_csv(run.folder / "predictions.csv")
    assert table["path"].is_unique
    assert table["split"].value_counts().to_dict() == {"test": 24, "val": 18}
    val = table[table["split"] == "val"]
    chosen = [row[f"prob_{row['label']}"] for _, row in val.iterrows()]
    assert curves["val/loss"].min() == pytest.approx(-np.log(chosen).mean(), rel=1e-6)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """As each of the two processes has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_thread")
def test_one_process_predicts_from_the_checkpoint_what_two_predicted(
    run: Run, tmp_path: Path
) -> None:
    plain = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert plain["trainer"]["devices"] == 2
    plain["trainer"]["devices"] = 1
    config = check(plain)
    data = RadiographData(
        dataset=build(config.data.plain(), "data"),
        preprocess=config.preprocess.model_dump(),
        image_size=config.image_size,
        batch_size=config.data.batch_size,
    )
    trainer, _ = trainer_module.make_trainer(config, RunFolder(tmp_path))
    best = run.folder / "checkpoints/best.ckpt"
    model = Classifier.load_from_checkpoint(best, weights_only=True)
    write_table(trainer_module.predict(trainer, model, data), tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_bytes() == (run.folder / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_two_nodes_give_what_two_devices_give(
    run: Run, overrides: list[str], tmp_path: Path
) -> None:
    """Two process groups on this machine, each with the environment of a node."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "fracnet.train", *overrides]
    common = {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    nodes = [
        Warm(
            [*command, "trainer.num_nodes=2", "explain=none", f"hydra.run.dir={folder}"],
            env=os.environ | common | {"NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for rank in range(2)
    ]
    printed = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], printed
    curves = [
        pd.read_csv(of / "metrics.csv").drop(columns=["seconds", "images_per_second"])
        for of in (run.folder, folder)
    ]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    tables = [(of / "predictions.csv").read_bytes() for of in (run.folder, folder)]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_interrupt_and_divergence_are_reported_once(overrides: list[str], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", NESTED: "1"}
    command = [sys.executable, "-m", "fracnet.train", *overrides, "trainer.devices=2"]
    ends = []
    for name, more in {
        "diverged": ["optim.lr=1e35", "scheduler=none"],
        "interrupted": ["trainer.max_epochs=100000", "callbacks.early_stopping=null"],
    }.items():
        folder = tmp_path / name
        job = Warm(
            [*command, *more, f"hydra.run.dir={folder}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while name == "interrupted" and time.monotonic() < deadline:
            if (folder / "metrics.csv").exists():
                os.killpg(job.pid, signal.SIGINT)  # as a terminal does: both processes hear it
                break
            time.sleep(0.1)
        _, err = job.communicate(timeout=120)
        assert err.count("\n") == 1, err
        assert json.loads((folder / "provenance.json").read_text())["status"] == name
        ends.append((job.returncode, err.split(";")[0][:40]))
    assert ends[0][0] == 1
    assert ends[0][1].startswith("fracnet: error: the validation loss")
    assert ends[1] == (130, "fracnet: interrupted")


def test_rows_that_come_twice_count_once() -> None:
    """As from a process that repeats a batch to fill its share."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 1, 16, 16), dtype=torch.uint8)
    target, rows = torch.tensor([0, 1, 0, 1, 1, 1]), torch.tensor([9, 4, 7, 1, 3, 2])
    logged = []
    for order in ([0, 1, 2, 3, 4, 5], [3, 5, 1, 0, 2, 4, 1, 0, 3]):
        torch.manual_seed(0)
        model = Classifier(TINY, ("a", "b"), ADAM).eval()
        metrics: dict[str, float] = {}
        model.log_dict = metrics.update  # type: ignore[method-assign, assignment]
        batch = {"image": images[order], "target": target[order], "row": rows[order]}
        with torch.no_grad():
            model.validation_step(batch, 0)
        model.on_validation_epoch_end()
        logged.append(metrics)
    assert logged[0] == pytest.approx(logged[1], rel=1e-6)


def test_gather_orders_by_row_and_drops_repeats() -> None:
    rows, logits = gather(np.array([5, 2, 5, 0]), np.array([[50.0], [20.0], [50.0], [0.0]]))
    assert rows.tolist() == [0, 2, 5]
    assert logits[:, 0].tolist() == [0, 20, 50]


@pytest.mark.parametrize("variable", ["TORCHELASTIC_RUN_ID", "NODE_RANK"])
def test_processes_of_one_run_need_one_folder(
    variable: str, tmp_path: Path, overrides: list[str]
) -> None:
    result = in_warm_process(["-m", "fracnet.train", *overrides], tmp_path, **{variable: "1"})
    assert result.code == 1
    assert "hydra.run.dir=" in result.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_more_devices_than_available_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    node = SimpleNamespace(
        trainer=SimpleNamespace(devices=2, num_nodes=1),
        model=SimpleNamespace(fit="gradient", by_epochs=True),
    )
    with pytest.raises(UserError, match=r"trainer.devices=2: this machine has 1"):
        check_devices(node, "gpu")  # type: ignore[arg-type]
    check_devices(node, "cpu")  # type: ignore[arg-type]
    node.model.fit, node.model.by_epochs = "classical", False
    with pytest.raises(UserError, match=r"fitted on one"):
        check_devices(node, "cpu")  # type: ignore[arg-type]
