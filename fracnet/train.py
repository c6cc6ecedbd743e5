"""`python -m fracnet.train`: from a config to a trained, measured model and its run folder."""

import math
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet import cli, ranks, sweep
from fracnet.errors import Diverged, Interrupted


def train(cfg: DictConfig) -> float:
    """Train one model and measure it.

    Returns:
        The validation figure that `objective` names, at the selected checkpoint.

    Raises:
        UserError: a fault in config, data or weights, before any training starts.
    """
    from hydra.core.hydra_config import HydraConfig

    from fracnet.config import check
    from fracnet.training import elsewhere

    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    plain = elsewhere.with_node(plain)
    config = check(plain)
    in_sweep = sweep.running()
    sweep.check(config, in_sweep)
    ranks.check_start()

    from fracnet.training.assembly import classifier_from, data_from, source_from

    source = None if config.resume else source_from(config)  # a resumed run has its own
    if ranks.rank() == 0 and source is not None:
        source.prepare()  # data that cannot be had are told before the imports that take seconds

    from lightning.pytorch import seed_everything

    from fracnet.data.fingerprint import data_fingerprint
    from fracnet.models.module import Classifier
    from fracnet.training import classical, fit, outcome, resume
    from fracnet.training.devices import check_devices
    from fracnet.training.header import print_header, quiet_libraries
    from fracnet.training.provenance import Provenance
    from fracnet.training.rehearsal import check_figures, rehearse
    from fracnet.training.run_folder import RunFolder, write_config
    from fracnet.training.tracking.tracker import Tracker

    quiet_libraries()
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    words = list(HydraConfig.get().overrides.task)
    if config.resume:
        plain = resume.frozen_config(folder, plain, words)
        config = check(plain)
    check_devices(config, fit.accelerator(config.trainer.accelerator))
    device = fit.device_name(config)

    data = data_from(config, source)
    if ranks.rank() == 0:
        data.prepare_data()
    data.setup()
    check_figures(config, data)
    outcome.check_evaluation(config, data)
    if ranks.rank() == 0:
        elsewhere.check(config, data.classes)

    seed_everything(config.seed, verbose=False)
    model: Classifier | classical.Classical
    if config.model.fit == "classical":
        model = classical.build_classical(config, data)
    else:
        model = classifier_from(config, data, fetch_weights=not config.resume)
        rehearse(model, config)

    if ranks.rank() > 0 and isinstance(model, Classifier):  # one of several processes of a run
        fit.fit_and_predict(model, config, data, folder, tell=lambda row: None)
        return math.nan
    folder.path.mkdir(parents=True, exist_ok=True)
    provenance = Provenance(
        folder,
        config.seed,
        data_fingerprint(data.manifest),
        device,
        bool(config.resume),
        data.about(),
    )
    write_config(folder, plain | {"resume": None})
    print_header(config, data, model, device, folder)
    with sweep.taken_up(folder.path, bool(config.resume), words) as by_itself:
        tracker = Tracker(config, plain, folder)
        status = "failed"
        try:
            if isinstance(model, Classifier):
                if config.resume:
                    resume.trim_curves(folder)
                table, selected = fit.fit_and_predict(model, config, data, folder, tracker.epoch)
            else:
                table, selected = classical.fit_and_predict(model, config, data, folder)
            of_a_sweep = in_sweep or by_itself
            value = outcome.conclude(folder, table, data, selected, config, of_a_sweep)
            elsewhere.conclude(folder, config, of_a_sweep)
            tracker.results(table, data)
            resume.last(folder).unlink(missing_ok=True)  # only an unfinished run needs it
            status = "finished"
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
    return value


if __name__ == "__main__":
    cli.run(train, "train")
