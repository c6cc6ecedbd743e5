"""The leakage and selection experiments run end to end and estimate what they claim."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _experiments_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)


def experiment(name: str) -> ModuleType:
    return importlib.import_module(f"experiments.{name}")


def noise(patients: int, first: int) -> Any:
    """Two images per patient, one region each, at 64 pixels."""
    small = experiment("small_phantoms")
    rng = np.random.default_rng(first)
    numbers = np.repeat(np.arange(patients), 2)
    return small.Phantoms(
        rng.integers(0, 256, (len(numbers), small.SIDE, small.SIDE), np.uint8),
        np.array(small.CLASSES)[numbers % len(small.CLASSES)],
        np.array([f"patient{first + number:05d}" for number in numbers]),
    )


def run(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str) -> dict[str, Any]:
    """The results of `python -m experiments.NAME.run OPTIONS`, on noise instead of phantoms."""
    module = experiment(f"{name}.run")
    monkeypatch.setattr(
        module,
        "make_phantoms",
        lambda _, seed, patients, fresh: (noise(patients, 0), noise(fresh, 9000)),
    )
    out = folder / "results.json"
    common = ["--folder", str(folder), "--out", str(out), "--model", "timm", "--seeds", "2"]
    tiny = ["model.name=test_resnet", "model.pretrained=false"]
    monkeypatch.setattr("sys.argv", ["run", *common, *options, "--", *tiny])
    module.main()
    content: dict[str, Any] = json.loads(out.read_text())
    assert str(folder) not in (folder / "config.yaml").read_text()
    return content


def test_only_the_split_by_patient_keeps_patients_and_copies_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(experiment("leakage.run"), "RESAMPLES", 50)
    options = ["--patients", "28", "--fresh", "14", "--epochs", "4"]
    result = run("leakage", monkeypatch, tmp_path, *options)
    shares = {
        row["arm"]: (row["share with patient in train"], row["share with copy in train"])
        for row in result["runs"]
    }
    assert shares["patient"] == (0, 0)
    assert shares["file"][0] > 0
    assert shares["file"][1] == 0
    assert shares["copies"][1] > 0.8
    assert shares["copies, by patient"] == (0, 0)
    for metric in ("accuracy", "macro_auc"):
        estimates = {arm: result["summary"][arm][metric] for arm in shares}
        for estimate in estimates.values():
            gap = estimate["reported"][0] - estimate["true"][0]
            assert estimate["optimism"][0] == pytest.approx(gap, abs=2e-4)
        for arm in ("patient", "copies, by patient"):
            expected = estimates["copies"]["optimism"][0] - estimates[arm]["optimism"][0]
            difference = result["summary"][f"copies minus {arm}"][metric][0]
            assert difference == pytest.approx(expected, abs=2e-4)


def test_stored_predictions_can_be_reused_without_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ["--patients", "28", "--fresh", "30", "--epochs", "2", "--sizes", "8"]
    first = run("selection", monkeypatch, tmp_path, *options)
    assert len(first["accuracy by seed and epoch"]) == 2
    assert first["summary"]["8 patients"]["images"] == 16
    module = experiment("selection.run")
    monkeypatch.setattr(module, "train", lambda *_: pytest.fail("trained again"))
    assert run("selection", monkeypatch, tmp_path, *options, "--skip-training") == first


def test_each_split_chooses_its_best_epoch() -> None:
    # Four images per patient: the first epoch is correct for the first patient, the second for the
    # others.
    correct, count = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 4.0]]), np.array([4.0, 4.0, 4.0])
    by_test, by_validation = experiment("selection.run").optimism(
        correct, count, np.array([[0, 1, 2]]), size=1
    )
    assert by_test.tolist() == [1, 0, 1, 1]
    assert by_validation.tolist() == [0, 1, 2, 0]


def random_hits(epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Four trainings whose epochs are all correct in seven of ten images, chosen at random."""
    rng = np.random.default_rng(3)
    count = rng.integers(1, 6, 90)
    correct = rng.binomial(count, 0.7, (4, epochs, 90))
    return correct.astype(np.float64), count.astype(np.float64)


def test_choosing_by_test_is_optimistic_even_if_epochs_differ_only_by_chance() -> None:
    result = experiment("selection.run").measure(*random_hits(epochs=20), size=20)
    value, low, high = result["chosen by test"]["optimism"]
    # The highest of 20 shares of about 60 images: 1.87 standard errors of 0.059 above the mean.
    assert low < 1.87 * 0.059 < high
    assert value > 0.08
    unbiased, low, high = result["chosen by validation"]["optimism"]
    assert low < 0 < high or abs(unbiased) < 0.005


def test_a_single_epoch_has_no_optimism() -> None:
    result = experiment("selection.run").measure(*random_hits(epochs=1), size=20)
    assert abs(result["chosen by test"]["optimism"][0]) < 0.005
    assert result["chosen by test"] == result["chosen by validation"]


def test_phantoms_are_split_by_patient(tmp_path: Path) -> None:
    small = experiment("small_phantoms")
    pool, fresh = small.make_phantoms(tmp_path, seed=1, patients=9, fresh=7)
    assert pool.images.shape[1:] == (small.SIDE, small.SIDE)
    assert set(pool.regions) <= set(small.CLASSES)
    assert not set(pool.patients) & set(fresh.patients)
    parts = pool.split_by_patient(3, seed=0)
    patients = [set(part.patients) for part in parts]
    assert [len(names) for names in patients] == [3, 3, 3]
    assert set.union(*patients) == set(pool.patients)
