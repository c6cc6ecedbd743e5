"""The reading of the second work's network."""

import pytest
import torch
from torch import nn

from fracnet.models.cnn import MuraCNN
from fracnet.utils.errors import UserError


@pytest.mark.parametrize("size", [16, 33, 150])
def test_mura_cnn_maps_images_of_its_size_to_logits(size: int) -> None:
    torch.manual_seed(0)
    model = MuraCNN(num_classes=2, image_size=size).eval()
    with torch.inference_mode():
        logits = model(torch.randn(1, 3, size, size))
    assert logits.shape == (1, 2)
    assert abs(float(logits.sum()) - 1) > 1e-3, "logits, not probabilities"


def test_filters_of_three_sizes_see_the_same_input() -> None:
    model = MuraCNN(num_classes=2)
    assert sum(p.numel() for p in model.parameters()) == 5_676_578
    for layer in model.features:
        assert [f.kernel_size for f in layer.filters] == [(3, 3), (5, 5), (7, 7)]
    # What one output sees of the image reaches as far as the widest filter.
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    outputs = torch.cat([f(image) for f in model.features[0].filters], dim=1)
    outputs[0, :, 8, 8].sum().backward()
    assert image.grad is not None
    assert int((image.grad[0, 0] != 0).sum()) == 7 * 7


def test_an_image_that_pooling_would_use_up_is_refused() -> None:
    with pytest.raises(UserError, match=r"image_size=15 is too small for model=mura_cnn.*16"):
        MuraCNN(num_classes=2, image_size=15)


def test_mura_cnn_learns() -> None:
    torch.manual_seed(0)
    model = MuraCNN(num_classes=2, image_size=32)
    images = torch.randn(16, 3, 32, 32)
    target = torch.arange(16) % 2
    images[target == 1, :, 10:20, 10:20] += 1
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), target)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3
