"""The auxiliary head that is trained towards the annotations: loss.localization."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.fitting import NORM
from helpers.models import ADAM, TINY
from helpers.saliency import SIZE, annotated_data
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from fracnet.data.datamodule import RadiographData
from fracnet.models.classifier import Classifier
from fracnet.models.localizer import Cells, Localizer, localization_loss, localization_scores
from fracnet.saliency.cam import Settings, heatmaps
from fracnet.saliency.localization import better_method, localize
from fracnet.training.callbacks import ExponentialAverage, FreezeBackbone
from fracnet.utils.errors import UserError

LOSS = {"_target_": "fracnet.models.losses.Focal", "gamma": 1.0, "localization": 2.0}
CLASSES = ("normal", "fracture")


def maps(*squares: tuple[slice, slice] | None, side: int = 8) -> Tensor:
    """uint8 [n, side, side], 255 in the square of each."""
    result = torch.zeros(len(squares), side, side, dtype=torch.uint8)
    for each, square in zip(result, squares, strict=True):
        if square is not None:
            each[square] = 255
    return result


CORNER = (slice(0, 4), slice(0, 4))


def test_the_loss_is_that_of_cells_with_equal_weight_inside_and_outside() -> None:
    classes = torch.tensor([[[[1.0, 9.0], [8.0, 7.0]], [[-0.5, 3.0], [-4.0, 0.0]]]])
    cells = Cells(torch.tensor([[[2.0, -1.0], [0.5, -3.0]]]), classes)
    one, target = torch.tensor([True]), torch.tensor([1])
    loss = localization_loss(cells, maps(CORNER), one, target)
    inside = math.log1p(math.exp(-2.0))
    wrong_class = math.log1p(math.exp(1.5))  # of the marked cell alone
    outside = sum(math.log1p(math.exp(z)) for z in (-1.0, 0.5, -3.0)) / 3
    assert float(loss) == pytest.approx((inside + outside) / 2 + wrong_class)
    # The resolution of the map does not matter, nor that of the image.
    finer = maps((slice(0, 28), slice(0, 28)), side=56)
    assert float(localization_loss(cells, finer, one, target)) == pytest.approx(float(loss))


def test_unknown_images_do_not_count_and_known_empty_ones_do() -> None:
    logits = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cells, target = Cells(logits[:, 0], logits[:, 1:]), torch.tensor([0, 1, 0])

    def loss_of(*rows: int) -> Tensor:
        own = list(rows)
        return localization_loss(
            Cells(*(part[own] for part in cells)), annotations[own], known[own], target[own]
        )

    annotations = maps(CORNER, None, None)
    known = torch.tensor([True, True, False])
    loss = loss_of(0, 1, 2)
    each = [loss_of(0), loss_of(1)]
    torch.testing.assert_close(loss, (each[0] + each[1]) / 2)
    torch.testing.assert_close(each[1], torch.nn.functional.softplus(cells.annotated[1]).mean())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[2].abs().sum() == 0
    # Without any known image every weight still has a gradient, which is 0.
    known[:] = False
    nothing = loss_of(0, 1, 2)
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()


def test_scores_are_undefined_without_an_annotation() -> None:
    cells = torch.full((3, 2, 2), -9.0)
    cells[:2, 0, 0] = 9.0
    scores = localization_scores(cells, maps(CORNER, (slice(4, 8), slice(4, 8)), None))
    assert scores[:2, 0].tolist() == [1, 0]
    assert scores[0, 1] > 0.5 > scores[1, 1]
    assert scores[2].isnan().all()


class Unmapped(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * SIZE * SIZE, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


def test_a_transformer_has_a_map_and_a_network_without_one_is_refused() -> None:
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=3, **small)
    localizer = Localizer(backbone, 32, 3, "key")
    with localizer.watch(backbone):
        backbone(torch.rand(2, 3, 32, 32))
    assert [part.shape for part in localizer()] == [(2, 4, 4), (2, 3, 4, 4)]
    assert not any(module._forward_hooks for module in backbone.modules())
    with pytest.raises(UserError, match=r"key needs .*Unmapped has none; allowed with it: loss\."):
        Localizer(Unmapped(3), SIZE, 3, "key")


def fit(folder: Path, data: RadiographData, epochs: int, *callbacks: Any) -> tuple[Classifier, Any]:
    torch.manual_seed(0)
    model = Classifier(NORM, CLASSES, {**ADAM, "lr": 0.05}, loss=LOSS, image_size=SIZE)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=2,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=data)
    return model, trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RadiographData:
    data = annotated_data(tmp_path_factory.mktemp("annotated"))
    data.localize = True
    return data


@pytest.fixture(scope="module")
def fitted(
    data: RadiographData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Classifier, Trainer, Path]:
    folder = tmp_path_factory.mktemp("fitted")
    best = ModelCheckpoint(folder, filename="best", save_weights_only=True)
    model, trainer = fit(folder, data, 15, best, ExponentialAverage(0.5))
    return model, trainer, folder / "best.ckpt"


def test_the_head_learns_to_find_what_is_annotated(
    fitted: tuple[Classifier, Trainer, Path], data: RadiographData
) -> None:
    logged = {name: float(value) for name, value in fitted[1].callback_metrics.items()}
    assert logged["val/pointing_game"] >= 0.9
    assert logged["val/energy_inside"] > 0.1  # of 3.5 % of the area
    scores = localize(fitted[0], data, Settings("localization"))
    assert scores is not None
    assert scores["scores"]["pointing"]["value"] >= 0.9
    assert sum(scores["hits"].values()) == round(scores["scores"]["pointing"]["value"] * 12)


def test_heatmaps_come_from_the_head_where_it_is_better_on_validation(
    fitted: tuple[Classifier, Trainer, Path], data: RadiographData
) -> None:
    model = copy.deepcopy(fitted[0])
    model.backbone.get_parameter("head.weight").data.zero_()  # no class has any evidence
    method, why = better_method(model, data)
    assert method == "localization"
    assert "12 annotated validation images: 0.000 and " in why
    assert better_method(model, data, Settings(layer="convolution")) == ("gradcam", "")
    model.localizer = None
    assert better_method(model, data) == ("gradcam", "")


def test_a_checkpoint_holds_the_head_and_predicts_the_same_without_it(
    fitted: tuple[Classifier, Trainer, Path], data: RadiographData
) -> None:
    stored = torch.load(fitted[2], map_location="cpu", weights_only=True)
    model = Classifier(**stored["hyper_parameters"])
    model.load_state_dict(stored["state_dict"])
    images = torch.from_numpy(data.cache.images[:4].copy())[:, None]
    with torch.inference_mode():
        logits, cells = model.eval().logits_and_cells(images)
        assert torch.equal(model(images), logits)
    assert cells is not None
    plain = Classifier(**{**stored["hyper_parameters"], "loss": None})
    assert plain.localizer is None
    with pytest.raises(UserError, match=r"loss\.localization=; allowed: gradcam"):
        next(
            heatmaps(
                plain, data.cache.images[:2], data.manifest.targets()[:2], Settings("localization")
            )
        )


def test_a_frozen_backbone_trains_the_head_alone(data: RadiographData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = Classifier(NORM, CLASSES, ADAM, loss=LOSS, image_size=SIZE)
    model, _ = fit(tmp_path, data, 1, FreezeBackbone(None))
    assert before.localizer is not None
    assert model.localizer is not None
    assert not torch.equal(before.localizer.head.weight, model.localizer.head.weight)
    left = before.backbone.get_parameter("convolution.weight")
    assert torch.equal(left, model.backbone.get_parameter("convolution.weight"))


def test_without_annotated_validation_images_nothing_is_logged(tmp_path: Path) -> None:
    data = annotated_data(tmp_path / "data", annotated_splits=("train",))
    data.localize = True
    _, trainer = fit(tmp_path, data, 1)
    assert "val/loss" in trainer.callback_metrics
    assert not [name for name in trainer.callback_metrics if "pointing" in name]


def test_batches_carry_maps_only_where_the_loss_asks_for_them(
    data: RadiographData, tmp_path: Path
) -> None:
    batch = next(iter(data.train_dataloader()))
    assert batch["map"].shape == (8, SIZE, SIZE)
    annotated = batch["map"].flatten(1).any(dim=1)
    assert annotated.tolist() == (batch["target"] == 1).tolist()
    assert batch["known"].all()  # a normal image is known to show nothing
    assert "map" not in next(iter(data.test_dataloader()))
    assert "map" not in next(iter(annotated_data(tmp_path).train_dataloader()))


def test_a_run_without_it_is_unchanged() -> None:
    torch.manual_seed(0)
    first = Classifier(TINY, CLASSES, ADAM)
    torch.manual_seed(0)
    second = Classifier(TINY, CLASSES, ADAM, loss={**LOSS, "localization": 0.0})
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
