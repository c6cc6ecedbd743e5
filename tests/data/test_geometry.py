"""The quick way through affine transforms and flips draws and does what albumentations does."""

import random
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from helpers.tiny import picture

from fracnet.data.augment import Augment, affine_matrix, direct

IMAGE = picture(3, 48, 64)
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
def test_same_stream_gives_the_same_pixels_as_albumentations(arguments: dict[str, Any]) -> None:
    transforms = [A.Affine(**arguments), A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.4)]
    steps = [direct(transform) for transform in transforms]
    seen = set()
    for seed in range(60):
        expected, found = IMAGE.copy(), IMAGE
        theirs, ours = random.Random(seed), random.Random(seed)
        for transform in transforms:
            transform.set_random_state(np.random.default_rng(0), theirs)
            expected = transform(image=expected)["image"]
        for step in steps:
            assert step is not None
            found = step(found, ours)
        # Products of matrices are rounded in another order: a pixel in ten thousand may differ.
        assert np.mean(found != expected) < 1e-4
        assert theirs.random() == ours.random(), "as many draws"
        seen.add(found.tobytes())
    assert len(seen) > 3


def test_what_is_not_known_in_full_is_left_to_albumentations() -> None:
    class Own(A.HorizontalFlip):
        """Might do anything."""

    for other in (
        Own(p=1),
        A.Affine(fit_output=True),
        A.GaussNoise(),
        A.OneOf([A.HorizontalFlip(), A.VerticalFlip()]),
    ):
        assert direct(other) is None


def test_known_and_unknown_transforms_work_in_one_list() -> None:
    class Mark(A.ImageOnlyTransform):
        """Writes to its argument, which must be nobody's."""

        def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
            img[:, :4] = 255
            return img

    image = IMAGE.copy()
    image.flags.writeable = False
    for transforms in ([Mark(p=1), A.HorizontalFlip(p=1)], [A.HorizontalFlip(p=1), Mark(p=1)]):
        found = Augment(transforms)(image, seed=0, epoch=0, row=0)
        at = slice(-4, None) if isinstance(transforms[0], Mark) else slice(4)
        assert (found[:, at] == 255).all()
        rest = np.s_[:, :-4] if isinstance(transforms[0], Mark) else np.s_[:, 4:]
        np.testing.assert_array_equal(found[rest], image[:, ::-1][rest])


def test_matrix_turns_a_square_by_a_quarter_about_its_center() -> None:
    square = picture(1, 32, 32)
    none = {"x": 0.0, "y": 0.0}
    matrix = affine_matrix((32, 32), {"x": 0, "y": 0}, none, {"x": 1.0, "y": 1.0}, 90.0)
    turned = cv2.warpAffine(square, matrix, (32, 32))
    np.testing.assert_array_equal(turned, np.rot90(square))
