"""The tests' own way to compose configs gives what Hydra gives."""

from pathlib import Path

import pytest
from helpers.command import in_new_process, run_train
from helpers.tiny_overrides import USER_CONF

OVERRIDES = (
    "--config-dir", str(USER_CONF), "model=tiny", "optim=sgd", "optim.lr=0.3", "seed=7",
    "+optim.dampening=0.1", "data=upper_limb_phantom", "data.counts={train: 6, val: 6, test: 6}",
    "~callbacks.best",
)  # fmt: skip


def test_a_composition_equals_that_of_a_new_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new = in_new_process(["fracnet.train", "--cfg", "job", *OVERRIDES], tmp_path)
    assert new.code == 0, new.err
    # Other values with the same choices, so that these have been merged before.
    run_train(["--cfg", "job", *OVERRIDES, "optim.lr=0.5", "trainer.max_epochs=3"], capsys)
    assert run_train(["--cfg", "job", *OVERRIDES], capsys).out == new.out
    assert "lr: 0.3" in new.out
