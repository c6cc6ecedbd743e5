"""Preprocessing: each step, their order, determinism, cache keys, errors in steps."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from helpers.tiny import picture

from fracnet.data.preprocess import Preprocess
from fracnet.utils.errors import UserError

RESIZE = {"name": "resize", "mode": "squash"}
EVERY_STEP = [
    {"name": "clahe", "clip_limit": 3.0, "tiles": 4},
    {"name": "median", "size": 3},
    {"name": "gaussian", "size": 5, "sigma": 1.2},
    {"name": "bilateral", "diameter": 5, "sigma_color": 40, "sigma_space": 40},
    RESIZE,
]


def test_same_pixels_in_any_order_of_calls_thread_and_copy() -> None:
    images = [picture(seed, 60 + seed, 90) for seed in range(16)]
    preprocess = Preprocess(EVERY_STEP, 48)
    expected = [preprocess(image) for image in images]
    unpickled = pickle.loads(pickle.dumps(preprocess))
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(unpickled, reversed(images)))[::-1]
    for image, other in zip(expected, threaded, strict=True):
        assert image.dtype == np.uint8
        assert image.shape == (48, 48)
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, other)


@pytest.mark.parametrize("step", EVERY_STEP[:-1], ids=lambda step: step["name"])
def test_each_step_does_what_opencv_does(step: dict) -> None:
    image = picture(1, 64, 64)
    result = Preprocess([step, RESIZE], 64)(image)
    reference = {
        "clahe": lambda: cv2.createCLAHE(3.0, (4, 4)).apply(image),
        "median": lambda: cv2.medianBlur(image, 3),
        "gaussian": lambda: cv2.GaussianBlur(image, (5, 5), 1.2, borderType=cv2.BORDER_REFLECT_101),
        "bilateral": lambda: cv2.bilateralFilter(image, 5, 40, 40),
    }[step["name"]]()
    assert not np.array_equal(result, image)
    assert np.abs(result.astype(int) - reference).max() <= 1  # rounding of the kernel


def test_steps_are_applied_in_the_order_given() -> None:
    image = picture(2, 100, 100)
    before = Preprocess([EVERY_STEP[0], RESIZE], 32)(image)
    after = Preprocess([RESIZE, EVERY_STEP[0]], 32)(image)
    assert not np.array_equal(before, after)


def test_gaussian_without_sigma_derives_it_from_the_size() -> None:
    image = picture(3, 64, 64)
    result = Preprocess([{"name": "gaussian", "size": 5}, RESIZE], 64)(image)
    assert np.abs(result.astype(int) - cv2.GaussianBlur(image, (5, 5), 0)).max() <= 1


def test_squash_averages_areas_and_ignores_the_aspect() -> None:
    image = np.zeros((40, 80), np.uint8)
    image[:, 40:] = 200
    result = Preprocess([RESIZE], 20)(image)
    assert (result[:, :10] == 0).all()
    assert (result[:, 10:] == 200).all()
    # If one side grows and the other shrinks, only the growing one is interpolated.
    stripes = np.tile(np.array([0, 100], np.uint8), (10, 40))
    assert (Preprocess([RESIZE], 20)(stripes) == 50).all()


@pytest.mark.parametrize(("height", "width"), [(40, 80), (80, 40), (1, 50), (10, 13)])
def test_pad_keeps_the_aspect_on_centered_black(height: int, width: int) -> None:
    image = np.full((height, width), 200, np.uint8)
    result = Preprocess([{"name": "resize", "mode": "pad"}], 20)(image)
    scale = 20 / max(height, width)
    rows, columns = np.nonzero(result)
    assert len(np.unique(rows)) == max(1, round(height * scale))
    assert len(np.unique(columns)) == max(1, round(width * scale))
    for indices in (rows, columns):
        assert abs(indices.min() - (19 - indices.max())) <= 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (700, 5)])
def test_extreme_sizes_pass_every_step(shape: tuple[int, int]) -> None:
    assert Preprocess(EVERY_STEP, 16)(np.full(shape, 90, np.uint8)).shape == (16, 16)


def test_the_key_distinguishes_pipelines_but_not_spellings() -> None:
    key = Preprocess([{"name": "clahe"}, RESIZE], 32).key()
    same = Preprocess([{"tiles": 8, "name": "clahe", "clip_limit": 2}, {"name": "resize"}], 32)
    assert same.key() == key
    pipelines = [
        Preprocess([{"name": "clahe"}, RESIZE], 33),
        Preprocess([{"name": "clahe", "clip_limit": 2.1}, RESIZE], 32),
        Preprocess([RESIZE, {"name": "clahe"}], 32),
        Preprocess([RESIZE], 32),
    ]
    assert len({key, *(other.key() for other in pipelines)}) == 5
    assert json.loads(key)["libraries"]["opencv"] == cv2.__version__


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        ([], ["preprocess.steps", "0 resize steps"]),
        ([RESIZE, RESIZE], ["2 resize steps"]),
        ([{"name": "claeh"}, RESIZE], ["preprocess.steps[0].name='claeh'", "clahe", "bilateral"]),
        ([{"clip_limit": 2}, RESIZE], ["preprocess.steps[0].name=None"]),
        (
            [RESIZE, {"name": "clahe", "clip": 2}],
            ["preprocess.steps[1].clip ", "clip_limit, tiles"],
        ),
        ([{"name": "clahe", "clip_limit": 0}, RESIZE], ["steps[0].clip_limit=0", "from 1 to 100"]),
        ([{"name": "clahe", "clip_limit": True}, RESIZE], ["steps[0].clip_limit=true"]),
        ([{"name": "clahe", "clip_limit": float("nan")}, RESIZE], ["clip_limit=nan"]),
        ([{"name": "clahe", "tiles": 2.5}, RESIZE], ["tiles=2.5", "a whole number from 1 to 64"]),
        ([{"name": "median", "size": 4}, RESIZE], ["size=4", "an odd number from 3 to 31"]),
        ([{"name": "gaussian", "sigma": "x"}, RESIZE], ["sigma=x"]),
        ([{"name": "resize", "mode": "crop"}], ["mode=crop", "squash or pad"]),
        ([{"name": "resize", "mode": ["pad"]}], ["mode=[pad]"]),
        (["resize"], ["preprocess.steps[0]='resize'"]),
        ("resize", ["preprocess.steps='resize'"]),
    ],
)
def test_faulty_steps_are_named(steps: list, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        Preprocess(steps, 32)
    for part in parts:
        assert part in str(caught.value)
