"""`python -m experiments.benchmark.run`: measure the speed of fracnet on this machine."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from experiments.benchmark.command import ROOM, BenchmarkCommand
from fracnet.config import hydra_cli
from fracnet.config.fields import validated
from fracnet.utils.errors import UserError

CACHE = "FRACNET_CACHE"  # the environment variable with the folder of caches

# The module of each part.
MODULES = {
    "pipeline": "pipeline",
    "training": "training",
    "loop": "loop",
    "cache": "caching",
    "memory": "memory",
}


def benchmark(cfg: DictConfig) -> None:
    """Measure the requested parts one after the other and write the results."""
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    command = validated(BenchmarkCommand, plain)
    out = _output_path(command.out)
    with _scratch(command) as folder:
        from experiments.benchmark import table
        from experiments.benchmark.setting import Setting
        from fracnet.runs.provenance import code_version
        from fracnet.training.run_header import quiet_libraries

        quiet_libraries()
        setting = Setting(
            quick=command.quick,
            network=command.network,
            image_size=command.image_size,
            batch_size=command.batch_size,
            accelerator=command.accelerator,
            workers=command.num_workers,
            compiled=command.compile,
        )
        setting.network_overrides()  # an unknown network is an error now, not after minutes
        # Without positions of this machine: the file is there to be shown.
        settings = {key: value for key, value in plain.items() if key not in ("out", "scratch")}
        content = {"code": code_version(), "machine": table.machine(), "settings": settings}
        parts: dict[str, dict[str, Any]] = {}
        for part in command.part:
            print(f"measuring: {part} ...", file=sys.stderr, flush=True)
            measured = import_module(f"experiments.benchmark.{MODULES[part]}")
            parts[part] = measured.measure(setting, folder)
            print(table.format_part(part, parts[part]) + "\n", flush=True)
            table.write(out, {**content, "parts": table.plain(parts)})
            _empty(folder)
    if command.quick:
        print("Measured with quick=true: this checks that everything works, not how fast it is.")
    elif missed := table.missed(parts):
        print(f"Limits not met: {', '.join(missed)}.")
    print(f"json    {out}")


def _output_path(requested: str | None) -> Path:
    if requested is None:
        now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        return Path("runs").resolve() / f"benchmark_{now}_{os.urandom(2).hex()}.json"
    out = Path(requested).expanduser().resolve()
    if out.exists():
        raise UserError(f"out={requested} already exists; name a new file.")
    if out.suffix != ".json":
        raise UserError(f"out={requested} is not a JSON file; the name must end in .json.")
    return out


@contextmanager
def _scratch(command: BenchmarkCommand) -> Iterator[Path]:
    """A folder for images and the image cache, removed at the end."""
    base = Path(command.scratch).expanduser() if command.scratch else Path(tempfile.gettempdir())
    if not base.is_dir():
        raise UserError(f"scratch={base} is not a folder.")
    needed = 0.0 if command.quick else max(ROOM[part] for part in command.part)
    free = shutil.disk_usage(base).free / 1e9
    if free < needed:
        raise UserError(
            f"scratch={base} has {free:.1f} GB free; part={','.join(command.part)} needs "
            f"{needed:g}. Name a folder on another disk, or other parts."
        )
    before = os.environ.get(CACHE)
    with tempfile.TemporaryDirectory(prefix="fracnet_benchmark_", dir=base) as created:
        folder = Path(created)
        os.environ[CACHE] = str(folder / "cache")
        try:
            yield folder
        finally:
            if before is None:
                del os.environ[CACHE]
            else:
                os.environ[CACHE] = before


def _empty(folder: Path) -> None:
    """Remove one part's images and caches before the next part."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


if __name__ == "__main__":
    hydra_cli.run(benchmark, "benchmark")
