"""A run that was killed and resumed equals one that was never stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
import yaml
from helpers.command import run_train
from helpers.tiny_overrides import tiny_overrides
from helpers.warm import Warm
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fracnet.config.trust import check_trust
from fracnet.models.classifier import Classifier
from fracnet.runs.run_folder import with_format, write_json
from fracnet.runs.sweep_summary import collect
from fracnet.training.resume import _check_schedule
from fracnet.utils.files import config_dir

pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parents[1]
TRUST = "trust=true"  # the model is a class of the tests' own
# Everything with a state between epochs, together.
STATEFUL = [
    "scheduler=warm_restarts",
    "scheduler.T_0=2",
    "optim.lr=0.02",
    "callbacks.ema=0.9",
    "imbalance=oversample",
    "model.dropout=0.3",
]


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    return tiny_overrides(
        *phantom_overrides, "logger=none", *STATEFUL, batch=8, workers=1, epochs=5
    )


def killed_in_the_middle_of_epoch(number: int, overrides: list[str], run: Path) -> None:
    """Start a run and kill -9 it in that epoch, whose second batch takes for ever."""
    run.mkdir(parents=True, exist_ok=True)
    flag = run.with_name(f"{run.name}-in-epoch-{number}")
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from fracnet.models.classifier import Classifier\n"
        "plain = Classifier.training_step\n"
        "def slow(self, batch, batch_idx):\n"
        f"    if (self.current_epoch + 1, batch_idx) == ({number}, 1):\n"
        f"        Path({str(flag)!r}).touch()\n"
        "        time.sleep(600)\n"
        "    return plain(self, batch, batch_idx)\n"
        "Classifier.training_step = slow\n"
        "from fracnet.config import hydra_cli\n"
        "from fracnet.train import train\n"
        "from fracnet.training import sweep\n"
        f"sys.argv[1:] = {[*overrides, f'hydra.run.dir={run}']!r}\n"
        "hydra_cli.run(train, 'train', jobs=sweep)\n"
    )
    job = Warm(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not flag.exists():
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait(60)


def curves_of(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "metrics.csv", dtype=str).drop(
        columns=["seconds", "images_per_second"]
    )


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    stored = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    return dict(stored["state_dict"])


@pytest.mark.usefixtures("without_report")
@pytest.mark.slow
def test_a_killed_and_resumed_run_equals_an_uninterrupted_run(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_train([*overrides, f"hydra.run.dir={whole}"], capsys).code == 0
    killed_in_the_middle_of_epoch(4, overrides, cut)
    assert len(curves_of(cut)) == 3
    config = (cut / "config.yaml").read_bytes()

    result = run_train([f"resume={cut}", TRUST], capsys)
    assert result.code == 0, result.err
    assert "epoch 3/5" not in result.out
    assert "epoch 4/5" in result.out
    pd.testing.assert_frame_equal(curves_of(cut), curves_of(whole))
    assert (cut / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    for name, value in weights_of(whole).items():
        assert torch.equal(weights_of(cut)[name], value), name
    assert [p.name for p in sorted((cut / "checkpoints").iterdir())] == ["best.ckpt", "last.ckpt"]
    assert (cut / "config.yaml").read_bytes() == config
    provenance = json.loads((cut / "provenance.json").read_text())
    assert provenance["status"] == "finished"
    assert provenance["resumed_from"][0]["status"] == "interrupted"

    repeated = run_train([f"resume={cut}", TRUST], capsys)
    assert repeated.code == 1
    assert "is finished; add epochs with trainer.max_epochs=6 or more" in repeated.err
    longer = run_train([f"resume={cut}", TRUST, "trainer.max_epochs=6"], capsys)
    assert longer.code == 0, longer.err
    assert curves_of(cut)["epoch"].tolist() == [str(epoch) for epoch in range(1, 7)]


@pytest.mark.slow
def test_rows_after_the_last_checkpoint_are_not_written_twice(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_in_the_middle_of_epoch(3, overrides, tmp_path)
    with (tmp_path / "metrics.csv").open("a") as file:
        # As if killed between the row and its checkpoint, and again within a row.
        file.write((tmp_path / "metrics.csv").read_text().splitlines()[-1].replace("2,", "3,", 1))
        file.write("\n4,1.7")
    assert run_train([f"resume={tmp_path}", TRUST, "trainer.max_epochs=4"], capsys).code == 0
    assert curves_of(tmp_path)["epoch"].tolist() == ["1", "2", "3", "4"]


@pytest.fixture(scope="module")
def unfinished(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with one epoch behind it."""
    run = tmp_path_factory.mktemp("unfinished")
    killed_in_the_middle_of_epoch(2, overrides, run)
    return run


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["optim.lr=0.1"], ["optim.lr=0.1 cannot be given", "trainer.max_epochs"]),
        (["model=resnet18", "seed=1"], ["model=resnet18, seed=1 cannot be given"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0"]),
    ],
)
def test_another_config_is_refused(
    more: list[str], parts: list[str], unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_train([f"resume={unfinished}", *more], capsys)
    assert result.code == 1
    assert result.err.count("\n") == 1
    for part in parts:
        assert part in result.err


def test_a_folder_that_is_not_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_train([f"resume={tmp_path / 'none'}"], capsys)
    assert result.code == 1
    assert "none: no such folder" in result.err
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    assert "empty is not a run folder" in run_train([f"resume={tmp_path / 'empty'}"], capsys).err
    assert (tmp_path / "empty").is_dir(), "it was there before the command"
    (tmp_path / "notes.txt").touch()
    assert "is not a run folder" in run_train([f"resume={tmp_path}"], capsys).err
    (tmp_path / "plan.json").touch()
    answer = run_train([f"resume={tmp_path}"], capsys).err
    command = f"python -m fracnet.sweep resume={tmp_path}"
    assert f"is a sweep folder; finish the sweep with: {command}\n" in answer


def test_a_new_run_mixes_with_no_results_of_another_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], phantom_overrides: list[str]
) -> None:
    (tmp_path / "audit.json").touch()
    for words, key in (([], "run"), (["-m", "seed=1,2"], "sweep")):
        command = [*phantom_overrides, *words, f"hydra.{key}.dir={tmp_path}"]
        result = run_train(command, capsys)
        assert result.code == 1
        assert f"hydra.{key}.dir={tmp_path} holds audit.json, as an audit does; name" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["audit.json"]


def test_a_sweep_may_start_among_files_of_the_users_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], phantom_overrides: list[str]
) -> None:
    for name in ("config.yaml", "metrics.json", "model.onnx"):  # of which it writes none
        (tmp_path / name).touch()
    words = ["-m", "seed=1,2", f"hydra.sweep.dir={tmp_path}", "--dry-run"]
    result = run_train([*phantom_overrides, *words], capsys)
    assert result.code == 0, result.err


def test_changed_data_are_refused(
    unfinished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fracnet.data.fingerprint.data_fingerprint", lambda manifest: "other")
    result = run_train([f"resume={unfinished}", TRUST], capsys)
    assert result.code == 1
    assert "the data have changed" in result.err


def test_resuming_does_not_need_the_pretrained_weights(
    phantom_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "resnet10t.pth"
    torch.save(timm.create_model("resnet10t", num_classes=10).state_dict(), weights)
    overrides = [
        "model=timm",
        "model.name=resnet10t",
        f"model.weights={weights}",
        *phantom_overrides,
    ]
    overrides += ["image_size=32", "data.num_workers=0", "trainer.max_epochs=3", "logger=none"]
    overrides += ["explain=none"]
    killed_in_the_middle_of_epoch(2, overrides, tmp_path / "run")
    weights.unlink()
    result = run_train([f"resume={tmp_path / 'run'}"], capsys)
    assert result.code == 0, result.err
    assert curves_of(tmp_path / "run")["epoch"].tolist() == ["1", "2", "3"]
    loaded = f"loaded 84 of 86 tensors from {weights}, the classifier starts at random"
    provenance = json.loads((tmp_path / "run/provenance.json").read_text())
    assert provenance["weights"] == loaded
    assert "84 of 86 tensors" in (tmp_path / "run/report/model_card.md").read_text()


@pytest.mark.parametrize(
    ("scheduler", "max_epochs", "note"),
    [
        ({"T_max": 5}, 5, ""),
        (
            {"T_max": 5},
            6,
            "note    the cosine schedule keeps T_max=5: the learning rate is 0 in epoch 6\n",
        ),
        ({"T_max": 5, "eta_min": 0.01}, 9, "is 0.01 in epoch 6, then it rises again\n"),
        ({"T_max": 5, "interval": "step"}, 9, ""),
        ({"T_0": 5}, 9, ""),
        (None, 9, ""),
    ],
)
def test_a_longer_cosine_schedule_is_noted_only_where_it_rises(
    scheduler: dict[str, Any] | None,
    max_epochs: int,
    note: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As torch's schedule does with the epochs that are added."""
    _check_schedule({"scheduler": scheduler, "trainer": {"max_epochs": 3}}, max_epochs, False)
    out = capsys.readouterr().out
    assert out.endswith(note)
    assert bool(out) == bool(note)
    if note and scheduler is not None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, **scheduler)
        rates = []
        for _ in range(max_epochs):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            cosine.step()
        assert rates[5] == pytest.approx(scheduler.get("eta_min", 0.0))
        assert ("rises" in note) == any(rate > rates[5] for rate in rates[6:])


@pytest.mark.slow
def test_a_job_of_a_killed_sweep_is_added_to_its_sweep(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    more = ["-m", "seed=3", "trainer.max_epochs=3", f"hydra.sweep.dir={sweep}"]
    killed_in_the_middle_of_epoch(2, [*overrides, *more], tmp_path / "unused")
    assert collect(sweep)["jobs"][0]["status"] == "interrupted"

    result = run_train([f"resume={sweep / '0'}", TRUST], capsys)
    assert result.code == 0, result.err
    assert "validation macro_auc 0." in result.out
    assert "sensitivity" not in result.out, "the sweep decides whose test metrics are shown"
    assert result.out.splitlines()[-1] == (
        f"The run is a job of a sweep; `python -m fracnet.sweep {sweep}` shows all of it."
    )
    (job,) = collect(sweep)["jobs"]
    assert (job["status"], job["reason"], job["epochs"]) == ("finished", "", 3)
    assert job["test"]

    repeated = run_train([f"resume={sweep / '0'}", TRUST], capsys)
    assert repeated.code == 1
    assert collect(sweep)["jobs"][0]["status"] == "finished", "a refusal changes nothing"


STRANGE = {
    "callbacks": {"x": {"_target_": "os.system", "command": "touch {flag}"}},
    "model": {"_target_": "subprocess.run", "args": "touch {flag}"},
    "optim": {"_target_": "builtins.exec"},
    "metrics": {"x": {"_target_": "os.system", "command": "touch {flag}"}},
    "trainer": {"profiler": {"_target_": "os.system", "command": "touch {flag}"}},
    "augment": {"transforms": [{"_target_": "os.system", "command": "touch {flag}"}]},
    "logger": {"x": {"_target_": "os.system", "command": "touch {flag}"}},
}


@pytest.mark.parametrize("part", STRANGE)
def test_resuming_an_untrusted_folder_executes_nothing(
    part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with initialize_config_dir(str(config_dir())):
        overrides = ["data=upper_limb_phantom", "model=custom_cnn"]
        plain: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    check_trust(plain, False, "config.yaml", training=True)
    node = yaml.safe_load(yaml.safe_dump(STRANGE[part]).replace("{flag}", str(tmp_path / "flag")))
    plain[part] = plain.get(part, {}) | node
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    write_json(run / "provenance.json", with_format({"status": "interrupted"}))
    result = run_train([f"resume={run}"], capsys)
    assert result.code == 1
    assert "trust=true" in result.err
    assert f"{part}" in result.err
    assert not (tmp_path / "flag").exists()


@pytest.mark.slow
def test_resuming_an_untrusted_checkpoint_executes_nothing(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """best.ckpt names the class of the model as well."""
    run = tmp_path / "run"
    shipped = ["model=custom_cnn" if word == "model=tiny" else word for word in overrides]
    killed_in_the_middle_of_epoch(2, shipped, run)
    stored = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    stored["hyper_parameters"]["model"] = {"_target_": "os.system", "normalize": "half"}
    torch.save(stored, run / "checkpoints/best.ckpt")
    # One epoch was enough, so best.ckpt stays as it is.
    result = run_train([f"resume={run}", "trainer.max_epochs=1"], capsys)
    assert result.code == 1
    assert "best.ckpt: model._target_=os.system" in result.err


@pytest.mark.slow
@pytest.mark.usefixtures("without_report")
def test_a_schedule_for_all_steps_starts_again_for_added_epochs(
    phantom_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    short, cut = tmp_path / "short", tmp_path / "cut"
    plain = ["logger=none", "scheduler=warmup_cosine"]
    scheduled = tiny_overrides(*phantom_overrides, *plain, batch=8, workers=0, epochs=2)
    assert run_train([*scheduled, f"hydra.run.dir={short}"], capsys).code == 0
    shutil.copytree(short, cut)
    more = ["trainer.max_epochs=4", TRUST]

    result = run_train([f"resume={short}", *more], capsys)
    assert result.code == 0, result.err
    assert "the learning rate starts its schedule again for the added epochs" in result.out
    rates = curves_of(short)["lr"].astype(float).tolist()
    assert len(rates) == 4
    assert rates[2:] == pytest.approx(rates[:2])

    def stop(self: Classifier) -> None:
        if self.current_epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_start", stop)
        assert run_train([f"resume={cut}", *more], capsys).code == 130
    assert len(curves_of(cut)) == 3
    assert run_train([f"resume={cut}", TRUST], capsys).code == 0
    pd.testing.assert_frame_equal(curves_of(cut), curves_of(short))
    selected = [json.loads((run / "fit.json").read_text())["selected"] for run in (cut, short)]
    assert selected[0] == selected[1]
