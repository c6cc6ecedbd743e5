"""The upper-limb phantom: layout, reproducible bytes, complete or absent."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracnet.data.datasets.layouts import UPPER_LIMB_FOLDER, UPPER_LIMB_NAMES
from fracnet.data.datasets.phantom import UpperLimbPhantom
from fracnet.data.phantoms import upper_limb
from fracnet.data.phantoms.poses import WIDE_SCENES
from fracnet.data.phantoms.render import Spec, render, render_visible
from fracnet.data.phantoms.upper_limb import SHARES, plan, write_upper_limb
from fracnet.data.phantoms.workers import RECIPE, proportional, write_images
from fracnet.utils.errors import UserError

COUNTS = {"train": 18, "val": 12, "test": 12}


def files(root: Path) -> dict[str, bytes]:
    folder = root / UPPER_LIMB_FOLDER
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_upper_limb(root, seed=5, counts=COUNTS, unlabeled=0.25, workers=1, progress=False)
    return root


def labels(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted((folder / "labels").glob("*.txt"))]


def test_the_layout_matches_the_real_dataset(written: Path) -> None:
    folder = written / UPPER_LIMB_FOLDER
    expected = {"train": (18, 4), "valid": (12, 3), "test": (12, 3)}
    for name, (labeled, empty) in expected.items():
        images = {path.stem for path in (folder / name / "images").glob("*.jpg")}
        texts = {path.stem for path in (folder / name / "labels").glob("*.txt")}
        assert images == texts
        assert len(images) == labeled + empty
        assert sum(not text for text in labels(folder / name)) == empty
        assert all("_png.rf." in stem for stem in images)
    assert json.dumps(list(UPPER_LIMB_NAMES)) in (folder / "data.yaml").read_text()
    assert json.loads((folder / RECIPE).read_text())["seed"] == 5


def test_every_class_is_in_every_split_and_both_humerus_ids_are_used(written: Path) -> None:
    ids: Counter[int] = Counter()
    for split in ("train", "valid", "test"):
        present = {
            int(text.split()[0]) for text in labels(written / UPPER_LIMB_FOLDER / split) if text
        }
        assert {0, 1, 2, 5, 6} <= present
        assert present & {3, 4}
        ids.update(present)
    assert set(ids) == set(range(7))


def test_label_lines_are_polygons_of_one_class(written: Path) -> None:
    several = 0
    for split in ("train", "valid", "test"):
        for text in labels(written / UPPER_LIMB_FOLDER / split):
            lines = [line.split() for line in text.splitlines()]
            several += len(lines) > 1
            assert len({line[0] for line in lines}) <= 1
            for line in lines:
                points = np.array(line[1:], dtype=float)
                assert len(points) >= 6
                assert len(points) % 2 == 0
                assert points.min() >= 0
                assert points.max() <= 1
    assert several


def test_images_are_rgb_jpegs_of_at_most_512_pixels(written: Path) -> None:
    sizes = set()
    for path in (written / UPPER_LIMB_FOLDER).rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.format == "JPEG"
            assert image.mode == "RGB"
            assert max(image.size) <= 512
            sizes.add(image.size)
    assert len(sizes) > 10


def test_same_bytes_for_any_number_of_workers(written: Path, tmp_path: Path) -> None:
    write_upper_limb(tmp_path, seed=5, counts=COUNTS, unlabeled=0.25, workers=2, progress=False)
    assert files(tmp_path) == files(written)


def test_another_seed_gives_other_images(written: Path, tmp_path: Path) -> None:
    write_upper_limb(tmp_path, seed=6, counts={"train": 3}, unlabeled=0, progress=False)
    old = {data for name, data in files(written).items() if name.endswith(".jpg")}
    new = {data for name, data in files(tmp_path).items() if name.endswith(".jpg")}
    assert len(new) == 3
    assert not new & old


def test_no_patient_is_in_two_images(tmp_path: Path) -> None:
    recipe = {"seed": 1, "counts": COUNTS, "unlabeled": 0.5}
    patients = [planned.spec.patient for planned in plan(tmp_path, recipe)]
    assert len(patients) == len(set(patients)) == 18 + 9 + 12 + 6 + 12 + 6


def test_unlabeled_images_have_no_fracture(tmp_path: Path) -> None:
    recipe = {"seed": 1, "counts": COUNTS, "unlabeled": 0.5}
    assert all(
        planned.spec.fracture == (planned.class_id is not None)
        for planned in plan(tmp_path, recipe)
    )


@pytest.mark.parametrize("n", [12, 13, 50, 1804])
def test_class_mix_is_about_the_real_one(n: int) -> None:
    regions = Counter(proportional(n, SHARES))
    assert sum(regions.values()) == n
    assert set(regions) == set(SHARES)
    total = sum(SHARES.values())
    assert all(abs(regions[name] - n * share / total) <= 1 for name, share in SHARES.items())


def test_each_wide_scene_breaks_each_of_its_regions_as_often(tmp_path: Path) -> None:
    recipe = {"seed": 3, "counts": {"train": 48}, "unlabeled": 0.5, "context": "wide"}
    images = [planned.spec for planned in plan(tmp_path, recipe)]
    broken = Counter((spec.scene, spec.region) for spec in images if spec.fracture)
    assert broken == {
        (scene, region): 12 // len(regions)
        for scene, regions in WIDE_SCENES.items()
        for region in regions
    }
    intact = Counter(spec.scene for spec in images if not spec.fracture)
    assert intact == dict.fromkeys(WIDE_SCENES, 6)


def test_wide_images_lie_beside_those_of_single_parts(tmp_path: Path) -> None:
    settings = {"seed": 5, "counts": {"train": 12, "val": 6, "test": 6}, "unlabeled": 0.0}
    wide = UpperLimbPhantom(root=str(tmp_path), context="wide", **settings)  # type: ignore[arg-type]
    wide.prepare()
    UpperLimbPhantom(root=str(tmp_path), **settings).prepare()  # type: ignore[arg-type]
    table = wide.manifest().table
    assert len(table) == 24
    assert table["label"].nunique() == 6
    assert all(table["polygons"])
    single = json.loads((tmp_path / UPPER_LIMB_FOLDER / RECIPE).read_text())
    assert set(single) == {"seed", "counts", "unlabeled", "version"}


def test_a_complete_dataset_is_not_written_again(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr(upper_limb, "_build", never)
    write_upper_limb(written, seed=5, counts=COUNTS, unlabeled=0.25, progress=False)


def test_another_recipe_is_rejected_with_both_recipes_and_a_remedy(written: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_upper_limb(written, seed=7, counts=COUNTS, unlabeled=0.25, progress=False)
    message = str(caught.value)
    assert str(written / UPPER_LIMB_FOLDER) in message
    assert "data.root" in message
    assert '"seed": 5' in message
    assert '"seed": 7' in message


def test_a_folder_that_is_not_a_phantom_is_not_touched(tmp_path: Path) -> None:
    own_image = tmp_path / UPPER_LIMB_FOLDER / "train" / "images" / "real.jpg"
    own_image.parent.mkdir(parents=True)
    own_image.write_bytes(b"real")
    with pytest.raises(UserError, match="other data"):
        write_upper_limb(tmp_path, counts=COUNTS, progress=False)
    assert own_image.read_bytes() == b"real"


def test_a_killed_process_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from fracnet.data.phantoms import upper_limb;"
        f"upper_limb.write_upper_limb(Path({str(tmp_path)!r}), counts={{'train': 4000}}, "
        "workers=2, progress=False)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        for _ in range(1800):
            if any(tmp_path.rglob("*.jpg")):
                break
            time.sleep(0.05)
        else:
            pytest.fail("nothing was written in 90 s")
    finally:
        child.kill()
        child.wait()
    assert not (tmp_path / UPPER_LIMB_FOLDER).exists()
    write_upper_limb(tmp_path, counts={"train": 2}, unlabeled=0, workers=1, progress=False)
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
    assert not list(tmp_path.glob(f".{UPPER_LIMB_FOLDER}.*"))


def test_a_failure_in_a_worker_is_reported() -> None:
    with pytest.raises(ValueError, match="could not convert string to float: 'x'"):
        write_images([*"1234567", *"x2345678"], float, workers=2, progress=False)
    assert write_images(range(-16, 0), abs, 2, False) == [*range(16, 0, -1)]
    with pytest.raises(RuntimeError, match="process that draws phantoms died"):
        write_images([1] * 16, os._exit, workers=2, progress=False)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(upper_limb, "write_image", full)
    with pytest.raises(OSError, match="disk full"):
        write_upper_limb(tmp_path, counts={"train": 2}, progress=False)
    assert not (tmp_path / UPPER_LIMB_FOLDER).exists()
    assert not list(tmp_path.glob(f".{UPPER_LIMB_FOLDER}.*"))


def test_a_frame_without_room_for_the_fracture_is_replaced() -> None:
    closed = Spec("wrist", seed=0, patient=152, study=0, view=2, fracture=True)
    assert not render(closed).polygons, "this test needs a spec whose frame shows no site"
    assert render_visible(closed, "study", 1).polygons
    intact = replace(closed, fracture=False)
    assert (render_visible(intact, "study", 1).image == render(intact).image).all()
