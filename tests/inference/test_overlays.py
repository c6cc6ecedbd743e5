"""Pictures of predictions: names, the heatmap's place on the original image, captions."""

import numpy as np
import pandas as pd
import pytest

from fracnet.data.preprocess import Preprocess
from fracnet.inference.inputs import MAX_SIDE, Original, read_images
from fracnet.inference.overlays import (
    CAPTION,
    EMPTY,
    caption_lines,
    heat_on_original,
    unique_name,
    with_caption,
)

PAD = Preprocess([{"name": "resize", "mode": "pad"}], 64)
SQUASH = Preprocess([{"name": "resize", "mode": "squash"}], 64)


def test_pictures_are_named_after_their_files_and_never_twice() -> None:
    names: set[str] = set()
    paths = ["a/hand.png", "b/hand.dcm", "b/HAND.jpg", "../x y:z?.png", "...png", "手.png"]
    assert [unique_name(path, names) for path in paths] == [
        "hand.png", "hand-2.png", "HAND-3.png", "x_y_z.png", "image.png", "手.png",
    ]  # fmt: skip
    assert len(unique_name(f"{'é' * 300}.png", names).encode()) < 255


@pytest.mark.parametrize("preprocess", [PAD, SQUASH], ids=["pad", "squash"])
@pytest.mark.parametrize("shape", [(300, 150), (100, 640), (64, 64)])
def test_the_heatmap_lies_where_the_image_has_the_spot(
    preprocess: Preprocess, shape: tuple[int, int]
) -> None:
    height, width = shape
    image = np.zeros(shape, np.uint8)
    row, column = height // 4, 3 * width // 4
    image[row - height // 8 : row + height // 8, column - width // 8 : column + width // 8] = 255
    heat = preprocess(image).astype(np.float32) / 255
    mapped = heat_on_original(heat, Original(image, preprocess.frame(width, height)))
    assert mapped.shape == shape
    assert np.abs(mapped - image / 255.0).mean() < 0.05


def test_a_large_image_is_kept_at_a_bounded_size() -> None:
    tall = np.zeros((4000, 1000), np.uint8)
    (loaded,) = read_images([tall], SQUASH, 1, 1, SQUASH.frame)
    assert loaded.original is not None
    assert loaded.original.pixels.shape == (MAX_SIDE, MAX_SIDE // 4)
    (loaded,) = read_images([tall], SQUASH, 1, 1)
    assert loaded.original is None


def row(**changes: object) -> pd.Series:
    return pd.Series(
        {
            "path": "scans/hand.png",
            "decision": "abnormal",
            "prob_abnormal": 0.9312,
            "uncertain": True,
            "reason": "out of distribution",
            "ood_score": 1.5,
            "ood": True,
        }
        | changes
    )


def test_the_caption_has_file_class_probability_and_flags() -> None:
    text = "\n".join(caption_lines(row(), colored=True))
    assert "hand.png" in text
    assert "predicted: abnormal, calibrated probability 0.931" in text
    assert "uncertain: out of distribution" in text
    assert "score 1.50, above the limit of 1" in text
    assert CAPTION in text
    assert EMPTY not in text
    assert EMPTY in caption_lines(row(), colored=False)
    text = "\n".join(caption_lines(row(uncertain=False, ood_score=np.nan, ood=None), colored=True))
    assert "confident" in text
    assert "score" not in text


def test_letters_of_other_languages_are_drawn() -> None:
    picture = np.zeros((40, 300, 3), np.uint8)
    drawn = {with_caption(picture, [letter]).tobytes() for letter in "öüßéñłøЖΩ"}
    assert len(drawn) == 9, "and not one box for all that are missing"


def test_a_caption_is_below_the_picture_and_grows_with_its_text() -> None:
    picture = np.zeros((240, 300, 3), np.uint8)
    short, long = (with_caption(picture, [text]) for text in ("a", "a_long_name" * 20))
    for result in (short, long):
        assert result.shape[1:] == picture.shape[1:]
        assert not result[:240].any()
        assert result[240:].max() == 255
    assert len(long) > len(short)
