"""A reference comes back from its file as it was, or not at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fracnet.data.image_features import APPEARANCE_NAMES
from fracnet.models import ood
from fracnet.models.ood import Reference, Sample, fit_reference
from fracnet.utils.errors import UserError


def drawn(rng: np.random.Generator, n: int, features: bool) -> Sample:
    looks = rng.normal(size=(n, len(APPEARANCE_NAMES))).astype(np.float32)
    return Sample(looks, rng.normal(size=(n, 5)).astype(np.float32) if features else None)


@pytest.fixture(params=[True, False], ids=["features", "appearance alone"])
def found(request: pytest.FixtureRequest) -> Reference:
    rng = np.random.default_rng(0)
    return fit_reference(drawn(rng, 60, request.param), drawn(rng, 30, request.param), units=30)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "best.ckpt").write_bytes(b"weights")
    return tmp_path / "best.ckpt"


def test_it_is_the_same_after_a_file(found: Reference, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "ood.npz"
    ood.save_reference(found, path, checkpoint)
    loaded = ood.load_reference(path, checkpoint)
    new = drawn(np.random.default_rng(1), 20, found.features is not None)
    before, after = (one.scores_of(new.appearance, new.features) for one in (found, loaded))
    np.testing.assert_array_equal(before, after)
    assert loaded.describe() == found.describe()


def test_that_of_another_checkpoint_is_refused(
    found: Reference, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ood.npz"
    ood.save_reference(found, path, checkpoint)
    checkpoint.write_bytes(b"weightz")
    with pytest.raises(UserError, match=r"belongs to another checkpoint .* than best\.ckpt"):
        ood.load_reference(path, checkpoint)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mean": np.zeros(3, np.float32)}, "mean has the shape"),
        ({"scale": np.zeros(len(APPEARANCE_NAMES), np.float32)}, "scale is not above 0"),
        (
            {"precision": np.full((len(APPEARANCE_NAMES),) * 2, np.nan, np.float32)},
            "precision holds a value",
        ),
        ({"precision": np.eye(len(APPEARANCE_NAMES) - 1)}, "precision has the shape"),
        ({"spread": np.ones(3)}, "spread has the shape"),
        ({"middle": np.array([np.inf] * 2)}, "middle holds a value"),
        ({"limit": np.nan}, "limit holds a value"),
        ({"limit": -1.0}, "limit is not above 0"),
        ({"features": np.zeros((0, 5), np.float16)}, "features has the shape"),
        ({"features": np.zeros(5, np.float16)}, "features has the shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_cannot_be_are_refused(
    change: dict[str, Any], told: str, checkpoint: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    found = fit_reference(drawn(rng, 60, True), drawn(rng, 30, True), units=30)
    path = tmp_path / "ood.npz"
    ood.save_reference(replace(found, **change), path, checkpoint)
    with pytest.raises(UserError, match=f"ood.npz cannot be read .{told}"):
        ood.load_reference(path, checkpoint)


def test_a_damaged_file_is_refused_and_never_half_read(
    found: Reference, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ood.npz"
    ood.save_reference(found, path, checkpoint)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    new = drawn(rng, 5, found.features is not None)
    before, refused = found.scores_of(new.appearance, new.features), 0
    for n in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole))] if n % 3 == 0 else whole)
        for place in rng.integers(len(damaged), size=3):
            damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = ood.load_reference(path, checkpoint)
        except UserError:
            refused += 1
        else:  # the damage lies where nothing is kept, such as in a date
            np.testing.assert_array_equal(loaded.scores_of(new.appearance, new.features), before)
    assert refused > 40
