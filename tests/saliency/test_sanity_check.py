"""Weights are randomized from the head down; maps that do not change fail the check."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.models import ADAM, TINY
from helpers.saliency import (
    BrightnessDetector,
    CenterBlob,
    EdgeDetector,
    ThreeLayers,
    WeightMap,
    annotated_data,
    known_classifier,
)
from torch import nn

from fracnet.data.datamodule import RadiographData
from fracnet.models.classifier import Classifier
from fracnet.saliency import sanity_check
from fracnet.saliency.cam import Settings
from fracnet.saliency.sanity_check import (
    draws_estimate,
    null_distribution,
    randomization_stages,
    randomize,
    rank_maps,
    renormalize,
    run_sanity_check,
    sanity_sentences,
    sanity_verdict,
    weights_restored,
)

NULL = {"correlation": 0.2, "low": -0.3, "high": 0.7}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RadiographData:
    return annotated_data(tmp_path_factory.mktemp("marked"), patients=8)


@pytest.mark.parametrize(
    ("width", "noise"), [(8, 0.0), (8, 0.02), (3, 0.001), (3, 0.02), (3, 0.1), (2, 1e-4)]
)
def test_a_fixed_spot_is_never_called_dependent(
    data: RadiographData, width: float, noise: float
) -> None:
    model = known_classifier(CenterBlob, width=width, noise=noise)
    result = run_sanity_check(model, data, Settings(layer="map"))
    assert result is not None
    assert result["model_dependent"] is None, (result["null"], result["stages"][-1])
    if result["stages"][-1]["high"] >= 0.7:
        assert "would look the same" in result["sentences"][0]


def test_an_edge_map_fails(data: RadiographData) -> None:
    result = run_sanity_check(known_classifier(EdgeDetector), data, Settings(layer="map"))
    assert result is not None
    assert result["verdict"] == "failed"


@pytest.mark.parametrize(("all_layers", "expected"), [(True, "passed"), (False, "inconclusive")])
def test_one_trained_layer_is_not_enough(tmp_path: Path, all_layers: bool, expected: str) -> None:
    """The head on random convolutions, against all layers; both classify without an error."""
    data = annotated_data(tmp_path, patients=40)
    model = known_classifier(ThreeLayers, seed=2)
    rows = data.rows("train")
    images = torch.from_numpy(np.asarray(data.cache.images[rows]))[:, None]
    labels = torch.tensor(data.manifest.table["label"].iloc[rows].eq("fracture").tolist()).long()
    weights = model.parameters() if all_layers else model.backbone.head.parameters()
    optimizer = torch.optim.Adam(weights, lr=0.01)
    model.train()
    for _ in range(100):
        batch = torch.randperm(len(rows))[:32]
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert (model(images).argmax(1) == labels).all()
    result = run_sanity_check(model, data)
    assert result is not None
    assert result["verdict"] == expected, result["stages"][-1]


def test_a_map_that_survives_random_weights_fails(data: RadiographData) -> None:
    result = run_sanity_check(known_classifier(BrightnessDetector), data, Settings(layer="map"))
    assert result is not None
    assert result["verdict"] == "failed"
    assert result["model_dependent"] is False
    assert result["stages"][-1]["correlation"] == pytest.approx(1.0)
    assert "do not explain its predictions" in result["sentences"][0]
    # Images without a square have an empty map.
    assert result["images"] + result["empty"] == 16
    assert "50 or more are usual" in " ".join(result["sentences"])
    assert json.loads(json.dumps(result)) == result


def test_a_map_that_the_weights_make_passes(data: RadiographData) -> None:
    model = known_classifier(WeightMap)
    result = run_sanity_check(model, data, Settings(layer="map"), draws=4)
    assert result is not None
    assert result["verdict"] == "passed"
    assert result["model_dependent"] is True
    assert result["stages"][-1]["weights"] == 1.0
    assert result["stages"][-1]["correlation"] < result["null"]["high"] - 0.3
    assert "depend on the weights" in result["sentences"][0]
    assert (result["draws"], result["images"], result["units"]) == (4, 16, 8)
    assert result == run_sanity_check(model, data, Settings(layer="map"), draws=4)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(data: RadiographData, training: bool) -> None:
    torch.manual_seed(0)
    model = Classifier(
        TINY | {"_target_": "helpers.models.TinyNormNet"}, ["normal", "fracture"], ADAM
    ).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    run_sanity_check(model, data, images=6, draws=2)
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert model.training is training
    assert model.backbone.norm.training is training
    assert model.backbone.norm.momentum == 0.1
    assert torch.equal(torch.get_rng_state(), random)


def test_one_image_of_each_patient_comes_first(data: RadiographData) -> None:
    rows, clusters = sanity_check._choose_rows(data, 8, seed=0)
    assert clusters.count == 8
    rows, clusters = sanity_check._choose_rows(data, 10, seed=0)
    assert (len(set(rows)), clusters.count) == (10, 8)
    assert set(data.manifest.table.loc[rows, "split"]) == {"test"}


def test_a_single_image_gives_no_sanity_check(data: RadiographData) -> None:
    settings = Settings(layer="map")
    assert run_sanity_check(known_classifier(WeightMap), data, settings, images=1) is None


def test_correlations_are_of_ranks() -> None:
    rng = np.random.default_rng(0)
    heat = rng.random((1, sanity_check.SIDE, sanity_check.SIDE)).astype(np.float32)
    single, rising, falling, flat = (
        rank_maps(some)[0] for some in (heat, heat**3, 1 - heat, np.zeros_like(heat))
    )
    # Ties of the lowest levels of the cube cost a little.
    assert single @ rising == pytest.approx(1.0, abs=0.02)
    assert single @ falling == pytest.approx(-1.0, abs=1e-3)
    faint = heat * 1e-3
    faint[0, :8] = 1.0
    assert rank_maps(faint)[0] @ rank_maps(faint.round(2))[0] == pytest.approx(1.0)
    assert single @ flat == 0.0


def test_the_null_is_between_different_patients() -> None:
    a, b = (np.eye(2)[i] for i in range(2))
    ranked = np.stack([a, a, b])
    result = null_distribution(ranked, np.array([0, 0, 1]))
    assert result is not None
    assert (result["pairs"], result["correlation"], result["high"]) == (2, 0.0, 0.0)
    assert null_distribution(ranked[:2], np.array([0, 0])) is None


def test_the_interval_is_of_the_draws() -> None:
    result = draws_estimate([0.1, 0.3])
    # The t quantile of one degree of freedom is 12.7; an error of 0.1 reaches beyond -1 and 1.
    assert result == {"correlation": pytest.approx(0.2), "low": -1.0, "high": 1.0}
    narrow = draws_estimate([0.19, 0.2, 0.21, 0.2])
    assert narrow["high"] == pytest.approx(0.2 + 3.182 * 0.00816 / 2, abs=1e-3)
    assert draws_estimate([0.4]) == {"correlation": 0.4, "low": None, "high": None}


@pytest.mark.parametrize(
    ("correlation", "low", "high", "expected"),
    [
        (0.1, 0.0, 0.2, "passed"),
        (0.2, -0.1, 0.5, "passed"),
        (-0.4, -1.0, 0.3, "passed"),
        (0.4, 0.1, 0.69, "inconclusive"),
        (0.4, 0.3, 0.5, "partial"),
        (0.8, 0.1, 1.0, "failed"),
        (-0.09, -1.0, 0.88, "inconclusive"),
        (0.5, 0.3, 0.7, "inconclusive"),
        (0.1, None, None, "inconclusive"),
        (0.8, None, None, "failed"),
        (0.4, 0.35, 0.65, "partial"),
    ],
)
def test_the_verdict_holds_the_last_stage_against_the_null(
    correlation: float, low: float | None, high: float | None, expected: str
) -> None:
    last = {"correlation": correlation, "low": low, "high": high, "empty": 5}
    assert sanity_verdict(last, NULL, 10) == expected
    assert sanity_verdict(last | {"empty": 6}, NULL, 10) == "inconclusive", "most maps are empty"


@pytest.mark.parametrize(
    ("null_mean", "null_high", "last", "expected"),
    [
        (0.95, 0.995, (0.99, 0.99, 0.99), "inconclusive"),
        (0.95, 0.98, (1.0, 1.0, 1.0), "inconclusive"),
        (0.72, 0.999, (0.98, 0.97, 0.99), "inconclusive"),
        (0.95, 0.99, (0.1, 0.0, 0.2), "passed"),
        (0.45, 0.9, (0.45, 0.4, 0.55), "inconclusive"),
        (0.3, 0.999, (0.99, 0.99, 0.99), "failed"),
        (0.3, 0.95, (0.8, 0.75, 0.85), "inconclusive"),
    ],
)
def test_maps_that_keep_most_of_themselves_never_pass(
    null_mean: float, null_high: float, last: tuple[float, float, float], expected: str
) -> None:
    null = {"correlation": null_mean, "low": 0.0, "high": null_high}
    stage = dict(zip(("correlation", "low", "high"), last, strict=True)) | {"empty": 0}
    assert sanity_verdict(stage, null, 10) == expected


def result_with(**changed: object) -> dict:
    """The result of 12 images that pass the check."""
    stage = {"name": "head", "correlation": 0.1, "low": 0.0, "high": 0.2, "empty": 0}
    stages = [stage, stage | changed.pop("last", {})]  # type: ignore[operator]
    counts = {"images": 12, "units": 12, "unit": "patient", "empty": 0, "draws": 3}
    result = counts | {"requested": 60, "available": 12, "method": "gradcam", "verdict": "passed"}
    return result | {"null": NULL, "stages": stages} | changed


def test_an_inconclusive_check_claims_nothing() -> None:
    last = {"correlation": -0.09, "low": -1.0, "high": 0.88}
    sentences = sanity_sentences(result_with(verdict="inconclusive", last=last))
    assert "it is unclear whether the heatmaps depend on the weights" in sentences[0]
    assert "may still be" in sentences[0]
    empty_stage = {"correlation": None, "low": None, "high": None, "empty": 12}
    sentences = sanity_sentences(result_with(verdict="inconclusive", last=empty_stage))
    assert "Most maps became empty" in sentences[0]
    assert "12 maps of 12 were empty" in " ".join(sentences)
    assert sanity_check.MODEL_DEPENDENT["inconclusive"] is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "The test split has 12 images; 50"),
        ({"requested": 12, "available": 45}, "Only 12 of the 45 test images were requested; 50"),
        ({"empty": 48, "available": 90}, "Only 12 of 60 test images had a map; 50"),
        ({"empty": 4, "available": 16}, "The test split has 16 images; 50"),
    ],
)
def test_the_reason_for_few_images_is_given(changed: dict, expected: str) -> None:
    sentences = sanity_sentences(result_with(**changed))
    assert expected in sentences[-1]
    assert "This rests on only 12 images." in sentences[0]


def test_empty_maps_are_no_evidence(data: RadiographData, monkeypatch: pytest.MonkeyPatch) -> None:
    def black(stage: object, generator: object) -> None:
        model.backbone.place.weight.data.fill_(-1e3)

    model = known_classifier(WeightMap)
    monkeypatch.setattr(sanity_check, "randomize", black)
    result = run_sanity_check(model, data, Settings(layer="map"), draws=2)
    assert result is not None
    assert result["stages"][-1]["empty"] == result["images"]
    assert result["stages"][-1]["correlation"] is None
    assert (result["verdict"], result["model_dependent"]) == ("inconclusive", None)


def test_eigen_cam_ignores_the_head_and_so_the_class(
    data: RadiographData,
) -> None:
    torch.manual_seed(0)
    node = TINY | {"_target_": "helpers.models.TinyNormNet"}
    model = Classifier(node, ["normal", "fracture"], ADAM)
    model.backbone.norm.running_mean.fill_(0.1)  # not what these images would give
    result = run_sanity_check(model, data, Settings(method="eigencam", layer="norm"), draws=2)
    assert result is not None
    assert result["stages"][0]["name"] == "head"
    assert result["stages"][0]["correlation"] == pytest.approx(1.0)
    assert "Randomizing the head alone left the maps unchanged" in " ".join(result["sentences"])


SIZE = 64


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    more = {"img_size": SIZE} if name.startswith(("vit", "swin")) else {}
    backbone: nn.Module = timm.create_model(name, num_classes=3, **more)
    return backbone.eval()


def noise(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "head", "last"),
    [
        ("resnet18", "fc", "conv1"),
        ("tf_efficientnet_lite0", "classifier", "conv_stem"),
        ("convnext_atto", "head.fc", "stem.0"),
        ("vit_tiny_patch16_224", "head", "input"),
    ],
)
def test_every_weight_is_randomized_once_the_head_first_the_input_last(
    name: str, head: str, last: str
) -> None:
    backbone = network(name)
    stages = randomization_stages(backbone, noise(), most=6)
    assert len(stages) == 6
    assert (stages[0].name, stages[-1].name) == (head, last)
    weights = [weight for s in stages for m in s.modules for weight in m.parameters(recurse=False)]
    assert (
        len({id(weight) for weight in weights}) == len(weights) == len(list(backbone.parameters()))
    )
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    reference = backbone(noise()).std()
    for stage in stages:
        randomize(stage, torch.Generator().manual_seed(1))
    kernels = [key for key, value in before.items() if value.ndim > 1]
    after = dict(backbone.named_parameters())
    assert not any(torch.equal(before[key], after[key]) for key in kernels)
    with torch.no_grad():
        renormalize(backbone, stages, [noise(8)])  # type: ignore[arg-type]
        left = backbone(noise()).std()
    assert left > 0.01 * reference.clamp(min=0.01)
    assert torch.isfinite(left)
    assert left < 1e3


def test_a_stage_randomizes_only_its_own_weights() -> None:
    backbone = network("resnet18")
    stages = randomization_stages(backbone, noise())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    randomize(stages[0], torch.Generator().manual_seed(0))
    changed = {
        name
        for name, value in backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_the_order_is_that_of_use_and_not_of_naming() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.body = nn.Conv2d(3, 4, 3)
            self.never = nn.Linear(1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.body(images).mean(dim=(2, 3)))
            return out

    stages = randomization_stages(Backwards(), noise())
    assert [stage.name for stage in stages] == ["head", "body", "never"]
    assert [stage.name for stage in randomization_stages(Backwards(), noise(), most=2)] == [
        "head",
        "never",
    ]


def test_a_network_of_one_layer_has_one_stage() -> None:
    only = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    assert [stage.name for stage in randomization_stages(only, noise())] == ["1"]


def test_batch_normalization_fits_the_new_weights() -> None:
    torch.manual_seed(0)
    model = Classifier(TINY | {"_target_": "helpers.models.TinyNormNet"}, ["a", "b"], ADAM).eval()
    norm = model.backbone.norm
    norm.running_mean.fill_(50.0)
    images = torch.randint(0, 256, (8, 1, SIZE, SIZE), dtype=torch.uint8)
    head, body = randomization_stages(model.backbone, model.input(images), most=2)
    renormalize(model, [head], [images])
    assert (norm.running_mean == 50).all()  # nothing before it was randomized
    renormalize(model, [head, body], [images[:4], images[4:]])
    output = model.backbone.convolution(model.input(images))
    assert torch.allclose(norm.running_mean, output.mean(dim=(0, 2, 3)), atol=1e-4)
    assert not norm.training
    assert norm.momentum == 0.1


def test_weights_are_restored_after_an_exception() -> None:
    backbone = network("resnet18")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}

    def fail() -> None:
        with weights_restored(backbone):
            for stage in randomization_stages(backbone, noise()):
                randomize(stage, torch.Generator())
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
