"""Traces of acquisition and export are measured where they are, whatever else is in the image."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from fracnet.data_audit.image_scan import FEATURES
from fracnet.data_audit.shortcuts import check_shortcuts, score_families
from fracnet.data_audit.traces import TRACES, measure_traces
from fracnet.utils.progress import no_progress


def drawn(seed: int = 0, height: int = 300, width: int = 240) -> np.ndarray:
    """A bone on soft tissue with fine noise, uint8."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 20, np.float32)
    center, tilt = width // 2 + int(rng.integers(-20, 20)), int(rng.integers(-30, 30))
    for reach, level in ((70, 70), (26, 170), (14, 130)):
        cv2.line(image, (center - tilt, 0), (center + tilt, height), level, 2 * reach)
    image = cv2.GaussianBlur(image, (0, 0), 1.2) + rng.normal(0, 2, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def traces(image: np.ndarray) -> dict[str, float]:
    return dict(zip(TRACES, measure_traces(image).tolist(), strict=True))


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def with_letter(height: int, level: int, x: int, y: int) -> np.ndarray:
    image = drawn()
    scale = height / 21
    thick = max(1, round(2 * scale))
    cv2.putText(image, "L", (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, level, thick, cv2.LINE_AA)
    return image


@pytest.mark.parametrize(("height", "level"), [(24, 255), (10, 255), (16, 120)])
@pytest.mark.parametrize(
    ("quadrant", "x", "y"), [("top_left", 8, 40), ("top_right", 210, 40), ("bottom_left", 8, 280)]
)
def test_a_small_or_grey_letter_is_a_mark_of_its_quadrant(
    height: int, level: int, quadrant: str, x: int, y: int
) -> None:
    before, after = traces(drawn()), traces(with_letter(height, level, x, y))
    changed = {name for name in TRACES if after[name] > before[name] + 30}
    assert changed == {f"mark_{quadrant}_contrast"}


def test_a_bone_is_no_mark() -> None:
    for seed in range(5):
        values = traces(drawn(seed))
        assert max(value for name, value in values.items() if name.endswith("contrast")) < 20


def test_jpeg_blocks_are_found_on_any_grid() -> None:
    low, high = recompressed(drawn(), 30), recompressed(drawn(), 95)
    for name in ("blocks_across", "blocks_down", "grid_across", "grid_down"):
        assert traces(low)[name] > traces(high)[name] + 0.3
    shifted = traces(low[3:, 5:])
    assert shifted["grid_across"] > traces(high)["grid_across"] + 0.3
    assert shifted["blocks_across"] < traces(low)["blocks_across"] - 0.3


def test_blur_removes_fine_detail_and_noise_adds_it() -> None:
    image = drawn()
    noise = np.random.default_rng(1).normal(0, 5, image.shape)
    noisy = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
    usual, blurred, grainy = (
        traces(image),
        traces(cv2.GaussianBlur(image, (0, 0), 1)),
        traces(noisy),
    )
    assert blurred["fine_detail"] < usual["fine_detail"] - 0.3
    for name in ("noise_10", "noise_30", "noise_60"):
        assert grainy[name] > usual[name] + 0.5 > blurred[name]


@pytest.mark.parametrize("how", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST])
def test_resampling_leaves_a_period(how: int) -> None:
    image = drawn()
    twice = cv2.resize(image[::2, ::2], image.shape[::-1], interpolation=how)
    assert traces(twice)["steps_half"] > traces(image)["steps_half"] + 1
    enlarged = cv2.resize(image[:200, :160], image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    assert traces(enlarged)["bends_other"] > traces(image)["bends_other"] + 0.5


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_thin_border_is_an_even_line_with_a_jump_on_all_sides(level: int, width: int) -> None:
    image = drawn()
    framed = image.copy()
    inside = framed[width:-width, width:-width].copy()
    framed[:] = level
    framed[width:-width, width:-width] = inside
    before, after = traces(image), traces(framed)
    assert after["jump_least"] > before["jump_least"] + 0.5
    if width > 1:
        assert after["rim_unevenest"] < before["rim_evenest"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (20, 20), (2000, 7), (64, 64)])
def test_every_shape_has_finite_traces(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for image in (noise, np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)):
        assert np.isfinite(measure_traces(image)).all()
        assert len(measure_traces(image)) == len(TRACES)


def doubled(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.resize(image[::2, ::2], image.shape[::-1]))


@pytest.mark.parametrize(
    ("family", "plant"),
    [
        ("JPEG quality", lambda image: recompressed(image, 30)),
        ("resampling", doubled),
        ("corner marks", lambda image: cv2.putText(image, "L", (5, 20), 0, 0.5, 255)),
        ("", lambda image: image),
    ],
)
def test_a_planted_trace_is_a_warning_that_names_its_family(
    family: str, plant: Callable[[np.ndarray], np.ndarray]
) -> None:
    """300 drawings; the trace agrees with the class in 90 % of them."""
    n = 300
    targets = np.arange(n) % 2
    agrees = np.random.default_rng(2).random(n) < 0.9
    features = np.random.default_rng(3).normal(size=(n, len(FEATURES)))
    for i in range(n):
        image = drawn(i, 160, 128)
        image = plant(image) if targets[i] == agrees[i] else image
        features[i, -len(TRACES) :] = measure_traces(recompressed(image, 95))
    groups = [str(i) for i in range(n)]
    scores = score_families(features, targets, groups, "image", 2, no_progress)
    finding = check_shortcuts(scores, 2, "image")
    assert family in finding.title
    assert (finding.severity == "warning") == bool(family), finding.title
