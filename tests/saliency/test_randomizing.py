"""A network's blocks, from the head down, and what their weights become."""

import pytest
import timm
import torch
from helpers.models import ADAM, TINY
from torch import nn

from fracnet.models.classifier import Classifier
from fracnet.saliency.sanity_check import randomize, renormalize, stages_of, weights_kept

SIZE = 64


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    more = {"img_size": SIZE} if name.startswith(("vit", "swin")) else {}
    made: nn.Module = timm.create_model(name, num_classes=3, **more)
    return made.eval()


def noise(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "head", "last"),
    [
        ("resnet18", "fc", "conv1"),
        ("tf_efficientnet_lite0", "classifier", "conv_stem"),
        ("convnext_atto", "head.fc", "stem.0"),
        ("vit_tiny_patch16_224", "head", "input"),
    ],
)
def test_every_weight_is_lost_once_the_head_first_the_input_last(
    name: str, head: str, last: str
) -> None:
    made = network(name)
    stages = stages_of(made, noise(), most=6)
    assert len(stages) == 6
    assert (stages[0].name, stages[-1].name) == (head, last)
    held = [weight for s in stages for m in s.modules for weight in m.parameters(recurse=False)]
    assert len({id(weight) for weight in held}) == len(held) == len(list(made.parameters()))
    before = {name: value.clone() for name, value in made.named_parameters()}
    reference = made(noise()).std()
    for stage in stages:
        randomize(stage, torch.Generator().manual_seed(1))
    kernels = [key for key, value in before.items() if value.ndim > 1]
    after = dict(made.named_parameters())
    assert not any(torch.equal(before[key], after[key]) for key in kernels)
    with torch.no_grad():
        renormalize(made, stages, [noise(8)])  # type: ignore[arg-type]
        left = made(noise()).std()
    assert left > 0.01 * reference.clamp(min=0.01)
    assert torch.isfinite(left)
    assert left < 1e3


def test_a_stage_loses_its_own_weights_alone() -> None:
    made = network("resnet18")
    stages = stages_of(made, noise())
    before = {name: value.clone() for name, value in made.state_dict().items()}
    randomize(stages[0], torch.Generator().manual_seed(0))
    changed = {
        name for name, value in made.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_the_order_is_that_of_use_and_not_of_naming() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.body = nn.Conv2d(3, 4, 3)
            self.never = nn.Linear(1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.body(images).mean(dim=(2, 3)))
            return out

    stages = stages_of(Backwards(), noise())
    assert [stage.name for stage in stages] == ["head", "body", "never"]
    assert [stage.name for stage in stages_of(Backwards(), noise(), most=2)] == ["head", "never"]


def test_a_network_of_one_layer_has_one_stage() -> None:
    only = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    assert [stage.name for stage in stages_of(only, noise())] == ["1"]


def test_batch_normalisation_fits_the_new_weights() -> None:
    torch.manual_seed(0)
    model = Classifier(TINY | {"_target_": "helpers.models.TinyNormNet"}, ["a", "b"], ADAM).eval()
    norm = model.backbone.norm
    norm.running_mean.fill_(50.0)
    images = torch.randint(0, 256, (8, 1, SIZE, SIZE), dtype=torch.uint8)
    head, body = stages_of(model.backbone, model.input(images), most=2)
    renormalize(model, [head], [images])
    assert (norm.running_mean == 50).all()  # nothing before it was lost
    renormalize(model, [head, body], [images[:4], images[4:]])
    seen = model.backbone.convolution(model.input(images))
    assert torch.allclose(norm.running_mean, seen.mean(dim=(0, 2, 3)), atol=1e-4)
    assert not norm.training
    assert norm.momentum == 0.1


def test_weights_come_back_also_from_a_fault() -> None:
    made = network("resnet18")
    before = {name: value.clone() for name, value in made.state_dict().items()}

    def lose() -> None:
        with weights_kept(made):
            for stage in stages_of(made, noise()):
                randomize(stage, torch.Generator())
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        lose()
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
