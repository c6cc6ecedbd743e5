"""Logits outside a training, in one view or in the mean of several."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from fracnet.models.classifier import Classifier
from fracnet.models.inference import VIEWS, predict_logits


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(
        model={"_target_": "helpers.models.TinyNet", "width": 8, "normalize": "half"},
        classes=("a", "b", "c"),
        optim={"_target_": "torch.optim.Adam", "lr": 0.001},
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 32, 32), dtype=np.uint8)


def test_rows_keep_their_order_for_any_batch_size(model, images) -> None:
    rows = np.array([7, 0, 3, 9, 1])
    whole = predict_logits(model, images, rows)
    small = predict_logits(model, images, rows, batch_size=2)
    assert whole.shape == (5, 3)
    np.testing.assert_allclose(whole, small, atol=1e-5)
    single = predict_logits(model, images, np.array([3]))
    np.testing.assert_allclose(whole[2], single[0], atol=1e-5)
    assert predict_logits(model, images, np.array([], dtype=np.int64)).shape == (0, 3)


def test_views_are_averaged_as_probabilities(model, images) -> None:
    rows = np.arange(10)
    turned = np.ascontiguousarray(images[:, ::-1, ::-1])
    expected = (
        softmax(predict_logits(model, images, rows), axis=1)
        + softmax(predict_logits(model, np.ascontiguousarray(images[:, :, ::-1]), rows), axis=1)
        + softmax(predict_logits(model, turned, rows), axis=1)
    ) / 3
    probs = softmax(predict_logits(model, images, rows, tta=["hflip", "rot180"]), axis=1)
    np.testing.assert_allclose(probs, expected, atol=1e-6)
    assert not np.allclose(probs, softmax(predict_logits(model, images, rows), axis=1), atol=1e-4)


def test_an_image_and_its_mirror_image_get_the_same_prediction(model, images) -> None:
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    rows = np.arange(10)
    both = [predict_logits(model, x, rows, tta=["hflip"]) for x in (images, mirrored)]
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_twice_is_the_image_itself(name: str) -> None:
    images = torch.arange(2 * 3 * 3).reshape(2, 1, 3, 3)
    assert not torch.equal(VIEWS[name](images), images)
    assert torch.equal(VIEWS[name](VIEWS[name](images)), images)
