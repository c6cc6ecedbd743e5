"""What a run prints before its first epoch: data, model, device and folder."""

import logging
import textwrap
import warnings

from fracnet.config.schema import Config, Evaluation
from fracnet.data.datamodule import RadiographData
from fracnet.data.split_file import uneven_classes
from fracnet.data.splits import SPLITS
from fracnet.evaluation.decisions import as_option
from fracnet.models.classifier import Classifier
from fracnet.models.heads import find_heads
from fracnet.models.weights import LoadedWeights
from fracnet.runs.run_folder import RunFolder
from fracnet.training.classical import UNUSED, Classical
from fracnet.utils.text import counted

HEADS = {
    "mlp": "two linear layers with ReLU between them",
    "logistic": "logistic regression (scikit-learn) on standardized features",
    "knn": "nearest neighbors by cosine similarity",
}
UNUSED_BY_HEAD = "optim, loss, scheduler, callbacks, trainer.max_epochs"
CROSS_ENTROPY = "fracnet.models.losses.CrossEntropy"
NAMES = {CROSS_ENTROPY: "cross-entropy", "fracnet.models.losses.Focal": "focal"}


def training_options(config: Config, model: Classifier) -> list[str]:
    """The training options that differ from the defaults, one line each."""
    lines = []
    freeze, optim, loss = config.model.freeze, config.optim, config.loss
    if freeze != "none":
        head = find_heads(model.backbone, "model.freeze")
        n = sum(weight.numel() for layer in head for weight in layer.parameters())
        when = "" if freeze == "backbone" else f" for {counted(int(freeze), 'epoch')}"
        what = f"head's {n:,} parameters are" if n else "head is"
        how = "trained" if config.model.by_epochs else "fitted"
        lines.append(f"backbone frozen{when}: only the {what} {how}")
        lines.append(_head_input(config, model.why_whole))
    if config.model.pool == "avgmax":
        lines.append("features: average and maximum over the image")
    if config.model.head != "linear":
        lines.append(f"head: {HEADS[config.model.head]}")
    if not config.model.by_epochs:
        lines.append(f"fitted without epochs; not used: {UNUSED_BY_HEAD}")
        return lines
    if config.model.head_dropout:
        lines.append(f"dropout of {config.model.head_dropout} before the head")
    if optim.backbone_lr_factor != 1:
        rate = optim.lr * optim.backbone_lr_factor
        lines.append(f"learning rate {optim.lr:g} for the head, {rate:g} for the backbone")
    if optim.layer_decay != 1:
        lines.append(f"learning rate times {optim.layer_decay:g} for each stage below the head")
    if optim.l1:
        lines.append(f"L1 penalty of {optim.l1:g} on the weights, part of the training loss")
    if loss.localization:
        lines.append(f"auxiliary head that finds the annotations, weight {loss.localization:g}")
    own = ("_target_", "localization")
    arguments = {k: v for k, v in loss.plain().items() if k not in own}
    if loss.target != CROSS_ENTROPY or any(arguments.values()):
        name = NAMES.get(loss.target, loss.target)
        given = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in arguments.items() if v)
        lines.append(f"training loss: {name}{f' ({given})' if given else ''}")
    if sizes := config.trainer.image_sizes:
        lines.append(f"trained at {', '.join(map(str, sizes))} pixels, each for an equal share")
    for name in ("mixup", "cutmix"):
        if alpha := getattr(config.augment, name):
            lines.append(f"{name} of the images of a batch, alpha {alpha:g}")
    if config.callbacks.ema is not None:
        lines.append(f"weights averaged over the steps, decay {config.callbacks.ema.decay:g}")
    passed_on = {k: v for k, v in config.trainer.passed_on.items() if k != "plugins"}
    lines += [f"trainer.{name}={value}" for name, value in passed_on.items()]
    lines += [
        f"callback: {name}" for name, node in (config.callbacks.model_extra or {}).items() if node
    ]
    return lines


def _head_input(config: Config, why_whole: str | None) -> str:
    """What a head trains on while all else is frozen, in a sentence."""
    if why_whole:
        return f"the whole network runs in each batch: {why_whole}"
    n = config.augment.views
    if not config.model.by_epochs:
        more = f" and of {counted(n, 'augmented copy')} of each" if n else ""
        return f"the head is fitted to cached features of the images{more}"
    what = "of the images as they are, not augmented (augment.views=8 augments)"
    if n:
        what = f"of {counted(n, 'augmented copy')} of each image, in turn"
    return f"the head trains on cached features {what}"


def loaded_weights(model: Classifier | Classical) -> str:
    """How much of the file `model.weights` the network has; "" where there was no such file."""
    loaded = getattr(getattr(model, "backbone", None), "loaded_weights", None)
    return loaded.describe() if isinstance(loaded, LoadedWeights) else ""


def quiet_libraries() -> None:
    """Silence Lightning's start-up notes, which repeat the header; its warnings stay."""
    # Raised inside Lightning 2.6 by torch 2.15; a user cannot change it.
    warnings.filterwarnings("ignore", ".isinstance.treespec, LeafSpec", FutureWarning)
    # Misleading: workers read from a cache, and more workers than cores cost time.
    warnings.filterwarnings("ignore", ".*does not have many workers")
    warnings.filterwarnings("ignore", "This DataLoader will create")
    # Validation metrics are computed from all processes' rows: nothing is left to average.
    warnings.filterwarnings("ignore", "It is recommended to use .self.log..val/")
    # A resumed run finds its own checkpoint there.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    # Losses are logged once per epoch.
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logg")
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
    # Said wherever SLURM is installed, also to a run that is none of its jobs.
    warnings.filterwarnings("ignore", "The .srun. command is available")
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)


def print_header(
    config: Config,
    data: RadiographData,
    model: Classifier | Classical,
    device: str,
    folder: RunFolder,
) -> None:
    """Print what is trained, on what, where, and into which folder."""
    manifest, n_images = data.manifest, {split: len(data.rows(split)) for split in SPLITS}
    counts = ", ".join(f"{n} {split}" for split, n in n_images.items())
    total = f"{sum(n_images.values())} images ({counts}), {len(data.classes)} classes"
    print(f"data    {manifest.name}: {total}")
    for reason, rows in manifest.excluded.groupby("reason", sort=False):
        n = int(rows["n"].sum())
        if n:
            print(f"        left out: {n} ({reason})")
    print_audit(data)
    print_unused_options(config, data)
    print_balance(data, " per epoch" if config.model.by_epochs else "")
    if isinstance(model, Classifier):
        size = sum(p.numel() for p in model.parameters())
        print(f"model   {model_name(config)}, {size / 1e6:.1f} million parameters")
        weights = loaded_weights(model)
        for line in [*([weights] if weights else []), *training_options(config, model)]:
            print(f"        {line}")
    else:
        print(f"model   {model.describe()}")
        print(f"        fitted without epochs; not used: {UNUSED}")
    print(f"device  {device}")
    print(f"run     {folder.path}\n", flush=True)


def print_audit(data: RadiographData) -> None:
    """Print the verdict of the audit of these data, if one was made."""
    audit = data.audit
    if audit is None:
        return
    text = f"{audit.severity}: {audit.verdict}"
    if data.split == "deduplicated":
        text = f"of the official split, {text} Its verified copies are left out here."
        if uneven := uneven_classes(data.manifest):
            text += f" That leaves {uneven}."
    print(textwrap.fill(text, 80, initial_indent="audit   ", subsequent_indent=" " * 8))


def print_unused_options(config: Config, data: RadiographData) -> None:
    """Print that a requested threshold rule has no use, where there is no threshold."""
    rule, n = config.evaluation.operating_point, len(data.classes)
    if n > 2 and rule != Evaluation().operating_point:
        print(f"        evaluation.operating_point={as_option(rule)} is not used:")
        print(f"        with {n} classes the decision is the most probable one")


def print_balance(data: RadiographData, when: str) -> None:
    """Print how classes of unequal size are balanced, and how many images of each that gives."""
    if data.imbalance.method == "none":
        return
    counts = data.train_counts()
    balanced = data.imbalance.epoch_counts(counts)
    each = ", ".join(f"{name} {n}" for name, n in zip(data.classes, balanced, strict=True))
    print(f"balance {data.imbalance.describe(counts, data.classes)}")
    print(f"        train images{when}: {balanced.sum()} ({each})")


def model_name(config: Config) -> str:
    """The backbone, and where its weights come from."""
    node = config.model.plain()
    name = str(node.get("name", node["_target_"].rpartition(".")[2]))
    if node.get("weights"):
        return f"{name}, weights of {node['weights']}"
    return f"{name}, {'ImageNet weights' if node.get('pretrained') else 'random start'}"
