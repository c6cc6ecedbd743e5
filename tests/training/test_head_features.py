"""A frozen network's head trains on cached features; the run is an ordinary one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from helpers.command import CommandResult, run_evaluate, run_train
from helpers.models import ADAM, TINY, NormedHead, TinyNormNet
from helpers.tiny_overrides import tiny_overrides
from torch import Tensor, nn

from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import LOGIT
from fracnet.models.classifier import Classifier
from fracnet.models.features import why_whole
from fracnet.runs.checkpoint import load_model, load_run_data
from fracnet.runs.run_folder import RunFolder, read_config, read_mapping
from fracnet.utils.progress import no_progress

pytestmark = pytest.mark.usefixtures("without_charts")

WATCH = "callbacks.watch={_target_: lightning.pytorch.Callback}"
FROZEN = ["model.freeze=backbone", "optim.lr=0.02"]


@pytest.fixture(scope="module")
def overrides(phantom_overrides: list[str]) -> list[str]:
    return tiny_overrides(
        *phantom_overrides, "logger=none", "evaluation.resamples=100", model="tiny_norm", epochs=3
    )


def run_in(folder: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]) -> CommandResult:
    result = run_train([*overrides, f"hydra.run.dir={folder}"], capsys)
    assert result.code == 0, result.err
    return result


def logits(run: Path) -> np.ndarray:
    table = pd.read_csv(run / "predictions.csv")
    return table[[name for name in table if name.startswith(LOGIT)]].to_numpy()


def assert_table_is_the_network(run: Path) -> None:
    """What the head gave for features is what the checkpoint's whole network gives for images."""
    folder = RunFolder(run)
    config = read_config(folder, trust=True)
    data = load_run_data(folder, config, "run")
    rows = np.concatenate([data.rows("val"), data.rows("test")])
    whole = load_model(folder, config, trust=True)(data.cache.images, rows, no_progress)
    np.testing.assert_allclose(logits(run), whole, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("without_report")
def test_as_many_views_as_epochs_give_what_the_whole_network_gives(
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The views are the augmentation of those epochs, and the rest is the same training."""
    whole = run_in(tmp_path / "whole", [*overrides, *FROZEN, "augment.views=3", WATCH], capsys)
    assert "the whole network runs in each batch: callbacks.watch may use or change it" in whole.out
    monkeypatch.setattr("fracnet.runs.ood_reference.load_classifier", None)  # it uses the cache
    quick = run_in(tmp_path / "quick", [*overrides, *FROZEN, "augment.views=3"], capsys)
    assert "cached features of 3 augmented copies of each image, in turn" in quick.out
    np.testing.assert_allclose(
        logits(tmp_path / "quick"), logits(tmp_path / "whole"), rtol=1e-4, atol=1e-4
    )
    assert_table_is_the_network(tmp_path / "quick")
    with np.load(tmp_path / "quick/ood.npz") as cached, np.load(tmp_path / "whole/ood.npz") as new:
        for name in ("features", "middle", "spread", "limit"):
            np.testing.assert_allclose(cached[name], new[name], rtol=1e-3, atol=1e-3)
    state = torch.load(tmp_path / "quick/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert {"backbone.convolution.weight", "backbone.head.weight", "input.mean"} <= state.keys()


@pytest.mark.usefixtures("without_report")
def test_without_views_the_backbone_runs_once_for_all_epochs_and_jobs(
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    forward = Classifier.forward

    def counted(self: Classifier, images: Tensor) -> Tensor:
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", counted)
    # Weights of their own: no other test has computed their features.
    own = [*overrides, *FROZEN, "+model.width=5"]
    result = run_in(tmp_path / "one", own, capsys)
    assert "cached features of the images as they are, not augmented" in result.out
    first = sum(seen)
    seen.clear()
    run_in(tmp_path / "two", [*own, "optim.lr=0.01", "trainer.max_epochs=9"], capsys)
    assert first - sum(seen) == 90, "48 + 18 + 24 images, once"


@pytest.mark.usefixtures("without_report")
def test_a_run_resumed_between_features_and_fine_tuning_equals_an_uninterrupted_one(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [*overrides, "model.freeze=2", "augment.views=1", "optim.lr=0.02", "scheduler=none"]
    run_in(tmp_path / "whole", [*base, "trainer.max_epochs=4"], capsys)
    run_in(tmp_path / "part", [*base, "trainer.max_epochs=3"], capsys)
    more = [f"resume={tmp_path / 'part'}", "trainer.max_epochs=4", "trust=true"]
    assert run_train(more, capsys).code == 0
    np.testing.assert_array_equal(logits(tmp_path / "part"), logits(tmp_path / "whole"))


@pytest.mark.usefixtures("without_report")
def test_a_run_resumed_while_its_head_trains_equals_an_uninterrupted_one(
    overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = [*overrides, *FROZEN, "scheduler=none", "callbacks.ema=0.9"]
    run_in(tmp_path / "whole", [*base, "trainer.max_epochs=4"], capsys)
    run_in(tmp_path / "part", [*base, "trainer.max_epochs=2"], capsys)
    more = [f"resume={tmp_path / 'part'}", "trainer.max_epochs=4", "trust=true"]
    assert run_train(more, capsys).code == 0
    np.testing.assert_array_equal(logits(tmp_path / "part"), logits(tmp_path / "whole"))


@pytest.mark.parametrize("head", ["logistic", "knn"])
def test_a_fitted_head_leaves_an_ordinary_run(
    head: str, overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["model.freeze=backbone", f"model.head={head}", "augment.views=1"]
    result = run_in(tmp_path / "run", [*overrides, *more], capsys)
    assert "features of the images and of 1 augmented copy of each" in result.out
    assert "fitted without epochs; not used: optim" in result.out
    assert result.out.count("  *\n") == 1, "one candidate is marked as chosen"
    assert_table_is_the_network(tmp_path / "run")
    again = run_train([f"resume={tmp_path / 'run'}", "trainer.max_epochs=9", "trust=true"], capsys)
    assert "its model has no epochs to add" in again.err


def test_jobs_of_a_sweep_share_network_and_features_and_equal_single_runs(
    overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, forwards = [], []
    setup, forward = RadiographData._open, Classifier.forward
    monkeypatch.setattr(RadiographData, "_open", lambda data: opened.append(data) or setup(data))
    monkeypatch.setattr(
        Classifier, "forward", lambda model, x: forwards.append(len(x)) or forward(model, x)
    )
    own = [*overrides, "+model.width=6", "model.freeze=backbone", "model.head_dropout=0.2"]
    more = ["-m", "optim.lr=0.02,0.01,0.03", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    result = run_train([*own, *more], capsys)
    assert result.code == 0, result.err
    assert len(opened) == 1
    assert sum(forwards) == 90 + 2 + 2, "each image once, two on trial, two against the cache"
    run_in(tmp_path / "single", [*own, "optim.lr=0.01"], capsys)
    for name in ("predictions.csv", "metrics.json", "baselines.csv", "decisions.json", "fit.json"):
        single = (tmp_path / "single" / name).read_bytes()
        assert (tmp_path / "sweep/1" / name).read_bytes() == single, name
    (best,) = read_mapping(tmp_path / "sweep/sweep.json")["best"]
    pages = [(tmp_path / f"sweep/{job}/report/index.html").is_file() for job in range(3)]
    assert pages == [job == best for job in range(3)]
    other = tmp_path / f"sweep/{(best + 1) % 3}"
    assert run_evaluate([f"run={other}"], capsys).code == 0
    assert (other / "report/index.html").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["model.head=knn"], "model.head=knn is fitted to the features of a frozen network, and "),
        (["augment.views=2"], "augment.views=2 are the fixed copies"),
        (["model.freeze=2", "imbalance=augment_minority"], "allowed with it: augment.views=8"),
        (["model.freeze=backbone", "model.head=knn", "model.head_k=0"], "model.head_k.0=0"),
        (["model.freeze=backbone", "model.head=logistic", WATCH], "callbacks.watch may use"),
        (
            ["model.freeze=backbone", "model.head=logistic", "imbalance=oversample"],
            "with head=logistic does not have",
        ),
    ],
)
def test_mistakes_are_reported_before_a_folder_is_created(
    overrides: list[str],
    more: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run_train([*overrides, *more, f"hydra.run.dir={tmp_path / 'run'}"], capsys)
    assert result.code == 1
    assert message in result.err
    assert not (tmp_path / "run").exists()


class Functional(nn.Module):
    """Drops units without a layer that says so."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        dropped = nn.functional.dropout(images.mean(dim=(2, 3)), 0.5, self.training)
        logits: Tensor = self.head(dropped)
        return logits


class Counting(TinyNormNet):
    """Keeps statistics that nobody knows of."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen += len(images)
        return super().forward(images)


class PerPosition(nn.Module):
    """The head is applied at each position, and the logits are averaged."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(2).transpose(1, 2)).amax(dim=1)
        return logits


def test_networks_that_cannot_be_split_say_why() -> None:
    def reason(backbone: nn.Module) -> str:
        model = Classifier(TINY, ["a", "b", "c"], ADAM)
        model.backbone = backbone
        state = torch.random.get_rng_state()
        found = why_whole(model, 32)
        assert torch.equal(torch.random.get_rng_state(), state)
        return found

    assert reason(timm.create_model("resnet18", num_classes=3)) == ""
    assert reason(timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32)) == ""
    dropping = timm.create_model("resnet18", num_classes=3, drop_path_rate=0.2)
    assert "drops units at random in training" in reason(dropping)
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, img_size=32)
    assert reason(distilled) == "it has 2 heads"
    assert reason(NormedHead(3)).startswith("its output is not that of its last layer")
    assert reason(PerPosition(3)).startswith("its output is not that of its last layer")
    counting = Counting(3)
    assert reason(counting) == "its frozen part changes in training"
    assert counting.seen == 0, "trying it leaves it as it was"
    assert reason(Functional(3)) == "its frozen part behaves differently in training"
