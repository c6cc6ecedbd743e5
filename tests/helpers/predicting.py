"""A small finished run with a model that can predict."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.command import run_train
from helpers.tiny import picture

from fracnet.training import record

USER_CONF = Path(__file__).parents[1] / "user_conf"
PATIENTS = {"train": 24, "val": 16, "test": 6}


class Silent:
    """In place of `capsys`, for fixtures."""

    def readouterr(self) -> tuple[str, str]:
        return "", ""


def write_views(root: Path) -> Path:
    """Two views of each patient, half of them with a bright spot, and labels.csv with the ids."""
    root.mkdir(parents=True)
    rows, seed = [], 0
    for split, patients in PATIENTS.items():
        for patient in range(patients):
            label = ("normal", "abnormal")[patient % 2]
            for view in range(2):
                seed += 1
                image = picture(seed)
                if label == "abnormal":
                    cv2.circle(image, (10 + seed % 20, 20), 8, 255, -1)
                name = f"{split}/{patient:02d}_{view}.png"
                (root / split).mkdir(exist_ok=True)
                (root / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
                ids = {"patient": f"{split}{patient}", "study": f"{split}{patient}s"}
                rows.append({"path": name, "label": label, "split": split} | ids)
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


def train_on_views(root: Path, run: Path, *model: str) -> Path:
    """A run trained on the output of `write_views`, with a user's class or another `model`."""
    arguments = [
        "--config-dir", str(USER_CONF), *(model or ("model=tiny",)),
        "data=folder", f"data.root={root}", "data.csv=labels.csv",
        "image_size=32", "data.batch_size=8", "data.num_workers=0",
        "trainer.max_epochs=3", "optim.lr=0.02", "trainer.accelerator=cpu", "augment=none",
        "evaluation.figures=false", "logger=none", "explain=none", f"hydra.run.dir={run}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        run.parent.mkdir(parents=True, exist_ok=True)
        patch.chdir(run.parent)
        # Drawn for nobody, in as much time as the training takes.
        patch.setattr(record, "write_report", lambda evaluation: [evaluation.folder.report])
        result = run_train(arguments, Silent())  # type: ignore[arg-type]
    assert result.code == 0
    assert np.load(run / "ood.npz")["limit"] > 0
    return run
