"""One training run from its plan to its folder: check, fit, predict, evaluate, explain, report."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning.pytorch import Callback, seed_everything

from fracnet.data.datamodule import RadiographData
from fracnet.models.classifier import Classifier
from fracnet.runs import repredict
from fracnet.runs.build import classifier_from, data_from
from fracnet.runs.checkpoint import epochs_done
from fracnet.runs.provenance import Provenance
from fracnet.runs.run_folder import RunFolder, write_config
from fracnet.training import classical, rehearsal, resume, sweep, trainer
from fracnet.training.classical import Classical
from fracnet.training.loggers import RunLoggers
from fracnet.training.preflight import Plan
from fracnet.training.run_header import loaded_weights, print_header, quiet_libraries
from fracnet.training.run_times import RunTimes
from fracnet.utils import devices, distributed
from fracnet.utils.errors import Interrupted, stop_behind
from fracnet.utils.files import disk_faults, remove_drafts
from fracnet.utils.processes import ask_for_requeue, sigterm_raises
from fracnet.utils.shared import shared


def run(plan: Plan) -> float | list[float]:
    """Train one model, evaluate it and write the run folder.

    Returns:
        The validation metric that `objective` names, at the selected checkpoint; a list of several.

    Raises UserError for a fault in config, data or weights, before any training starts.
    """
    config, folder = plan.config, plan.folder
    times = RunTimes(config)
    quiet_libraries()

    # Check all that can be checked before hours of training.
    if devices.accelerator(config.trainer.accelerator) == "cpu":
        devices.reuse_memory()
    data = check_and_open_data(plan)
    seed_everything(config.seed, verbose=False)
    model = build_and_check_model(plan, data)
    plan = settled(plan, model)
    config = plan.config
    if config.trainer.passed_on.get("fast_dev_run"):
        return dry_run(model, plan, data)
    callbacks = pruning_callbacks(plan)
    if distributed.rank() > 0:  # process 0 writes and evaluates
        assert isinstance(model, Classifier)
        trainer.fit_and_predict(model, config, data, folder, callbacks=callbacks)
        return math.nan

    with recorded(plan, data, model) as (provenance, loggers, in_sweep):
        provenance.times = times.record
        times.mark("start")
        # Fit, and predict validation and test at the selected checkpoint.
        if isinstance(model, Classifier):
            table, selected = trainer.fit_and_predict(
                model, config, data, folder, loggers.loggers, [*callbacks, times]
            )
            times.mark("prediction")
        else:
            table, selected = classical.fit_and_predict(model, config, data, folder)
            times.mark("fit")

        # Plots, heatmaps and scikit-learn take seconds to import: the first step need not wait.
        from fracnet.training import record

        # Evaluate, from the files that any later evaluation reads as well.
        record.write_fit(folder, table, data, selected, config, model)
        provenance.add_hashes()
        evaluation = record.evaluate_and_print(folder, selected, config, in_sweep)
        loggers.log_results(table, data)
        times.mark("evaluation")

        # Explain, and report: heatmaps may fail on a user's network, which still gets its report.
        try:
            record.explain(evaluation, config, data, in_sweep, times.mark)
        finally:
            times.mark("heatmaps")
            if not record.without_report(config, in_sweep):
                provenance.update()
            record.report(evaluation, config, in_sweep)
            times.mark("report")
        if not in_sweep:
            print(*provenance.lines(), sep="\n", flush=True)
    objectives = list(evaluation.objectives)
    return objectives if len(objectives) > 1 else evaluation.objective


def pruning_callbacks(plan: Plan) -> list[Callback]:
    """What stops a job of a sweep that can no longer win."""
    folder = sweep.sweep_folder() if plan.config.pruning is not None else None
    if folder is None:
        return []
    from fracnet.training.pruning import Pruning  # needs the extra fracnet[optuna]

    return [Pruning(plan.config, folder, plan.folder.path)]


def check_and_open_data(plan: Plan) -> RadiographData:
    """Check devices, classes and metrics, with the images read and cached in between."""
    config = plan.config
    if config.resume:
        done = epochs_done(resume.last_checkpoint(plan.folder))
        resume.check_epochs(plan.folder, done, config.trainer.max_epochs)
    rehearsal.check_devices(config, devices.accelerator(config.trainer.accelerator))
    rehearsal.check_targets(config)
    if config.model.fit == "gradient":
        # Its arguments; another one is fitted.
        given = config.trainer.model_dump_json() + config.callbacks.model_dump_json()
        shared("trainer", given, lambda: trainer.make_trainer(config, plan.folder))
    data = data_from(config, plan.dataset)
    if distributed.rank() == 0:
        data.prepare_data()
    data.setup()
    rehearsal.check_metrics(config, data)
    rehearsal.check_evaluation(config, data)
    rehearsal.check_localization(config, data)
    if distributed.rank() == 0:
        repredict.check_external_test(config, data.classes)
    return data


def build_and_check_model(plan: Plan, data: RadiographData) -> Classifier | Classical:
    """The untrained model, after two images and its optimizer were tried."""
    config = plan.config
    if config.model.fit == "classical":
        return classical.build_classical(config, data)
    model = classifier_from(config, data, fetch_weights=not config.resume)
    rehearsal.rehearse(model, config)
    rehearsal.check_layer(config, model, plan.order.in_sweep)
    return model


def settled(plan: Plan, model: Classifier | Classical) -> Plan:
    """The plan with the number that `loss.localization=auto` has become."""
    weight = model.localization if isinstance(model, Classifier) else 0.0
    loss = plan.config.loss.model_copy(update={"localization": weight})
    plain = {**plan.plain, "loss": {**plan.plain["loss"], "localization": weight}}
    return replace(plan, config=plan.config.model_copy(update={"loss": loss}), plain=plain)


def dry_run(model: Classifier | Classical, plan: Plan, data: RadiographData) -> float:
    """Lightning's fast_dev_run: a few batches, no checkpoint, and no run folder."""
    if not isinstance(model, Classifier) or not plan.config.model.by_epochs:
        print("trainer.fast_dev_run: a model without epochs has no batches; nothing was run.")
        return math.nan
    with TemporaryDirectory() as folder:
        fitting, _ = trainer.make_trainer(plan.config, RunFolder(Path(folder)))
        fitting.fit(model, datamodule=data)
    if distributed.rank() == 0:
        print("trainer.fast_dev_run: training and validation work; nothing was saved or evaluated.")
    return float(fitting.callback_metrics.get(f"val/{plan.config.objective}", math.nan))


@contextmanager
def recorded(
    plan: Plan, data: RadiographData, model: Classifier | Classical
) -> Iterator[tuple[Provenance, RunLoggers, bool]]:
    """Open a run's folder and loggers, and record how the run ends, however it does.

    Yields provenance, loggers and whether the run is a job of a sweep, also one resumed by itself.
    """
    config, folder, order = plan.config, plan.folder, plan.order
    device = trainer.device_name(config)
    with disk_faults(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    key = "resume" if config.resume else "hydra.run.dir"
    with folder.in_use(key), sigterm_raises():
        if not config.resume:
            resume.check_new(folder)  # again: another run may have started in the meantime
        remove_drafts(folder.path, recursive=True)
        provenance = Provenance(
            folder,
            order.command,
            config.seed,
            data.metadata()["hash"],
            device,
            bool(config.resume),
            data.metadata(),
            loaded_weights(model),
        )
        with resume.resumed_job(folder.path, bool(config.resume), order.overrides) as is_job:
            status, reason = "failed", ""
            stopped: BaseException | None = None
            loggers: RunLoggers | None = None
            try:
                saved = {key: value for key, value in plan.plain.items() if key != "trust"}
                write_config(folder, saved | {"resume": None})
                print_header(config, data, model, device, folder)
                if config.resume:
                    resume.trim_curves(folder, epochs_done(resume.last_checkpoint(folder)))
                loggers = RunLoggers(config, plan.plain, folder)
                yield provenance, loggers, order.in_sweep or is_job
                status = "finished"
            except Exception as error:
                # Stopped before it predicts, Lightning may fail on loaders that are not open yet.
                stopped = stop_behind(error)
                if stopped is None:
                    status, reason = sweep.outcome(error)
                    raise
                status = "interrupted"
                raise KeyboardInterrupt(resume.resume_hint(folder)) from stopped
            # Lightning ends an interrupted fit with SystemExit, whose exit code says nothing.
            except (Interrupted, KeyboardInterrupt, SystemExit) as stop:
                status = "interrupted"
                stopped = stop
                raise KeyboardInterrupt(resume.resume_hint(folder)) from stop
            finally:
                try:
                    provenance.finish(status, reason)
                finally:
                    if loggers is not None:
                        loggers.close(status)
                    if stopped is not None and not sweep.running():
                        ask_for_requeue(stopped)
        if order.in_sweep or is_job:  # many files of three times the weights
            resume.last_checkpoint(folder).unlink(missing_ok=True)
