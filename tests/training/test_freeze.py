"""Which weights and statistics stay, for how long."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fitting import HEADLESS, NORM, NormNet, fit_tiny
from torch import Tensor

from fracnet.models.classifier import Classifier
from fracnet.training.callbacks import FreezeBackbone
from fracnet.utils.errors import UserError

DECAY = {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.1}
HEAD = {"backbone.head.weight", "backbone.head.bias"}


class Watch(FreezeBackbone):
    """Keeps the state after each epoch."""

    def __init__(self, epochs: int | None) -> None:
        super().__init__(epochs)
        self.states: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.states.append({k: v.clone() for k, v in pl_module.state_dict().items()})


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def model_and_start() -> tuple[Classifier, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = Classifier(NORM, ["a", "b", "c"], DECAY)
    return model, {k: v.clone() for k, v in model.state_dict().items()}


def test_a_frozen_backbone_trains_only_the_head_and_keeps_its_statistics(tmp_path: Path) -> None:
    model, start = model_and_start()
    watch = Watch(None)
    fit_tiny(model, tmp_path, epochs=3, callbacks=[watch])
    assert changed(start, watch.states[-1]) == HEAD


def test_a_backbone_frozen_for_two_epochs_trains_afterwards(tmp_path: Path) -> None:
    model, start = model_and_start()
    watch = Watch(2)
    fit_tiny(model, tmp_path, epochs=3, callbacks=[watch])
    assert changed(start, watch.states[1]) == HEAD
    moved = changed(watch.states[1], watch.states[2])
    assert moved == set(start) - {"input.mean", "input.std"}
    assert {"backbone.norm.running_mean", "backbone.norm.num_batches_tracked"} <= moved


def test_a_run_resumed_after_unfreezing_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    whole, _ = model_and_start()
    fit_tiny(whole, tmp_path / "whole", epochs=3, callbacks=[FreezeBackbone(1)])
    part, _ = model_and_start()
    trainer = fit_tiny(part, tmp_path / "part", epochs=2, callbacks=[FreezeBackbone(1)])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    repeated, _ = model_and_start()
    fit_tiny(
        repeated, tmp_path, epochs=3, callbacks=[FreezeBackbone(1)], resume=tmp_path / "last.ckpt"
    )
    assert not changed(whole.state_dict(), repeated.state_dict())


def test_frozen_batch_norm_uses_its_original_statistics(tmp_path: Path) -> None:
    modes: list[bool] = []

    class Modes(FreezeBackbone):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            assert isinstance(pl_module.backbone, NormNet)
            modes.append(pl_module.backbone.norm.training)
            assert pl_module.backbone.head.training

    model, _ = model_and_start()
    fit_tiny(model, tmp_path, epochs=3, callbacks=[Modes(1)])
    # Validation between epochs must not undo it.
    per_epoch = len(modes) // 3
    assert modes == [False] * per_epoch + [True] * (2 * per_epoch)


def test_a_model_without_a_head_is_refused_before_training() -> None:
    with pytest.raises(UserError, match=r"model.freeze=2 needs the model's head, but Headless"):
        Classifier(HEADLESS | {"freeze": 2}, ["a"], DECAY)
