"""The notebook runs from its first cell to its last, in an empty folder."""

import json
from pathlib import Path

from helpers.command import in_warm_process

NOTEBOOK = Path(__file__).parents[2] / "experiments/quickstart.ipynb"
COUNTS = "{train: 96, val: 48, test: 60}"


def test_all_cells_run_in_order(tmp_path: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    # Half of the phantoms.
    assert COUNTS in code[0]
    code[0] = code[0].replace(COUNTS, "{train: 48, val: 18, test: 24}")
    # The notebook shows none of the report's charts.
    environment = {"OMP_NUM_THREADS": "1", "FRACNET_TEST_CHARTS": "no"}
    result = in_warm_process(["-c", "\n".join(code)], tmp_path, **environment)
    assert result.code == 0, result.err
    assert len(list((tmp_path / "runs").iterdir())) == 1
