"""No paths, names or patient ids in what may leave the machine."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from helpers.command import run_train
from helpers.wandb_file import only, read, records

from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.predictions import Predictions, assemble
from fracnet.training.logged_results import choose_examples, examples, split_tables
from fracnet.training.loggers import flatten, run_name, swept_keys
from fracnet.utils.redaction import Scrubber, hashed

pytestmark = pytest.mark.usefixtures("without_charts")

TESTS = Path(__file__).parents[1]


def test_online_run_without_an_account_is_kept_offline_with_nothing_private_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home of mrs jones"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "mjones7")
    monkeypatch.setenv("USER", "mjones7")
    monkeypatch.setattr("socket.gethostname", lambda: "ward-nine")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    arguments = [
        "--config-dir",
        str(TESTS / "user_conf"),
        "model=tiny",
        "data=upper_limb_phantom",
        f"data.root={home}/x rays",
        "data.counts={train: 12, val: 12, test: 12}",
        "image_size=32",
        "data.num_workers=0",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "logger.wandb.mode=online",
        "logger.wandb.timeout=10",
        "logger.wandb.tags=[ward-nine,of mjones7]",
    ]
    result = run_train([*arguments, f"hydra.run.dir={home}/runs/first"], capsys)
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if "W&B" in line]
    assert "failed to go online" in line, "and no question"
    assert "kept offline" in line
    path = only(home / "runs/first")
    stored_bytes = b"".join(record.SerializeToString() for record in records(path))
    files = [file for file in (path.parent / "files").rglob("*") if file.is_file()]
    stored_bytes += b"".join(file.read_bytes() + str(file.name).encode() for file in files)
    assert b"optim.lr" in stored_bytes
    for private in (str(home), str(tmp_path), "mrs jones", "x rays", "mjones7", "ward-nine"):
        assert private.encode() not in stored_bytes, private
    assert {str(r.WhichOneof("record_type")) for r in records(path)}.isdisjoint(
        {"artifact", "environment", "output", "output_raw", "stats"}
    )
    pictures = {file.parent.name for file in files if file.suffix == ".png"}
    assert pictures == {"figures"}, "curves and the like, no pixels of patients"
    stored = read(path)
    assert [row["epoch"] for row in stored.history if "train/loss" in row] == [1]
    assert stored.exit_code == 0


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/data/jones/x.png", "<path>"),
        ("data.root=/data/a b,/data/c", "data.root=<path>"),
        ("+data.root=~/x", "+data.root=<path>"),
        ("data.root=near/by", "data.root=<path>"),
        ("hydra.run.dir=near", "hydra.run.dir=<path>"),
        ("read /data/jones/x.png, twice", "read <path>, twice"),
        ("C:\\Users\\jones", "<path>"),
        ("../jones/x", "<path>"),
        ("model.weights=near/jones.pth", "model.weights=<path>"),
        ("model={_target_:x,weights:/mnt/jones.pth}", "model={_target_:x,weights:<path>}"),
        ("--config-dir=jones/conf", "--config-dir=<path>"),
        ("file:///mnt/jones/x", "<path>"),
        ("\\\\server\\jones", "<path>"),
        ("model.name=hf_hub:timm/x", "model.name=hf_hub:timm/x"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("data.counts={train: 1}", "data.counts={train: 1}"),
        ("val/loss and 1/2", "val/loss and 1/2"),
        ("torch.optim.Adam", "torch.optim.Adam"),
    ],
)
def test_paths_are_removed_and_everything_else_stays(text: str, clean: str) -> None:
    assert Scrubber().scrub(text) == clean


def test_keys_that_hold_paths_are_emptied_whatever_they_hold() -> None:
    config = {"data.root": "near/by", "data_dir": "data", "data.on_bad_file": "error", "x": 1.5}
    clean = {"data.root": "<path>", "data_dir": "<path>", "data.on_bad_file": "error", "x": 1.5}
    assert Scrubber().scrub(config) == clean


def test_hashes_depend_on_the_salt_and_differ_for_patients_and_studies() -> None:
    assert hashed("patient", "7", "a") == hashed("patient", "7", "a") != hashed("patient", "7", "b")
    assert hashed("patient", "7", "a") != hashed("study", "7", "a")


def predictions(prob: list[list[float]], labels: str) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "path": [f"jones/{i}.png" for i in range(len(prob))],
            "split": "test",
            "label": list(labels),
            "patient": [f"jones{i // 2}" for i in range(len(prob))],
            "study": None,
        }
    )
    return assemble(rows, ("a", "b"), np.log(np.array(prob)))


def test_examples_show_hashes_and_the_cached_pixels() -> None:
    table = predictions([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]], "aabb")
    manifest = SimpleNamespace(table=table[["path"]].iloc[::-1].reset_index(drop=True))
    images = np.arange(4 * 4, dtype=np.uint8).reshape(4, 2, 2)
    data = cast(
        RadiographData, SimpleNamespace(manifest=manifest, cache=SimpleNamespace(images=images))
    )
    tables, pictures = examples("test", table, data, "salt", with_images=True)
    columns, lines = tables["test/examples"]
    assert "study" not in columns, "nothing known of it"
    lookup = [dict(zip(columns, line, strict=True)) for line in lines]
    assert [line["row"] for line in lookup] == [2, 1, 3, 0] or len(lookup) == 4
    for line, (caption, image) in zip(lookup, pictures["test/example_images"], strict=True):
        assert line["patient"] == hashed("patient", f"jones{line['row'] // 2}", "salt")
        assert "jones" not in caption
        np.testing.assert_array_equal(image, images[3 - line["row"]])
    assert examples("test", table, data, "salt", with_images=False)[1] == {}


def test_examples_are_the_most_and_the_least_confident_of_right_and_wrong() -> None:
    sure = np.linspace(0.51, 0.99, 40)
    table = predictions([[p, 1 - p] for p in sure], "ab" * 20)
    kinds: dict[str, list[int]] = {}
    for kind, place in choose_examples(Predictions.trusted(table)):
        kinds.setdefault(kind, []).append(place)
    assert {kind: len(places) for kind, places in kinds.items()} == {
        "wrong, highest probability": 6,
        "wrong, lowest probability": 6,
        "right, highest probability": 6,
        "right, lowest probability": 6,
    }
    assert kinds["wrong, highest probability"] == [39, 37, 35, 33, 31, 29]
    assert kinds["right, lowest probability"] == [0, 2, 4, 6, 8, 10]


def test_curves_leave_out_a_class_without_cases() -> None:
    table = predictions([[0.9, 0.1], [0.4, 0.6]], "aa")
    figures: dict[str, Any] = {
        "per_class": [],
        "classes": ["a", "b"],
        "confusion": [[1, 1], [0, 0]],
    }
    assert split_tables("test", figures, table)["test/roc"][1] == []


def test_names_contain_the_keys_that_a_sweep_varies(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text(
        "hydra:\n"
        "  sweeper: {params: {optim.lr: '1e-4,1e-3', seed: 1}}\n"
        "  overrides:\n"
        "    task: ['model=a,b', 'data.counts={a: 1, b: 2}', '+x=range(3)', \"y='1,2'\"]\n"
    )
    assert swept_keys(tmp_path) == ("optim.lr", "model", "x")
    assert swept_keys(tmp_path / "other") == ()


def test_a_run_is_named_by_model_data_and_overrides() -> None:
    choices = {"model": "resnet18", "data": "mura", "optim": "sgd"}
    overrides = ["model=resnet18", "optim.lr=0.1", "++trainer.max_steps=3", "data_dir=/secret"]
    assert run_name(overrides, choices) == "resnet18 mura lr=0.1 max_steps=3"
    assert run_name(overrides, choices, ("optim.lr", "model")) == "resnet18 lr=0.1"


def test_flatten_keeps_lists_and_joins_keys() -> None:
    assert flatten({"a": {"b": 1, "c": [1, {"d": 2}]}, "e": None}) == {
        "a.b": 1,
        "a.c": [1, {"d": 2}],
        "e": None,
    }
