"""Networks as ONNX: the same answers, and a class activation map only where it is exact."""

import numpy as np
import onnxruntime
import pytest
from helpers.exported import CNN, SIDE, TIMM, classifier

from fracnet.models.inference import feature_head, logits_and_features
from fracnet.onnx_export.network import network_model, why_no_map
from fracnet.saliency.cam import Settings, heatmaps
from fracnet.saliency.drawing import upsample


@pytest.mark.parametrize(
    ("target", "name", "reason"),
    [
        (TIMM, "test_resnet", ""),
        (f"{CNN}.MuraCNN", None, "not one linear layer on the mean of a feature map"),
    ],
)
def test_a_network_gives_the_same_and_a_map_where_it_is_exact(
    target: str, name: str | None, reason: str
) -> None:
    model = classifier(target, name)
    found = why_no_map(model, SIDE)
    assert found.endswith(reason)
    assert bool(found) == bool(reason)
    session = onnxruntime.InferenceSession(
        network_model(model, SIDE, with_map=not reason).SerializeToString()
    )
    for image in np.random.default_rng(0).integers(0, 256, (4, 1, SIDE, SIDE), dtype=np.uint8):
        outputs = dict(
            zip(
                [output.name for output in session.get_outputs()],
                session.run(None, {"network_image": image[None]}),
                strict=True,
            )
        )
        logits, features = logits_and_features(model)(image)
        np.testing.assert_allclose(outputs["network_logits"], logits, atol=1e-4)
        np.testing.assert_allclose(outputs["network_features"], features, atol=1e-4)
        assert ("network_maps" in outputs) == (not reason)
        if not reason:
            assert outputs["network_maps"].shape == (1, 3, SIDE // 32, SIDE // 32)
            means = outputs["network_maps"].mean(axis=(2, 3))
            bias = feature_head(model).bias.detach().numpy()
            np.testing.assert_allclose(means + bias, logits, atol=1e-4)
            # At the layer before the pooling, Grad-CAM is the class activation map.
            (heat,) = heatmaps(
                model, image, logits[0].argmax(keepdims=True), Settings(layer="layer4")
            )
            own = np.maximum(outputs["network_maps"][0, logits[0].argmax()], 0)
            np.testing.assert_allclose(upsample(own, SIDE), heat[0], atol=1e-4)


def test_layers_between_the_mean_and_the_head_leave_no_exact_map() -> None:
    model = classifier(TIMM, "convnext_atto")
    assert why_no_map(model, SIDE).startswith("other layers lie between")
