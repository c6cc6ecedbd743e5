"""The OOD graph gives the scores of `fracnet.models.ood`."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.tiny import picture

from fracnet.data.image_features import appearance_features
from fracnet.models.ood import Sample, fit_reference
from fracnet.onnx_export.graph import Graph
from fracnet.onnx_export.ood_graph import ood_score


@pytest.mark.parametrize("side", [32, 45, 64])
@pytest.mark.parametrize("n_features", [0, 24])
def test_scores_equal_those_of_the_reference(side: int, n_features: int) -> None:
    rng = np.random.default_rng(side)
    images = [cv2.resize(picture(i), (side, side)) for i in range(40)]
    images += [np.full((side, side), grey, np.uint8) for grey in (0, 77, 255)]
    images += [rng.integers(0, 256, (side, side), dtype=np.uint8)]
    stack = np.stack(images)
    appearance = appearance_features(stack)
    features = rng.normal(size=(len(stack), max(n_features, 1))).astype(np.float32)
    known = features if n_features else None

    def sample(rows: slice) -> Sample:
        return Sample(appearance[rows], None if known is None else known[rows])

    reference = fit_reference(sample(slice(24)), sample(slice(24, 40)), 16)
    g = Graph()
    score = ood_score(g, "image", "features", reference, side)
    g.nodes.append(onnx.helper.make_node("Identity", [score], ["score"]))
    inputs = [("image", np.uint8, [side, side]), ("features", np.float32, [1, features.shape[1]])]
    model = g.model(inputs if n_features else inputs[:1], [("score", np.float64, [1])])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    scores = []
    for image, row in zip(stack, features, strict=True):
        given = {"image": image} | ({"features": row[None]} if n_features else {})
        scores.append(session.run(None, given)[0][0])
    np.testing.assert_allclose(scores, reference.scores(stack, known), atol=1e-4, rtol=1e-4)
