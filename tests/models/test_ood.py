"""Out-of-distribution images are flagged, at a bounded rate of false alarms."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.models import TINY
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from torch import nn

from experiments.ood.photographs import photograph
from fracnet.data.image_features import APPEARANCE_NAMES, appearance_features
from fracnet.data.image_io import BadImage, read_grey
from fracnet.data.phantoms.render import REGIONS, Spec, render
from fracnet.data.preprocess import Preprocess
from fracnet.models import inference
from fracnet.models.classifier import Classifier
from fracnet.models.inference import logits_and_features
from fracnet.models.ood import (
    CONFIDENCE,
    CONTENT,
    FeatureFunction,
    Reference,
    Sample,
    fit_reference,
    limit_factor,
    order_limit,
    sample_images,
)

SAMPLE = os.environ.get("FRACATLAS_ROOT")
SIDE = 64
ENHANCE = Preprocess([{"name": "resize"}], SIDE)
OPTIM = {"_target_": "torch.optim.Adam", "lr": 0.01}


def phantoms(first: int, count: int) -> np.ndarray:
    """Radiographs of as many patients, uint8 [count, SIDE, SIDE]."""
    specs = (
        Spec(REGIONS[n % 7], seed=1, patient=n, view=n % 3) for n in range(first, first + count)
    )
    return np.stack([ENHANCE(render(spec).image) for spec in specs])


@pytest.fixture(scope="module")
def compute_features() -> FeatureFunction:
    """Features of an untrained network: the check must not depend on what it has learnt.

    Seeded: the limit holds with a confidence of 0.9 only, so one network in ten exceeds it.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return logits_and_features(Classifier(TINY, ["a", "b"], OPTIM, None))


@pytest.fixture(scope="module")
def splits() -> list[np.ndarray]:
    """Train, val and test."""
    return [phantoms(0, 100), phantoms(100, 35), phantoms(135, 60)]


def sample(images: np.ndarray, compute_features: FeatureFunction | None) -> Sample:
    return sample_images(images, np.arange(len(images)), compute_features, 16)


@pytest.fixture(scope="module")
def reference(splits: list[np.ndarray], compute_features: FeatureFunction) -> Reference:
    return fit_reference(
        sample(splits[0], compute_features), sample(splits[1], compute_features), units=35
    )


def flagged(reference: Reference, images: np.ndarray, compute_features: FeatureFunction) -> float:
    return float((reference.scores(images, compute_features(images)[1]) > 1).mean())


def test_few_images_of_the_same_kind_are_flagged(
    splits: list[np.ndarray], reference: Reference, compute_features: FeatureFunction
) -> None:
    assert flagged(reference, splits[2], compute_features) <= 0.05


@pytest.mark.parametrize("kind", ["inverted", "photograph", "blank", "noise", "faint"])
def test_images_of_another_kind_are_flagged(
    kind: str, splits: list[np.ndarray], reference: Reference, compute_features: FeatureFunction
) -> None:
    test, rng = splits[2], np.random.default_rng(0)
    images = {
        "inverted": 255 - test,
        "photograph": np.stack([photograph(seed, SIDE) for seed in range(40)]),
        "blank": np.stack([np.full((SIDE, SIDE), v, np.uint8) for v in (0, 1, 60, 128, 200, 255)]),
        "noise": rng.integers(0, 256, (20, SIDE, SIDE), np.uint8),
        "faint": (100 + (test.astype(float) - 100) * 0.1).astype(np.uint8),
    }[kind]
    least = {"inverted": 0.6, "photograph": 0.4}.get(kind, 0.95)
    assert flagged(reference, images, compute_features) >= least


@pytest.mark.skipif(SAMPLE is None, reason="no FracAtlas sample; set FRACATLAS_ROOT")
def test_real_radiographs_of_other_regions_are_flagged_far_more_often(
    reference: Reference, compute_features: FeatureFunction
) -> None:
    """15 % with so few and small images and an untrained network: the limit of 35 patients is
    high. Five trained ones with 120 images of validation flagged 74 % (experiments/ood)."""
    real = []
    for path in sorted(Path(str(SAMPLE)).rglob("*.jpg")):
        try:
            real.append(ENHANCE(read_grey(path)))
        except BadImage:  # the dataset has truncated files
            continue
    assert len(real) > 50
    assert flagged(reference, np.stack(real), compute_features) > 2 * CONTENT


@pytest.mark.parametrize("correlation", [0.0, 0.8, None], ids=["free", "correlated", "one column"])
@pytest.mark.parametrize("units", [10, 40])
def test_the_limit_holds_with_the_confidence_that_it_claims(
    units: int, correlation: float | None
) -> None:
    """Counted on new rows, from draws that the factor was not computed from.

    The limit is computed here from its definition: median and upper half spread of each
    distance, the larger of the standardized ones, and the same of these.
    """
    rng, columns, held = np.random.default_rng([7, units]), 1 if correlation is None else 2, 0
    root = np.linalg.cholesky(np.eye(columns) + (correlation or 0) * (1 - np.eye(columns)))

    def upper(values: np.ndarray) -> tuple[float, float]:
        middle = float(np.median(values))
        return middle, float(np.sqrt(np.mean((values[values > middle] - middle) ** 2)))

    times = 600
    for _ in range(times):
        # Any scale and place: distances are standardized by validation's own.
        scale, place = rng.uniform(0.1, 3, columns), rng.normal(size=columns)
        val, new = (
            rng.standard_normal((n, columns)) @ root.T * scale + place for n in (units, 4000)
        )
        spreads = [upper(column) for column in val.T]
        larger, of_new = (
            np.max([(c - m) / s for c, (m, s) in zip(rows.T, spreads, strict=True)], axis=0)
            for rows in (val, new)
        )
        center, width = upper(larger)
        held += int((of_new > center + limit_factor(units, columns) * width).mean() <= CONTENT)
    assert held / times >= CONFIDENCE - 0.04
    # What two independent distances need is more than what correlated ones do, and no waste.
    assert held / times <= (0.99 if correlation else CONFIDENCE + 0.04)


@pytest.mark.parametrize("units", [45, 60, 400])
def test_the_limit_by_order_holds_for_any_distribution(units: int) -> None:
    """Three views of each patient that are the same image: they count as one."""
    rng, held, times = np.random.default_rng([8, units]), 0, 1000
    for _ in range(times):
        patients = rng.standard_cauchy(units)  # the share above a limit is known
        limit = order_limit(np.repeat(patients, 3), units)
        held += int(stats.cauchy.sf(limit) <= CONTENT)
    assert held / times >= CONFIDENCE - 0.03
    assert held / times <= 0.97, "no waste"
    assert order_limit(np.zeros(44), 44) == -np.inf


def test_fewer_validation_patients_give_a_higher_limit(
    splits: list[np.ndarray], reference: Reference, compute_features: FeatureFunction
) -> None:
    train, val = sample(splits[0], compute_features), sample(splits[1], compute_features)
    limits = [fit_reference(train, val, units).limit for units in (8, 20, 35)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == pytest.approx(reference.limit)


def test_appearance_alone_is_enough(splits: list[np.ndarray]) -> None:
    reference = fit_reference(sample(splits[0], None), sample(splits[1], None), units=35)
    assert reference.features is None
    assert (reference.scores(splits[2], None) > 1).mean() <= 0.1
    assert (reference.scores(255 - splits[2], None) > 1).mean() >= 0.6


def test_appearance_features_are_finite_and_unchanged_by_half_a_turn(
    splits: list[np.ndarray],
) -> None:
    images = np.concatenate([splits[2][:5], np.zeros((1, SIDE, SIDE), np.uint8)])
    features = appearance_features(images)
    assert features.shape == (6, len(APPEARANCE_NAMES))
    assert np.isfinite(features).all()
    turned = appearance_features(images[:, ::-1, ::-1])
    names = [n for n in APPEARANCE_NAMES if n != "gradient_direction"]
    columns = [APPEARANCE_NAMES.index(n) for n in names]
    assert_allclose(turned[:, columns], features[:, columns], atol=2e-3)


def test_features_are_what_the_head_sees_and_leave_no_hook(splits: list[np.ndarray]) -> None:
    model = Classifier(TINY, ["a", "b"], OPTIM, None)
    logits, features = logits_and_features(model)(splits[2][:3])
    assert features is not None
    head = model.backbone.head
    assert isinstance(head, nn.Linear)
    expected = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert not head._forward_pre_hooks


def test_tokens_and_maps_are_averaged_over_places() -> None:
    import torch

    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert_array_equal(inference.pooled_features(maps), [[5.5, 17.5]])
    tokens = maps.flatten(2).transpose(1, 2)
    assert_array_equal(inference.pooled_features(tokens), [[5.5, 17.5]])
