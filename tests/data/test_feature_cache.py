"""Features are computed once, and never again unless something they depend on has changed."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fracnet.data.cache_folders import list_caches
from fracnet.data.feature_cache import FILE, HeadFeatures, cached_features
from fracnet.data.samplers import Draw
from fracnet.utils.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8), np.uint8)
Compute = Callable[[np.ndarray], np.ndarray]


class Network:
    """Counts the images that it sees in batches; `factor` is its weight."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor, self.seen = factor, 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        return self.factor * images.reshape(len(images), -1)[:, :5].astype(np.float32)


def features(network: Compute, progress: bool = False, **depends_on: Any) -> np.ndarray:
    return cached_features(
        depends_on or {"body": "a"},
        (7, 8),
        lambda: [IMAGES[:4], IMAGES[4:]],
        lambda places: IMAGES[list(places)],
        network,
        name="test",
        progress=progress,
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path))
    return tmp_path / "images"


def test_features_are_computed_once_and_read_afterwards() -> None:
    network = Network()
    first = features(network)
    np.testing.assert_array_equal(first, Network()(IMAGES))
    assert network.seen == 7 + 2
    second = Network()
    np.testing.assert_array_equal(features(second), first)
    assert second.seen == 2, "two images alone are compared"
    (entry,) = list_caches()
    assert (entry.name, entry.images, entry.image_size) == ("test", 7, 8)


def test_another_network_or_other_images_have_a_cache_of_their_own() -> None:
    features(Network(), body="a")
    other = Network(2.0)
    np.testing.assert_array_equal(features(other, body="b"), Network(2.0)(IMAGES))
    assert len(list_caches()) == 2


def test_a_changed_network_of_the_same_name_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    features(Network())
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(features(Network(3.0)), Network(3.0)(IMAGES))
    assert "rebuilding" in caplog.text


@pytest.mark.parametrize("damage", ["bytes", "length", "missing"])
def test_a_damaged_cache_is_rebuilt(cache: Path, damage: str) -> None:
    expected = np.array(features(Network()))
    (file,) = cache.glob(f"*/{FILE}")
    content = bytearray(file.read_bytes())
    content[50] ^= 1  # of an image in the middle
    file.unlink() if damage == "missing" else file.write_bytes(
        content if damage == "bytes" else content[:-4]
    )
    np.testing.assert_array_equal(features(Network()), expected)


def test_several_jobs_at_once_compute_once() -> None:
    networks = [Network() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(features, networks))
    assert sorted(network.seen for network in networks)[:3] == [2, 2, 2]
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_features_that_are_not_finite_are_refused_and_not_cached() -> None:
    with pytest.raises(UserError, match="not finite"):
        features(Network(np.inf))
    assert not list_caches()


def test_progress_names_the_number_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    features(Network(), progress=True)
    assert "Computed test: 7 images" in capsys.readouterr().err


def test_views_take_turns_by_epoch_and_validation_sees_the_image_itself() -> None:
    images = np.arange(4, dtype=np.float32)[:, None]
    views = [images[:2] + 10, images[:2] + 20]
    head = HeadFeatures(images, views, np.array([0, 1, -1, -1]), epochs=3)
    assert [head.used_in(epoch) for epoch in (0, 2, 3)] == [True, True, False]
    draws = [Draw(0, 1), Draw(1, 1), Draw(2, 0), Draw(0, 1, copy=1)]
    assert head.of(draws, train=True)[:, 0].tolist() == [11, 21, 10, 21]
    assert head.of([Draw(1, 3)], train=False)[:, 0].tolist() == [3]
