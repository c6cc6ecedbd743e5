"""`python -m fracnet.train`: from a config to a trained, measured model and its run folder."""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fracnet import cli


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
    config = check(plain)  # before the imports that take seconds

    from lightning.pytorch import seed_everything

    from fracnet.data.datamodule import RadiographData
    from fracnet.models.module import Classifier
    from fracnet.objects import build
    from fracnet.training import fit, outcome
    from fracnet.training.header import print_header, quiet_libraries
    from fracnet.training.provenance import Provenance, data_fingerprint
    from fracnet.training.run_folder import RunFolder, write_config

    quiet_libraries()
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    device = fit.device_name(config)

    data = RadiographData(
        source=build(config.data.source(), "data"),
        enhance=config.enhance.model_dump(),
        augment=config.augment.model_dump(),
        image_size=config.image_size,
        batch_size=config.data.batch_size,
        num_workers=config.data.num_workers,
        seed=config.seed,
    )
    data.prepare_data()
    data.setup()

    seed_everything(config.seed, verbose=False)
    model = Classifier(
        model=config.model.plain(),
        classes=data.classes,
        optim=config.optim.plain(),
        scheduler=config.scheduler.plain() if config.scheduler else None,
    )
    if config.trainer.channels_last:
        fit.use_channels_last(model)

    folder.path.mkdir(parents=True, exist_ok=True)
    write_config(folder, plain)
    provenance = Provenance(folder, config.seed, data_fingerprint(data.manifest), device)
    print_header(config, data, model, device, folder)
    status = "failed"
    try:
        trainer, best = fit.make_trainer(config, folder)
        trainer.fit(model, datamodule=data)
        chosen = Classifier.load_from_checkpoint(best.best_model_path, weights_only=True)
        table = fit.predict(trainer, chosen, data)
        value = outcome.conclude(folder, table, data, fit.selection(best), config.objective)
        (folder.checkpoints / "last.ckpt").unlink()  # only an unfinished run needs it
        status = "finished"
    # Lightning ends an interrupted fit with SystemExit, whose exit code says nothing.
    except (KeyboardInterrupt, SystemExit) as stop:
        status = "interrupted"
        raise KeyboardInterrupt(f"curves and last.ckpt are in {folder.path}") from stop
    finally:
        provenance.finish(status)
    return value


if __name__ == "__main__":
    cli.run(train, "train")
