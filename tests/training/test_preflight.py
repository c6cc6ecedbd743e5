"""Mistyped names are reported before any data are prepared, without running the user's code."""

import importlib.util
import inspect
import sys
from pathlib import Path

import pytest
from helpers.command import in_new_process, run_train
from lightning.pytorch import Trainer

from fracnet.config import targets
from fracnet.training import preflight
from fracnet.utils.errors import UserError

# Leaves a file behind when it is run.
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
    ("target", "message"),
    [
        ("mine_a.nets.MyNte", "module mine_a.nets has no 'MyNte'. Did you mean 'MyNet'?"),
        ("mine_a.nest.MyNet", "there is no module 'mine_a.nest'; allowed: an importable"),
        ("mine_a.star.deep.MyNet", "there is no module 'mine_a.star.deep'"),
        ("mine_a.nets.MyNet.Inner", "MyNet is a class of module mine_a.nets, and a class inside"),
        ("mine_a.MyNet.Inner", "a class inside a class cannot be named; allowed: package.module."),
        ("mine_b.nets.MyNet", "there is no module 'mine_b'"),
        ("MyNet", "is not a dotted path"),
    ],
)
def test_a_name_that_does_not_exist_is_reported_and_no_module_of_the_user_is_run(
    target: str, message: str, package: Path
) -> None:
    with pytest.raises(UserError) as caught:
        targets.check_target(target, "model")
    assert f"model._target_={target}" in str(caught.value)
    assert message in str(caught.value)
    assert not (package / "was_run").exists()
    assert not [name for name in sys.modules if name.startswith("mine_a")]


@pytest.mark.parametrize("target", ["mine_a.nets.MyNet", "mine_a.MyNet", "mine_a.star.MyNet"])
def test_a_name_that_exists_or_may_be_dynamic_passes(target: str, package: Path) -> None:
    targets.check_target(target, "model")
    assert not (package / "was_run").exists()


@pytest.mark.parametrize("target", ["lab_a.nets.mine.MyNet", "mine_a.sub.deep.own.MyNet"])
def test_folders_without_an_init_file_are_searched_as_an_import_does(
    target: str, package: Path
) -> None:
    module, _, _ = target.rpartition(".")
    path = package / (module.replace(".", "/") + ".py")
    path.parent.mkdir(parents=True)
    path.write_text(MODULE)
    targets.check_target(target, "model")
    with pytest.raises(UserError, match=r"has no 'MyNte'\. Did you mean 'MyNet'"):
        targets.check_target(f"{module}.MyNte", "model")
    with pytest.raises(UserError, match=f"there is no module '{module}s'"):
        targets.check_target(f"{module}s.MyNet", "model")
    assert not (package / "was_run").exists()
    result = in_new_process([module], package)
    assert result.code == 0, result.err


def test_names_that_a_finder_cannot_resolve_are_checked_at_import(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, name: str, where: object, target: object = None) -> None:
            raise KeyError(name)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    targets.check_target("mine_a.nets.MyNte", "model")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model._target_=nowhere.Net"], "there is no module 'nowhere'"),
        (["optim._target_=torch.optim.Adm"], "Did you mean 'Adam'?"),
        (["model=timm", "model.name=resnt18"], "Did you mean 'resnet18'?"),
        (
            ["imbalance=augment_minority", "imbalance.transforms=[{_target_: albument.Affine}]"],
            "imbalance.transforms[0]._target_=albument.Affine: there is no module 'albument'",
        ),
        (
            ["trainer.acumulate_grad_batches=2"],
            "trainer.acumulate_grad_batches=2: lightning.Trainer has no such argument",
        ),
        (["trainer.acumulate_grad_batches=2"], "Did you mean 'accumulate_grad_batches'?"),
        (["trainer.logger=true"], "trainer.logger is not allowed: choose with logger="),
        (["trainer.limit_val_batches=0"], "validation selects the checkpoint"),
        (
            ["trainer.profiler={_target_: lightning.pytorch.profilers.SimpleProfilr}"],
            "Did you mean 'SimpleProfiler'?",
        ),
        (
            ["callbacks.lr={_target_: lightning.pytorch.callbacks.LearningRateMonitr}"],
            "callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitr",
        ),
        (["callbacks.early_stoping=3"], "Did you mean 'early_stopping'?"),
        (["logger.mode=online"], "logger.mode is now logger.wandb.mode"),
        (["logger.wandb.notse=x"], "'logger.wandb.notse'"),
        (["+logger.wandb.notse=x", "logger.wandb.mode=offline"], "Did you mean 'notes'?"),
        (["metrics.f2={_target_: torchmetrics.classification.MulticlasF1Score}"], "MulticlassF1"),
        (["metrics.kappa={_target_: torchmetrics.CohenKappa}"], "metrics.kappa: allowed is a name"),
        (["objective=study_kapa"], "Did you mean 'kappa'?"),
        (["+optim.lrr=1"], "optim.lrr=1 is not an argument of torch.optim.AdamW; allowed: lr"),
        (["+optim.lrr=1"], "Did you mean 'lr'?"),
        (["scheduler=plateau", "+scheduler.treshold=0"], "Did you mean 'threshold'?"),
        (["model=custom_cnn", "+model.dropot=0.1"], "Did you mean 'dropout'?"),
        (["loss=focal", "+loss.gama=1"], "Did you mean 'gamma'?"),
        (
            ["callbacks.x={_target_: lightning.pytorch.callbacks.Timer, durtion: 1}"],
            "callbacks.x.durtion=1 is not an argument of lightning",
        ),
        (["scheduler.interval=steps"], "scheduler.interval=steps is not allowed"),
    ],
    ids=lambda value: value[-1][:30],
)
def test_training_reports_a_missing_name_before_generating_or_downloading_data(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def prepare(self: object) -> None:
        raise AssertionError("data were prepared")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fracnet.data.datasets.phantom.UpperLimbPhantom.prepare", prepare)
    result = run_train(["data=upper_limb_phantom", "model.pretrained=false", *overrides], capsys)
    assert result.code == 1
    assert result.err.count("\n") == 1, result.err
    assert message in result.err
    assert not list(tmp_path.iterdir())


def test_a_sweep_reports_an_unknown_argument_before_its_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["data=upper_limb_phantom", "+optim.lrr=1,2", "hydra.sweep.dir=sweep"]
    result = run_train(["-m", *overrides], capsys)
    assert result.code == 1
    assert "optim.lrr=1 is not an argument of torch.optim.AdamW" in result.err
    assert not list(tmp_path.iterdir())


def test_shipped_names_are_found_without_the_imports_that_take_seconds(tmp_path: Path) -> None:
    """So that missing data are reported first, and at once."""
    (tmp_path / "look.py").write_text(
        "import re, sys\n"
        "from fracnet.utils.files import config_dir\n"
        "from fracnet.config.instantiate import is_timm_model\n"
        "from fracnet.config import targets\n"
        "for path in config_dir().rglob('*.yaml'):\n"
        "    for target in re.findall(r'_target_: ([\\w.]+)', path.read_text()):\n"
        "        targets.check_target(target, path.stem)\n"
        "assert is_timm_model('resnet18')\n"
        "assert not is_timm_model('resnt18')\n"
        "print(sorted({'torch', 'timm', 'albumentations'} & set(sys.modules)))\n"
    )
    result = in_new_process(["look"], tmp_path)
    assert (result.code, result.out) == (0, "[]\n"), result.err


@pytest.mark.parametrize(
    ("logger", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")]
)
def test_a_missing_package_is_named(
    logger: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == package else real(name)
    )
    monkeypatch.chdir(tmp_path)
    result = run_train(["data=upper_limb_phantom", f"logger={logger}"], capsys)
    assert result.code == 1
    assert f"logger={logger} needs the package {package}" in result.err
    assert f"pip install {package}" in result.err
    assert not list(tmp_path.iterdir())


def test_arguments_are_read_from_the_text_of_a_module() -> None:
    names = targets.arguments_of("lightning.pytorch.trainer.trainer.Trainer")
    assert set(names) == set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert {"project", "notes"} <= set(targets.arguments_of("wandb.sdk.wandb_init.init"))
    assert targets.arguments_of("lightning.pytorch.trainer.trainer.Nothing") == ()


def test_arguments_are_followed_through_imports_and_base_classes(package: Path) -> None:
    (package / "mine_a/parts.py").write_text(
        "class Base:\n    def __init__(self, width): pass\n"
        "class Open(Base):\n    def __init__(self, **more): pass\n"
        "def plain(depth, *, width=1): pass\n"
    )
    (package / "mine_a/own.py").write_text(
        "from .parts import Base as Parent, plain\nfrom mine_a.parts import Open\n"
        "class Net(Parent): pass\n"
        "@register\ndef decorated(width): pass\n"
        "class Other(unknown.Module): pass\n"
        "class Two(Open, Parent): pass\n"
        "class Assigned(Parent):\n    __init__ = plain\n"
        "class Rebound(Parent): pass\nRebound = wrapped(Rebound)\n"
    )
    (package / "mine_a/broken.py").write_text("class Net(:\n")
    assert targets.arguments_of("mine_a.own.Net") == ("width",)
    assert targets.arguments_of("mine_a.own.plain") == ("depth", "width")
    assert targets.arguments_of("mine_a.own.Other") == ()
    targets.check_keys("mine_a.broken.Net", "model", {"wdith": 1})  # the import says where
    for name in ("Open", "decorated", "Other", "Two", "Assigned", "Rebound"):
        targets.check_keys(f"mine_a.own.{name}", "model", {"wdith": 1})
    with pytest.raises(UserError, match="Did you mean 'width'"):
        targets.check_keys("mine_a.own.Net", "model", {"wdith": 1})
    assert not (package / "was_run").exists()


def test_every_reserved_argument_exists() -> None:
    assert set(preflight.TRAINER_RESERVED) <= set(inspect.signature(Trainer.__init__).parameters)
