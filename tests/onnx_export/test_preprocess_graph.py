"""The preprocessing graph gives the bytes of the Python pipeline."""

from collections.abc import Callable

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from fracnet.data.image_io import stretch_to_uint8
from fracnet.data.preprocess import Preprocess
from fracnet.onnx_export.graph import Graph
from fracnet.onnx_export.preprocess_graph import check_exportable, preprocess, to_uint8
from fracnet.utils.errors import UserError

SIDE = 48
RESIZE, PAD = {"name": "resize"}, {"name": "resize", "mode": "pad"}
PIPELINES = {
    "squash": [RESIZE],
    "pad": [PAD],
    "clahe": [RESIZE, {"name": "clahe"}],
    "clahe whose tiles do not divide": [PAD, {"name": "clahe", "tiles": 7, "clip_limit": 3.5}],
    "clahe before the resize": [{"name": "clahe", "clip_limit": 1.5}, RESIZE],
    "denoise": [{"name": "median"}, RESIZE, {"name": "clahe"}],
    "median of 5": [RESIZE, {"name": "median", "size": 5}],
    "median of 9": [PAD, {"name": "median", "size": 9}],
    "gaussian": [RESIZE, {"name": "gaussian"}],
    "gaussian before the resize": [{"name": "gaussian", "size": 11, "sigma": 2.5}, PAD],
    "bilateral": [RESIZE, {"name": "bilateral", "diameter": 7, "sigma_color": 20.0}],
}
SIDES = (
    (1, 1), (1, 7), (9, 1), (2, 2), (48, 48), (96, 96), (144, 48), (48, 96), (47, 49), (20, 200),
    (240, 16), (96, 192), (336, 336), (160, 160), (64, 64), (120, 168), (131, 77), (333, 250),
)  # fmt: skip
"""Heights and widths: whole and broken factors, growing, shrinking, and one of each."""


def in_onnx(steps: list[dict[str, object]], side: int) -> Callable[[np.ndarray], np.ndarray]:
    g = Graph()
    image = preprocess(g, to_uint8(g, "image", "bits"), Preprocess(steps, side).steps, side)
    g.nodes.append(onnx.helper.make_node("Identity", [image], ["out"]))
    model = g.model(
        [("image", np.uint16, ["h", "w"]), ("bits", np.int64, [])], [("out", np.uint8, [side] * 2)]
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def run(image: np.ndarray) -> np.ndarray:
        bits = np.array(8 * image.itemsize, np.int64)
        return session.run(None, {"image": image.astype(np.uint16), "bits": bits})[0]

    return run


def drawn(sides: tuple[int, int]) -> list[np.ndarray]:
    """Noise, smooth noise, two grey levels, and a constant image."""
    rng = np.random.default_rng(sides)
    noise = rng.integers(0, 256, sides, dtype=np.uint8)
    two = np.where(noise < 128, 7, 249).astype(np.uint8)
    return [noise, np.asarray(cv2.blur(noise, (5, 5))), two, np.full(sides, 77, np.uint8)]


@pytest.mark.parametrize("steps", PIPELINES.values(), ids=PIPELINES)
def test_every_byte_is_that_of_the_pipeline(steps: list[dict[str, object]]) -> None:
    pipeline, run = Preprocess(steps, SIDE), in_onnx(steps, SIDE)
    for sides in SIDES:
        for image in drawn(sides):
            np.testing.assert_array_equal(run(image), pipeline(image), str(sides))


@pytest.mark.parametrize(
    "image",
    [
        np.arange(4200, dtype=np.uint16).reshape(60, 70) * 3,
        np.random.default_rng(0).integers(0, 1 << 16, (50, 41), dtype=np.uint16),
        np.full((40, 50), 30_000, np.uint16),
        np.full((40, 50), 65_535, np.uint16),
        np.zeros((3, 3), np.uint16),
    ],
    ids=["ramp", "noise", "constant", "white", "black"],
)
def test_sixteen_bits_are_stretched_as_files_are(image: np.ndarray) -> None:
    expected = Preprocess([RESIZE], SIDE)(stretch_to_uint8(image))
    np.testing.assert_array_equal(in_onnx([RESIZE], SIDE)(image), expected)


def test_a_step_that_cannot_be_reproduced_is_refused_by_name() -> None:
    steps = Preprocess([RESIZE, {"name": "bilateral", "diameter": 5}], SIDE).steps
    with pytest.raises(UserError, match="step bilateral with diameter=5 cannot be exported"):
        check_exportable(steps)
