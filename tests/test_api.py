"""`fracnet.fit`: a notebook's way to what `python -m fracnet.train` does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.command import train_here
from helpers.dicom_files import dicom
from helpers.tiny_words import USER_CONF, tiny_words

import fracnet
from fracnet.api import Run, _composed, _override_value
from fracnet.utils.errors import UserError

# A notebook says the folder and the model in its own way.
SMALL = tiny_words(epochs=2)[len(["--config-dir", USER_CONF, "model=tiny"]) :]


def test_it_does_what_the_command_does(
    phantom_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [word for word in phantom_words if not word.startswith("data=")]
    run = fracnet.fit(
        *own,
        *SMALL,
        folder=tmp_path / "a run",
        config_dir=USER_CONF,
        data="upper_limb_phantom",
        model="tiny",
        seed=1,
    )
    words = tiny_words(*phantom_words, "seed=1", f"hydra.run.dir={tmp_path / 'b'}", epochs=2)
    told = train_here(words, capsys)
    assert told.code == 0, told.err

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
    ("words", "choices", "told"),
    [
        (["optim.lrr=1"], {}, "there is no key 'optim.lrr'"),
        ([], {"model": "resnet81"}, "Did you mean 'resnet18'"),
        (["trainer.max_epochs=-1"], {}, "trainer.max_epochs=-1"),
        (["trainer.devices=2"], {}, "trainer.devices=2"),
        ([], {"sweep": "lr_batch_epochs"}, "with -m"),
    ],
)
def test_a_mistake_is_told_as_the_command_tells_it(
    words: list[str], choices: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        fracnet.fit(*words, folder=tmp_path / "run", **choices)
    assert not (tmp_path / "run").exists()


def test_python_values_become_overrides() -> None:
    assert _override_value(1) == "1"
    assert _override_value(True) == "true"
    assert _override_value(None) == "null"
    assert _override_value({"sensitivity": 0.9}) == "{sensitivity: 0.9}"
    assert _override_value(["a", 1]) == "[a, 1]"


@pytest.mark.parametrize("name", ["it's", "a b (1), c=d", "${x}", "a\\b", "end\\", "[no list"])
def test_any_text_comes_through_as_it_is(name: str) -> None:
    words = [
        f"data_dir={_override_value(name)}",
        f"hydra.run.dir={_override_value('/tmp/' + name)}",
    ]
    with _composed(words, None) as (plain, folder, _):
        assert plain["data_dir"] == name
        assert str(folder) == f"/tmp/{name}"


def test_importing_fracnet_is_light() -> None:
    code = "import sys, fracnet; sys.exit(bool({'torch', 'hydra', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_readme_s_example_runs(
    phantom_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands there, except for a smaller dataset and a shorter training."""
    path = Path(__file__).parents[1] / "fracnet/inference/README.md"
    example = (
        path.read_text(encoding="utf-8").partition("## From Python")[2].partition("```python\n")[2]
    )
    example = example.partition("```")[0]
    own = [word for word in phantom_words if not word.startswith("data=")]
    words = [*own, *SMALL[1:], "logger=none"]
    assert example.count('"trainer.max_epochs=3"') == 1
    shorter = example.replace('"trainer.max_epochs=3"', "*words")
    monkeypatch.chdir(tmp_path)
    pixels = np.linspace(0, 4095, 90 * 60).reshape(90, 60).astype(np.uint16)
    (tmp_path / "a.dcm").write_bytes(dicom(pixels))
    told: dict[str, Any] = {"words": words}
    exec(shorter, told)
    assert told["run"].folder.parent == tmp_path / "runs"
    assert len(told["table"]) == 1
    assert told["table"]["decision"].isin(told["model"].classes).all()
