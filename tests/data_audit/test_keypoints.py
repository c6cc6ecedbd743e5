"""Features of an image; those of its mirror image follow without detecting anything again."""

import numpy as np
import pytest

from experiments.duplicates.copies import phantom
from fracnet.data_audit.keypoints import MOST_POINTS, SMALL, WORK, describe, root_sift, variant


@pytest.mark.parametrize("flags", [(True, False), (False, True), (True, True)])
def test_mirrored_and_inverted_images_follow_from_permuted_descriptors(
    flags: tuple[bool, bool],
) -> None:
    image = phantom(0)
    altered = image[:, ::-1] if flags[0] else image
    altered = np.ascontiguousarray(255 - altered if flags[1] else altered)
    derived, actual = variant(describe(image), *flags), describe(altered)
    similarity = root_sift(actual.descriptors) @ root_sift(derived.descriptors).T
    partner = similarity.argmax(axis=1)
    assert np.quantile(similarity.max(axis=1), 0.1) > 0.99
    miss = np.abs(actual.points - derived.points[partner])
    assert np.quantile(miss[:, :2], 0.9) < 0.1  # working pixels
    turn = np.abs(np.angle(np.exp(1j * miss[:, 3])))
    assert np.quantile(turn, 0.9) < np.radians(1)


def test_a_variant_of_the_variant_is_the_same() -> None:
    once = describe(phantom(1))
    twice = variant(variant(once, True, True), True, True)
    assert np.allclose(np.exp(1j * twice.points[:, 3]), np.exp(1j * once.points[:, 3]), atol=1e-5)
    assert np.allclose(twice.points[:, :3], once.points[:, :3], atol=1e-4)
    assert np.array_equal(twice.descriptors, once.descriptors)
    assert np.array_equal(twice.small, once.small)


def test_sizes_are_bounded_and_the_shape_is_kept() -> None:
    features = describe(phantom(2))
    assert WORK <= max(features.work) < 1.2 * WORK
    assert SMALL <= max(features.small.shape) < 1.2 * SMALL
    assert 20 < len(features.points) == len(features.descriptors) <= MOST_POINTS
    height, width = features.size
    assert features.work[0] / features.work[1] == pytest.approx(height / width, rel=0.01)


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (700, 3), (20, 20), (300, 300)])
def test_an_image_without_structure_has_no_key_points(shape: tuple[int, int]) -> None:
    features = describe(np.full(shape, 90, np.uint8))
    assert features.points.shape == (0, 4)
    assert features.descriptors.shape == (0, 128)
    assert variant(features, True, True).points.shape == (0, 4)


def test_the_digest_depends_on_pixels_and_shape() -> None:
    flat = np.zeros((4, 6), np.uint8)
    other = flat.copy()
    other[3, 5] = 1
    digests = {describe(image).digest for image in (flat, flat.reshape(6, 4), other)}
    assert len(digests) == 3
    assert describe(flat.copy()).digest in digests


def test_a_view_that_is_not_contiguous_is_read_correctly() -> None:
    image = phantom(0)
    assert describe(image[:, ::-1]).digest == describe(image[:, ::-1].copy()).digest
