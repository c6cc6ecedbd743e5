"""Networks in 8 bits."""

import numpy as np
import onnxruntime
import pytest
from helpers.exported import SIDE, TIMM, classifier
from helpers.tiny import picture

from fracnet.data.preprocess import squash
from fracnet.onnx_export.network import network_model
from fracnet.onnx_export.quantize import MAX_CALIBRATION, calibration_rows, quantized


@pytest.mark.slow
def test_a_quantized_network_is_small_and_answers_nearly_the_same() -> None:
    network = network_model(classifier(TIMM, "test_resnet"), SIDE, with_map=True)
    images = np.stack([squash(picture(seed), SIDE) for seed in range(12)])
    small = quantized(network, images)
    assert small.ByteSize() < 0.5 * network.ByteSize()
    logits = []
    for model in (network, small):
        session = onnxruntime.InferenceSession(model.SerializeToString())
        given = [{"network_image": image[None, None]} for image in images]
        logits.append(np.stack([session.run(["network_logits"], item)[0] for item in given]))
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.1 * np.abs(logits[0]).max()


def test_calibration_images_are_few_and_spread_over_validation() -> None:
    rows = np.arange(1000, 1730)
    chosen = calibration_rows(rows)
    assert len(chosen) <= MAX_CALIBRATION
    assert chosen[0] == 1000
    assert chosen[-1] > 1700
    assert list(calibration_rows(rows[:3])) == [1000, 1001, 1002]
