"""One small trained run for the page and the DICOM node, and a browser for both pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.browser import Browser, browser
from helpers.predicting import train_on_views, write_views

import fracnet
from fracnet.inference.predictor import Predictor


@pytest.fixture(scope="session")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views(tmp_path_factory.mktemp("set") / "views")


@pytest.fixture(scope="session")
def predictor(views: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    run = train_on_views(
        views, tmp_path_factory.mktemp("runs") / "trained", "model=custom_cnn", "optim.lr=1e-4"
    )
    loaded = fracnet.load(run)
    assert isinstance(loaded, Predictor)
    return loaded


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path / "profile") as process:
        if process is None:
            pytest.skip("no Chromium here; FRACNET_CHROMIUM names one")
        yield process
