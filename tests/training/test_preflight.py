"""Names that are not there are told before any data are had, and nothing is run to find out."""

import sys
from pathlib import Path

import pytest
from helpers.command import in_new_process, train_here

from fracnet.training import preflight
from fracnet.utils.errors import UserError

# Says that it was run by what it leaves behind.
MODULE = """
from pathlib import Path
Path("was_run").touch()
class MyNet: pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages of a user, from the current folder, that nothing has imported yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mine_a", "mine_a/nets"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(MODULE)
    (tmp_path / "mine_a" / "star.py").write_text("from mine_a import *\n")
    return tmp_path


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("mine_a.nets.MyNte", "module mine_a.nets has no 'MyNte'. Did you mean 'MyNet'?"),
        ("mine_a.nest.MyNet", "there is no module 'mine_a.nest'; allowed: an importable"),
        ("mine_a.star.deep.MyNet", "there is no module 'mine_a.star.deep'"),
        ("mine_a.nets.MyNet.Inner", "MyNet is a class of module mine_a.nets, and a class within"),
        ("mine_a.MyNet.Inner", "a class within a class cannot be named; allowed: package.module."),
        ("mine_b.nets.MyNet", "there is no module 'mine_b'"),
        ("MyNet", "is not a dotted path"),
    ],
)
def test_a_name_that_is_not_there_is_told_and_no_module_of_the_user_s_is_run(
    target: str, told: str, package: Path
) -> None:
    with pytest.raises(UserError) as caught:
        preflight._check_target(target, "model")
    assert f"model._target_={target}" in str(caught.value)
    assert told in str(caught.value)
    assert not (package / "was_run").exists()
    assert not [name for name in sys.modules if name.startswith("mine_a")]


@pytest.mark.parametrize("target", ["mine_a.nets.MyNet", "mine_a.MyNet", "mine_a.star.MyNet"])
def test_what_is_there_or_may_be_made_up_is_let_through(target: str, package: Path) -> None:
    preflight._check_target(target, "model")
    assert not (package / "was_run").exists()


@pytest.mark.parametrize("target", ["lab_a.nets.mine.MyNet", "mine_a.sub.deep.own.MyNet"])
def test_folders_without_an_init_file_are_searched_as_an_import_does(
    target: str, package: Path
) -> None:
    module, _, _ = target.rpartition(".")
    path = package / (module.replace(".", "/") + ".py")
    path.parent.mkdir(parents=True)
    path.write_text(MODULE)
    preflight._check_target(target, "model")
    with pytest.raises(UserError, match=r"has no 'MyNte'\. Did you mean 'MyNet'"):
        preflight._check_target(f"{module}.MyNte", "model")
    with pytest.raises(UserError, match=f"there is no module '{module}s'"):
        preflight._check_target(f"{module}s.MyNet", "model")
    assert not (package / "was_run").exists()
    told = in_new_process([module], package)
    assert told.code == 0, told.err


def test_what_a_finder_cannot_tell_is_left_until_it_is_imported(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, name: str, where: object, target: object = None) -> None:
            raise KeyError(name)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    preflight._check_target("mine_a.nets.MyNte", "model")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model._target_=nowhere.Net"], "there is no module 'nowhere'"),
        (["optim._target_=torch.optim.Adm"], "Did you mean 'Adam'?"),
        (["model=timm", "model.name=resnt18"], "Did you mean 'resnet18'?"),
        (
            ["imbalance=augment_minority", "imbalance.transforms=[{_target_: albument.Affine}]"],
            "imbalance.transforms[0]._target_=albument.Affine: there is no module 'albument'",
        ),
    ],
    ids=lambda value: value[-1][:30],
)
def test_training_tells_it_before_it_draws_or_fetches_data(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def drawn(self: object) -> None:
        raise AssertionError("data were drawn")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fracnet.data.datasets.phantom.UpperLimbPhantom.prepare", drawn)
    found = train_here(["data=upper_limb_phantom", "model.pretrained=false", *words], capsys)
    assert found.code == 1
    assert told in found.err
    assert not list(tmp_path.iterdir())


def test_shipped_names_are_found_without_the_imports_that_take_seconds(tmp_path: Path) -> None:
    """Where data are missing that is told first, and at once."""
    (tmp_path / "look.py").write_text(
        "import re, sys\n"
        "from fracnet.utils.files import config_dir\n"
        "from fracnet.training import names\n"
        "for path in config_dir().rglob('*.yaml'):\n"
        "    for target in re.findall(r'_target_: ([\\w.]+)', path.read_text()):\n"
        "        names._check_target(target, path.stem)\n"
        "assert names._in_timm('resnet18')\n"
        "assert not names._in_timm('resnt18')\n"
        "print(sorted({'torch', 'timm', 'albumentations'} & set(sys.modules)))\n"
    )
    told = in_new_process(["look"], tmp_path)
    assert (told.code, told.out) == (0, "[]\n"), told.err
