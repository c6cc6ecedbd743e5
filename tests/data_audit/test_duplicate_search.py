"""Recall and precision on planted copies, among other views of the same patients."""

import os
from collections import Counter
from pathlib import Path

import pytest

from experiments.duplicates.copies import SINGLES, TRIPLES, plant, radiographs, score_search
from fracnet.data.image_io import read_grey
from fracnet.data.phantoms.mura import write_mura
from fracnet.data.phantoms.upper_limb import write_upper_limb
from fracnet.data_audit.near_duplicates import find_duplicates

SAMPLE = os.environ.get("FRACATLAS_ROOT")


RECIPES = [recipe for both in zip(SINGLES, TRIPLES, strict=False) for recipe in both]


def check_search(originals: list, seed: int) -> None:
    planted = plant(originals, seed, RECIPES)
    pairs = find_duplicates(planted.images.__getitem__, len(planted))
    result = score_search(planted, pairs)
    missed = [planted.recipes[i] for i in result.missed]
    counts = Counter(len(recipe) for recipe in planted.recipes)
    missing = Counter(len(recipe) for recipe in missed)
    assert counts[1] >= 30
    assert missing[1] <= 0.05 * counts[1], missed
    assert missing[3] <= 0.2 * counts[3], missed
    assert result.precision >= 0.99, result.false


@pytest.mark.slow
def test_copies_of_phantoms_are_detected_among_other_views(tmp_path: Path) -> None:
    write_mura(tmp_path / "mura", seed=41, patients={"train": 14}, progress=False)
    write_upper_limb(tmp_path / "limb", seed=42, counts={"train": 30}, progress=False)
    files = [*tmp_path.glob("mura/**/*.png"), *tmp_path.glob("limb/**/*.jpg")]
    check_search([(file.name + str(file), read_grey(file), 1) for file in sorted(files)], 43)


@pytest.mark.slow
@pytest.mark.skipif(SAMPLE is None, reason="no FracAtlas sample; set FRACATLAS_ROOT")
def test_copies_of_radiographs_are_detected() -> None:
    check_search([(name, image, 2) for name, image in radiographs(Path(str(SAMPLE)), True)], 44)
