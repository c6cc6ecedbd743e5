"""EfficientNet-Lite0 written out with the names of the package that carries its weights.

Independent of timm: convolutions with TensorFlow's "same" padding, batch normalization with
epsilon 0.001, ReLU6, no squeeze-and-excitation.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as f

# repeats, kernel, first stride, expansion
STAGES = (
    (1, 3, 1, 1),
    (2, 3, 2, 6),
    (2, 5, 2, 6),
    (3, 3, 2, 6),
    (3, 5, 1, 6),
    (4, 5, 2, 6),
    (1, 3, 1, 6),
)


def logits(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits [N, 1000] of normalized images [N, 3, S, S]."""
    x = f.relu6(_norm(w, "_bn0", _convolution(w, "_conv_stem", x, 2)))
    block = 0
    for repeats, _, first, expansion in STAGES:
        for repeat in range(repeats):
            stride, name = first if repeat == 0 else 1, f"_blocks.{block}."
            y = x
            if expansion > 1:
                y = f.relu6(_norm(w, name + "_bn0", _convolution(w, name + "_expand_conv", y, 1)))
            y = _convolution(w, name + "_depthwise_conv", y, stride, groups=y.shape[1])
            y = f.relu6(_norm(w, name + "_bn1", y))
            y = _norm(w, name + "_bn2", _convolution(w, name + "_project_conv", y, 1))
            x = x + y if stride == 1 and x.shape == y.shape else y
            block += 1
    x = f.relu6(_norm(w, "_bn1", _convolution(w, "_conv_head", x, 1)))
    return f.linear(x.mean(dim=(2, 3)), w["_fc.weight"], w["_fc.bias"])


def _convolution(
    w: Mapping[str, Tensor], name: str, x: Tensor, stride: int, groups: int = 1
) -> Tensor:
    weight = w[name + ".weight"]
    size, kernel = x.shape[-1], weight.shape[-1]
    # Enough for ceil(size / stride) outputs; an odd pixel goes right and below.
    pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    x = f.pad(x, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2))
    return f.conv2d(x, weight, stride=stride, groups=groups)


def _norm(w: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return f.batch_norm(
        x,
        w[name + ".running_mean"],
        w[name + ".running_var"],
        w[name + ".weight"],
        w[name + ".bias"],
        eps=1e-3,
    )
