"""What a run says before its first epoch."""

from types import SimpleNamespace
from typing import Any

import pytest

from fracnet.config.schema import Evaluation
from fracnet.training.run_header import print_unused


@pytest.mark.parametrize(
    ("rule", "n_classes", "told"),
    [("{sensitivity: 0.9}", 6, True), ("{sensitivity: 0.9}", 2, False), ("youden", 6, False)],
)
def test_a_rule_for_a_threshold_that_no_one_will_use_is_said(
    rule: str, n_classes: int, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted: Any = {"sensitivity": 0.9} if rule != "youden" else rule
    config: Any = SimpleNamespace(evaluation=Evaluation(operating_point=wanted))
    data: Any = SimpleNamespace(classes=[f"c{i}" for i in range(n_classes)])
    print_unused(config, data)
    out = capsys.readouterr().out
    assert (f"evaluation.operating_point={rule} is not used" in out) == told
    assert max(map(len, out.splitlines()), default=0) <= 80
