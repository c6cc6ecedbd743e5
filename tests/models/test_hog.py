from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from fracnet.models.hog import HogLogistic
from fracnet.utils.errors import UserError


def stripes(degrees: float, size: int = 64, phase: float = 0.0, period: float = 9.0) -> np.ndarray:
    """A wave with grey values that change in the direction `degrees`, y pointing down."""
    y, x = np.mgrid[:size, :size]
    along = x * np.cos(np.deg2rad(degrees)) + y * np.sin(np.deg2rad(degrees))
    return np.uint8(np.round(127 + 100 * np.sin(2 * np.pi * along / period + phase)))


def hog(image: np.ndarray, **settings: int) -> np.ndarray:
    model = HogLogistic(2, image.shape[0], **settings)
    return model.features(image[None], np.array([0]))[0]


@pytest.mark.parametrize("degrees", range(0, 180, 15))
@pytest.mark.parametrize("bins", [6, 9, 12])
def test_the_histogram_peaks_at_the_direction_of_stripes(degrees: int, bins: int) -> None:
    shares = hog(stripes(degrees), bins=bins).reshape(-1, bins).sum(axis=0)
    centers = (np.arange(bins) + 0.5) * 180 / bins
    # Directions repeat after 180 degrees: the mean is taken on the doubled angle.
    mean = np.rad2deg(np.angle((shares**2 * np.exp(2j * np.deg2rad(centers))).sum())) / 2
    assert (mean - degrees + 90) % 180 - 90 == pytest.approx(0, abs=180 / bins / 4)


def test_features_ignore_brightness_and_contrast() -> None:
    image = stripes(30)
    plain = hog(image)
    np.testing.assert_allclose(hog(image // 2 + 20), plain, atol=0.02)
    assert np.abs(hog(stripes(60)) - plain).max() > 0.2
    assert not hog(np.full((64, 64), 90, np.uint8)).any(), "no gradient, no features"


def test_a_mark_changes_only_the_features_at_its_position() -> None:
    image = np.full((64, 64), 90, np.uint8)
    image[38:42, 4:12] = 200  # in the third row of cells from the top, the first column
    # Blocks lie one cell apart: [3 columns, 3 rows, 2 columns of cells, 2 rows, bins].
    features = hog(image).reshape(3, 3, 2, 2, 9).max(axis=-1)
    holds = np.argwhere(features > 0.1)
    assert {tuple(place) for place in holds[:, [0, 1]]} == {(0, 1), (0, 2)}
    strongest = {tuple(np.unravel_index(block.argmax(), (2, 2))) for block in features[0, 1:3]}
    assert strongest == {(0, 1), (0, 0)}


@pytest.mark.parametrize(
    ("size", "cell", "blocks"), [(32, 16, 1), (224, 16, 13), (150, 16, 8), (150, 8, 17)]
)
def test_number_of_features_follows_from_image_and_cell(size: int, cell: int, blocks: int) -> None:
    model = HogLogistic(6, size, cell=cell)
    assert model.n_features == blocks**2 * 4 * 9
    images = np.zeros((1, size, size), np.uint8)
    assert model.features(images, np.array([0])).shape == (1, model.n_features)


def test_border_that_fills_no_cell_is_left_out_on_both_sides() -> None:
    image = stripes(20, size=48)
    framed = np.pad(image, ((3, 4), (3, 4)), constant_values=0)
    np.testing.assert_array_equal(hog(framed), hog(image))


def test_cells_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.cell=32 .* image_size=48.*at most 24"):
        HogLogistic(2, 48, cell=32)


def striped(n: int, angles: tuple[float, ...], spread: float) -> tuple[np.ndarray, np.ndarray]:
    """n images, uint8 [n, 32, 32], of stripes about one angle a class; int64 [n]."""
    draws = np.random.default_rng(0)
    targets = draws.integers(len(angles), size=n)
    images = [
        stripes(angles[t] + draws.normal(0, spread), 32, draws.uniform(0, 6)) for t in targets
    ]
    return np.array(images), targets


TRAIN, VAL, TEST = np.arange(60), np.arange(60, 90), np.arange(90, 150)


@pytest.fixture(scope="module")
def three() -> tuple[np.ndarray, np.ndarray]:
    return striped(150, (0.0, 45.0, 100.0), spread=16)


def accuracy(model: HogLogistic, images: np.ndarray, targets: np.ndarray) -> float:
    return float((model.logits(images, TEST).argmax(axis=1) == targets[TEST]).mean())


def test_hog_learns_directions(three: tuple[np.ndarray, np.ndarray]) -> None:
    model = HogLogistic(3, 32, cell=8)
    model.fit(*three, TRAIN, VAL)
    assert accuracy(model, *three) > 0.85


def test_two_classes_give_two_logits() -> None:
    images, targets = striped(150, (0.0, 60.0), spread=12)
    model = HogLogistic(2, 32, cell=8)
    chosen = model.fit(images, targets, TRAIN, VAL)
    logits = model.logits(images, VAL)
    assert logits.shape == (30, 2)
    loss = -log_softmax(logits, axis=1)[np.arange(30), targets[VAL]].mean()
    assert chosen["value"] == pytest.approx(loss)
    assert accuracy(model, images, targets) > 0.9


def test_the_penalty_minimizes_the_validation_log_loss(
    three: tuple[np.ndarray, np.ndarray],
) -> None:
    images, targets = three
    model = HogLogistic(3, 32, cell=8, C=[10.0, 1e-6, 1e-3, 0.1])
    chosen = model.fit(images, targets, TRAIN, VAL)
    assert [trial["C"] for trial in chosen["tried"]] == [1e-6, 1e-3, 0.1, 10.0]
    losses = {trial["C"]: trial["val/loss"] for trial in chosen["tried"]}
    assert chosen["C"] == min(losses, key=losses.__getitem__)
    assert chosen["by"] == "val/loss"
    assert "note" not in chosen
    loss = -log_softmax(model.logits(images, VAL), axis=1)[np.arange(30), targets[VAL]].mean()
    assert loss == pytest.approx(losses[chosen["C"]]), "the fit of that penalty is the one kept"


def test_a_penalty_at_the_end_of_the_range_is_reported(
    three: tuple[np.ndarray, np.ndarray],
) -> None:
    chosen = HogLogistic(3, 32, cell=8, C=[1e-6, 1e-5]).fit(*three, TRAIN, VAL)
    assert "largest candidate" in chosen["note"]
    assert "note" not in HogLogistic(3, 32, cell=8, C=[1e-5]).fit(*three, TRAIN, VAL)


def test_fitting_uses_only_train_rows_and_choosing_only_validation_rows(
    three: tuple[np.ndarray, np.ndarray],
) -> None:
    images, targets = three
    model, other = HogLogistic(3, 32, cell=8), HogLogistic(3, 32, cell=8)
    chosen = model.fit(images, targets, TRAIN, VAL)
    spoilt, wrong = images.copy(), targets.copy()
    spoilt[TEST], wrong[TEST] = 255 - spoilt[TEST, ::-1], 0
    assert other.fit(spoilt, wrong, TRAIN, VAL) == chosen
    np.testing.assert_array_equal(other.weights, model.weights)
    # With a single candidate validation has no say at all.
    model, other = HogLogistic(3, 32, cell=8, C=[0.01]), HogLogistic(3, 32, cell=8, C=[0.01])
    model.fit(images, targets, TRAIN, VAL)
    other.fit(images, targets, TRAIN, TEST)
    np.testing.assert_array_equal(other.weights, model.weights)


def test_class_weights_count_as_copies_of_the_images(
    three: tuple[np.ndarray, np.ndarray],
) -> None:
    images, targets = three
    twice = np.concatenate([TRAIN, TRAIN[targets[TRAIN] == 2]])
    weighted, copied = HogLogistic(3, 32, cell=8, C=[1.0]), HogLogistic(3, 32, cell=8, C=[1.0])
    features = weighted.features(images, TRAIN)
    weighted.fit(images, targets, TRAIN, VAL, class_weights=[1.0, 1.0, 2.0])
    copied.fit(images, targets, twice, VAL)
    plain = HogLogistic(3, 32, cell=8, C=[1.0])
    plain.fit(images, targets, TRAIN, VAL)

    def third(model: HogLogistic) -> float:
        logits = features @ model.weights.T + model.bias
        return float(np.exp(log_softmax(logits, axis=1))[:, 2].mean())

    assert third(weighted) > third(plain)
    assert third(weighted) == pytest.approx(third(copied), rel=0.03), (
        "alike but for the standardization, which counts the copies"
    )


def test_stored_model_gives_the_same_logits_without_pickle(
    three: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    images, targets = three
    model = HogLogistic(3, 32, cell=8, bins=6, C=[0.1])
    model.fit(images, targets, TRAIN, VAL)
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)
    loaded = HogLogistic.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.logits(images, TEST), model.logits(images, TEST))
    assert loaded.describe() == model.describe()
