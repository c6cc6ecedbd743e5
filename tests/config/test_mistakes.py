"""Mistakes at the command line: one paragraph that names key, value and what is allowed."""

from pathlib import Path

import pytest
from helpers.command import in_new_process, in_quick_process, run_train

CASES = [
    # overrides of the command, parts of the expected error
    (["modle=resnet18"], ["'modle'", "Did you mean 'model=resnet18'?", "optim"]),
    (
        ["model=custom_cnn", "model.weights=a.pth"],
        ["key of model=convnext_tiny, densenet121, ", ", resnet50, timm, vgg16.\n"],
    ),
    (["optim.lrr=1"], ["'optim.lrr'", "lr, weight_decay", "Did you mean 'optim.lr=1'?"]),
    (["lr=1"], ["'lr'", "Did you mean 'optim.lr=1'?"]),
    (["batch_size=5"], ["'batch_size'", "Did you mean 'data.batch_size=5'?"]),
    (["batch-size=5"], ["'batch-size'", "Did you mean 'data.batch_size=5'?"]),
    (["dropout=0.2"], ["Did you mean 'model.head_dropout=0.2'?"]),
    (["epochs=5"], ["'epochs'", "Did you mean 'trainer.max_epochs=5'?"]),
    (["max_epochs=5"], ["'max_epochs'", "Did you mean 'trainer.max_epochs=5'?"]),
    (["optim.batch_size=5"], ["'optim.batch_size'", "Did you mean 'data.batch_size=5'?"]),
    (["data.image_size=64"], ["Did you mean 'image_size=64'?"]),
    (["backbone=resnet18"], ["Did you mean 'model=resnet18'?"]),
    (
        ["model=custom_cnn", "model.name=x"],
        ["normalize, pool, pretrained. It is a key of model=", "resnet50, timm, vgg16.\n"],
    ),
    (["optimizer=adam"], ["Did you mean 'optim=adam'?"]),
    (["optimizer=rmsprop"], ["Did you mean 'optim' (adam, adamw, sgd)?"]),
    (["model=resnet34"], ["Did you mean 'model=timm model.name=resnet34'?"]),
    (["model=efficientnet"], ["Did you mean 'efficientnet_b0'?"]),
    (["seed", "5"], ["Did you mean seed=5?"]),
    (["mura", "resnet18"], ["Did you mean data=mura model=resnet18?"]),
    (["--epochs", "5"], ["'--epochs' is not an option", "Did you mean 'trainer.max_epochs=5'?"]),
    (["--lr=0.1"], ["'--lr=0.1' is not an option", "Did you mean 'optim.lr=0.1'?"]),
    (["--batch-size", "8"], ["'--batch-size'", "Did you mean 'data.batch_size=8'?"]),
    (["data=MURA"], ["data=MURA", "Did you mean 'mura'?"]),
    (["=1"], ["'=1' has no key before its '='"]),
    (["SEED=1"], ["'SEED'", "Did you mean 'seed=1'?"]),
    (["optim.LR=1"], ["'optim.LR'", "Did you mean 'optim.lr=1'?"]),
    (["optim.weightDecay=1"], ["Did you mean 'optim.weight_decay=1'?"]),
    (["logger=null"], ["logger=null is not one of the choices", "Did you mean 'none'?"]),
    (["explain=false"], ["explain=false", "allowed: default, none.", "Did you mean 'none'?"]),
    (["scheduler=null"], ["scheduler=null", "Did you mean 'none'?"]),
    (["debug=true"], ["debug=true", "allowed: fast, limit, overfit, profile.\n"]),
    (["experiment=null"], ["experiment=null", "allowed: cis583_cnn"]),
    (["model=18"], ["model=18", "allowed: convnext_tiny"]),
    (["logger=[csv,foo]"], ["logger=foo is not one of the choices", "csv, mlflow, none"]),
    (["optim={lrr: 1}"], ["'optim' was given the key 'lrr', which it does not have"]),
    (["trainer={max_epochs: -3}"], ["trainer.max_epochs=-3 is not allowed"]),
    (["trainer=[1,2]"], ["trainer=[1,2] is not one of the choices of 'trainer'; allowed: default"]),
    (
        ["data=upper_limb_phantom", "data.counts=[1,2,3]"],
        ["data.counts=[1,2,3] is not allowed: a mapping is needed, as in {key: value}.\n"],
    ),
    (["cited={a: 1}"], ["cited={a: 1} is not allowed: a list is needed, as in [a,b].\n"]),
    (["hydra.job.num=x"], ["hydra.job.num=x is not allowed: value 'x' of type 'str' could not be"]),
    (["views=max"], ["There is no key 'views'", "Did you mean 'evaluation.views=max'?"]),
    (["views=2"], ["There is no key 'views'", "Did you mean 'augment.views=2'?"]),
    (["-cn", "audit"], ["--config-name=audit is the config of another command", "fracnet.audit\n"]),
    (
        ["--config-name=experiment/fast"],
        ["is a choice of the group 'experiment'", "experiment=fast"],
    ),
    (
        ["-cn=trian"],
        ["--config-name=trian: there is no such config; allowed: train", "mean 'train'?"],
    ),
    (["optim.lr=1e\u22123"], ["typographic dashes or quotes", "Type: optim.lr=1e-3\n"]),
    (["name=K\u00f6ln\u2013Bonn"], ["Try: 'name=\"K\u00f6ln\u2013Bonn\"'\n"]),
    (["name=it\u2019s [a"], ["Try: 'name=\"it\u2019s [a\"'\n"]),
    (["++trainer.x=\u20131"], ["Type: ++trainer.x=-1\n"]),
    (["trainer.x=\u20131"], ["Type: trainer.x=-1\n"]),
    (["\u2013m", "seed=1"], ["Could not read '\u2013m'", "Type: -m\n"]),
    (["seed=\u201c1\u201d"], ["Type: 'seed=\"1\"'\n"]),
    (["optim.lr=1e-3,"], ["ends in a comma. Type: optim.lr=1e-3\n"]),
    (["tags=[a, b],"], ["ends in a comma. Type: 'tags=[a, b]'\n"]),
    (["name=K\u00f6ln,"], ["Try: 'name=\"K\u00f6ln,\"'\n"]),
    (["hydra.run.dir=/dev/null/x"], ["Cannot create the folder /dev/null/x: Not a directory.\n"]),
    (["resume=/dev/null"], ["Cannot create the folder /dev/null: File exists.\n"]),
    (["model=resnet34"], ["model=resnet34", "model=timm model.name=resnet34"]),
    (["resnet18"], ["'resnet18' is not an override", "key=value"]),
    (["enhance=clahe"], ["'enhance' is now called 'preprocess'"]),
    (["model.normalise=half"], ["'model.normalise' is now called 'model.normalize'"]),
    (["evaluation.operating=youden"], ["is now called 'evaluation.operating_point'"]),
    (["model=resnet81"], ["model=resnet81", "custom_cnn", "Did you mean 'resnet18'?"]),
    (
        ["augment=nne"],
        ["augment=nne", "mirror, none, published, rand, strong", "Did you mean 'none'?"],
    ),
    (["model.pretrained.x=1"], ["'model.pretrained.x'", "'model.pretrained' holds a plain value"]),
    (["data=upper_limb_phantom", "data.counts={valid: 3}"], ["'data.counts'", "train, val, test"]),
    (["data=mura_phantom", "data.patients={test: 3}"], ["the key 'test'", "train, valid."]),
    (["launcher=ray", "launcher.gpus=1"], ["Did you mean 'launcher.gpus_per_job=1'?"]),
    (["seed=1", "optim.lr", "=", "1e-3"], ["Write it as one word: optim.lr=1e-3\n"]),
    (["optim.lr=1,", "2"], ["Write it as one word: optim.lr=1,2\n"]),
    (["data.batch_size=", "5"], ["Write it as one word: data.batch_size=5\n"]),
    (["callbacks.a={b:", "1}"], ["read 'callbacks.a={b:'.", "word: 'callbacks.a={b: 1}'\n"]),
    (["optim.lr", "=", "1,2", "seed=1"], ["Write it as one word: optim.lr=1,2\n"]),
    (["tags=[a,b", "seed=1"], ["Could not read 'tags=[a,b'. Lists are written 'tags=[a, b]'"]),
    (["model.blocks=[16", "32", "seed=1"], ["Could not read 'model.blocks=[16'. Lists are"]),
    (["model=resnet18", ",", "seed=1"], ["',' is not an override", "group=choice, ~key"]),
    (["trainer.x={a:", "1", "b:", "2", "}"], ["'trainer.x={a:'. Lists", "{name: value, name"]),
    (["++trainer.x={a:"], ["Could not read '++trainer.x={a:'."]),
    (["++trainer.x={a:", "1}"], ["Write it as one word: '++trainer.x={a: 1}'\n"]),
    (["a=[b", "c=[d,", "e]"], ["Could not read 'a=[b'. Lists are written"]),
    (["optim.fused=true"], ["To pass it to torch.optim.AdamW: +optim.fused=true\n"]),
    (["image_size"], ["'image_size'", "key=value"]),
    (["image_size=12.5"], ["image_size=12.5", "integer"]),
    (["image_size=true"], ["image_size=true is not allowed"]),
    (["image_size=null"], ["image_size=null is not allowed"]),
    (["image_size=[true,1]"], ["image_size=[true, 1] is not allowed"]),
    (["image_size={a: null}"], ["image_size={a: null} is not allowed"]),
    (["image_size=8"], ["image_size=8", "16"]),
    (["trainer.max_epochs=ten"], ["trainer.max_epochs=ten", "integer"]),
    (["trainer.max_epochs=0"], ["trainer.max_epochs=0", "1"]),
    (["data.batch_size=true"], ["data.batch_size=true", "number"]),
    (["optim.lr=-1"], ["optim.lr=-1", "greater than 0"]),
    (["optim.lr=nan"], ["optim.lr=nan", "finite"]),
    (["optim.lr="], ["optim.lr=", "number"]),
    (["optim.weight_decay=-0.1"], ["optim.weight_decay=-0.1", "0"]),
    (["data.num_workers=-1"], ["data.num_workers=-1", "0"]),
    (["seed=-1"], ["seed=-1", "0"]),
    (["model.normalize=zscore"], ["model.normalize=zscore", "allowed: weights, imagenet, half"]),
    (["trainer.precision=8"], ["trainer.precision=8", "bf16-mixed"]),
    (
        ["callbacks.best.metric=macro_acu"],
        ["callbacks.best.metric=macro_acu", "Did you mean 'macro_auc'?"],
    ),
    (["objective=aux"], ["objective=aux", "study_kappa", "Did you mean 'auc'?"]),
    (["logger=wandbb"], ["logger=wandbb", "csv, mlflow, none", "Did you mean 'wandb'?"]),
    (["logger.wandb.mode=on"], ["logger.wandb.mode=on", "allowed: offline, online, disabled"]),
    (["logger.mode=online"], ["logger.mode is now logger.wandb.mode"]),
    (["logger.wandb.images=maybe"], ["logger.wandb.images=maybe", "true or false is needed"]),
    (["logger.wandb.timeout=0"], ["logger.wandb.timeout=0", "greater than 0"]),
    (
        ["logger.wandb.project=a/b"],
        ["logger.wandb.project=a/b is not allowed; allowed: characters other"],
    ),
    (["logger.wandb.tags=[1]"], ["logger.wandb.tags.0", "=1 is not allowed: text is needed"]),
    (["imbalance=oversampl"], ["undersample", "Did you mean 'oversample'?"]),
    (["imbalance.method=smote"], ["imbalance.method=smote", "oversample, un"]),
    (
        ["imbalance.method=augment_minority"],
        ["imbalance.transforms", "the whole group, imbalance=augment_minority"],
    ),
    (
        ["imbalance=augment_minority", "imbalance.method=none"],
        ["imbalance.method=none", "the whole group, imbalance=none"],
    ),
    (
        ["model=hog_logistic", "imbalance=oversample"],
        ["imbalance.method=oversample", "fit=classical", "none, class_weights"],
    ),
    (["model.freeze=head"], ["model.freeze=head", "none, backbone or a number of epochs"]),
    (["model.freeze=0"], ["model.freeze=0", "none, backbone or a number of epochs, 1 or more"]),
    (["model.freeze=true"], ["model.freeze=true", "none, backbone or a number of epochs"]),
    (
        ["model.freeze=5", "trainer.max_epochs=5"],
        ["model.freeze=5 leaves none of trainer.max_epochs=5", "backbone to freeze it for good"],
    ),
    (["model.freeze=2", "trainer.devices=2"], ["model.freeze=2 works on one device", "backbone"]),
    (["model.head_dropout=1"], ["model.head_dropout=1", "less than 1"]),
    (["optim.backbone_lr_factor=0"], ["optim.backbone_lr_factor=0", "greater than 0"]),
    (["optim.l1=-1"], ["optim.l1=-1", "0"]),
    (["optim.layer_decay=1.5"], ["optim.layer_decay=1.5", "less than or equal to 1"]),
    (["augment.mixup=-1"], ["augment.mixup=-1", "greater than or equal to 0"]),
    (
        ["trainer.image_sizes=[96,256]"],
        ["trainer.image_sizes=[96,256]", "up to image_size=224", "or null"],
    ),
    (["trainer.image_sizes=[]"], ["trainer.image_sizes=[]", "up to image_size=224"]),
    (["trainer.image_sizes=[96,8]"], ["trainer.image_sizes.1=8", "16"]),
    (
        ["trainer.image_sizes=[96,160]", "trainer.max_epochs=1"],
        ["trainer.image_sizes=[96,160]: trainer.max_epochs=1 leave 1 epoch for 2", "one for each"],
    ),
    (["optim=adamm"], ["optim=adamm", "adam, adamw, sgd", "Did you mean 'adam"]),
    (["loss=focl"], ["loss=focl", "cross_entropy, focal", "Did you mean 'focal'?"]),
    (["loss.label_smoothing=1"], ["loss.label_smoothing=1", "less than 1"]),
    (["loss.gamma=1"], ["'loss.gamma'", "allowed under 'loss': label_smoothing"]),
    (["loss=focal", "loss.gamma=-1"], ["loss.gamma=-1", "0"]),
    (["callbacks.ema=1"], ["callbacks.ema.decay=1", "less than 1"]),
    (["callbacks.ema={decy: 0.9}"], ["callbacks.ema.decy=0.9", "no such key"]),
    (["callbacks.ema.decay=0.9"], ["'callbacks.ema.decay'", "'callbacks.ema' holds a plain value"]),
    (["data.on_bad_file=ignore"], ["data.on_bad_file=ignore", "allowed: error, skip"]),
    (["+foo=3"], ["There is no key 'foo'; allowed: augment"]),
    (["+optm.lr=1"], ["There is no key 'optm'", "Did you mean 'optim.lr=1'?"]),
    (["++modle=resnet18"], ["There is no key 'modle'", "Did you mean 'model=resnet18'?"]),
    (["+evaluation.viws=max"], ["'evaluation.viws'", "Did you mean 'evaluation.views=max'?"]),
    (["-m", "++learning_rate=1,2"], ["Did you mean 'optim.lr=1,2'?"]),
    (["+optim.lr=1"], ["'optim.lr' exists already; type 'optim.lr=1'."]),
    (["+model=resnet50"], ["'model' exists already; type 'model=resnet50'."]),
    (["++model=resnet50"], ["'model' exists already; type 'model=resnet50'."]),
    (["~optm"], ["There is no key 'optm'", "Did you mean '~optim'?"]),
    (["~optim.lrr"], ["There is no key 'optim.lrr'", "Did you mean '~optim.lr'?"]),
    (["~optim"], ["optim", "required"]),
    (["hydra.run.dri=x"], ["There is no key 'hydra.run.dri'", "Did you mean 'hydra.run.dir=x'?"]),
    (["data.root=${nope}"], ["nope"]),
    (["trainer.devices=0"], ["trainer.devices=0", "1 or more"]),
    (["trainer.devices=two"], ["trainer.devices=two", "integer"]),
    (["data.folds=1"], ["data.folds=1", "2"]),
    (["data.folds=5", "data.fold=5"], ["data.fold=5", "0 to 4"]),
    (["data.folds=5", "data.fold=-1"], ["data.fold=-1", "0"]),
    (["data.fold=2"], ["data.fold=2", "data.folds=5"]),
    (["data.fraction=0"], ["data.fraction=0", "greater than 0"]),
    (["data.fraction=1.5"], ["data.fraction=1.5", "less than or equal to 1"]),
    (["data.split=dedup"], ["data.split=dedup", "allowed: official, deduplicated"]),
    (["show_test=none"], ["show_test=none", "allowed: best, all"]),
    (["sweep=lr_batch_epoch"], ["sweep=lr_batch_epoch", "Did you mean 'lr_batch_epochs'?"]),
    (["sweep=lr_batch_epochs"], ["sweep=lr_batch_epochs", "-m sweep=lr_batch_epochs"]),
    (
        ["search=fine_tuning"],
        ["Only for sweeps: search=fine_tuning. ", "train -m search=fine_tuning ..."],
    ),
    (["sweeper=optuna", "pruning=asha"], ["train -m sweeper=optuna pruning=asha ..."]),
    (["launcher=ray", "pruning=asha"], ["train -m launcher=ray pruning=asha ..."]),
    (["optim.lr=-1", "data.batch_size=0"], ["optim.lr=-1", "data.batch_size=0"]),
]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("overrides", "parts"), CASES, ids=lambda value: " ".join(value)[:40])
def test_a_mistake_gives_a_one_paragraph_error(
    overrides: list[str], parts: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = run_train(overrides, capsys)
    assert result.code == 1
    assert result.err.startswith("fracnet: error: ")
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left, "a refused run leaves no files"


@pytest.mark.parametrize(
    "overrides", [["--help"], ["--cfg", "job"], ["modle=resnet18"]], ids=lambda w: w[0]
)
def test_light_commands_are_fast(overrides: list[str], tmp_path: Path) -> None:
    result = in_quick_process(["fracnet.train", *overrides], tmp_path)
    if overrides == ["--help"]:
        for part in ("not a medical device", "model: ", "upper_limb_phantom", "optim", "--cfg job"):
            assert part in result.out


def test_a_recipe_with_a_launcher_runs_singly(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = tmp_path / "conf/experiment/mine.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(
        "# @package _global_\ndefaults:\n  - override /launcher: slurm\n"
        "  - override /sweep: lr_batch_epochs\n"
    )
    words = ["--config-dir", str(tmp_path / "conf"), "experiment=mine"]
    later = run_train([*words, "trainer.no_such=1"], capsys).err
    assert "no_such" in later
    assert "Only for sweeps" not in later
    typed = run_train([*words, "launcher=slurm", "trainer.no_such=1"], capsys).err
    assert "Only for sweeps: launcher=slurm. Start one with: python -m" in typed


@pytest.mark.parametrize("option", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
@pytest.mark.parametrize("override", ["logger=[csv,foo]", "logger=null"])
def test_the_choices_include_those_of_a_folder_of_ones_own(
    override: str, option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = tmp_path / "conf/logger/mine.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    error = run_train([option.format(tmp_path / "conf"), override], capsys).err
    assert "allowed: csv, mine, mlflow, none, tensorboard, wandb." in error


@pytest.mark.parametrize("content", ["x = 1", "raise ValueError('mine')"])
@pytest.mark.parametrize("name", ["random", "logging"])
def test_a_file_that_hides_a_module_of_pythons_own_is_named(
    name: str, content: str, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.py").write_text(content)
    result = in_new_process(["fracnet.train", "--help"], tmp_path)
    assert result.code == 1
    assert f"{name}.py hides Python's own module '{name}'" in result.err
    assert result.err.count("\n") == 1, result.err


def test_a_file_that_hides_a_module_of_pythons_own_is_named_in_a_task(tmp_path: Path) -> None:
    (tmp_path / "calendar.py").write_text("x = 1")  # which pandas needs
    result = in_new_process(["fracnet.compare", "runs=x", "out=y"], tmp_path)
    assert result.code == 1
    assert f"\nfracnet: error: {tmp_path}/calendar.py hides Python's own module" in result.err
    assert "Traceback" not in result.err


def test_full_error_shows_the_traceback(tmp_path: Path) -> None:
    result = in_new_process(["fracnet.train", "optim.lr=-1"], tmp_path, HYDRA_FULL_ERROR="1")
    assert result.code != 0
    assert "Traceback" in result.err
    assert "optim.lr=-1" in result.err


def test_a_bug_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(plain: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("fracnet.training.preflight.check", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run_train([], capsys)
