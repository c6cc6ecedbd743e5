"""Weights are lost from the head down, and maps that do not notice are called out."""

import json

import numpy as np
import pytest
import torch
from helpers.marked import Placed, Seeing, looking, marked_data
from helpers.models import ADAM, TINY

from fracnet.data.datamodule import RadiographData
from fracnet.models.classifier import Classifier
from fracnet.saliency import sanity_check
from fracnet.saliency.sanity_check import lose_weights, null, over_draws, ranks, sentences, verdict

AGAINST = {"correlation": 0.2, "low": -0.3, "high": 0.7}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RadiographData:
    return marked_data(tmp_path_factory.mktemp("marked"), patients=8)


def test_a_map_that_survives_the_loss_of_the_weights_is_called_out(data: RadiographData) -> None:
    found = lose_weights(looking(Seeing), data, layer="map")
    assert found is not None
    assert found["verdict"] == "survives"
    assert found["model_dependent"] is False
    assert found["stages"][-1]["correlation"] == pytest.approx(1.0)
    assert "must not be taken for the network's reasons" in found["sentences"][0]
    # Images without a square have no map: it shows nothing.
    assert found["images"] + found["empty"] == 16
    assert "50 or more are usual" in " ".join(found["sentences"])
    assert json.loads(json.dumps(found)) == found


def test_a_map_that_the_weights_make_is_lost_with_them(data: RadiographData) -> None:
    model = looking(Placed)
    found = lose_weights(model, data, layer="map", draws=4)
    assert found is not None
    assert found["verdict"] == "lost"
    assert found["model_dependent"] is True
    assert found["stages"][-1]["weights"] == 1.0
    assert found["stages"][-1]["correlation"] < found["null"]["high"] - 0.3
    assert "depend on the weights" in found["sentences"][0]
    assert (found["draws"], found["images"], found["units"]) == (4, 16, 8)
    assert found == lose_weights(model, data, layer="map", draws=4)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(data: RadiographData, training: bool) -> None:
    torch.manual_seed(0)
    model = Classifier(
        TINY | {"_target_": "helpers.models.TinyNormNet"}, ["normal", "fracture"], ADAM
    ).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    lose_weights(model, data, images=6, draws=2)
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert model.training is training
    assert model.backbone.norm.training is training
    assert model.backbone.norm.momentum == 0.1
    assert torch.equal(torch.get_rng_state(), random)


def test_one_image_of_each_patient_comes_first(data: RadiographData) -> None:
    rows, clusters = sanity_check._chosen(data, 8, seed=0)
    assert clusters.count == 8
    rows, clusters = sanity_check._chosen(data, 10, seed=0)
    assert (len(set(rows)), clusters.count) == (10, 8)
    assert set(data.manifest.table.loc[rows, "split"]) == {"test"}


def test_one_image_has_nothing_to_be_compared_with(data: RadiographData) -> None:
    assert lose_weights(looking(Placed), data, layer="map", images=1) is None


def test_correlations_are_of_ranks() -> None:
    rng = np.random.default_rng(0)
    heat = rng.random((1, sanity_check.SIDE, sanity_check.SIDE)).astype(np.float32)
    one, rising, falling, flat = (
        ranks(some)[0] for some in (heat, heat**3, 1 - heat, np.zeros_like(heat))
    )
    assert one @ rising == pytest.approx(1.0)
    assert one @ falling == pytest.approx(-1.0)
    assert one @ flat == 0.0


def test_the_null_is_between_different_patients() -> None:
    a, b = (np.eye(2)[i] for i in range(2))
    ranked = np.stack([a, a, b])
    found = null(ranked, np.array([0, 0, 1]))
    assert found is not None
    assert (found["pairs"], found["correlation"], found["high"]) == (2, 0.0, 0.0)
    assert null(ranked[:2], np.array([0, 0])) is None


def test_the_interval_is_of_the_draws() -> None:
    found = over_draws([0.1, 0.3])
    # The t quantile of one degree of freedom is 12.7; an error of 0.1 reaches beyond -1 and 1.
    assert found == {"correlation": pytest.approx(0.2), "low": -1.0, "high": 1.0}
    narrow = over_draws([0.19, 0.2, 0.21, 0.2])
    assert narrow["high"] == pytest.approx(0.2 + 3.182 * 0.00816 / 2, abs=1e-3)
    assert over_draws([0.4]) == {"correlation": 0.4, "low": None, "high": None}


@pytest.mark.parametrize(
    ("correlation", "low", "high", "expected"),
    [
        (0.1, 0.0, 0.2, "lost"),
        (0.2, -0.1, 0.5, "lost"),
        (-0.4, -1.0, 0.3, "lost"),
        (0.4, 0.1, 0.69, "unclear"),
        (0.4, 0.3, 0.5, "partly"),
        (0.8, 0.1, 1.0, "survives"),
        (-0.09, -1.0, 0.88, "unclear"),
        (0.5, 0.3, 0.7, "unclear"),
        (0.1, None, None, "unclear"),
        (0.8, None, None, "survives"),
    ],
)
def test_the_verdict_holds_the_last_stage_against_the_null(
    correlation: float, low: float | None, high: float | None, expected: str
) -> None:
    last = {"correlation": correlation, "low": low, "high": high, "empty": 5}
    assert verdict(last, AGAINST, 10) == expected
    assert verdict(last | {"empty": 6}, AGAINST, 10) == "unclear", "most maps went out"


def told(**changed: object) -> dict:
    """What is found of 12 images whose maps are lost."""
    stage = {"name": "head", "correlation": 0.1, "low": 0.0, "high": 0.2, "empty": 0}
    stages = [stage, stage | changed.pop("last", {})]  # type: ignore[operator]
    counts = {"images": 12, "units": 12, "unit": "patient", "empty": 0, "draws": 3}
    found = counts | {"asked": 60, "held": 12, "method": "gradcam", "verdict": "lost"}
    return found | {"null": AGAINST, "stages": stages} | changed


def test_what_is_not_shown_is_not_claimed() -> None:
    last = {"correlation": -0.09, "low": -1.0, "high": 0.88}
    said = sentences(told(verdict="unclear", last=last))
    assert "it is not shown whether the heatmaps depend on the weights" in said[0]
    assert "may still be" in said[0]
    gone = {"correlation": None, "low": None, "high": None, "empty": 12}
    said = sentences(told(verdict="unclear", last=gone))
    assert "Most maps went out" in said[0]
    assert "12 maps of 12 went out altogether" in " ".join(said)
    assert sanity_check.DEPENDENT["unclear"] is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "The test split has 12 images; 50"),
        ({"asked": 12, "held": 45}, "12 of the 45 test images were asked for; 50"),
        ({"empty": 48, "held": 90}, "Only 12 of 60 test images had a map; 50"),
        ({"empty": 4, "held": 16}, "The test split has 16 images; 50"),
    ],
)
def test_why_there_are_few_images_is_told(changed: dict, expected: str) -> None:
    said = sentences(told(**changed))
    assert expected in said[-1]
    assert "That is of 12 images only." in said[0]


def test_blank_maps_are_no_evidence(data: RadiographData, monkeypatch: pytest.MonkeyPatch) -> None:
    def black(stage: object, generator: object) -> None:
        model.backbone.place.weight.data.fill_(-1e3)

    model = looking(Placed)
    monkeypatch.setattr(sanity_check, "randomize", black)
    found = lose_weights(model, data, layer="map", draws=2)
    assert found is not None
    assert found["stages"][-1]["empty"] == found["images"]
    assert found["stages"][-1]["correlation"] is None
    assert (found["verdict"], found["model_dependent"]) == ("unclear", None)


def test_eigen_cam_does_not_notice_the_loss_of_the_head_and_is_told_to_know_no_class(
    data: RadiographData,
) -> None:
    torch.manual_seed(0)
    node = TINY | {"_target_": "helpers.models.TinyNormNet"}
    model = Classifier(node, ["normal", "fracture"], ADAM)
    model.backbone.norm.running_mean.fill_(0.1)  # not what these images would give
    found = lose_weights(model, data, method="eigencam", layer="norm", draws=2)
    assert found is not None
    assert found["stages"][0]["name"] == "head"
    assert found["stages"][0]["correlation"] == pytest.approx(1.0)
    assert "The loss of the head alone left the maps as they were" in " ".join(found["sentences"])
