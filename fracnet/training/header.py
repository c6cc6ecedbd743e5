"""What a run says before its first epoch."""

import logging
import textwrap
import warnings

from fracnet.config import Config
from fracnet.data.datamodule import RadiographData
from fracnet.evaluation.operating import said
from fracnet.models.module import Classifier
from fracnet.options import Evaluation
from fracnet.training.classical import UNUSED, Classical
from fracnet.training.recipe import recipe
from fracnet.training.run_folder import RunFolder


def quiet_libraries() -> None:
    """Lightning's start-up notes say what the header says; its warnings stay."""
    # Raised inside Lightning 2.6 by torch 2.15; nothing that a user could change.
    warnings.filterwarnings("ignore", ".isinstance.treespec, LeafSpec", FutureWarning)
    # Misleading here: workers read from a cache, and more of them than cores cost time.
    warnings.filterwarnings("ignore", ".*does not have many workers")
    warnings.filterwarnings("ignore", "This DataLoader will create")
    # Validation figures are made from all processes' rows: there is nothing left to average.
    warnings.filterwarnings("ignore", "It is recommended to use .self.log..val/")
    # What a resumed run finds there is its own.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
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
    table, manifest = data.manifest.table, data.manifest
    counts = ", ".join(f"{n} {split}" for split, n in split_counts(data).items())
    print(f"data    {manifest.name}: {len(table)} images ({counts}), {len(data.classes)} classes")
    for reason, rows in manifest.excluded.groupby("reason", sort=False):
        n = int(rows["n"].sum())
        if n:
            print(f"        left out: {n} ({reason})")
    print_audit(data)
    print_unused(config, data)
    print_balance(data, " an epoch" if isinstance(model, Classifier) else "")
    if isinstance(model, Classifier):
        size = sum(p.numel() for p in model.parameters())
        print(f"model   {model_name(config)}, {size / 1e6:.1f} million parameters")
        for line in recipe(config, model):
            print(f"        {line}")
    else:
        print(f"model   {model.describe()}")
        print(f"        fitted in one go; not used: {UNUSED}")
    print(f"device  {device}")
    print(f"run     {folder.path}\n", flush=True)


def print_audit(data: RadiographData) -> None:
    """Print the verdict of the audit of these data, where one has been made."""
    audit = data.audit
    if audit is None:
        return
    told = f"{audit.severity}: {audit.verdict}"
    if data.split == "deduplicated":
        told = f"of the official split, {told} Its verified copies are left out here."
    print(textwrap.fill(told, 80, initial_indent="audit   ", subsequent_indent=" " * 8))


def print_unused(config: Config, data: RadiographData) -> None:
    """Print that a rule for a threshold is of no use, where one was asked for in vain."""
    rule, n = config.evaluation.operating, len(data.classes)
    if n > 2 and rule != Evaluation().operating:
        print(f"        evaluation.operating={said(rule)} is not used: with {n} classes the")
        print("        decision is the likeliest one")


def print_balance(data: RadiographData, when: str) -> None:
    """Print what is done about classes of unequal size, and how many of each are then shown."""
    if data.imbalance.method == "none":
        return
    counts = data.train_counts()
    shown = data.imbalance.epoch_counts(counts)
    each = ", ".join(f"{name} {n}" for name, n in zip(data.classes, shown, strict=True))
    print(f"balance {data.imbalance.in_words(counts, data.classes)}")
    print(f"        train images{when}: {shown.sum()} ({each})")


def split_counts(data: RadiographData) -> dict[str, int]:
    """Images of each split, in the order train, val, test."""
    return {split: len(data.rows(split)) for split in ("train", "val", "test")}


def model_name(config: Config) -> str:
    """The backbone and where its weights come from, in words."""
    node = config.model.plain()
    name = str(node.get("name", node["_target_"].rpartition(".")[2]))
    if node.get("weights"):
        return f"{name}, weights of {node['weights']}"
    return f"{name}, {'ImageNet weights' if node.get('pretrained') else 'random start'}"
