"""A run imports what it needs, when it needs it: its user waits for the first training step."""

from pathlib import Path

from helpers.command import in_new_process
from helpers.tiny_overrides import TESTS, tiny_overrides

# fmt: off
AFTER_THE_FIT = (
    "sklearn", "matplotlib", "pytorch_grad_cam", "jinja2", "fracnet.report.run_page",
    "fracnet.saliency.cam", "fracnet.saliency.sanity_check",
)
FOR_FEW_RUNS = (  # Lightning, torchmetrics, timm, torchvision and we import them
    "torch._inductor.compile_fx", "torch._dynamo.symbolic_convert", "sympy",
    "torch.distributed.tensor",
    "torchmetrics.functional", "torchmetrics.classification", "scipy.signal", "wandb.sdk",
    "optuna", "triton", "torchvision.models.resnet", "scipy.sparse", "pydicom",
    "requests.api",
)
# fmt: on


def test_the_first_step_waits_for_no_import_of_later_use(
    phantom_overrides: list[str], tmp_path: Path
) -> None:
    callback = "helpers.models.StopAfterFirstStep"
    overrides = tiny_overrides(
        *phantom_overrides,
        f"callbacks.stop={{_target_: {callback}, path: {tmp_path / 'modules.txt'}}}",
        explain=True,
    )
    result = in_new_process(
        ["fracnet.train", *overrides], tmp_path, PYTHONPATH=f"{TESTS}:{TESTS.parent}"
    )
    assert result.code == 130, result.err
    modules = (tmp_path / "modules.txt").read_text(encoding="utf-8").split()
    assert "torch" in modules
    assert [name for name in (*AFTER_THE_FIT, *FOR_FEW_RUNS) if name in modules] == []
