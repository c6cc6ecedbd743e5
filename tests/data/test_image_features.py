"""Shortcut features of an image as stored in the file."""

import cv2
import numpy as np
from helpers.tiny import picture

from fracnet.data.image_features import SHORTCUT_NAMES, appearance_features, shortcut_features


def named_features(image: np.ndarray, file_size: int = 1234) -> dict[str, float]:
    values = shortcut_features(image, file_size)
    assert values.dtype == np.float64
    return dict(zip(SHORTCUT_NAMES, values.tolist(), strict=True))


def test_features_match_their_names() -> None:
    image = picture(4, 60, 90)
    features = named_features(image)
    assert features["width"] == 90
    assert features["height"] == 60
    assert features["aspect"] == 1.5
    assert features["file_size"] == 1234
    assert np.isclose(features["mean"], image.mean())
    assert np.isclose(features["standard_deviation"], image.std())
    shares = np.histogram(image, bins=16, range=(0, 256))[0] / image.size
    histogram = [value for name, value in features.items() if name.startswith("histogram")]
    np.testing.assert_allclose(histogram, shares, atol=1e-7)


def test_each_border_strip_is_measured_separately() -> None:
    image = np.zeros((40, 80), np.uint8)
    image[:2] = 10
    image[-2:] = 20
    image[:, :4] = 30
    image[:, -4:] = 40
    features = named_features(image)
    assert features["left_mean"] == 30
    assert features["right_mean"] == 40
    assert 10 < features["top_mean"] < 15
    assert features["bottom_standard_deviation"] > 0
    assert features["left_standard_deviation"] == 0


def test_smallest_image_has_features() -> None:
    assert np.isfinite(shortcut_features(np.full((1, 1), 7, np.uint8), 0)).all()


def test_features_do_not_depend_on_where_images_lie_in_memory() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (40, 40, 40), dtype=np.uint8)
    images = np.stack([cv2.resize(each, (224, 224)) for each in small])
    first = appearance_features(images)
    for _ in range(20):
        np.testing.assert_array_equal(appearance_features(images), first)
