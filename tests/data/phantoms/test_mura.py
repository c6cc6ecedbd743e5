"""The phantom of MURA: its layout and lists, the same bytes, a label that only bone betrays."""

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.mura_files import write_lists
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fracnet.data.datasets.layouts import MURA_FOLDER as FOLDER
from fracnet.data.datasets.phantom import MuraPhantom
from fracnet.data.image_features import shortcut_features
from fracnet.data.image_io import read_grey
from fracnet.data.phantoms import mura
from fracnet.data.phantoms.implants import SHARE, wanted
from fracnet.data.phantoms.mura import PARTS, Job, plan, write_mura
from fracnet.data.phantoms.render import Spec, render, render_shown
from fracnet.evaluation.predictions import clusters_of
from fracnet.metrics.classification import auc
from fracnet.metrics.roc import auc_intervals
from fracnet.utils.errors import UserError

PATIENTS = {"train": 16, "valid": 8}
SEED = 3
XR = {"elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist"}
LISTS = [f"{part}_{kind}.csv" for part in PARTS for kind in ("image_paths", "labeled_studies")]


def files(root: Path) -> dict[str, bytes]:
    folder = root / FOLDER
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mura_phantom")
    write_mura(root, seed=SEED, patients=PATIENTS, workers=1, progress=False)
    return root


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    """The plan of a larger set."""
    recipe = {"seed": 0, "patients": {"train": 1000, "valid": 400}, "abnormal": 0.45}
    return list(plan(Path(FOLDER), recipe))


def studies(jobs: list[Job]) -> dict[Path, Spec]:
    return {job.path.parent: job.spec for job in jobs}


def test_images_are_grey_pngs_of_at_most_512_pixels(written: Path) -> None:
    sizes = set()
    for path in (written / FOLDER).rglob("*.png"):
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.mode == "L"
            assert max(image.size) <= 512
            sizes.add(image.size)
    assert len(sizes) > 10


def test_the_lists_are_the_official_ones_of_what_lies_there(written: Path, tmp_path: Path) -> None:
    base = tmp_path / FOLDER
    shutil.copytree(written / FOLDER, base)
    write_lists(base)
    for name in LISTS:
        own = (written / FOLDER / name).read_text()
        assert sorted(own.splitlines()) == (base / name).read_text().splitlines()
        assert own.startswith(f"{FOLDER}/{name.partition('_')[0]}/XR_")
        assert own.endswith("\n")


def test_the_source_reads_it_like_mura(written: Path) -> None:
    source = MuraPhantom(root=str(written), seed=SEED, patients=PATIENTS, val_share=0.25)
    source.prepare()  # finds it there
    manifest = source.manifest()
    manifest.check()
    assert manifest.classes == ("normal", "abnormal")
    assert manifest.excluded.empty
    table = manifest.table
    assert set(table["region"]) <= XR
    assert len(table) == len(list((written / FOLDER).rglob("*.png")))
    in_train = table.loc[table["split"] != "test", "patient"].nunique()
    assert (in_train, table["patient"].nunique()) == (16, 24)
    assert table.groupby("study")["label"].nunique().max() == 1
    assert (written / FOLDER / "fracnet_split.csv").exists()
    source.prepare()  # and still does, with the split beside it
    notes = " ".join(manifest.notes)
    assert "say nothing about patients" in notes
    assert "in every view" in notes
    assert "Stanford" not in f"{notes} {manifest.license}"


def test_same_bytes_for_any_number_of_workers(written: Path, tmp_path: Path) -> None:
    write_mura(tmp_path, seed=SEED, patients=PATIENTS, workers=2, progress=False)
    old, new = files(written), files(tmp_path)
    old.pop("fracnet_split.csv", None)
    assert new == old


def test_another_recipe_is_refused_and_a_bad_one(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="phantoms of another recipe"):
        write_mura(written, seed=SEED, patients=PATIENTS, abnormal=0.3, progress=False)
    with pytest.raises(UserError, match=r"patients: \['test'\] are no splits"):
        write_mura(tmp_path, patients={"test": 3})
    with pytest.raises(UserError, match=r"patients\.train is -1"):
        write_mura(tmp_path, patients={"train": -1})
    with pytest.raises(UserError, match=r"abnormal is 1\.5"):
        write_mura(tmp_path, patients=PATIENTS, abnormal=1.5)
    with pytest.raises(UserError, match="seed is -1"):
        write_mura(tmp_path, patients=PATIENTS, seed=-1)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(mura, "_write_lists", full)
    with pytest.raises(OSError, match="disk full"):
        write_mura(tmp_path, patients={"train": 2, "valid": 1}, progress=False)
    assert not list(tmp_path.rglob("*.png"))


def test_patients_studies_and_views_are_as_in_mura(jobs: list[Job]) -> None:
    parts = defaultdict(set)
    for job in jobs:
        parts[job.path.parts[1]].add(job.path.parts[3])
        assert f"patient{job.spec.patient:05d}" == job.path.parts[3]
    assert not parts["train"] & parts["valid"]
    assert (len(parts["train"]), len(parts["valid"])) == (1000, 400)
    views = Counter(job.path.parent for job in jobs)
    assert set(views.values()) == {1, 2, 3, 4}
    assert np.mean(list(views.values())) == pytest.approx(36_808 / 13_457, abs=0.1)
    by_patient = defaultdict(list)
    for folder in views:
        by_patient[folder.parts[3]].append(folder.parts[2])
    assert len(views) / len(by_patient) == pytest.approx(13_457 / 11_184, abs=0.03)
    twice = [regions for regions in by_patient.values() if len(regions) == 2]
    assert {len(set(regions)) for regions in twice} == {1, 2}
    assert {folder.name for folder in views} == {
        f"study{k}_{ending}" for k in (1, 2) for ending in ("positive", "negative")
    }
    folders = Counter(folder.parts[2] for folder in views)
    assert set(folders) == {f"XR_{region.upper()}" for region in XR}
    assert folders["XR_WRIST"] / len(views) == pytest.approx(3460 / 13_457, abs=0.03)
    assert folders["XR_HUMERUS"] / len(views) == pytest.approx(592 / 13_457, abs=0.02)


def test_no_two_images_are_drawn_alike(jobs: list[Job]) -> None:
    names = [(job.spec.patient, job.spec.study, job.spec.view) for job in jobs]
    assert len(set(names)) == len(names) == len({job.path for job in jobs})


def test_each_region_of_each_part_has_its_share_of_abnormal_studies(jobs: list[Job]) -> None:
    labels = defaultdict(list)
    for folder, spec in studies(jobs).items():
        labels[folder.parts[1:3]].append(spec.fracture)
        assert folder.name.endswith("_positive") == spec.fracture
    assert len(labels) == 14
    for found in labels.values():
        assert sum(found) == pytest.approx(0.45 * len(found), abs=1)


def test_hardware_is_equally_common_in_both_classes(jobs: list[Job]) -> None:
    shown = {True: [], False: []}
    for spec in studies(jobs).values():
        shown[spec.fracture].append(wanted(spec.stream("hardware")) is not None)
    assert np.mean(shown[True]) == pytest.approx(SHARE, abs=0.03)
    assert np.mean(shown[False]) == pytest.approx(SHARE, abs=0.03)


def test_a_frame_without_a_place_to_break_is_drawn_anew_in_the_same_projection() -> None:
    shut = Spec("wrist", seed=0, patient=152, study=0, view=2, fracture=True)
    assert not render(shut).polygons, "this test needs a spec whose frame shows no site"
    drawn = render_shown(shut, "view", mura.SAME_PROJECTION)
    assert drawn.polygons
    assert drawn.info["projection"] == "oblique"


def test_the_choice_differs_from_mura_only_in_where_the_files_come_from() -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from fracnet.utils.files import config_dir

    with initialize_config_dir(str(config_dir())):
        real, phantom = (
            OmegaConf.to_container(compose("train", [f"data={name}"]), resolve=True)
            for name in ("mura", "mura_phantom")
        )
    own, extra = real.pop("data"), phantom.pop("data")
    assert real == phantom
    assert {**own, "_target_": None, "root": None}.items() <= {
        **extra,
        "_target_": None,
        "root": None,
    }.items()


@pytest.mark.slow
def test_no_shortcut_tells_abnormal_from_normal(tmp_path: Path) -> None:
    write_mura(tmp_path, patients={"train": 310, "valid": 1}, progress=False)
    assert json.loads((tmp_path / FOLDER / "phantom.json").read_text())["abnormal"] == 0.45
    low, value, high = shortcut_auc(tmp_path)
    assert high < 0.65, (low, value, high)


def shortcut_auc(root: Path) -> tuple[float | None, float, float]:
    """Out-of-fold AUC of the shortcut baseline with its limits, by patient, over 1,000 images."""
    source = MuraPhantom(root=str(root))
    manifest = source.manifest()
    table = manifest.table.iloc[:1000]
    assert len(table) == 1000
    paths = [manifest.root / path for path in table["path"]]
    features = np.array([shortcut_features(read_grey(p), p.stat().st_size) for p in paths])
    target = (table["label"] == "abnormal").to_numpy().astype(int)
    clusters = clusters_of(pd.DataFrame(table))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    prob = cross_val_predict(
        model, features, target, groups=clusters.ids, cv=folds, method="predict_proba"
    )
    interval = auc_intervals(target, prob, clusters)[1]
    assert interval.high is not None
    return interval.low, float(auc(target, prob)[1]), interval.high
