"""A deferred package is the real one as soon as anything of it is used."""

from pathlib import Path

import pytest
from helpers.command import in_warm_process

START = """
import sys
from fracnet.utils import deferred
deferred.defer()
import lightning.pytorch
for name in ("torch._dynamo", "torchmetrics"):
    assert type(sys.modules[name]).__name__ == "_Deferred", name
"""


def run(code: str) -> None:
    result = in_warm_process(["-c", START + code], Path.cwd())
    assert result.code == 0, result.err


def test_torchmetrics_is_complete_at_first_use() -> None:
    run("""
import pickle
from torchmetrics import CatMetric, Metric, MetricCollection
assert "torchmetrics.functional" not in sys.modules
early = CatMetric()
import torchmetrics.classification, torchmetrics.metric, torch
assert Metric is torchmetrics.Metric is torchmetrics.metric.Metric
assert isinstance(early, torchmetrics.CatMetric) and CatMetric is torchmetrics.CatMetric
score = torchmetrics.classification.MulticlassFBetaScore(beta=2.0, num_classes=3)
score = pickle.loads(pickle.dumps(score))
assert isinstance(score, Metric)
assert float(score(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))) == 1.0
assert torchmetrics.functional.accuracy and "accuracy" in dir(torchmetrics.functional)
assert torchmetrics.utilities.plot.plot_confusion_matrix
""")


def test_the_compiler_works_at_first_use() -> None:
    """Names of it that were imported before stand for the real ones."""
    run("""
import torch, timm
from lightning.fabric.wrappers import OptimizedModule
layer = torch.nn.Linear(2, 2)
layer(torch.ones(1, 2)).sum().backward()
torch.optim.Adam(layer.parameters(), fused=True).step()
assert "torch._dynamo.symbolic_convert" not in sys.modules
torch.use_deterministic_algorithms(True, warn_only=True)
assert "torch._dynamo.symbolic_convert" not in sys.modules
assert not isinstance(layer, OptimizedModule)
calls = []
def backend(graph, inputs):
    calls.append(graph)
    return graph.forward
compiled = torch.compile(layer, backend=backend)
assert isinstance(compiled, OptimizedModule) and isinstance(compiled, torch._dynamo.OptimizedModule)
assert issubclass(type(compiled), OptimizedModule) and not issubclass(int, OptimizedModule)
x = torch.ones(1, 2)
assert torch.equal(compiled(x), layer(x)) and len(calls) == 1
layer.compile(backend=backend)
assert layer(x).shape == (1, 2) and len(calls) >= 1
torch.optim.Adam(layer.parameters()).zero_grad()
from torch._dynamo.utils import is_compile_supported, counters
assert is_compile_supported("cpu") in (True, False)
import torch._inductor.config
assert torch._inductor.config.deterministic is True
assert torch._inductor.config.max_autotune in (True, False) and torch._inductor.compile
""")


@pytest.mark.parametrize(
    "code",
    [
        "import torch._dynamo.config as c; assert c.cache_size_limit or True",
        "import torch._dynamo as d; assert 'optimize' in dir(d)",
    ],
)
def test_any_other_name_loads_the_package(code: str) -> None:
    run(code + "\nassert sys.modules['torch._dynamo'].__class__.__name__ == 'module'")


def test_what_lightning_and_timm_import_for_few_runs_works_at_first_use() -> None:
    run("""
import timm, torch
from lightning.pytorch.utilities.model_summary import ModelSummary
from timm.layers._fx import get_graph_node_names
assert "triton" not in sys.modules and "torchvision.models.resnet" not in sys.modules
layer = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())
assert get_graph_node_names(layer)[0] == ["input", "0", "1"]
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(display=False) as counter:
    layer(torch.ones(3, 4))
assert counter.get_total_flops() == 2 * 3 * 4 * 2
import torchvision
assert sum(p.numel() for p in torchvision.models.resnet18().parameters()) > 1e7
""")
