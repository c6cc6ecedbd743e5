"""Augmentation depends on seed, epoch, row and copy alone, and agrees with albumentations."""

import pickle
import random
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from helpers.tiny import PUBLISHED, picture

from fracnet.data.augment import Augment, affine_matrix, build_augment, opencv_step
from fracnet.utils.errors import UserError

IMAGE = picture(0, 32, 32)


def draws(augment: Augment, keys: list[tuple[int, int, int]]) -> list[bytes]:
    return [augment(IMAGE, seed=s, epoch=e, row=r).tobytes() for s, e, r in keys]


def test_result_depends_on_seed_epoch_and_row_and_on_each_of_them() -> None:
    keys = [(seed, epoch, row) for seed in range(3) for epoch in range(3) for row in range(3)]
    assert len(set(draws(build_augment(PUBLISHED), keys))) == len(keys)


def test_result_depends_on_nothing_else() -> None:
    keys = [(5, epoch, row) for epoch in range(4) for row in range(8)]
    augment = build_augment(PUBLISHED)
    expected = draws(augment, keys)
    assert draws(augment, keys[::-1]) == expected[::-1], "earlier calls must not matter"
    assert draws(build_augment(PUBLISHED), keys[3:4]) == expected[3:4]
    assert draws(pickle.loads(pickle.dumps(augment)), keys) == expected
    np.random.seed(1)  # noqa: NPY002
    assert draws(augment, keys) == expected, "global randomness must not matter"


def test_nested_and_selected_transforms_are_seeded() -> None:
    nested = [
        {
            "_target_": "albumentations.OneOf",
            "transforms": list(PUBLISHED),
            "p": 0.8,
        },
        {"_target_": "albumentations.GaussNoise", "p": 0.7},
        {"_target_": "albumentations.CoarseDropout", "p": 0.5},
    ]
    keys = [(0, 0, row) for row in range(24)]
    augment = build_augment(nested)
    expected = draws(augment, keys)
    assert draws(augment, keys[::-1])[::-1] == expected
    assert len(set(expected)) > 20


def test_two_flips_are_independent() -> None:
    augment = build_augment(PUBLISHED[:2])
    variants = {
        IMAGE.tobytes(): "unchanged",
        IMAGE[:, ::-1].tobytes(): "horizontal",
        IMAGE[::-1].tobytes(): "vertical",
        IMAGE[::-1, ::-1].tobytes(): "both",
    }
    keys = [(0, 0, row) for row in range(400)]
    seen = [variants[result] for result in draws(augment, keys)]
    for variant in variants.values():
        assert 60 <= seen.count(variant) <= 140  # 100 expected, deviation 9


def test_a_plain_albumentations_pipeline_has_the_faults_that_augment_avoids() -> None:
    """The two reasons for this module; if albumentations fixes them, it can shrink."""
    fresh = [A.Compose(published_transforms(), seed=1) for _ in range(2)]
    first, second = (pipeline(image=IMAGE)["image"] for pipeline in fresh)
    np.testing.assert_array_equal(first, second)  # two workers with copies repeat each other
    flips = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    outcomes = set()
    for row in range(50):
        flips.set_random_seed(row)
        outcomes.add(flips(image=IMAGE)["image"].tobytes())
    assert len(outcomes) == 2  # never one flip alone


def published_transforms() -> list:
    return list(build_augment(PUBLISHED).transforms)


def test_published_recipe_stays_within_its_bounds() -> None:
    augment = build_augment([PUBLISHED[2]])
    affine = augment.transforms[0]
    angles, scales = [], []
    for row in range(300):
        augment(IMAGE, seed=0, epoch=0, row=row)
        angles.append(affine.params["rotate"])
        scales.append((affine.params["scale"]["x"], affine.params["scale"]["y"]))
    assert min(angles) == pytest.approx(-15, abs=1)
    assert max(angles) == pytest.approx(15, abs=1)
    assert min(scales)[0] == pytest.approx(0.9, abs=0.01)
    assert max(scales)[0] == pytest.approx(1.1, abs=0.01)
    assert all(x == y for x, y in scales)


def test_empty_list_is_the_identity() -> None:
    for nothing in ([], None):
        assert build_augment(nothing)(IMAGE, seed=1, epoch=2, row=3) is IMAGE


class Scribble(A.ImageOnlyTransform):
    """A user's transform that writes to its argument."""

    def apply(self, img: np.ndarray, **params: object) -> np.ndarray:
        img[0] = self.py_random.randrange(256)
        return img


class Global(A.ImageOnlyTransform):
    """A user's transform that uses global randomness."""

    def apply(self, img: np.ndarray, **params: object) -> np.ndarray:
        return img + np.uint8(np.random.randint(256))  # noqa: NPY002


class Broken(A.ImageOnlyTransform):
    def apply(self, img: np.ndarray, **params: object) -> np.ndarray:
        raise RuntimeError("out of order")


def test_the_argument_is_not_written_to() -> None:
    image = IMAGE.copy()
    image.flags.writeable = False
    result = build_augment([Scribble(p=1)])(image, seed=0, epoch=0, row=0)
    assert not np.array_equal(result, image)
    np.testing.assert_array_equal(image, IMAGE)


def target(name: str, **arguments: object) -> dict:
    return {"_target_": f"albumentations.{name}", **arguments}


@pytest.mark.parametrize(
    ("transforms", "parts"),
    [
        ([target("Affine", rotat=3)], ["transforms[0].rotat", "Did you mean 'rotate'?", "shear"]),
        (
            [PUBLISHED[0], target("OneOf", transforms=[target("HorizontalFlip", q=1)])],
            ["transforms[1].q", "HorizontalFlip"],
        ),
        ([target("Affin")], ["albumentations.Affin:", "Did you mean 'Affine'?"]),
        ([{"_target_": "nowhere.Flip"}], ["nowhere.Flip: there is no module"]),
        ([{"_target_": "collections.OrderedDict"}], ["is not an albumentations transform"]),
        ([{"_target_": "os.getcwd"}], ["is not an albumentations transform"]),
        ([target("HorizontalFlip", p=3)], ["p=3", "less than or equal to 1"]),
        ([target("Affine", rotate="x")], ["rotate='x'", "valid number"]),
        ([{"p": 0.5}], ["augment.transforms[0]={'p': 0.5} is not a transform"]),
        ({"p": 0.5}, ["augment.transforms={'p': 0.5} is not a list"]),
        ([target("Resize", height=8, width=8)], ["[32, 32]", "[8, 8]"]),
        ([target("ToFloat", p=1)], ["float32", "must keep size and type"]),
        ([target("RandomCrop", height=64, width=64, p=1)], ["32x32"]),
        ([Global(p=1)], ["different results", "self.py_random"]),
        ([Broken(p=1)], ["out of order"]),
    ],
)
def test_faulty_transforms_are_named_before_training(transforms: list, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build_augment(transforms).check(32)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# --- affine transforms and flips without albumentations


WIDE_IMAGE = picture(3, 48, 64)
AFFINES: list[dict[str, Any]] = [
    {"rotate": (-15, 15), "scale": (0.9, 1.1), "keep_ratio": True, "p": 1.0},
    {"rotate": (-40, 40), "scale": (0.5, 1.5), "keep_ratio": False, "p": 0.6},
    {"scale": (0.8, 1.2), "balanced_scale": True, "fill": 77, "p": 1.0},
    {"shear": {"x": (-20, 20), "y": (-5, 15)}, "border_mode": cv2.BORDER_REFLECT_101, "p": 1.0},
    {"translate_percent": (-0.3, 0.3), "interpolation": cv2.INTER_NEAREST, "p": 1.0},
    {"translate_px": {"x": (-9, 9), "y": (0, 5)}, "rotate": 90, "p": 0.9},
    {"rotate": 0, "scale": 1.0, "p": 1.0},
]


@pytest.mark.parametrize("arguments", AFFINES, ids=lambda value: ",".join(value)[:40])
def test_opencv_steps_give_the_same_pixels_and_draws_as_albumentations(
    arguments: dict[str, Any],
) -> None:
    transforms = [A.Affine(**arguments), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.4)]
    steps = [opencv_step(transform) for transform in transforms]
    seen = set()
    for seed in range(60):
        expected, result = WIDE_IMAGE.copy(), WIDE_IMAGE
        theirs, ours = random.Random(seed), random.Random(seed)
        for transform in transforms:
            transform.set_random_state(np.random.default_rng(0), theirs)
            expected = transform(image=expected)["image"]
        for step in steps:
            assert step is not None
            result, _ = step(result, None, ours)
        # Matrix products are rounded in a different order: a pixel in ten thousand may differ.
        assert np.mean(result != expected) < 1e-4
        assert theirs.random() == ours.random(), "the same number of draws"
        seen.add(result.tobytes())
    assert len(seen) > 3


def test_other_transforms_are_left_to_albumentations() -> None:
    class Subclass(A.HorizontalFlip):
        """May do anything."""

    for other in (
        Subclass(p=1),
        A.Affine(fit_output=True),
        A.GaussNoise(),
        A.OneOf([A.HorizontalFlip(), A.VerticalFlip()]),
    ):
        assert opencv_step(other) is None


def test_opencv_steps_and_other_transforms_work_in_one_list() -> None:
    class Mark(A.ImageOnlyTransform):
        """Writes to its argument, which must be a copy."""

        def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
            img[:, :4] = 255
            return img

    image = WIDE_IMAGE.copy()
    image.flags.writeable = False
    for transforms in ([Mark(p=1), A.HorizontalFlip(p=1)], [A.HorizontalFlip(p=1), Mark(p=1)]):
        result = Augment(transforms)(image, seed=0, epoch=0, row=0)
        columns = slice(-4, None) if isinstance(transforms[0], Mark) else slice(4)
        assert (result[:, columns] == 255).all()
        rest = np.s_[:, :-4] if isinstance(transforms[0], Mark) else np.s_[:, 4:]
        np.testing.assert_array_equal(result[rest], image[:, ::-1][rest])


def test_the_matrix_rotates_a_square_around_its_center() -> None:
    square = picture(1, 32, 32)
    none = {"x": 0.0, "y": 0.0}
    matrix = affine_matrix((32, 32), {"x": 0, "y": 0}, none, {"x": 1.0, "y": 1.0}, 90.0)
    rotated = cv2.warpAffine(square, matrix, (32, 32))
    np.testing.assert_array_equal(rotated, np.rot90(square))


MOVING = (
    [{"_target_": "albumentations.HorizontalFlip", "p": 0.5}],
    [
        {
            "_target_": "albumentations.Affine",
            "rotate": [-40, 40],
            "translate_percent": 0.1,
            "p": 0.9,
        }
    ],
    [{"_target_": "albumentations.ElasticTransform", "alpha": 60, "sigma": 6, "p": 1.0}],
    [
        {"_target_": "albumentations.VerticalFlip", "p": 0.5},
        {"_target_": "albumentations.GridDistortion", "p": 0.7},
        {"_target_": "albumentations.RandomBrightnessContrast", "p": 0.5},
        {"_target_": "albumentations.Affine", "shear": [-20, 20], "p": 0.5},
    ],
)


@pytest.mark.parametrize("transforms", MOVING)
def test_a_mask_moves_with_its_image(transforms: list[dict[str, object]]) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:36, 10:30] = 255
    image = np.where(mask, 220, 60).astype(np.uint8)
    augment = build_augment(transforms)
    for row in range(12):
        alone = augment(image, seed=1, epoch=0, row=row)
        moved, with_it = augment.with_mask(image, mask, seed=1, epoch=0, row=row)
        np.testing.assert_array_equal(moved, alone)  # a mask changes no draw
        assert with_it is not None
        # At edges interpolation differs by a pixel.
        inside = cv2.erode(with_it, np.ones((3, 3), np.uint8)) > 127
        outside = cv2.dilate(with_it, np.ones((5, 5), np.uint8)) <= 127
        assert inside.sum() > 30
        assert moved[inside].min() > moved[outside].max() + 40


def test_what_an_image_is_filled_with_is_not_annotated() -> None:
    node = {"_target_": "albumentations.Affine", "scale": [0.5, 0.5], "fill": 200, "p": 1.0}
    blank = np.zeros((32, 32), np.uint8)
    moved, mask = build_augment([node]).with_mask(blank, blank, seed=1, epoch=0, row=0)
    assert moved.max() == 200
    assert mask is not None
    assert mask.max() == 0
