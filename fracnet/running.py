"""One training run, from a resolved config to its folder: for the command and for `fracnet.fit`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fracnet import ranks, sweep
from fracnet.config import Config, check
from fracnet.errors import Diverged, Interrupted
from fracnet.training import elsewhere

if TYPE_CHECKING:
    from fracnet.data.datamodule import RadiographData
    from fracnet.models.module import Classifier
    from fracnet.training.classical import Classical
    from fracnet.training.provenance import Provenance
    from fracnet.training.run_folder import RunFolder
    from fracnet.training.tracking.tracker import Tracker


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
    if ranks.rank() > 0:
        return _helped(ready)
    from fracnet.data.fingerprint import data_fingerprint
    from fracnet.training.header import print_header
    from fracnet.training.provenance import Provenance
    from fracnet.training.run_folder import write_config
    from fracnet.training.tracking.tracker import Tracker

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
    plain = elsewhere.with_node(plain)
    config = check(plain)
    sweep.check(config, order.in_sweep)
    ranks.check_start()

    from fracnet.training import names
    from fracnet.training.assembly import classifier_from, data_from, source_from

    if not config.resume:
        names.check_names(config)
    source = None if config.resume else source_from(config)  # a resumed run has its own
    if ranks.rank() == 0 and source is not None:
        source.prepare()  # data that cannot be had are told before the imports that take seconds

    from lightning.pytorch import seed_everything

    from fracnet.training import classical, explained, fit, outcome, resume
    from fracnet.training.devices import check_devices
    from fracnet.training.header import quiet_libraries
    from fracnet.training.rehearsal import check_figures, check_targets, rehearse
    from fracnet.training.run_folder import RunFolder

    quiet_libraries()
    folder = RunFolder(order.folder)
    if config.resume:
        plain = resume.frozen_config(folder, plain, list(order.words))
        config = check(plain)
    check_devices(config, fit.accelerator(config.trainer.accelerator))
    device = fit.device_name(config)

    check_targets(config)
    data = data_from(config, source)
    if ranks.rank() == 0:
        data.prepare_data()
    data.setup()
    check_figures(config, data)
    outcome.check_evaluation(config, data)
    if ranks.rank() == 0:
        elsewhere.check(config, data.classes)

    seed_everything(config.seed, verbose=False)
    if config.model.fit == "classical":
        return _Ready(config, plain, folder, device, data, classical.build_classical(config, data))
    model = classifier_from(config, data, fetch_weights=not config.resume)
    rehearse(model, config)
    explained.check(config, model, order.in_sweep)
    return _Ready(config, plain, folder, device, data, model)


def _helped(ready: _Ready) -> float:
    """The part of one of several processes of a run that is not the first: it writes nothing."""
    from fracnet.models.module import Classifier
    from fracnet.training import fit

    assert isinstance(ready.model, Classifier)
    fit.fit_and_predict(ready.model, ready.config, ready.data, ready.folder, tell=lambda row: None)
    return math.nan


def _measured(
    ready: _Ready, provenance: "Provenance", tracker: "Tracker", of_a_sweep: bool
) -> float:
    """Train, and write everything that follows; the objective's value."""
    from fracnet.models.module import Classifier
    from fracnet.training import classical, explained, fit, outcome, reference, reporting, resume
    from fracnet.training.present import progress

    config, folder, data = ready.config, ready.folder, ready.data
    if isinstance(ready.model, Classifier):
        if config.resume:
            resume.trim_curves(folder)
        table, selected = fit.fit_and_predict(ready.model, config, data, folder, tracker.epoch)
    else:
        table, selected = classical.fit_and_predict(ready.model, config, data, folder)
    value = outcome.conclude(folder, table, data, selected, config, of_a_sweep)
    elsewhere.conclude(folder, config, of_a_sweep)
    provenance.so_far()
    if not of_a_sweep:
        # Heatmaps may fail on somebody's own network: by then the run has its report, told last.
        reporting.conclude(folder, config, ready.model, in_sweep=True)
    explained.conclude(folder, config, data, of_a_sweep)
    reference.conclude(folder, config, data, progress(config.trainer.progress_bar))
    provenance.so_far()
    reporting.conclude(folder, config, ready.model, of_a_sweep)
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
