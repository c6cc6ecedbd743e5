"""Where marks lie in the preprocessed image."""

import cv2
import numpy as np
import pandas as pd
import pytest

from fracnet.data.annotations import mask_of, outlines
from fracnet.data.preprocess import Preprocess

SIZE = 32
BOX = [{"label": "fracture", "points": [[0.25, 0.5], [0.75, 0.75]]}]


def preprocess(mode: str) -> Preprocess:
    return Preprocess([{"name": "resize", "mode": mode}], SIZE)


def row(width: int | None, height: int | None, **marks: object) -> pd.Series:
    known = {"label": "fracture", "polygons": None, "boxes": None}
    size = {
        "width": pd.NA if width is None else width,
        "height": pd.NA if height is None else height,
    }
    return pd.Series(known | size | marks, dtype=object)


@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (40, 100), (32, 32), (16, 20)])
def test_a_mark_covers_what_it_was_drawn_around(mode: str, width: int, height: int) -> None:
    image = np.zeros((height, width), np.uint8)
    x0, x1, y0, y1 = width // 4, width // 2, height // 4, 3 * height // 4
    image[y0:y1, x0:x1] = 255
    polygon = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    shares = [[x / width, y / height] for x, y in polygon]
    marked = row(width, height, polygons=[{"label": "fracture", "points": shares}])
    mask = mask_of(outlines(marked, preprocess(mode)), SIZE)
    shown = preprocess(mode)(image) > 127
    assert shown.any()
    edge = np.ones((3, 3), np.uint8)
    assert not (shown & ~(cv2.dilate(mask.astype(np.uint8), edge) > 0)).any()
    assert not (mask & ~(cv2.dilate(shown.astype(np.uint8), edge) > 0)).any()
    apart = np.argwhere(mask).mean(axis=0) - np.argwhere(shown).mean(axis=0)
    assert np.abs(apart).max() <= 0.6  # resizing may round half a pixel away


def test_a_box_is_exact_where_pixels_allow_it() -> None:
    squashed = mask_of(outlines(row(100, 50, boxes=BOX), preprocess("squash")), SIZE)
    expected = np.zeros((SIZE, SIZE), bool)
    expected[16:24, 8:24] = True
    assert np.array_equal(squashed, expected)
    # 100 x 50 becomes 32 x 16, with 8 black rows above.
    padded = mask_of(outlines(row(100, 50, boxes=BOX), preprocess("pad")), SIZE)
    expected[:] = False
    expected[16:20, 8:24] = True
    assert np.array_equal(padded, expected)


def test_marks_of_another_label_mark_something_else() -> None:
    metal = {"label": "metal", "points": [[0.0, 0.0], [0.1, 0.1]]}
    assert len(outlines(row(64, 64, boxes=[*BOX, metal]), preprocess("squash"))) == 1
    assert outlines(row(64, 64, boxes=[metal]), preprocess("squash")) == []
    assert outlines(row(64, 64), preprocess("squash")) == []


def test_an_unknown_size_matters_only_where_the_image_is_padded() -> None:
    unknown = row(None, None, boxes=BOX)
    assert len(outlines(unknown, preprocess("squash"))) == 1
    assert outlines(unknown, preprocess("pad")) == []


def test_several_marks_are_one_mask_and_a_concave_one_keeps_its_bay() -> None:
    u = np.array([[0, 0], [9, 0], [9, 9], [6, 9], [6, 3], [3, 3], [3, 9], [0, 9]], float)
    mask = mask_of([u, np.array([[20, 20], [24, 20], [24, 24], [20, 24]], float)], SIZE)
    assert mask.sum() == 9 * 9 - 3 * 6 + 16
    assert not mask[5, 4]
    assert mask[5, 1]


def test_a_mark_between_the_centers_of_pixels_is_one_pixel() -> None:
    tiny = np.array([[5.6, 7.6], [5.9, 7.6], [5.9, 7.9]])
    mask = mask_of([tiny], SIZE)
    assert np.argwhere(mask).tolist() == [[7, 5]]
    corner = np.full((3, 2), float(SIZE))
    assert np.argwhere(mask_of([corner], SIZE)).tolist() == [[SIZE - 1, SIZE - 1]]
