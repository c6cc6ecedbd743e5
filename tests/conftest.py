"""No test touches the network or the user's own caches."""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fracnet.utils import deferred

deferred.defer()  # as each command does
gc.disable()  # until the tests are collected: imports leave no garbage to look for
# A shell starts background jobs with Ctrl-C ignored, and all their children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"  # saves seconds per run; its tests set the mode


@pytest.fixture(scope="module", autouse=True)
def _quick_collection() -> None:
    """Spare the garbage collector what exists by now: searching it takes a tenth of the time."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _test_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRACNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _quick_configs() -> Iterator[None]:
    """Read and merge files of conf/ once; a composition takes a third of the time then."""
    # Late: the tests are collected without it.
    from helpers.quick_configs import compose_quickly

    with pytest.MonkeyPatch.context() as patch:
        compose_quickly(patch.setattr)
        yield


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings compute all their numbers but draw nothing, which takes half of their time.

    For tests of what a run computes. Each module that uses it has a training with a report too.
    """
    # Late: only trainings need what it imports.
    from fracnet.training import record

    monkeypatch.setattr(record, "write_report", lambda evaluation: [evaluation.folder.report])
    monkeypatch.setattr(record, "draw_figures", lambda *_: [])


@pytest.fixture(scope="module")
def without_charts() -> Iterator[None]:
    """Pages hold all but their charts, and figures are blank; also in children of `Warm`.

    For modules whose tests look at no chart (`pytestmark`): drawing takes most of a short training.
    Each of them needs a test without this elsewhere, which draws the same charts for real.
    """
    from helpers.blank_charts import draw_nothing

    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch.setattr)
        patch.setenv("FRACNET_TEST_CHARTS", "no")
        yield


@pytest.fixture
def blank_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `without_charts`, for one test of a module that draws the same charts in others."""
    from helpers.blank_charts import draw_nothing

    draw_nothing(monkeypatch.setattr)


@pytest.fixture
def quick_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random tensors of more than 65,521 numbers repeat the first of them.

    For networks of many million weights, all of which are drawn several times: by a test, before
    others are loaded, and after. No two rows are equal, because the period is prime.
    """
    # Late: only few tests need what it imports.
    from helpers.quick_weights import repeat_random_numbers

    repeat_random_numbers(monkeypatch.setattr)


@pytest.fixture(scope="session")
def phantom_overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that choose a small phantom dataset, generated once per session."""
    root: Path = tmp_path_factory.mktemp("phantom") / "upper_limb"
    counts = "{train: 48, val: 18, test: 24}"
    overrides = ["data=upper_limb_phantom", f"data.root={root}", f"data.counts={counts}"]
    return [
        *overrides,
        "evaluation.figures=false",
    ]  # saves seconds per run; tests of figures set true


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the images of `write_views`, in the folder next to it, for `exported`."""
    # Late: only few tests need what these import.
    from helpers.predicting import train_on_views, write_views

    folder = tmp_path_factory.mktemp("to_export")
    return train_on_views(
        write_views(folder / "views"), folder / "trained", "model=timm", "model.name=test_resnet",
        "model.pretrained=false", "preprocess=clahe",
    )  # fmt: skip


@pytest.fixture(scope="session")
def exported(exported_run: Path) -> Path:
    """The model.onnx that `fracnet.export` writes of it."""
    from helpers.exported import export_views

    return export_views(exported_run, exported_run.parent / "exported")
