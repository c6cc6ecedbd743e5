"""Heatmaps against annotations: scores, baselines, estimates by patient, and the verdict."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.saliency import BrightnessDetector, CornerDetector, annotated_data, known_classifier
from helpers.tiny_data import tiny_data

from fracnet.data.datamodule import RadiographData
from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import wilson
from fracnet.saliency import localization
from fracnet.saliency.cam import Settings
from fracnet.saliency.localization import (
    THRESHOLDS,
    annotated_rows,
    best_threshold,
    center_prior,
    edge_map,
    localization_sentences,
    localization_verdict,
    localize,
    score_maps,
)

BASELINES = {"center", "edges", "chance"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RadiographData:
    return annotated_data(tmp_path_factory.mktemp("marked"), patients=20)


def test_a_network_that_detects_the_annotations_beats_every_baseline(
    data: RadiographData,
) -> None:
    result = localize(known_classifier(BrightnessDetector), data, Settings(layer="map"))
    assert result is not None
    assert (result["images"], result["units"], result["unit"]) == (20, 20, "patient")
    assert result["annotated_area"] == pytest.approx((6 / 32) ** 2)
    assert result["scores"]["pointing"]["value"] == 1.0
    assert result["scores"]["energy"]["value"] > 0.95
    assert result["scores"]["iou"]["value"] == pytest.approx(1.0)
    assert set(result["baselines"]) == set(result["differences"]) == BASELINES
    assert result["baselines"]["chance"]["energy"]["value"] == pytest.approx(
        result["annotated_area"]
    )
    assert result["verdict"] == "better"
    assert "locate the annotations better than every baseline" in result["sentences"][0]
    assert json.loads(json.dumps(result)) == result


def test_a_network_that_responds_in_a_corner_does_not_beat_the_baselines(
    data: RadiographData,
) -> None:
    result = localize(known_classifier(CornerDetector), data, Settings(layer="map"))
    assert result is not None
    assert result["scores"]["pointing"]["value"] <= 0.1
    assert result["verdict"] == "not better"
    assert "did not locate the annotations better" in result["sentences"][0]
    # The edge detector does find the squares.
    gap = result["differences"]["edges"]["energy"]
    assert gap["high"] < 0
    assert "worse than an edge detector" in " ".join(result["sentences"])


def test_a_difference_is_the_difference_of_both_scores(data: RadiographData) -> None:
    result = localize(known_classifier(BrightnessDetector), data, Settings(layer="map"))
    assert result is not None
    for name, of in result["differences"].items():
        for score, gap in of.items():
            score_of_maps, other = result["scores"][score], result["baselines"][name][score]
            assert gap["value"] == pytest.approx(score_of_maps["value"] - other["value"])


def test_the_threshold_is_chosen_on_validation_only(tmp_path: Path) -> None:
    data = annotated_data(tmp_path, annotated_splits=("train", "test"))
    assert len(annotated_rows(data, "val")) == 0
    result = localize(known_classifier(BrightnessDetector), data, Settings(layer="map"))
    assert result is not None
    assert result["thresholds"] is None
    assert set(result["scores"]) == {"pointing", "pointing_tolerance", "energy"}
    assert "No validation image is annotated" in " ".join(result["sentences"])


def test_without_annotations_there_is_nothing_to_score(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    data.prepare_data()
    assert localize(known_classifier(BrightnessDetector), data) is None


def test_of_many_annotated_images_a_random_sample_is_scored(
    data: RadiographData,
) -> None:
    result = localize(known_classifier(BrightnessDetector), data, Settings(layer="map"), most=5)
    assert result is not None
    assert (result["images"], result["annotated"]) == (5, 20)
    assert "5 of 20 annotated test images" in " ".join(result["sentences"])
    assert result["verdict"] == "too few"
    assert "It is unclear whether the heatmaps" in result["sentences"][0]
    assert result == localize(
        known_classifier(BrightnessDetector), data, Settings(layer="map"), most=5
    )
    sample = localize(
        known_classifier(BrightnessDetector), data, Settings(layer="map"), most=5, seed=1
    )
    assert sample is not None
    assert sample["baselines"]["center"] != result["baselines"]["center"]


def test_a_padded_image_is_scored_in_its_frame(tmp_path: Path) -> None:
    result = localize(
        known_classifier(BrightnessDetector),
        annotated_data(tmp_path, mode="pad"),
        Settings(layer="map"),
    )
    assert result is not None
    assert result["scores"]["iou"]["value"] == pytest.approx(1.0)


def test_the_sentences_name_what_a_reader_must_know(data: RadiographData) -> None:
    result = localize(
        known_classifier(BrightnessDetector), data, Settings(method="eigencam", layer="map")
    )
    assert result is not None
    text = " ".join(localization_sentences(result | {"empty": 2}))
    assert "true class" not in text, "Eigen-CAM knows none"
    assert "2 heatmaps are empty and count as misses" in text
    text = " ".join(localization_sentences(result | {"empty": 1, "method": "gradcam"}))
    assert "The maximum of the true class's map" in text
    assert "1 heatmap is empty for the true class and counts as a miss" in text


def test_only_the_primary_score_decides(data: RadiographData) -> None:
    result = localize(known_classifier(CornerDetector), data, Settings(layer="map"))
    assert result is not None
    for gaps in result["differences"].values():
        gaps["energy"] |= {"low": 0.1, "high": 0.2}
        gaps["iou"] |= {"low": 0.1, "high": 0.2}
    assert localization_verdict(result) == "not better"
    assert "They are better than every baseline by energy inside and overlap" in " ".join(
        localization_sentences(result)
    )
    few = result | {"thresholds": result["thresholds"] | {"images": 4}}
    text = " ".join(localization_sentences(few))
    assert "every baseline by energy inside." in text
    assert "the overlap cannot show whether" in text
    for gaps in result["differences"].values():
        gaps["pointing"] |= {"low": 0.1, "high": 0.2}
    assert localization_verdict(result) == "better"
    assert np.all([len(sentence) > 20 for sentence in result["sentences"]])


def separate_images(n: int) -> Clusters:
    return Clusters(np.arange(n), n, "image")


def test_a_share_has_wilsons_interval() -> None:
    hits = np.arange(50) < 15
    result = localization.estimate_share(hits, separate_images(50))
    assert result["value"] == 0.3
    assert (result["low"], result["high"]) == pytest.approx(wilson(15, 50))


def test_copies_of_a_patients_image_add_no_information() -> None:
    rng = np.random.default_rng(1)
    values = rng.random(30)
    alone = localization.estimate_mean(values, separate_images(30))
    copied = localization.estimate_mean(
        np.repeat(values, 4), Clusters(np.repeat(np.arange(30), 4), 30, "patient")
    )
    assert copied["value"] == pytest.approx(alone["value"])
    assert copied["high"] - copied["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.05)
    gap = localization.estimate_difference(values - 0.4, separate_images(30))
    gaps = localization.estimate_difference(
        np.repeat(values - 0.4, 4), Clusters(np.repeat(np.arange(30), 4), 30, "patient")
    )
    assert gaps["low"] == pytest.approx(gap["low"], rel=1e-6)


def test_a_difference_holds_its_level() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        of_patient = np.repeat(rng.normal(0.1, 0.2, 25), 3)
        gaps = np.clip(of_patient + rng.normal(0, 0.2, 75), -1, 1)
        result = localization.estimate_difference(
            gaps, Clusters(np.repeat(np.arange(25), 3), 25, "patient")
        )
        covered += result["low"] <= 0.1 <= result["high"]
    assert 0.92 <= covered / 400 <= 0.98


def test_a_difference_that_never_varies() -> None:
    result = localization.estimate_difference(np.ones(40), separate_images(40))
    assert result["low"] == pytest.approx(2 * wilson(40, 40)[0] - 1)
    assert result["high"] == 1.0
    difference = localization.estimate_difference(-np.ones(40), separate_images(40))
    assert (difference["low"], difference["high"]) == (-1.0, -result["low"])
    few, many = (
        localization.estimate_difference(np.full(n, 0.5), separate_images(n)) for n in (4, 400)
    )
    assert few["low"] < 0 < many["low"] < 0.5 < many["high"] < 0.51
    same = localization.estimate_difference(np.zeros(40), separate_images(40))
    assert same["low"] == -same["high"] < 0


def test_one_patient_has_no_interval() -> None:
    single_patient = Clusters(np.zeros(3, int), 1, "patient")
    for result in (
        localization.estimate_share(np.array([True, False, True]), single_patient),
        localization.estimate_mean(np.array([0.2, 0.3, 0.4]), single_patient),
        localization.estimate_difference(np.array([0.2, 0.3, 0.4]), single_patient),
    ):
        assert result["low"] is None
        assert "one patient" in result["note"]
        assert "(" not in localization.format_score(result)


SIZE = 8


def quarter() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:4, :4] = True
    return mask


def test_a_map_that_is_the_mask_is_perfect() -> None:
    result = score_maps([quarter()[None].astype(np.float32)], [quarter()])
    assert result.pointing.tolist() == [True]
    assert result.energy == pytest.approx(1.0)
    assert result.overlaps[0] == pytest.approx(np.ones(len(THRESHOLDS)))
    assert result.area == pytest.approx(0.25)


def test_a_uniform_map_scores_the_annotated_area() -> None:
    result = score_maps([np.ones((1, SIZE, SIZE), np.float32)], [quarter()])
    assert result.pointing.tolist() == [False]  # only a quarter of its maxima are inside
    assert result.energy == pytest.approx(0.25)
    assert result.overlaps[0] == pytest.approx(np.full(len(THRESHOLDS), 0.25))


def test_a_half_high_map_overlaps_only_below_its_height() -> None:
    heat = np.zeros((1, SIZE, SIZE), np.float32)
    heat[0, :4, :] = 0.5  # twice the annotated area, all of it included
    heat[0, 7, 7] = 1.0
    result = score_maps([heat], [quarter()])
    assert result.pointing.tolist() == [False]
    assert result.energy == pytest.approx(16 * 0.5 / (32 * 0.5 + 1))
    low = THRESHOLDS <= 0.5
    assert result.overlaps[0][low] == pytest.approx(16 / 33)
    assert result.overlaps[0][~low] == pytest.approx(0.0)


def test_a_threshold_is_reached_by_an_equal_value() -> None:
    for threshold in THRESHOLDS:
        heat = np.zeros((1, SIZE, SIZE), np.float32)
        heat[0, 0, 0], heat[0, 3, 3] = 1.0, threshold
        result = score_maps([heat], [quarter()])
        at = int(np.argmin(abs(THRESHOLDS - threshold)))
        assert result.overlaps[0, at] == pytest.approx(2 / 16)
        assert result.overlaps[0, at + 1 :] == pytest.approx(1 / 16)


def test_an_empty_map_scores_0_and_is_counted() -> None:
    result = score_maps([np.zeros((1, SIZE, SIZE), np.float32)], [quarter()])
    assert (result.pointing[0], result.pointing_tolerance[0], result.energy[0]) == (
        False,
        False,
        0.0,
    )
    assert result.overlaps.sum() == 0
    assert result.empty.tolist() == [True]


def test_no_maps_have_columns_of_length_0() -> None:
    result = score_maps([], [])
    assert result.overlaps.shape == (0, len(THRESHOLDS))
    assert result.pointing.dtype == result.empty.dtype == bool


def test_the_tolerance_reaches_15_pixels_of_224() -> None:
    mask = np.zeros((224, 224), bool)
    mask[100:110, 100:110] = True
    for distance, hit in ((0, True), (15, True), (16, False)):
        heat = np.zeros((1, 224, 224), np.float32)
        heat[0, 105, 109 + distance] = 1.0
        result = score_maps([heat], [mask])
        assert (result.pointing[0], result.pointing_tolerance[0]) == (distance == 0, hit)
    # A square of 10 pixels, 15 more to each side, and quarters of a circle at the corners.
    corner = sum(x * x + y * y <= 15**2 for x in range(1, 16) for y in range(1, 16))
    assert result.tolerance_area[0] * 224**2 == pytest.approx(100 + 4 * 150 + 4 * corner)


def test_batches_of_any_size_give_the_same_and_a_missing_map_is_noticed() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((5, SIZE, SIZE)).astype(np.float32)
    masks = [quarter()] * 5
    whole, many = score_maps([maps], masks), score_maps([maps[:2], maps[2:]], masks)
    assert np.array_equal(whole.overlaps, many.overlaps)
    with pytest.raises(ValueError, match="longer"):
        score_maps([maps[:4]], masks)


def test_the_best_threshold_has_the_highest_mean() -> None:
    overlaps = np.zeros((2, len(THRESHOLDS)))
    overlaps[0, 3], overlaps[:, 7] = 0.9, 0.5
    assert best_threshold(overlaps) == 7


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
