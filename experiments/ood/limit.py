"""How often the OOD limit flags more of the training's kind than promised: simulated validations.

OMP_NUM_THREADS=1 python -m experiments.ood.limit
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fracnet.data.image_features import APPEARANCE_NAMES
from fracnet.models import ood

FEATURES = 32
TRAIN, NEW = 500, 1500  # images, patients
PATIENTS = (30, 100, 400)  # of validation
KINDS = {"normal": np.inf, "heavy tails": 5.0, "very heavy tails": 3.0}
"""Degrees of freedom of the t distribution of the image statistics and features."""
SHARED = 0.7  # of the variance between views of one patient


def images(rng: np.random.Generator, patients: int, tails: float) -> ood.Sample:
    """One to five views of each patient; the views resemble each other."""
    views = rng.integers(1, 6, patients)
    patient = np.repeat(np.arange(patients), views)
    size = len(APPEARANCE_NAMES) + FEATURES
    values = SHARED**0.5 * rng.standard_normal((patients, size))[patient]
    values += (1 - SHARED) ** 0.5 * rng.standard_normal((len(patient), size))
    if np.isfinite(tails):  # some patients are unlike others in all respects
        values /= np.sqrt(rng.chisquare(tails, patients) / tails)[patient][:, None]
    parts = np.split(values.astype(np.float32), [len(APPEARANCE_NAMES)], axis=1)
    return ood.Sample(parts[0], parts[1] + 1)


def shares(patients: int, tails: float, times: int) -> Iterator[float]:
    """The share of new images above the limit, of validations with as many patients."""
    rng = np.random.default_rng([patients, int(min(tails, 99))])
    for _ in range(times):
        train, new = images(rng, TRAIN // 3, tails), images(rng, NEW, tails)
        val = images(rng, patients, tails)
        reference = ood.fit_reference(train, val, patients)
        yield float((reference.scores_of(new.appearance, new.features) > 1).mean())


def main() -> None:
    """Print a row per kind of images and number of patients, and write limit.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("limit.json"))
    options = parser.parse_args()
    rows = []
    for kind, tails in KINDS.items():
        for patients in PATIENTS:
            found = np.array(list(shares(patients, tails, options.times)))
            row = {
                "images": kind,
                "validation patients": patients,
                "more than promised": float((found > ood.CONTENT).mean()),
                "flagged": float(found.mean()),
                "highest": float(found.max()),
            }
            rows.append(row)
            print(row, flush=True)
    options.out.write_text(json.dumps({"times": options.times, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
