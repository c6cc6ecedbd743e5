"""The average of the weights is what is validated, selected, stored and predicted with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fitting import NORM, batches, fit_tiny
from helpers.models import ADAM
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from fracnet.models.classifier import Classifier
from fracnet.training.callbacks import ExponentialAverage, decay_after

pytestmark = pytest.mark.usefixtures("without_charts")

CLASSES = ["a", "b", "c"]
DECAY = 0.4  # below the growing one's limit after a few steps, so both parts of it are used
State = dict[str, Tensor]


class Steps(Callback):
    """The trained weights after each step, and the logged validation loss of each epoch."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.states.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["val/loss"]))


def new_model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(NORM, CLASSES, ADAM | {"lr": 0.05})


def checkpoints(folder: Path) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    best = ModelCheckpoint(folder, filename="best", monitor="val/loss", save_weights_only=True)
    last = ModelCheckpoint(
        folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    return best, last


def averages(states: list[State], decay: float) -> list[State]:
    """The average after each step, computed directly in double precision."""
    result = [{k: v.double() for k, v in states[0].items()}]
    for n, state in enumerate(states[1:], start=1):
        share = min(decay, (1 + n) / (10 + n))
        result.append(
            {
                name: share * result[-1][name] + (1 - share) * value.double()
                if value.is_floating_point()
                else value.double()
                for name, value in state.items()
            }
        )
    return result


def assert_same(state: State, expected: State, tolerance: float = 1e-6) -> None:
    assert state.keys() == expected.keys()
    for name, value in state.items():
        gap = float((value.double() - expected[name].double()).abs().max())
        assert gap <= tolerance, name


def loss_of(state: State) -> float:
    model = new_model().eval()
    model.load_state_dict(state)
    parts = list(batches(2, seed=2))
    with torch.inference_mode():
        logits = torch.cat([model(part["image"]) for part in parts])
    target = torch.cat([part["target"] for part in parts])
    return float(torch.nn.functional.cross_entropy(logits, target))


def test_best_checkpoint_holds_the_average_that_was_validated(tmp_path: Path) -> None:
    steps, (best, last) = Steps(), checkpoints(tmp_path)
    fit_tiny(new_model(), tmp_path, 4, [steps, ExponentialAverage(DECAY), best, last])
    by_hand = averages(steps.states, DECAY)[2::3]  # after each epoch of three steps

    for logged, state in zip(steps.losses, by_hand, strict=True):
        assert logged == pytest.approx(loss_of(state), rel=1e-5)

    stored = torch.load(best.best_model_path, weights_only=True)
    assert stored["epoch"] == min(range(4), key=steps.losses.__getitem__)
    assert_same(stored["state_dict"], by_hand[stored["epoch"]])
    assert "current_model_state" not in stored
    raw = steps.states[3 * stored["epoch"] + 2]
    assert not torch.allclose(
        stored["state_dict"]["backbone.head.weight"], raw["backbone.head.weight"]
    )
    loaded = Classifier.load_from_checkpoint(best.best_model_path, weights_only=True)
    assert loss_of(loaded.state_dict()) == pytest.approx(min(steps.losses), rel=1e-5)


@pytest.mark.parametrize("step", [4, 6])
def test_a_whole_checkpoint_holds_both_sets_of_weights(tmp_path: Path, step: int) -> None:
    """Within an epoch, where the trained weights are in place, and after validation."""

    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == step == 4:
                trainer.save_checkpoint(tmp_path / "whole.ckpt")

        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == step == 6:
                trainer.save_checkpoint(tmp_path / "whole.ckpt")

    steps = Steps()
    fit_tiny(new_model(), tmp_path, 3, [steps, ExponentialAverage(DECAY), Save()])
    stored = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    assert_same(stored["current_model_state"], steps.states[step - 1], tolerance=0)
    assert_same(stored["state_dict"], averages(steps.states, DECAY)[step - 1])
    assert int(stored["averaging_state"]["n_averaged"]) == step


def test_batch_norm_statistics_are_averaged_and_the_count_is_taken_over(tmp_path: Path) -> None:
    steps, (best, last) = Steps(), checkpoints(tmp_path)
    fit_tiny(new_model(), tmp_path, 2, [steps, ExponentialAverage(DECAY), best, last])
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    expected = averages(steps.states, DECAY)[-1]
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(
            state[f"backbone.norm.{name}"].double(),
            expected[f"backbone.norm.{name}"],
            rtol=1e-6,
            atol=1e-6,
        )
    assert int(state["backbone.norm.num_batches_tracked"]) == 6
    # What never changes is the same to the last bit, after any number of updates.
    assert torch.equal(state["input.mean"], new_model().input.mean)


def test_averaging_does_not_change_training(tmp_path: Path) -> None:
    with_average, without = Steps(), Steps()
    fit_tiny(new_model(), tmp_path / "a", 3, [with_average, ExponentialAverage(0.9)])
    fit_tiny(new_model(), tmp_path / "b", 3, [without])
    for state, expected in zip(with_average.states, without.states, strict=True):
        assert_same(state, expected, tolerance=0)


# Lightning warns about the existing folder of a resumed run.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* not empty")
def test_a_resumed_run_has_the_same_average_and_the_same_weights(tmp_path: Path) -> None:
    whole = checkpoints(tmp_path / "whole")
    fit_tiny(new_model(), tmp_path, 4, [ExponentialAverage(0.6), *whole])

    part = checkpoints(tmp_path / "part")
    fit_tiny(new_model(), tmp_path, 2, [ExponentialAverage(0.6), *part])
    stored = torch.load(tmp_path / "part/last.ckpt", weights_only=True)
    assert int(stored["averaging_state"]["n_averaged"]) == 6
    assert not torch.equal(
        stored["current_model_state"]["backbone.head.weight"],
        stored["state_dict"]["backbone.head.weight"],
    )
    resumed = checkpoints(tmp_path / "part")
    fit_tiny(
        new_model(),
        tmp_path,
        4,
        [ExponentialAverage(0.6), *resumed],
        resume=tmp_path / "part/last.ckpt",
    )
    for name in ("best", "last"):
        expected = torch.load(tmp_path / f"whole/{name}.ckpt", weights_only=True)
        checkpoint = torch.load(tmp_path / f"part/{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == expected["epoch"]
        for key in {"state_dict", "current_model_state"} & expected.keys():
            assert_same(checkpoint[key], expected[key], tolerance=0)
    assert int(checkpoint["averaging_state"]["n_averaged"]) == 12


def test_the_decay_grows_to_its_limit() -> None:
    assert decay_after(1, 0.999) == pytest.approx(2 / 11)
    assert decay_after(100, 0.999) == pytest.approx(101 / 110)
    assert decay_after(10_000, 0.999) == 0.999
