"""Sizes of training images by epoch, and mixed images: what the network sees, and resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.fitting import NORM, fit_tiny
from helpers.models import ADAM
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import cross_entropy

from fracnet.models.classifier import Classifier
from fracnet.training.batch_callbacks import ImageSizes, MixImages, resize, size_of_epoch

CLASSES = ["a", "b", "c"]


class Seen(Callback):
    """Each training batch and the size of each validation batch, as the network gets them."""

    def __init__(self) -> None:
        self.train: list[dict[str, Any]] = []
        self.val: list[int] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.train.append(batch)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.val.append(batch["image"].shape[-1])


def new_model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(NORM, CLASSES, ADAM)


def test_each_size_gets_an_equal_share_of_the_epochs() -> None:
    assert [size_of_epoch([96, 160, 224], epoch, 6) for epoch in range(6)] == [
        96, 96, 160, 160, 224, 224,
    ]  # fmt: skip
    assert [size_of_epoch([96, 160, 224], epoch, 4) for epoch in range(4)] == [96, 96, 160, 224]
    assert size_of_epoch([96, 224], 12, 10) == 224, "a run that is continued beyond its end"


def test_a_smaller_image_averages_what_it_covers() -> None:
    image = torch.tensor([[0, 200], [0, 200]], dtype=torch.uint8).repeat_interleave(8, 1)
    image = image.repeat_interleave(8, 0)[None, None]
    small = resize(image, 8)
    assert small.shape == (1, 1, 8, 8)
    assert small.dtype == torch.uint8
    assert small[0, 0, 0].tolist()[:3] == [0, 0, 0]
    assert small[0, 0, 0].tolist()[-3:] == [200, 200, 200]
    checkers = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    assert abs(resize(checkers.to(torch.uint8)[None, None], 8).float().mean() - 100) < 2
    assert resize(image, 16) is image


def test_training_images_grow_and_validation_sees_whole_ones(tmp_path: Path) -> None:
    seen = Seen()
    fit_tiny(new_model(), tmp_path, epochs=3, callbacks=[ImageSizes([8, 12, 16]), seen])
    assert [batch["image"].shape[-1] for batch in seen.train] == [8] * 3 + [12] * 3 + [16] * 3
    assert seen.val == [16] * 6
    seen = Seen()
    fit_tiny(new_model(), tmp_path, epochs=4, callbacks=[ImageSizes([8, 12], first=2), seen])
    assert [batch["image"].shape[-1] for batch in seen.train] == [16] * 6 + [8] * 3 + [12] * 3


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_images_and_targets_are_mixed_by_the_same_share(mixup: float, cutmix: float) -> None:
    callback = MixImages(3, mixup, cutmix)
    trainer: Any = type("Position", (), {"current_epoch": 2, "global_rank": 0})
    shares = set()
    for number in range(20):
        # One bright image in each pair: its share can be read off the mean.
        image = torch.zeros(4, 1, 40, 40, dtype=torch.uint8)
        image[:2] = 200
        known = torch.tensor([True, True, False, True])
        batch: dict[str, Any] = {"image": image, "target": torch.tensor([0, 1, 2, 0])}
        batch |= {"map": image[:, 0, ::4, ::4], "known": known}
        callback.on_train_batch_start(trainer, new_model(), batch, number)
        share = batch["share"]
        assert batch["image"].dtype == torch.uint8
        assert float(batch["image"][0].float().mean()) == pytest.approx(200 * share, abs=0.6)
        assert float(batch["image"][3].float().mean()) == pytest.approx(200 * (1 - share), abs=0.6)
        assert float(batch["map"][0].float().mean()) == pytest.approx(200 * share, abs=0.6)
        assert batch["known"].tolist() == [True, False, False, True]
        assert batch["target"].tolist() == [0, 1, 2, 0]
        assert batch["other_target"].tolist() == [0, 2, 1, 0]
        assert image[0].min() == 200, "the batch before it was mixed"
        shares.add(share)
    assert len(shares) > 15, "another draw for each batch"


def test_the_loss_of_mixed_images_is_that_of_both_targets_by_their_shares(tmp_path: Path) -> None:
    seen = Seen()
    model = Classifier(NORM, CLASSES, ADAM | {"lr": 1e-12})
    metrics = fit_tiny(model, tmp_path, 1, [MixImages(0, 0.4, 1.0), seen]).callback_metrics
    losses = []
    for batch in seen.train:
        with torch.inference_mode():
            logits = model.train()(batch["image"])
        of = [float(cross_entropy(logits, batch[key])) for key in ("target", "other_target")]
        losses.append(batch["share"] * of[0] + (1 - batch["share"]) * of[1])
    assert float(metrics["train/loss"]) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_sees_the_same_sizes_and_mixtures(tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        last = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
        return [ImageSizes([8, 16]), MixImages(0, 0.4, 1.0), last]

    whole, cut = new_model(), new_model()
    fit_tiny(whole, tmp_path / "whole", 4, callbacks()[:2])

    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.should_stop = trainer.current_epoch == 1

    fit_tiny(cut, tmp_path / "cut", 4, [*callbacks(), Stop()])
    again = new_model()
    fit_tiny(again, tmp_path / "cut", 4, callbacks(), resume=tmp_path / "last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
