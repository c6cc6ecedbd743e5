"""Candidates include the copies of an image, whatever the order of the images."""

import numpy as np
import pytest

from experiments.duplicates.copies import altered, phantom
from fracnet.data_audit.keypoints import Features, describe
from fracnet.data_audit.near_duplicates import CANDIDATES, Index

N = 20


@pytest.fixture(scope="module")
def images() -> list[Features]:
    """Phantoms, then altered copies of the first four."""
    rng = np.random.default_rng(0)
    recipes = [
        ("rotation", "horizontal flip"),
        ("inversion", "crop"),
        ("gamma", "side by side"),
        ("clahe", "vertical flip", "inversion"),
    ]
    copies = [altered(phantom(i), recipe, rng) for i, recipe in enumerate(recipes)]
    return [describe(image) for image in [*(phantom(i) for i in range(N)), *copies]]


@pytest.fixture(scope="module")
def index(images: list[Features]) -> Index:
    return Index(images)


def test_copies_are_candidates_with_the_right_variant(index: Index) -> None:
    for copy, flags in enumerate([(True, False), (False, True), (False, False), (True, True)]):
        assert (copy, *flags) in index.candidates(N + copy)
        assert (N + copy, *flags) in index.candidates(copy)


def test_candidates_are_few_and_never_the_image_itself(index: Index) -> None:
    for query in range(len(index.images)):
        candidates = index.candidates(query)
        assert len(set(candidates)) == len(candidates)
        found = {image for image, *_ in candidates}
        assert query not in found
        assert len(found) <= CANDIDATES


def test_fewer_images_than_candidates(images: list[Features]) -> None:
    small = Index([images[0], images[1], images[N]])
    assert {image for image, *_ in small.candidates(0)} <= {1, 2}
    assert 2 in {image for image, *_ in small.candidates(0)}
    assert Index(images[:1]).candidates(0) == []


def test_an_image_without_key_points_has_no_candidates(images: list[Features]) -> None:
    blank = describe(np.zeros((50, 50), np.uint8))
    index = Index([*images[:3], blank])
    assert index.candidates(3) == []
    assert all(image != 3 for i in range(3) for image, *_ in index.candidates(i))
