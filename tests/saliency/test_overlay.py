"""Overlays show the heat where it is, and the radiograph everywhere."""

import numpy as np

from fracnet.saliency.gallery import LEAST, draw, enlarged

SIDE = 64
SQUARE = np.array([[16.0, 16.0], [48.0, 16.0], [48.0, 48.0], [16.0, 48.0]])


def radiograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)


def lightness(picture: np.ndarray) -> np.ndarray:
    """Luma of RGB, float64 [H, W]."""
    return np.asarray(picture @ np.array([0.299, 0.587, 0.114]))


def test_without_heat_it_is_the_radiograph() -> None:
    image = radiograph()
    plain = np.repeat(image[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(draw(image), plain)
    np.testing.assert_array_equal(draw(image, np.zeros(image.shape, np.float32)), plain)


def test_color_is_where_the_heat_is_and_the_radiograph_shows_through() -> None:
    image, heat = radiograph(), np.zeros((SIDE, SIDE), np.float32)
    heat[:, SIDE // 2 :] = 1
    picture = draw(image, heat)
    colored = np.ptp(picture.astype(int), axis=2) > 0
    assert not colored[:, : SIDE // 2].any()
    assert colored[:, SIDE // 2 :].all()
    seen = lightness(picture)[:, SIDE // 2 :].ravel()
    assert np.corrcoef(seen, image[:, SIDE // 2 :].ravel())[0, 1] > 0.99


def test_more_heat_is_lighter_on_dark_ground() -> None:
    heat = np.linspace(0, 1, SIDE, dtype=np.float32)[None].repeat(SIDE, axis=0)
    seen = lightness(draw(np.zeros((SIDE, SIDE), np.uint8), heat))[0]
    assert (np.diff(seen) >= 0).all()
    assert seen[-1] > 100


def test_outlines_lie_at_their_pixels_and_nowhere_else() -> None:
    picture = draw(np.zeros((SIDE, SIDE), np.uint8), None, [SQUARE])
    rows, columns = np.nonzero(lightness(picture) > 50)
    assert (rows.min(), rows.max()) == (columns.min(), columns.max())
    assert abs(int(rows.min()) + 0.5 - 16) <= 1
    assert abs(int(rows.max()) + 0.5 - 48) <= 1
    assert not picture[20:44, 20:44].any()


def test_small_pictures_are_enlarged_with_all_that_is_in_them() -> None:
    image, heat = radiograph(), np.zeros((SIDE, SIDE), np.float32)
    heat[20:30, 40:50] = 1
    large, warm, (outline,) = enlarged(image, heat, [SQUARE])
    times = large.shape[0] // SIDE
    assert large.shape == warm.shape == (SIDE * times, SIDE * times)
    assert LEAST <= large.shape[0] < LEAST + SIDE
    np.testing.assert_array_equal(outline, SQUARE * times)
    assert warm[25 * times, 45 * times] == 1
    assert warm[10 * times, 10 * times] == 0


def test_large_pictures_stay_as_they_are() -> None:
    image = np.zeros((LEAST, LEAST), np.uint8)
    assert enlarged(image, np.zeros((LEAST, LEAST), np.float32), [])[0] is image
