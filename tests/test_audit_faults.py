"""`python -m fracnet.audit` on broken data: a finding, not the end of the audit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.audited import folder_overrides, run_audit_command, write_set

from fracnet.utils.files import cache_dir


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fracnet.data_audit.shortcuts.TREES", {"all": 5, "family": 2})
    monkeypatch.setenv("FRACNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A dataset with a class in val that train lacks, so it raises a DataFault."""
    root = write_set(tmp_path / "set", train=4, val=2, test=2)
    (root / "val/sprained").mkdir()
    image = next((root / "train").rglob("*.png"))
    (root / "val/sprained/a.png").write_bytes(image.read_bytes())
    return root


@pytest.mark.parametrize(("fail_on", "code"), [("null", 0), ("leak", 2), ("error", 2)])
def test_data_that_cannot_be_listed_are_an_error_with_a_page(
    fail_on: str, code: int, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*folder_overrides(odd, tmp_path / "out"), f"fail_on={fail_on}"]
    result = run_audit_command(overrides, capsys)
    assert result.code == code, result.err
    assert "the split val has class folders that train lacks: sprained" in " ".join(
        result.out.split()
    )
    content = json.loads((tmp_path / "out/audit.json").read_text())
    assert content["severity"] == "error"
    assert content["fingerprint"] is None
    assert "sprained" in content["findings"][0]["text"]
    page = (tmp_path / "out/index.html").read_text()
    assert "sprained" in page
    assert "No copies were found" not in page, "no claim about what was not checked"
    assert not (cache_dir() / "audits").exists()


def test_a_mistake_in_the_command_is_not_a_finding(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (odd / "labels.csv").write_text("path,label\na.png,normal\n")
    overrides = [
        "data=folder",
        f"data.root={odd}",
        "data.csv=labels.csv",
        "data.columns.label=findng",
    ]
    result = run_audit_command(overrides, capsys)
    assert result.code == 1
    assert "has no column 'findng'" in result.err
    assert not (tmp_path / "audits").exists()


def test_unreadable_files_are_not_counted_as_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_set(tmp_path / "set", train=12)
    for name in ("train04", "train06"):
        (root / f"train/normal/{name}.png").write_bytes(b"broken")
    overrides = [*folder_overrides(root, tmp_path / "out"), "data.on_bad_file=skip"]
    result = run_audit_command(overrides, capsys)
    assert result.code == 0, result.err
    assert "folder: 24 images (10 train, 6 val, 8 test)" in result.out
    assert "2 more files cannot be read" in result.out
    assert "No leak was found; unreadable files are left out." in result.out
    content = json.loads((tmp_path / "out/audit.json").read_text())
    assert content["fingerprint"]["images"] == 24
    assert content["fingerprint"]["counts"]["train"] == {"normal": 4, "fractured": 6}
    titles = [finding["title"] for finding in content["findings"]]
    assert "2 images are left out before training." in titles
    assert any("byte-for-byte copies of one another" in title for title in titles)


def test_an_audit_does_not_import_torch(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", train=4, val=2, test=2)
    code = (
        "import sys; from fracnet.config import hydra_cli; from fracnet.audit import audit;"
        "from fracnet.data_audit import shortcuts; shortcuts.TREES.update(all=5, family=2);"
        "hydra_cli.run(audit, 'audit');"
        "print('heavy:', *{'torch', 'albumentations', 'lightning'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, *folder_overrides(root, tmp_path / "out")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].strip() == "heavy:"
