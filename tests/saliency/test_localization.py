"""Heatmaps against marks: a network that sees them, and one that stares at a corner."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.marked import Seeing, Staring, looking, marked_data
from helpers.tiny_data import tiny_data

from fracnet.data.datamodule import RadiographData
from fracnet.saliency.localization import localize, marked_rows, sentences, verdict

BASELINES = {"center", "edges", "chance"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RadiographData:
    return marked_data(tmp_path_factory.mktemp("marked"), patients=20)


def test_a_network_that_sees_the_marks_is_better_than_all_that_see_none(
    data: RadiographData,
) -> None:
    found = localize(looking(Seeing), data, layer="map")
    assert found is not None
    assert (found["images"], found["units"], found["unit"]) == (20, 20, "patient")
    assert found["area"] == pytest.approx((6 / 32) ** 2)
    assert found["scores"]["pointing"]["value"] == 1.0
    assert found["scores"]["energy"]["value"] > 0.95
    assert found["scores"]["iou"]["value"] == pytest.approx(1.0)
    assert set(found["baselines"]) == set(found["differences"]) == BASELINES
    assert found["baselines"]["chance"]["energy"]["value"] == pytest.approx(found["area"])
    assert found["verdict"] == "better"
    assert "better than" in found["sentences"][0]
    assert json.loads(json.dumps(found)) == found


def test_a_network_that_stares_at_a_corner_is_not(data: RadiographData) -> None:
    found = localize(looking(Staring), data, layer="map")
    assert found is not None
    assert found["scores"]["pointing"]["value"] <= 0.1
    assert found["verdict"] == "not better"
    assert "not shown" in found["sentences"][0]
    # The edge detector does see the squares.
    gap = found["differences"]["edges"]["energy"]
    assert gap["high"] < 0
    assert "worse than an edge detector" in " ".join(found["sentences"])


def test_a_difference_is_that_of_the_two_values(data: RadiographData) -> None:
    found = localize(looking(Seeing), data, layer="map")
    assert found is not None
    for name, of in found["differences"].items():
        for score, gap in of.items():
            own, other = found["scores"][score], found["baselines"][name][score]
            assert gap["value"] == pytest.approx(own["value"] - other["value"])


def test_the_cut_is_chosen_on_validation_alone(tmp_path: Path) -> None:
    data = marked_data(tmp_path, marks_in=("train", "test"))
    assert len(marked_rows(data, "val")) == 0
    found = localize(looking(Seeing), data, layer="map")
    assert found is not None
    assert found["cuts"] is None
    assert set(found["scores"]) == {"pointing", "near", "energy"}
    assert "No validation image is marked" in " ".join(found["sentences"])


def test_without_marks_there_is_nothing_to_score(tmp_path: Path) -> None:
    data = tiny_data(tmp_path)
    data.prepare_data()
    assert localize(looking(Seeing), data) is None


def test_more_marked_images_than_asked_for_are_drawn_from_and_told(data: RadiographData) -> None:
    found = localize(looking(Seeing), data, layer="map", most=5)
    assert found is not None
    assert (found["images"], found["marked"]) == (5, 20)
    assert "5 of 20 marked test images" in " ".join(found["sentences"])
    assert found["verdict"] == "too few"
    assert "It cannot be told" in found["sentences"][0]
    assert found == localize(looking(Seeing), data, layer="map", most=5)
    others = localize(looking(Seeing), data, layer="map", most=5, seed=1)
    assert others is not None
    assert others["baselines"]["center"] != found["baselines"]["center"]


def test_a_padded_image_is_scored_in_its_frame(tmp_path: Path) -> None:
    found = localize(looking(Seeing), marked_data(tmp_path, mode="pad"), layer="map")
    assert found is not None
    assert found["scores"]["iou"]["value"] == pytest.approx(1.0)


def test_the_words_name_what_a_reader_must_know(data: RadiographData) -> None:
    found = localize(looking(Seeing), data, method="eigencam", layer="map")
    assert found is not None
    told = " ".join(sentences(found | {"empty": 2}))
    assert "true class" not in told, "Eigen-CAM knows none"
    assert "2 heatmaps of them showed nothing, and count" in told
    told = " ".join(sentences(found | {"empty": 1, "method": "gradcam"}))
    assert "The highest place of the true class's map" in told
    assert "1 heatmap of them showed nothing for the true class, and counts" in told


def test_only_the_score_that_was_named_before_decides(data: RadiographData) -> None:
    found = localize(looking(Staring), data, layer="map")
    assert found is not None
    for gaps in found["differences"].values():
        gaps["energy"] |= {"low": 0.1, "high": 0.2}
        gaps["iou"] |= {"low": 0.1, "high": 0.2}
    assert verdict(found) == "not better"
    assert "Besides, they are better than all of these by energy inside and overlap" in " ".join(
        sentences(found)
    )
    few = found | {"cuts": found["cuts"] | {"images": 4}}
    told = " ".join(sentences(few))
    assert "all of these by energy inside." in told
    assert "by overlap it cannot be told" in told
    for gaps in found["differences"].values():
        gaps["pointing"] |= {"low": 0.1, "high": 0.2}
    assert verdict(found) == "better"
    assert np.all([len(sentence) > 20 for sentence in found["sentences"]])
