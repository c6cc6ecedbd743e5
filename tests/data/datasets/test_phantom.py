"""Arguments of the phantom datasets, checked before anything is drawn."""

import pytest

from fracnet.config.instantiate import build
from fracnet.utils.errors import UserError


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (
            "UpperLimbPhantom",
            {"counts": {"training": 3}},
            "the key training of data.counts is not allowed",
        ),
        ("UpperLimbPhantom", {"counts": {"train": -1}}, "data.counts.train=-1 is not allowed"),
        ("UpperLimbPhantom", {"unlabeled": -0.5}, "data.unlabeled=-0.5 is not allowed"),
        ("UpperLimbPhantom", {"context": "all"}, "data.context=all is not allowed"),
        ("UpperLimbPhantom", {"seed": -1}, "data.seed=-1 is not allowed"),
        (
            "MuraPhantom",
            {"patients": {"test": 3}},
            "the key test of data.patients is not allowed; allowed:",
        ),
        ("MuraPhantom", {"patients": {"train": -1}}, "data.patients.train=-1 is not allowed"),
        ("MuraPhantom", {"abnormal": 1.5}, "data.abnormal=1.5 is not allowed"),
        ("MuraPhantom", {"seed": -1}, "data.seed=-1 is not allowed"),
    ],
)
def test_invalid_arguments_are_rejected(
    dataset: str, arguments: dict[str, object], message: str
) -> None:
    node = {"_target_": f"fracnet.data.datasets.phantom.{dataset}", "root": "phantoms"}
    with pytest.raises(UserError) as caught:
        build(node | arguments, "data")
    assert message in str(caught.value)
