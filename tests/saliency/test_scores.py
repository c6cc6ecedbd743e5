"""Scores of maps made by hand, and the maps that know no network."""

import numpy as np
import pytest

from fracnet.saliency.localization import CUTS, best_cut, center_prior, edge_map, score

SIZE = 8


def quarter() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:4, :4] = True
    return mask


def test_a_map_that_is_the_mask_is_perfect() -> None:
    found = score([quarter()[None].astype(np.float32)], [quarter()])
    assert found.pointing.tolist() == [True]
    assert found.energy == pytest.approx(1.0)
    assert found.overlaps[0] == pytest.approx(np.ones(len(CUTS)))
    assert found.area == pytest.approx(0.25)


def test_a_map_that_is_the_same_everywhere_has_the_marks_area() -> None:
    found = score([np.ones((1, SIZE, SIZE), np.float32)], [quarter()])
    assert found.pointing.tolist() == [False]  # a quarter of its highest places are inside
    assert found.energy == pytest.approx(0.25)
    assert found.overlaps[0] == pytest.approx(np.full(len(CUTS), 0.25))


def test_a_half_high_map_overlaps_only_below_its_height() -> None:
    heat = np.zeros((1, SIZE, SIZE), np.float32)
    heat[0, :4, :] = 0.5  # twice the marks, all of them included
    heat[0, 7, 7] = 1.0
    found = score([heat], [quarter()])
    assert found.pointing.tolist() == [False]
    assert found.energy == pytest.approx(16 * 0.5 / (32 * 0.5 + 1))
    low = CUTS <= 0.5
    assert found.overlaps[0][low] == pytest.approx(16 / 33)
    assert found.overlaps[0][~low] == pytest.approx(0.0)


def test_a_cut_is_reached_by_what_equals_it() -> None:
    for cut in CUTS:
        heat = np.zeros((1, SIZE, SIZE), np.float32)
        heat[0, 0, 0], heat[0, 3, 3] = 1.0, cut
        found = score([heat], [quarter()])
        at = int(np.argmin(abs(CUTS - cut)))
        assert found.overlaps[0, at] == pytest.approx(2 / 16)
        assert found.overlaps[0, at + 1 :] == pytest.approx(1 / 16)


def test_an_empty_map_finds_nothing_and_is_told() -> None:
    found = score([np.zeros((1, SIZE, SIZE), np.float32)], [quarter()])
    assert (found.pointing[0], found.near[0], found.energy[0]) == (False, False, 0.0)
    assert found.overlaps.sum() == 0
    assert found.empty.tolist() == [True]


def test_near_is_within_the_tolerance_of_a_mark() -> None:
    mask = np.zeros((224, 224), bool)
    mask[100:110, 100:110] = True
    for away, near in ((0, True), (15, True), (16, False)):
        heat = np.zeros((1, 224, 224), np.float32)
        heat[0, 105, 109 + away] = 1.0
        found = score([heat], [mask])
        assert (found.pointing[0], found.near[0]) == (away == 0, near)
    # A square of 10 pixels, 15 more to each side, and quarters of a circle at the corners.
    corner = sum(x * x + y * y <= 15**2 for x in range(1, 16) for y in range(1, 16))
    assert found.wide[0] * 224**2 == pytest.approx(100 + 4 * 150 + 4 * corner)


def test_batches_of_any_size_give_the_same_and_a_missing_map_is_noticed() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((5, SIZE, SIZE)).astype(np.float32)
    masks = [quarter()] * 5
    one, many = score([maps], masks), score([maps[:2], maps[2:]], masks)
    assert np.array_equal(one.overlaps, many.overlaps)
    with pytest.raises(ValueError, match="longer"):
        score([maps[:4]], masks)


def test_the_best_cut_has_the_highest_mean() -> None:
    overlaps = np.zeros((2, len(CUTS)))
    overlaps[0, 3], overlaps[:, 7] = 0.9, 0.5
    assert best_cut(overlaps) == 7


def test_the_center_prior_is_highest_in_the_middle_and_symmetric() -> None:
    prior = center_prior(9)
    assert prior[4, 4] == prior.max() == 1.0
    assert np.array_equal(prior, prior.T)
    assert np.array_equal(prior, prior[::-1, ::-1])
    # A standard deviation, a quarter of the side, away.
    assert center_prior(101)[50, 50 + 25] == pytest.approx(np.exp(-0.5), abs=0.02)


def test_the_edge_map_points_to_the_edge() -> None:
    image = np.zeros((56, 56), np.uint8)
    image[:, 40:] = 200
    heat = edge_map(image)
    assert heat.max() == 1.0
    assert set(np.argwhere(heat[20:30] == heat[20:30].max())[:, 1]) <= {39, 40}
    assert heat[:, :20].max() < 0.01
    assert not edge_map(np.full((56, 56), 7, np.uint8)).any()
