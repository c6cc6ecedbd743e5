"""The phantom data set on disk: the real layout, the same bytes, all or nothing."""

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fracnet.data.datasets.layouts import UPPER_LIMB_FOLDER as FOLDER
from fracnet.data.datasets.layouts import UPPER_LIMB_NAMES as NAMES
from fracnet.data.phantoms import upper_limb
from fracnet.data.phantoms.render import Spec, render
from fracnet.data.phantoms.upper_limb import SHARES, draw, mix, plan, write_upper_limb
from fracnet.data.phantoms.workers import RECIPE, share_out
from fracnet.utils.errors import UserError

COUNTS = {"train": 18, "val": 12, "test": 12}


def files(root: Path) -> dict[str, bytes]:
    folder = root / FOLDER
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_upper_limb(root, seed=5, counts=COUNTS, unlabeled=0.25, workers=1, progress=False)
    return root


def labels(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted((folder / "labels").glob("*.txt"))]


def test_layout(written: Path) -> None:
    folder = written / FOLDER
    wanted = {"train": (18, 4), "valid": (12, 3), "test": (12, 3)}
    for name, (labeled, empty) in wanted.items():
        images = {path.stem for path in (folder / name / "images").glob("*.jpg")}
        texts = {path.stem for path in (folder / name / "labels").glob("*.txt")}
        assert images == texts
        assert len(images) == labeled + empty
        assert sum(not text for text in labels(folder / name)) == empty
        assert all("_png.rf." in stem for stem in images)
    assert json.dumps(list(NAMES)) in (folder / "data.yaml").read_text()
    assert json.loads((folder / RECIPE).read_text())["seed"] == 5


def test_every_class_is_in_every_split_and_both_humerus_ids_are_used(written: Path) -> None:
    ids: Counter[int] = Counter()
    for split in ("train", "valid", "test"):
        here = {int(text.split()[0]) for text in labels(written / FOLDER / split) if text}
        assert {0, 1, 2, 5, 6} <= here
        assert here & {3, 4}
        ids.update(here)
    assert set(ids) == set(range(7))


def test_label_lines_are_polygons_of_one_class(written: Path) -> None:
    several = 0
    for split in ("train", "valid", "test"):
        for text in labels(written / FOLDER / split):
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
    for path in (written / FOLDER).rglob("*.jpg"):
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
    patients = [job.spec.patient for job in plan(tmp_path, recipe)]
    assert len(patients) == len(set(patients)) == 18 + 9 + 12 + 6 + 12 + 6


def test_unlabeled_images_have_no_fracture(tmp_path: Path) -> None:
    recipe = {"seed": 1, "counts": COUNTS, "unlabeled": 0.5}
    assert all(job.spec.fracture == (job.class_id is not None) for job in plan(tmp_path, recipe))


@pytest.mark.parametrize("n", [12, 13, 50, 1804])
def test_class_mix_is_about_the_real_one(n: int) -> None:
    found = Counter(mix(n))
    assert sum(found.values()) == n
    assert set(found) == set(SHARES)
    total = sum(SHARES.values())
    assert all(abs(found[name] - n * share / total) <= 1 for name, share in SHARES.items())


def test_a_finished_set_is_not_made_again(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(upper_limb, "_build", never)
    write_upper_limb(written, seed=5, counts=COUNTS, unlabeled=0.25, progress=False)


def test_another_recipe_is_refused_with_both_and_the_way_out(written: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_upper_limb(written, seed=7, counts=COUNTS, unlabeled=0.25, progress=False)
    message = str(caught.value)
    assert str(written / FOLDER) in message
    assert "data.root" in message
    assert '"seed": 5' in message
    assert '"seed": 7' in message


def test_a_folder_that_is_no_phantom_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / FOLDER / "train" / "images" / "real.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"real")
    with pytest.raises(UserError, match="other data"):
        write_upper_limb(tmp_path, counts=COUNTS, progress=False)
    assert mine.read_bytes() == b"real"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"counts": {"training": 3}}, "training"),
        ({"counts": {"train": -1}}, "counts.train is -1"),
        ({"counts": COUNTS, "unlabeled": -0.5}, "unlabeled is -0.5"),
        ({"counts": COUNTS, "seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments(tmp_path: Path, bad: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        write_upper_limb(tmp_path, progress=False, **bad)


def test_killed_half_way_leaves_nothing_that_is_trusted(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from fracnet.data.phantoms import write_upper_limb as w;"
        f"w(Path({str(tmp_path)!r}), counts={{'train': 4000}}, workers=2, progress=False)"
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
    assert not (tmp_path / FOLDER).exists()
    write_upper_limb(tmp_path, counts={"train": 2}, unlabeled=0, workers=1, progress=False)
    assert len(list(tmp_path.rglob("*.jpg"))) == 2
    assert not list(tmp_path.glob(f".{FOLDER}.*"))


def test_a_failure_in_a_worker_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no_such_writer"):
        list(share_out("no_such_writer", tmp_path, {}, total=100, workers=2))


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(upper_limb, "write_one", full)
    with pytest.raises(OSError, match="disk full"):
        write_upper_limb(tmp_path, counts={"train": 2}, progress=False)
    assert not (tmp_path / FOLDER).exists()
    assert not list(tmp_path.glob(f".{FOLDER}.*"))


def test_a_frame_without_a_place_to_break_is_drawn_anew() -> None:
    shut = Spec("wrist", seed=0, patient=152, study=0, view=2, fracture=True)
    assert not render(shut).polygons, "this test needs a spec whose frame shows no site"
    assert draw(shut).polygons
    intact = replace(shut, fracture=False)
    assert (draw(intact).image == render(intact).image).all()
