"""`fracnet.fit`: a notebook's way to what `python -m fracnet.train` does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.command import run_train
from helpers.dicom_files import dicom
from helpers.pages import update_json
from helpers.run_folders import table_of, write_run
from helpers.tiny_overrides import USER_CONF, tiny_overrides

import fracnet
from fracnet.api import Run, Sweep, _composed
from fracnet.utils.errors import UserError
from fracnet.utils.text import override_value

pytestmark = pytest.mark.usefixtures("without_charts")

# A notebook passes the folder and the model as arguments.
SMALL = tiny_overrides(epochs=2)[len(["--config-dir", USER_CONF, "model=tiny"]) :]


def test_fit_matches_the_train_command(
    phantom_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_overrides = [word for word in phantom_overrides if not word.startswith("data=")]
    run = fracnet.fit(
        *data_overrides,
        *SMALL,
        folder=tmp_path / "a run",
        config_dir=USER_CONF,
        data="upper_limb_phantom",
        model="tiny",
        seed=1,
    )
    overrides = tiny_overrides(
        *phantom_overrides, "seed=1", f"hydra.run.dir={tmp_path / 'b'}", epochs=2
    )
    result = run_train(overrides, capsys)
    assert result.code == 0, result.err

    assert run.folder == tmp_path / "a run"
    assert (run.folder / "config.yaml").read_text() == (tmp_path / "b/config.yaml").read_text()
    assert run.metrics == json.loads((tmp_path / "b/metrics.json").read_text())
    pd.testing.assert_frame_equal(run.predictions, Run(tmp_path / "b", 0).predictions)
    assert run.objective == run.metrics["objective"]["value"]
    provenance = json.loads((run.folder / "provenance.json").read_text())
    assert provenance["command"][0] == "fracnet.fit"
    assert "seed=1" in provenance["command"]
    assert run.report.is_file()


@pytest.mark.parametrize(
    ("overrides", "choices", "message"),
    [
        (["optim.lrr=1"], {}, "There is no key 'optim.lrr'"),
        ([], {"model": "resnet81"}, "Did you mean 'resnet18'"),
        (["trainer.max_epochs=-1"], {}, "trainer.max_epochs=-1"),
        (["trainer.devices=2"], {}, "trainer.devices=2"),
        ([], {"sweep": "lr_batch_epochs"}, r"with: fracnet.sweep\(sweep='lr_batch_epochs', ...\)"),
        ([], {"launcher": "ray"}, r"with: fracnet.sweep\(launcher='ray', ...\)"),
        (["model=resnet18,vgg16"], {}, r"for one job per value use fracnet.sweep\.$"),
    ],
)
def test_a_mistake_gives_the_same_message_as_the_command(
    overrides: list[str], choices: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        fracnet.fit(*overrides, folder=tmp_path / "run", **choices)
    assert not (tmp_path / "run").exists()


def test_runs_are_evaluated_and_compared_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, effect in enumerate((1.8, 0.6)):
        config = {"optim": {"lr": effect}}
        write_run(tmp_path / f"runs/{number}", table_of(effect, number), config=config)
    import fracnet.evaluate  # does not hide the function

    run = fracnet.evaluate("runs/0", figures=False)
    assert run.folder == tmp_path / "runs/0"
    estimate = run.metrics["test"]["metrics"]["accuracy"]
    page, whole = run._repr_html_(), run.metrics
    assert f"{estimate['value']:.3f} ({estimate['low']:.3f}-{estimate['high']:.3f})" in page
    assert "abnormal above 0.5; uncalibrated" in page
    assert 'href="runs/0/report/index.html"' in page
    update_json(run.folder / "metrics.json", val=None, test=None)
    assert "metrics of neither val nor test" in run._repr_html_()
    update_json(run.folder / "metrics.json", **{s: whole[s] for s in ("val", "test")})
    other = fracnet.evaluate(run, resamples=300, name="other", figures=False)
    assert other.folder == run.folder / "evaluations/other"

    result = fracnet.compare(run, "runs/1", metric="accuracy", resamples=100)
    assert len(result.standings) == 2
    assert list(result.differences.columns[:2]) == ["kind", "name"], "none of a manifest"
    assert "<th>boxes</th>" not in result._repr_html_()
    assert result.report.is_file()
    assert "<table" in result._repr_html_()

    (tmp_path / "sweep.csv").write_text(
        "job,optim.lr,value,val/mcc,val/mcc_low\n0,0.1,0.9,0.8,0.7\n"
    )
    html = Sweep(tmp_path)._repr_html_()
    assert "optim.lr" in html
    assert "mcc" not in html, "the page has the dozens of columns of metrics"
    with pytest.raises(UserError, match="name some runs"):
        fracnet.compare()


def test_runs_among_swept_values_stand_for_their_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(command: list[str], **_: Any) -> None:
        raise InterruptedError(*command)

    monkeypatch.setattr(subprocess, "Popen", stop)
    run = Run(Path("/runs/a"), 0.5)
    with pytest.raises(InterruptedError) as stopped:
        fracnet.sweep(init=[run, {"from": run}])
    assert "init=/runs/a,{from: /runs/a}" in stopped.value.args


def test_a_sweep_from_python_fails_with_the_message_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^optim.lr=-1 is not allowed") as caught:
        fracnet.sweep("optim.lr=0.1,-1", folder=tmp_path / "sweep", model=["vgg16", "custom_cnn"])
    assert not (tmp_path / "sweep").exists()
    shown = caught.value._render_traceback_()  # what a notebook asks an exception for
    assert shown == [f"fracnet: error: {caught.value}"]


def test_a_mapping_reaches_the_checks_of_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.max_epochs=-3 is not allowed"):
        fracnet.sweep("seed=1,2", trainer={"max_epochs": -3}, folder=tmp_path / "swept")


def test_python_values_become_overrides() -> None:
    assert override_value(1) == "1"
    assert override_value(True) == "true"
    assert override_value(None) == "null"
    assert override_value({"sensitivity": 0.9}) == "{sensitivity: 0.9}"
    assert override_value(["a", 1]) == "[a, 1]"


@pytest.mark.parametrize("name", ["it's", "a b (1), c=d", "${x}", "a\\b", "end\\", "[no list"])
def test_any_text_is_passed_unchanged(name: str) -> None:
    overrides = [
        f"data_dir={override_value(name)}",
        f"hydra.run.dir={override_value('/tmp/' + name)}",
    ]
    with _composed(overrides, None) as (job, folder, _):
        assert job.data_dir == name
        assert str(folder) == f"/tmp/{name}"


def test_importing_fracnet_is_light() -> None:
    code = "import sys, fracnet; sys.exit(bool({'torch', 'hydra', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_readme_example_runs(
    phantom_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unchanged except for a smaller dataset and a shorter training."""
    path = Path(__file__).parents[1] / "fracnet/inference/README.md"
    example = (
        path.read_text(encoding="utf-8").partition("## From Python")[2].partition("```python\n")[2]
    )
    example = example.partition("```")[0]
    data_overrides = [word for word in phantom_overrides if not word.startswith("data=")]
    overrides = [*data_overrides, *SMALL[1:], "logger=none"]
    assert example.count('"trainer.max_epochs=3"') == 1
    shorter = example.replace('"trainer.max_epochs=3"', "*overrides")
    monkeypatch.chdir(tmp_path)
    pixels = np.linspace(0, 4095, 90 * 60).reshape(90, 60).astype(np.uint16)
    (tmp_path / "a.dcm").write_bytes(dicom(pixels))
    namespace: dict[str, Any] = {"overrides": overrides}
    exec(shorter, namespace)
    assert namespace["run"].folder.parent == tmp_path / "runs"
    assert len(namespace["table"]) == 1
    assert namespace["table"]["decision"].isin(namespace["model"].classes).all()
