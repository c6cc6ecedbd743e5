"""One training run, from a resolved config to its folder: for the command and for `fracnet.fit`.

What a run leaves behind: predictions, metrics.json, figures, and the table on the screen.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from fracnet.config.schema import Config, check
from fracnet.data.datamodule import RadiographData
from fracnet.data.manifest import write_table
from fracnet.evaluation import baselines
from fracnet.evaluation.aggregation import check_by, check_views
from fracnet.evaluation.predictions import PROB
from fracnet.runs import external_test
from fracnet.runs.evaluate_run import draw, judge, present, progress_if
from fracnet.runs.report_run import shows_images, write
from fracnet.runs.run_folder import RunFolder, mapping, write_json
from fracnet.training import sweep
from fracnet.utils import distributed
from fracnet.utils.errors import Diverged, Interrupted

if TYPE_CHECKING:
    from fracnet.models.classifier import Classifier
    from fracnet.runs.provenance import Provenance
    from fracnet.training.classical import Classical
    from fracnet.training.wandb_tracker import Tracker


@dataclass(frozen=True)
class Order:
    """What is asked for: where to, and how it was said.

    words: the overrides. command: the whole line, for the run's provenance.
    """

    folder: Path
    words: Sequence[str]
    command: Sequence[str]
    in_sweep: bool = False


@dataclass(frozen=True)
class _Ready:
    """All that has been found to be in order before anything is trained."""

    config: Config
    plain: dict[str, Any]
    folder: "RunFolder"
    device: str
    data: "RadiographData"
    model: "Classifier | Classical"


def run(plain: dict[str, Any], order: Order) -> float:
    """Train one model and measure it.

    plain: the resolved config, as plain containers.

    Returns:
        The validation figure that `objective` names, at the selected checkpoint.

    Raises:
        UserError: a fault in config, data or weights, before any training starts.
    """
    ready = _prepared(plain, order)
    if distributed.rank() > 0:
        return _helped(ready)
    from fracnet.data.fingerprint import data_fingerprint
    from fracnet.runs.provenance import Provenance
    from fracnet.runs.run_folder import write_config
    from fracnet.training.run_header import print_header
    from fracnet.training.wandb_tracker import Tracker

    config, folder, data = ready.config, ready.folder, ready.data
    resumed = bool(config.resume)
    folder.path.mkdir(parents=True, exist_ok=True)
    provenance = Provenance(
        folder,
        order.command,
        config.seed,
        data_fingerprint(data.manifest),
        ready.device,
        resumed,
        data.about(),
    )
    write_config(folder, ready.plain | {"resume": None})
    print_header(config, data, ready.model, ready.device, folder)
    with sweep.taken_up(folder.path, resumed, order.words) as by_itself:
        tracker = Tracker(config, ready.plain, folder)
        of_a_sweep = order.in_sweep or by_itself
        return _closed(
            lambda: _measured(ready, provenance, tracker, of_a_sweep), folder, provenance, tracker
        )


def _prepared(plain: dict[str, Any], order: Order) -> _Ready:
    """Check everything that can be checked before training, the quickest first."""
    plain = external_test.with_node(plain)
    config = check(plain)
    sweep.check(config, order.in_sweep)
    distributed.check_start()

    from fracnet.runs.build import classifier_from, data_from, source_from
    from fracnet.training import preflight

    if not config.resume:
        preflight.check_names(config)
    source = None if config.resume else source_from(config)  # a resumed run has its own
    if distributed.rank() == 0 and source is not None:
        source.prepare()  # data that cannot be had are told before the imports that take seconds

    from lightning.pytorch import seed_everything

    from fracnet.runs import explain_run
    from fracnet.runs.run_folder import RunFolder
    from fracnet.training import classical, resume, trainer
    from fracnet.training.preflight import check_figures, check_targets, rehearse
    from fracnet.training.run_header import quiet_libraries
    from fracnet.training.trainer import check_devices
    from fracnet.utils import devices

    quiet_libraries()
    folder = RunFolder(order.folder)
    if config.resume:
        plain = resume.frozen_config(folder, plain, list(order.words))
        config = check(plain)
    check_devices(config, devices.accelerator(config.trainer.accelerator))
    device = trainer.device_name(config)

    check_targets(config)
    data = data_from(config, source)
    if distributed.rank() == 0:
        data.prepare_data()
    data.setup()
    check_figures(config, data)
    check_evaluation(config, data)
    if distributed.rank() == 0:
        external_test.check(config, data.classes)

    seed_everything(config.seed, verbose=False)
    if config.model.fit == "classical":
        return _Ready(config, plain, folder, device, data, classical.build_classical(config, data))
    model = classifier_from(config, data, fetch_weights=not config.resume)
    rehearse(model, config)
    explain_run.check(config, model, order.in_sweep)
    return _Ready(config, plain, folder, device, data, model)


def _helped(ready: _Ready) -> float:
    """The part of one of several processes of a run that is not the first: it writes nothing."""
    from fracnet.models.classifier import Classifier
    from fracnet.training import trainer

    assert isinstance(ready.model, Classifier)
    trainer.fit_and_predict(
        ready.model, ready.config, ready.data, ready.folder, tell=lambda row: None
    )
    return math.nan


def _measured(
    ready: _Ready, provenance: "Provenance", tracker: "Tracker", of_a_sweep: bool
) -> float:
    """Train, and write everything that follows; the objective's value."""
    from fracnet.models.classifier import Classifier
    from fracnet.runs import explain_run, ood_reference
    from fracnet.runs.evaluate_run import progress_if
    from fracnet.training import classical, resume, trainer

    config, folder, data = ready.config, ready.folder, ready.data
    if isinstance(ready.model, Classifier):
        if config.resume:
            resume.trim_curves(folder)
        table, selected = trainer.fit_and_predict(ready.model, config, data, folder, tracker.epoch)
    else:
        table, selected = classical.fit_and_predict(ready.model, config, data, folder)
    value = evaluate_run(folder, table, data, selected, config, of_a_sweep)
    external_test.conclude(folder, config, of_a_sweep)
    provenance.so_far()
    if not of_a_sweep:
        # Heatmaps may fail on somebody's own network: by then the run has its report, told last.
        write_report(folder, config, ready.model, in_sweep=True)
    explain_run.conclude(folder, config, data, of_a_sweep)
    ood_reference.conclude(folder, config, data, progress_if(config.trainer.progress_bar))
    provenance.so_far()
    write_report(folder, config, ready.model, of_a_sweep)
    tracker.results(table, data)
    resume.last(folder).unlink(missing_ok=True)  # only an unfinished run needs it
    return value


def _closed(
    work: Callable[[], float], folder: "RunFolder", provenance: "Provenance", tracker: "Tracker"
) -> float:
    """Do the work, and write down how it ended, however it does."""
    from fracnet.training import resume

    status = "failed"
    try:
        value = work()
        status = "finished"
        return value
    except Diverged:
        status = "diverged"
        raise
    # Lightning ends an interrupted fit with SystemExit, whose exit code says nothing.
    except (Interrupted, KeyboardInterrupt, SystemExit) as stop:
        status = "interrupted"
        raise KeyboardInterrupt(resume.left_behind(folder)) from stop
    finally:
        try:
            provenance.finish(status)
        finally:
            tracker.finish(status)


def check_evaluation(config: Config, data: RadiographData) -> None:
    """Raise UserError for what the closing evaluation could not do, before hours of training."""
    test = data.manifest.table.iloc[data.rows("test")]
    check_by(test, config.evaluation.by, "evaluation.by")
    check_views(config.evaluation.views, len(data.classes), "evaluation.views")


def baseline_tables(data: RadiographData) -> dict[str, pd.DataFrame]:
    """Predictions for the test rows by the two baselines that any model must beat."""
    train, test = data.rows("train"), data.rows("test")
    targets, rows = data.manifest.targets(), data.manifest.table.iloc[test]
    features = data.cache.features
    return {
        "majority": baselines.majority(targets[train], rows, data.classes),
        "shortcut": baselines.shortcut(
            features[train], targets[train], features[test], rows, data.classes
        ),
    }


def write_baselines(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """One row an image and baseline: which, the image, its groups, the probabilities."""
    parts = []
    for name, table in tables.items():
        probs = [c for c in table.columns if str(c).startswith(PROB)]
        part = table[["path", "split", "label", "patient", "study", "region", *probs]].copy()
        part.insert(0, "baseline", name)
        parts.append(part)
    pd.concat(parts).to_csv(path, index=False, lineterminator="\n")


def about_data(data: RadiographData) -> dict[str, Any]:
    """What fit.json holds of the data besides their fingerprint: names, exclusions, patients."""
    manifest = data.manifest
    groups = {}
    for unit in ("patient", "study"):
        of = manifest.table.groupby("split")[unit].nunique()
        if of.sum():
            groups["patients" if unit == "patient" else "studies"] = {
                str(split): int(n) for split, n in of.items()
            }
    return {
        "name": manifest.name,
        "notes": list(manifest.notes),
        "license": manifest.license,
        "citation": manifest.citation,
        "groups": manifest.groups,
        "counts": groups,
        "excluded": json.loads(manifest.excluded.to_json(orient="records")),
    }


def evaluate_run(
    folder: RunFolder,
    table: pd.DataFrame,
    data: RadiographData,
    selected: dict[str, Any],
    config: Config,
    in_sweep: bool = False,
) -> float:
    """Write everything that follows from the predictions, and print the test figures.

    The figures are made from the files, read back, by the function that makes them again later.

    Args:
        folder: where to; its config.yaml is there already.
        table: predictions for val and test at the selected checkpoint.
        data: for the baselines and the notes.
        selected: which epoch (or, without epochs, which setting) was selected, by what.
        config: asked whether there is to be a progress bar.
        in_sweep: print the objective alone; whose test figures are shown is the sweep's to decide.

    Returns:
        The validation figure `objective` at the selected checkpoint.
    """
    write_table(table, folder.predictions)
    write_baselines(baseline_tables(data), folder.baselines)
    write_json(folder.fit, {"selected": selected, "data": about_data(data)})
    # Of a run that had this folder before, or was cut off right here: its rows were others.
    folder.decisions.unlink(missing_ok=True)
    found = judge(folder, progress=progress_if(config.trainer.progress_bar))
    drawn = draw(found, config.evaluation.figures)
    if in_sweep:
        at = f" at the selected epoch {selected['epoch']}" if "epoch" in selected else ""
        print(f"validation {config.objective} {found.objective:.4f}{at}\n", flush=True)
    else:
        present(Console(highlight=False, soft_wrap=False), found, drawn)
    return found.objective


def write_report(
    folder: RunFolder, config: Config, model: "Classifier | Classical", in_sweep: bool
) -> None:
    """Write the report of the run that has just been trained, and what it needs to know of it.

    Whether it shows images is decided here by the config and where W&B runs, and kept in fit.json:
    later the environment may be another one.
    """
    from fracnet.models.classifier import (
        Classifier,  # seconds, which an evaluation need not wait for
    )
    from fracnet.training.run_header import model_name, recipe

    fit = mapping(folder.fit)
    described: dict[str, Any] = {"name": model_name(config)}
    if isinstance(model, Classifier):
        described["parameters"] = sum(p.numel() for p in model.parameters())
        described["recipe"] = recipe(config, model)
    else:
        described["name"] = model.describe()
    write_json(folder.fit, fit | {"model": described, "report": {"images": shows_images(config)}})
    paths = write(folder.path)
    if not in_sweep:
        print(f"\nReport  {paths[0]}", flush=True)
