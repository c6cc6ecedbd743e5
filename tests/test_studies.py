"""The studies run from end to end, and estimate what they say they estimate."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _experiments_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


def study(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.{name}")


def noise(patients: int, first: int) -> Any:
    """Two images a patient, one region each, at 64 pixels."""
    small = study("small_phantoms")
    rng = np.random.default_rng(first)
    numbers = np.repeat(np.arange(patients), 2)
    return small.Phantoms(
        rng.integers(0, 256, (len(numbers), small.SIDE, small.SIDE), np.uint8),
        np.array(small.CLASSES)[numbers % len(small.CLASSES)],
        np.array([f"patient{first + number:05d}" for number in numbers]),
    )


def run(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> dict[str, Any]:
    """What `python -m experiments.NAME.run WORDS` writes, of noise in place of phantoms."""
    module = study(f"{name}.run")
    monkeypatch.setattr(
        module,
        "make_phantoms",
        lambda _, seed, patients, fresh: (noise(patients, 0), noise(fresh, 9000)),
    )
    out = folder / "results.json"
    common = ["--folder", str(folder), "--out", str(out), "--model", "timm", "--seeds", "2"]
    tiny = ["model.name=test_resnet", "model.pretrained=false"]
    monkeypatch.setattr("sys.argv", ["run", *common, *words, "--", *tiny])
    module.main()
    content: dict[str, Any] = json.loads(out.read_text())
    assert str(folder) not in (folder / "config.yaml").read_text()
    return content


def test_only_the_split_by_patient_keeps_patients_and_copies_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(study("leakage.run"), "RESAMPLES", 50)
    words = ["--patients", "28", "--fresh", "14", "--epochs", "4"]
    found = run("leakage", monkeypatch, tmp_path, *words)
    shares = {
        row["arm"]: (row["of a patient in train"], row["of an image in train"])
        for row in found["runs"]
    }
    assert shares["patient"] == (0, 0)
    assert shares["file"][0] > 0
    assert shares["file"][1] == 0
    assert shares["copies"][1] > 0.8
    assert shares["copies, by patient"] == (0, 0)
    for figure in ("accuracy", "macro_auc"):
        of = {arm: found["summary"][arm][figure] for arm in shares}
        for told in of.values():
            gap = told["reported"][0] - told["fresh"][0]
            assert told["optimism"][0] == pytest.approx(gap, abs=2e-4)
        for other in ("patient", "copies, by patient"):
            less = of["copies"]["optimism"][0] - of[other]["optimism"][0]
            told = found["summary"][f"copies less {other}"][figure][0]
            assert told == pytest.approx(less, abs=2e-4)


def test_kept_epochs_can_be_counted_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["--patients", "28", "--fresh", "30", "--epochs", "2", "--sizes", "8"]
    first = run("selection", monkeypatch, tmp_path, *words)
    assert len(first["accuracy by seed and epoch"]) == 2
    assert first["summary"]["8 patients"]["images"] == 16
    module = study("selection.run")
    monkeypatch.setattr(module, "train", lambda *_: pytest.fail("trained again"))
    assert run("selection", monkeypatch, tmp_path, *words, "--count-only") == first


def test_whoever_chooses_sees_the_best_of_what_was_chosen_on() -> None:
    # Two patients of four images; the first epoch is right on one of them, the second on the other.
    right, count = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 4.0]]), np.array([4.0, 4.0, 4.0])
    by_test, by_validation = study("selection.run").optimism(
        right, count, np.array([[0, 1, 2]]), size=1
    )
    assert by_test.tolist() == [1, 0, 1, 1]
    assert by_validation.tolist() == [0, 1, 2, 0]


def drawn(epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Four trainings whose epochs are all right in seven of ten images, by chance which ones."""
    rng = np.random.default_rng(3)
    count = rng.integers(1, 6, 90)
    right = rng.binomial(count, 0.7, (4, epochs, 90))
    return right.astype(np.float64), count.astype(np.float64)


def test_where_nothing_differs_but_by_chance_choosing_by_test_flatters() -> None:
    found = study("selection.run").measure(*drawn(epochs=20), size=20)
    value, low, high = found["chosen by test"]["optimism"]
    # The highest of 20 shares of about 60 images: 1.87 standard errors of 0.059 above the mean.
    assert low < 1.87 * 0.059 < high
    assert value > 0.08
    other, low, high = found["chosen by validation"]["optimism"]
    assert low < 0 < high or abs(other) < 0.005


def test_a_single_epoch_leaves_nothing_to_choose() -> None:
    found = study("selection.run").measure(*drawn(epochs=1), size=20)
    assert abs(found["chosen by test"]["optimism"][0]) < 0.005
    assert found["chosen by test"] == found["chosen by validation"]


def test_phantoms_are_shared_out_by_patient(tmp_path: Path) -> None:
    small = study("small_phantoms")
    pool, fresh = small.make_phantoms(tmp_path, seed=1, patients=9, fresh=7)
    assert pool.images.shape[1:] == (small.SIDE, small.SIDE)
    assert set(pool.regions) <= set(small.CLASSES)
    assert not set(pool.patients) & set(fresh.patients)
    parts = pool.split_by_patient(3, seed=0)
    held = [set(part.patients) for part in parts]
    assert [len(names) for names in held] == [3, 3, 3]
    assert set.union(*held) == set(pool.patients)
