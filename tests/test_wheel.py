"""An installed wheel works in an empty folder like a checkout."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command import in_new_process

CHECKOUT = Path(__file__).parents[1]
SHORT = (
    "data=upper_limb_phantom",
    "model.pretrained=false",
    # The plain command trains for an hour on a CPU: use fewer and smaller images.
    "data.counts={train: 24, val: 12, test: 12}",
    "image_size=64",
    "trainer.max_epochs=1",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fracnet installed from a wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*pip, *build, str(CHECKOUT)], check=True)
    (wheel,) = folder.glob("fracnet-*.whl")
    install = ["install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([*pip, *install], check=True)
    return folder / "site"


@pytest.mark.slow
def test_wheel_trains_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [
            sys.executable,
            "-c",
            "import fracnet.utils.files as p; print(p.__file__, p.config_dir())",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert all(path.startswith(str(site)) for path in where)

    result = in_new_process(
        ["fracnet.train", *SHORT],
        tmp_path,
        PYTHONPATH=str(site),
    )
    assert result.code == 0, result.err
    assert "macro AUC" in result.out
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "metrics.json").is_file()
    assert (tmp_path / "data/upper_limb_phantom/BoneFractureYolo8/data.yaml").is_file()


def test_wheel_holds_the_package_its_configs_and_the_console_script_only(site: Path) -> None:
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"fracnet", "bin"}
    assert [path.name for path in (site / "bin").iterdir()] == ["fracnet"]
    shipped = {p.relative_to(CHECKOUT / "conf") for p in (CHECKOUT / "conf").rglob("*.yaml")}
    installed = {p.relative_to(site / "fracnet/conf") for p in site.rglob("conf/**/*.yaml")}
    assert shipped == installed
    templates = "fracnet/report/templates"
    pages = {path.name for path in (CHECKOUT / templates).iterdir()}
    assert {path.name for path in (site / templates).iterdir()} == pages >= {"audit.html"}
    web = "fracnet/serving/web"  # what `make web` has built, and not what it was built from
    built = {path.name for path in (CHECKOUT / web).glob("dist/*")}
    assert {path.name for path in (site / web).rglob("*") if path.is_file()} == built
