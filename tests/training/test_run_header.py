"""The output of a run before its first epoch."""

from types import SimpleNamespace
from typing import Any

import pytest

from fracnet.config.schema import Evaluation
from fracnet.training.run_header import print_unused_options


@pytest.mark.parametrize(
    ("rule", "n_classes", "printed"),
    [("{sensitivity: 0.9}", 6, True), ("{sensitivity: 0.9}", 2, False), ("youden", 6, False)],
)
def test_an_unused_threshold_rule_is_reported(
    rule: str, n_classes: int, printed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    point: Any = {"sensitivity": 0.9} if rule != "youden" else rule
    config: Any = SimpleNamespace(evaluation=Evaluation(operating_point=point))
    data: Any = SimpleNamespace(classes=[f"c{i}" for i in range(n_classes)])
    print_unused_options(config, data)
    out = capsys.readouterr().out
    assert (f"evaluation.operating_point={rule} is not used" in out) == printed
    assert max(map(len, out.splitlines()), default=0) <= 80
