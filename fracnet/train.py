"""`python -m fracnet.train`: from a config to a trained, measured model and its run folder."""

import math
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet import cli, ranks, sweep
from fracnet.errors import Diverged


def train(cfg: DictConfig) -> float:
    """Train one model and measure it.

    Returns:
        The validation figure that `objective` names, at the selected checkpoint.

    Raises:
        UserError: a fault in config, data or weights, before any training starts.
    """
    from hydra.core.hydra_config import HydraConfig

    from fracnet.config import check

    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    config = check(plain)
    in_sweep = sweep.running()
    sweep.check(config, in_sweep)
    ranks.check_start()

    from fracnet.objects import build

    source = build(config.data.source(), "data")
    if ranks.rank() == 0 and not config.resume:
        source.prepare()  # data that cannot be had are told before the imports that take seconds

    from lightning.pytorch import seed_everything

    from fracnet.data.datamodule import RadiographData
    from fracnet.models.module import Classifier, without_weights
    from fracnet.training import classical, fit, outcome, resume
    from fracnet.training.devices import check_devices
    from fracnet.training.header import print_header, quiet_libraries
    from fracnet.training.provenance import Provenance, data_fingerprint
    from fracnet.training.rehearsal import rehearse
    from fracnet.training.run_folder import RunFolder, write_config
    from fracnet.training.tracking.tracker import Tracker

    quiet_libraries()
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    if config.resume:
        plain = resume.frozen_config(folder, plain, list(HydraConfig.get().overrides.task))
        config = check(plain)
        source = build(config.data.source(), "data")
    check_devices(config, fit.accelerator(config.trainer.accelerator))
    device = fit.device_name(config)

    data = RadiographData(
        source=source,
        enhance=config.enhance.model_dump(),
        augment=config.augment.model_dump(),
        imbalance=config.imbalance.model_dump(),
        image_size=config.image_size,
        batch_size=config.data.batch_size,
        num_workers=config.data.num_workers,
        seed=config.seed,
        folds=config.data.folds,
        fold=config.data.fold,
    )
    if ranks.rank() == 0:
        data.prepare_data()
    data.setup()

    seed_everything(config.seed, verbose=False)
    model: Classifier | classical.Classical
    if config.model.fit == "classical":
        model = classical.build_classical(config, data)
    else:
        node = config.model.plain()
        model = Classifier(
            model=without_weights(node) if config.resume else node,
            classes=data.classes,
            optim=config.optim.plain(),
            scheduler=config.scheduler.plain() if config.scheduler else None,
            loss=config.loss.plain(),
            class_weights=data.class_weights(),
        )
        if config.trainer.channels_last:
            fit.use_channels_last(model)
        rehearse(model, config)

    if ranks.rank() > 0 and isinstance(model, Classifier):  # one of several processes of a run
        fit.fit_and_predict(model, config, data, folder, tell=lambda row: None)
        return math.nan
    folder.path.mkdir(parents=True, exist_ok=True)
    provenance = Provenance(
        folder, config.seed, data_fingerprint(data.manifest), device, bool(config.resume)
    )
    write_config(folder, plain | {"resume": None})
    print_header(config, data, model, device, folder)
    tracker = Tracker(config, plain, folder)
    status = "failed"
    try:
        if isinstance(model, Classifier):
            if config.resume:
                resume.trim_curves(folder)
            table, selected = fit.fit_and_predict(model, config, data, folder, tracker.epoch)
        else:
            table, selected = classical.fit_and_predict(model, config, data, folder)
        value = outcome.conclude(folder, table, data, selected, config, in_sweep)
        tracker.results(table, data)
        resume.last(folder).unlink(missing_ok=True)  # only an unfinished run needs it
        status = "finished"
    except Diverged:
        status = "diverged"
        raise
    # Lightning ends an interrupted fit with SystemExit, whose exit code says nothing.
    except (KeyboardInterrupt, SystemExit) as stop:
        status = "interrupted"
        raise KeyboardInterrupt(f"curves and last.ckpt are in {folder.path}") from stop
    finally:
        try:
            provenance.finish(status)
        finally:
            tracker.finish(status)
    return value


if __name__ == "__main__":
    cli.run(train, "train")
