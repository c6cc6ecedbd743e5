"""Means over images and paired differences, by patient."""

import numpy as np
import pytest

from fracnet.metrics.clusters import Clusters
from fracnet.metrics.intervals import wilson
from fracnet.saliency import localization


def each(n: int) -> Clusters:
    return Clusters(np.arange(n), n, "image")


def test_a_share_has_wilsons_interval() -> None:
    hits = np.arange(50) < 15
    found = localization.share(hits, each(50))
    assert found["value"] == 0.3
    assert (found["low"], found["high"]) == pytest.approx(wilson(15, 50))


def test_copies_of_a_patients_image_tell_nothing_new() -> None:
    rng = np.random.default_rng(1)
    values = rng.random(30)
    alone = localization.mean(values, each(30))
    copied = localization.mean(
        np.repeat(values, 4), Clusters(np.repeat(np.arange(30), 4), 30, "patient")
    )
    assert copied["value"] == pytest.approx(alone["value"])
    assert copied["high"] - copied["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.05)
    gap = localization.difference(values - 0.4, each(30))
    gaps = localization.difference(
        np.repeat(values - 0.4, 4), Clusters(np.repeat(np.arange(30), 4), 30, "patient")
    )
    assert gaps["low"] == pytest.approx(gap["low"], rel=1e-6)


def test_a_difference_holds_its_level() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        of_patient = np.repeat(rng.normal(0.1, 0.2, 25), 3)
        gaps = np.clip(of_patient + rng.normal(0, 0.2, 75), -1, 1)
        found = localization.difference(gaps, Clusters(np.repeat(np.arange(25), 3), 25, "patient"))
        covered += found["low"] <= 0.1 <= found["high"]
    assert 0.92 <= covered / 400 <= 0.98


def test_a_difference_that_never_varies() -> None:
    found = localization.difference(np.ones(40), each(40))
    assert found["low"] == pytest.approx(2 * wilson(40, 40)[0] - 1)
    assert found["high"] == 1.0
    lost = localization.difference(-np.ones(40), each(40))
    assert (lost["low"], lost["high"]) == (-1.0, -found["low"])
    few, many = (localization.difference(np.full(n, 0.5), each(n)) for n in (4, 400))
    assert few["low"] < 0 < many["low"] < 0.5 < many["high"] < 0.51
    same = localization.difference(np.zeros(40), each(40))
    assert same["low"] == -same["high"] < 0


def test_one_patient_has_no_interval() -> None:
    one = Clusters(np.zeros(3, int), 1, "patient")
    for found in (
        localization.share(np.array([True, False, True]), one),
        localization.mean(np.array([0.2, 0.3, 0.4]), one),
        localization.difference(np.array([0.2, 0.3, 0.4]), one),
    ):
        assert found["low"] is None
        assert "one patient" in found["note"]
        assert "(" not in localization.score_text(found)
