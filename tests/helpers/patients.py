"""A small binary dataset with patients and regions: noise, brighter if abnormal."""

from dataclasses import dataclass

import cv2
import numpy as np

from fracnet.data.datasets.base import Dataset
from fracnet.data.manifest import Manifest


@dataclass(kw_only=True)
class PatientDataset(Dataset):
    """`patients` of train and val in turn, with one to three images each, and ten of test."""

    name = "patients"
    classes = ("normal", "abnormal")
    task = "binary"
    license = "none"
    citation = "none"
    groups = "made up"
    how_to_get = "Put them into {root}."
    phantom = "patients"

    patients: int = 40

    def prepare(self) -> None:
        for number, row in enumerate(self._rows()):
            path = self.folder / str(row["path"])
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                low = 80 if row["label"] == "abnormal" else 0
                grey = np.random.default_rng(number).integers(low, low + 160, (36, 32), np.uint8)
                path.write_bytes(cv2.imencode(".png", grey)[1].tobytes())

    def manifest(self) -> Manifest:
        return self.build(self._rows(), self.folder)

    def _rows(self) -> list[dict[str, str]]:
        return [
            {
                "path": f"p{patient:03d}_{view}.png",
                "split": "test" if patient >= self.patients else ("train", "val")[patient % 4 == 0],
                "label": self.classes[patient // 2 % 2],
                "patient": f"p{patient:03d}",
                "study": f"p{patient:03d}_s",
                "region": ("wrist", "hand")[patient % 2],
            }
            for patient in range(self.patients + 10)
            for view in range(1 + patient % 3)
        ]
