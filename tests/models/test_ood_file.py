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


def random_sample(rng: np.random.Generator, n: int, features: bool) -> Sample:
    appearance = rng.normal(size=(n, len(APPEARANCE_NAMES))).astype(np.float32)
    return Sample(appearance, rng.normal(size=(n, 5)).astype(np.float32) if features else None)


@pytest.fixture(params=[True, False], ids=["features", "appearance alone"])
def reference(request: pytest.FixtureRequest) -> Reference:
    rng = np.random.default_rng(0)
    return fit_reference(
        random_sample(rng, 60, request.param), random_sample(rng, 30, request.param), units=30
    )


def save(fitted: Reference, path: Path, checkpoint: Path) -> None:
    with path.open("wb") as file:
        ood.save_reference(fitted, file, checkpoint)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "best.ckpt").write_bytes(b"weights")
    return tmp_path / "best.ckpt"


def test_a_saved_reference_loads_unchanged(
    reference: Reference, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ood.npz"
    save(reference, path, checkpoint)
    loaded = ood.load_reference(path, checkpoint)
    new = random_sample(np.random.default_rng(1), 20, reference.features is not None)
    before, after = (
        stored.scores_of(new.appearance, new.features) for stored in (reference, loaded)
    )
    np.testing.assert_array_equal(before, after)
    assert loaded.describe() == reference.describe()


def test_a_reference_of_another_checkpoint_is_rejected(
    reference: Reference, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ood.npz"
    save(reference, path, checkpoint)
    checkpoint.write_bytes(b"weightz")
    with pytest.raises(UserError, match=r"belongs to another checkpoint .* than best\.ckpt"):
        ood.load_reference(path, checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": np.zeros(3, np.float32)}, "mean has the shape .3. instead of .[1-9]"),
        ({"scale": np.zeros(len(APPEARANCE_NAMES), np.float32)}, "scale is not above 0"),
        (
            {"precision": np.full((len(APPEARANCE_NAMES),) * 2, np.nan, np.float32)},
            "precision holds a value that is not a finite number",
        ),
        ({"precision": np.eye(len(APPEARANCE_NAMES) - 1)}, "precision has the shape"),
        ({"spread": np.ones(3)}, "spread has the shape .3. instead of .2."),
        ({"middle": np.array([np.inf] * 2)}, "middle holds a value"),
        ({"limit": np.nan}, "limit holds a value"),
        ({"limit": -1.0}, "limit is not above 0"),
        ({"features": np.zeros((0, 5), np.float16)}, "features has the shape .0, 5."),
        ({"features": np.zeros(5, np.float16)}, "features has the shape .5. instead"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_arrays_are_rejected(
    change: dict[str, Any], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    reference = fit_reference(random_sample(rng, 60, True), random_sample(rng, 30, True), units=30)
    path = tmp_path / "ood.npz"
    save(replace(reference, **change), path, checkpoint)
    with pytest.raises(UserError, match=f"ood.npz cannot be read .{message}"):
        ood.load_reference(path, checkpoint)


def test_a_damaged_file_is_rejected_or_fully_read(
    reference: Reference, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ood.npz"
    save(reference, path, checkpoint)
    whole, rng = path.read_bytes(), np.random.default_rng(3)
    new = random_sample(rng, 5, reference.features is not None)
    before, refused = reference.scores_of(new.appearance, new.features), 0
    for n in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole))] if n % 3 == 0 else whole)
        for place in rng.integers(len(damaged), size=3):
            damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = ood.load_reference(path, checkpoint)
        except UserError:
            refused += 1
        else:  # the damage hit an unused field, such as a date
            np.testing.assert_array_equal(loaded.scores_of(new.appearance, new.features), before)
    assert refused > 40


def test_rounding_noise_of_linear_algebra_does_not_reach_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Noisy(ood.LedoitWolf):
        """Sums in another order, as on another number of threads."""

        def fit(self, values: np.ndarray) -> "Noisy":
            super().fit(values)
            self.precision_ = self.precision_ * (1 + 4 * np.finfo(values.dtype).eps)
            return self

    rng = np.random.default_rng(0)
    train, val = random_sample(rng, 60, True), random_sample(rng, 30, True)
    fitted = fit_reference(train, val, units=30)
    monkeypatch.setattr(ood, "LedoitWolf", Noisy)
    repeated = fit_reference(train, val, units=30)
    assert repeated.precision.tobytes() == fitted.precision.tobytes()
    assert repeated.limit == fitted.limit
