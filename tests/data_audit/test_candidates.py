"""Nearest neighbors include a copy, whatever the order of the images and the block size."""

import numpy as np
import pytest
from helpers.copies import altered, phantom

from fracnet.data_audit import near_duplicates
from fracnet.data_audit.keypoints import Features, describe, mirrored_descriptors
from fracnet.data_audit.near_duplicates import NEIGHBORS, Codebook, nearest_neighbors

N = 16


@pytest.fixture(scope="module")
def images() -> list[Features]:
    """Phantoms, then a rotated and mirrored copy of the first."""
    rng = np.random.default_rng(0)
    copy = altered(phantom(0), ("rotation", "horizontal flip"), rng)
    return [describe(phantom(i)) for i in range(N)] + [describe(copy)]


@pytest.fixture(scope="module")
def vectors(images: list[Features]) -> tuple[np.ndarray, np.ndarray]:
    codebook = Codebook.fit(images)
    plain = np.stack([codebook(image.descriptors) for image in images])
    flipped = np.stack([codebook(mirrored_descriptors(image.descriptors)) for image in images])
    return plain, flipped


def test_a_mirrored_copy_is_the_nearest_to_the_mirror_image(
    vectors: tuple[np.ndarray, np.ndarray],
) -> None:
    plain, flipped = vectors
    similarity = plain[:N] @ flipped[N]
    assert similarity.argmax() == 0
    assert similarity[0] > 2 * np.sort(similarity)[-2]
    assert plain[0] @ plain[N] < similarity[0]


def test_each_image_gets_its_neighbors_and_never_itself(
    vectors: tuple[np.ndarray, np.ndarray],
) -> None:
    neighbors = nearest_neighbors(*vectors, 0)
    assert (0, N, True) in neighbors
    assert all(a != b for a, b, _ in neighbors)
    assert len(set(neighbors)) == len(neighbors) == 2 * NEIGHBORS * (N + 1)


def test_blocks_make_no_difference(
    vectors: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = set(nearest_neighbors(*vectors, 0))
    monkeypatch.setattr(near_duplicates, "BLOCK", 5)
    blocks = [nearest_neighbors(*vectors, start) for start in range(0, N + 1, 5)]
    assert {neighbor for block in blocks for neighbor in block} == whole


def test_fewer_images_than_neighbors(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    plain, flipped = (both[:3] for both in vectors)
    pairs = {(a, b) for a, b, _ in nearest_neighbors(plain, flipped, 0)}
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}
    assert nearest_neighbors(plain[:1], flipped[:1], 0) == []


def test_the_codebook_does_not_depend_on_the_order(images: list[Features]) -> None:
    first, second = Codebook.fit(images), Codebook.fit(images[::-1])
    assert np.array_equal(first.centroids, second.centroids)
    assert np.array_equal(first.projection, second.projection)


def test_an_image_without_key_points_has_a_zero_vector(images: list[Features]) -> None:
    blank = describe(np.zeros((50, 50), np.uint8))
    codebook = Codebook.fit([*images, blank])
    assert not codebook(blank.descriptors).any()
    assert np.linalg.norm(codebook(images[0].descriptors)) == pytest.approx(1, abs=1e-5)
