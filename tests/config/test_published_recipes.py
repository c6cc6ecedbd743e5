"""The published recipes: their values, and their metrics next to those of a run."""

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.command import run_train
from hydra import compose, initialize_config_dir

from fracnet.utils.files import config_dir


def composed(name: str, *more: str) -> Any:
    with initialize_config_dir(str(config_dir())):
        return compose("train", [f"experiment={name}", *more])


@pytest.mark.parametrize(
    ("name", "decay", "restarts"),
    [("cis583_resnet18", 1e-4, True), ("cis583_cnn", 0.01, True), ("mura_cnn_paper", 0.0, False)],
)
def test_a_recipe_holds_the_published_values(name: str, decay: float, restarts: bool) -> None:
    node = composed(name)
    assert (node.data.batch_size, node.optim.lr, node.trainer.max_epochs) == (256, 0.001, 50)
    assert node.optim.weight_decay == decay
    if restarts:
        assert node.scheduler._target_.endswith("CosineAnnealingWarmRestarts")
        assert node.callbacks.early_stopping.patience == 10


def test_the_mura_recipe_runs_on_phantoms_at_its_size() -> None:
    for data in ("mura_150", "mura_phantom"):
        node = composed("mura_cnn_paper", f"data={data}")
        assert (node.image_size, node.model.normalize) == (150, "half")


@pytest.mark.usefixtures("without_report")
def test_the_published_metric_is_printed_next_to_the_run(
    phantom_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["image_size=32", "trainer.max_epochs=1", "data.num_workers=0", "explain=none"]
    overrides = ["experiment=cis583_cnn", *phantom_overrides, *short, f"hydra.run.dir={tmp_path}"]
    result = run_train(overrides, capsys)
    assert result.code == 0, result.err
    flat = " ".join(result.out.split())
    assert "Published accuracy: 0.490 (95 % CI 0.389-0.599 by Wilson, n = 83;" in flat
    assert "This run, on upper_limb_phantom:" in flat


@pytest.mark.usefixtures("without_report")
def test_in_a_sweep_published_metrics_appear_only_with_test_metrics(
    phantom_overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["image_size=32", "trainer.max_epochs=1", "data.num_workers=0", "logger=none"]
    overrides = ["experiment=cis583_cnn", *phantom_overrides, *short, "explain=none"]
    result = run_train(
        [*overrides, "-m", "optim.lr=1e-3,1e-4", f"hydra.sweep.dir={tmp_path}"], capsys
    )
    assert result.code == 0, result.err
    jobs, tables = " ".join(result.out.split()).split("2 jobs, by validation")
    assert "Published" not in jobs, "nothing of the test before all jobs have ended"
    test_table = tables[tables.index("Test split") :]
    assert "Published accuracy: 0.490 (95 % CI 0.389-0.599 by Wilson, n = 83;" in test_table
    assert len(re.findall(r"Job [01], on upper_limb_phantom: 0\.\d{3} \(0", test_table)) == 1
