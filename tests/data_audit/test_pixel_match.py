"""One pair: a copy is aligned to the pixel, and what merely looks similar is not a copy."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments.duplicates.copies import SINGLES, altered, phantom
from fracnet.data.image_io import read_grey
from fracnet.data.phantoms.render import Spec, render
from fracnet.data.phantoms.upper_limb import PlannedImage, write_image
from fracnet.data_audit.keypoints import describe, fit_affine, invert
from fracnet.data_audit.near_duplicates import Pair, consistent_pairs
from fracnet.data_audit.pixel_match import COPY_SCORE, Match, Source


def match_of(
    a: np.ndarray, b: np.ndarray, is_mirrored: bool = False, is_inverted: bool = False
) -> Match | None:
    """The match, if it alone makes a pair of copies."""
    match = Source(describe(a), is_mirrored, is_inverted).compare(describe(b))
    if match is None or not consistent_pairs([Pair(0, 1, "copy", score=match.score)]):
        return None
    return match


def corners(image: np.ndarray) -> np.ndarray:
    """A quarter into the image, (x, y, 1)."""
    h, w = image.shape
    return np.array([[x * w, y * h, 1] for x in (0.25, 0.75) for y in (0.25, 0.75)])


@pytest.mark.parametrize("recipe", SINGLES, ids=lambda recipe: recipe[0])
def test_each_alteration_is_recognized(recipe: tuple[str, ...]) -> None:
    image = phantom(3)
    copy = altered(image, recipe, np.random.default_rng(1))
    flipped, inverted = "flip" in recipe[0], recipe == ("inversion",)
    match = match_of(image, copy, flipped, inverted)
    assert match is not None
    assert COPY_SCORE <= match.score <= 1
    assert (np.linalg.det(match.transform[:, :2]) < 0) == flipped
    assert match_of(image, copy, not flipped, inverted) is None
    assert match_of(image, copy, flipped, not inverted) is None


def test_the_transform_leads_from_pixel_to_pixel() -> None:
    image = phantom(4)
    turn = cv2.getRotationMatrix2D((200, 200), 11, 0.8)
    copy = cv2.warpAffine(image, turn, (500, 450))
    match = match_of(image, copy)
    assert match is not None
    assert np.abs(corners(image) @ (match.transform - turn).T).max() < 1


def test_a_map_that_is_almost_right_replaces_the_one_by_key_points() -> None:
    image = phantom(1)
    copy = np.ascontiguousarray(image[20:, 30:])
    true = np.array([[1.0, 0, -30], [0, 1, -20]])
    source = Source(describe(image), False, False)
    for off, found in ((4.0, True), (60.0, False)):
        match = source.compare(describe(copy), np.add(true, [[0, 0, off], [0, 0, -off]]))
        assert (match is not None and match.score > COPY_SCORE) == found
        if found:
            assert match is not None
            assert np.abs(corners(image) @ (match.transform - true).T).max() < 1


def test_the_transform_holds_the_mirror() -> None:
    image = phantom(4)
    copy = np.ascontiguousarray(image[20:, 30:][:, ::-1])
    match = match_of(image, copy, is_mirrored=True)
    assert match is not None
    true = np.array([[-1, 0, copy.shape[1] - 1 + 30], [0, 1, -20]])
    assert np.abs(corners(image) @ (match.transform - true).T).max() < 1


def test_the_inverse_undoes_the_map() -> None:
    affine = np.array([[0.8, -0.3, 12.0], [0.2, 1.1, -5.0]])
    whole = np.vstack([invert(affine), [0, 0, 1]]) @ np.vstack([affine, [0, 0, 1]])
    assert np.allclose(whole, np.eye(3))


def test_another_exposure_of_the_same_pose_is_not_a_copy() -> None:
    """Views 0 and 3 of a study have one projection; patient and pose are nearly the same."""
    n_aligned = 0
    for patient in range(6):
        specs = [Spec("wrist", 51, patient, 0, view, False) for view in (0, 3)]
        a, b = (np.asarray(render(spec).image) for spec in specs)
        n_aligned += fit_affine(describe(a), describe(b)) is not None
        assert match_of(a, b) is None
        assert match_of(a, b, True) is None
    assert n_aligned > 0  # by the key points alone, one would be a copy


def test_the_same_lead_marker_makes_no_copy() -> None:
    a, b = phantom(5), phantom(6)[: phantom(5).shape[0], : phantom(5).shape[1]]
    side = 110
    marker = np.random.default_rng(3).integers(0, 2, (11, 11), np.uint8) * 200 + 40
    stamp = cv2.resize(marker, (side, side), interpolation=cv2.INTER_NEAREST)
    with_marker = []
    for image in (a, b):
        copy = image.copy()
        copy[30 : 30 + side, 30 : 30 + side] = stamp
        with_marker.append(copy)
    assert fit_affine(*(describe(image) for image in with_marker)) is not None
    assert match_of(*with_marker) is None


def test_a_map_that_rests_on_a_marker_and_little_else_makes_no_copy(tmp_path: Path) -> None:
    """Two wide phantoms with the same framed letter, whose map leaves a strip of background."""
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for patient, region, scene in ((374, "shoulder", "upper arm"), (386, "elbow", "lower arm")):
        spec = Spec(region, 0, patient, 0, 1, True, scene)
        write_image(PlannedImage(tmp_path, spec, None))
    a, b = (read_grey(file) for file in (tmp_path / "images").iterdir())
    assert match_of(a, b) is None
    assert match_of(b, a) is None


def test_the_same_marker_on_two_dark_backgrounds_makes_no_copy() -> None:
    rng = np.random.default_rng(4)
    marker = cv2.resize(rng.integers(60, 255, (14, 14), np.uint8), (100, 100))
    images = []
    for _ in range(2):
        image = rng.normal(12, 2, (400, 400)).clip(0, 255).astype(np.uint8)
        image[100:200, 100:200] = marker
        images.append(image)
    assert fit_affine(*(describe(image) for image in images)) is not None
    assert match_of(*images) is None


def on_the_same_plate(image: np.ndarray) -> np.ndarray:
    """The image on a faint background of stripes and dust, which is always the same."""
    rng = np.random.default_rng(0)
    plate = 24 + 60 * cv2.GaussianBlur(rng.normal(size=(480, 400)), (0, 0), 6)
    for _ in range(90):
        place = int(rng.integers(400)), int(rng.integers(480))
        cv2.circle(plate, place, int(rng.integers(1, 5)), rng.uniform(34, 54), -1)
    plate = cv2.GaussianBlur(plate, (0, 0), 1)
    limb = cv2.resize(image, (150, 210))
    plate[130:340, 120:270] = np.maximum(plate[130:340, 120:270], limb)
    return plate.clip(0, 255).astype(np.uint8)


def test_two_limbs_on_the_same_dusty_plate_are_not_copies() -> None:
    a, b = (on_the_same_plate(phantom(number)) for number in (1, 2))
    assert fit_affine(describe(a), describe(b)) is not None
    assert match_of(a, b) is None
    copy = altered(a, ("gamma", "rotation"), np.random.default_rng(2))
    assert match_of(a, copy) is not None


def test_a_small_shared_part_is_not_a_copy() -> None:
    image = phantom(7)
    half = image[: image.shape[0] * 2 // 5]
    other = phantom(8)
    pasted = other.copy()
    rows, columns = min(len(half), len(pasted)), min(half.shape[1], pasted.shape[1])
    pasted[:rows, :columns] = half[:rows, :columns]
    assert match_of(image, pasted) is None
