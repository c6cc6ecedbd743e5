"""Wall time to a validation accuracy: a plain loop, Lightning's way, and three ways of fracnet.

python -m experiments.clock.run
"""

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.small_phantoms import compose_config
from fracnet.config.checks import check
from fracnet.config.instantiate import build
from fracnet.data.datamodule import available_cores
from fracnet.utils.errors import UserError

COUNTS = {"train": 1804, "val": 173, "test": 83}
"""Labeled images of the published set."""
FULL, GROWING = 224, (96, 160, 224)
"""The image size of experiment=fast, and the sizes at which it trains."""
FRACNET = ["logger=none", "explain=none", "evaluation.resamples=100", "trainer.progress_bar=false"]
WAYS = {
    "plain loop": "plain_loop",
    "Lightning template": "lightning_template",
    "fracnet": [],
    "fracnet fast": ["experiment=fast"],
    "fracnet probe": ["model.freeze=backbone"],
}
"""A module beside this file, or overrides of fracnet.train."""
ACCURACY = re.compile(r"^epoch +(\d+)/.*?accuracy ([\d.]+)")
Curve = list[tuple[float, float]]


@dataclass
class Timed:
    """The validation accuracy after each epoch by the seconds since the process was started."""

    curve: Curve = field(default_factory=list)
    seconds: float = 0.0

    def seconds_to(self, target: float) -> float | None:
        """When the accuracy was first reached; None where it never was."""
        return next((when for when, accuracy in self.curve if accuracy >= target), None)


def time_run(command: list[str], cache: Path, limit: float, goal: float) -> Timed:
    """Start one training and follow what it prints.

    It ends after its last epoch, at `limit` seconds, or once it has reached `goal`: what follows
    (fracnet evaluates and reports) is not part of the comparison. cache: an empty folder, so that
    the images have to be read and preprocessed.
    """
    timed, start = Timed(), time.perf_counter()
    job = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"FRACNET_CACHE": str(cache), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert job.stdout is not None
    output = []
    try:
        for line in job.stdout:
            output.append(line)
            if (match := ACCURACY.match(line)) is None:
                continue
            timed.curve.append((time.perf_counter() - start, float(match[2])))
            epochs = int(line.split("/")[1].split()[0])
            over = int(match[1]) == epochs or timed.curve[-1][0] > limit
            if over or timed.curve[-1][1] >= goal:
                break
    finally:
        timed.seconds = time.perf_counter() - start
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
        job.stdout.close()
    if not timed.curve:
        raise SystemExit(f"{' '.join(command)} printed no epoch:\n{''.join(output[-20:])}")
    return timed


def expected_seconds(runs: list[Timed], target: float) -> tuple[float, float | None]:
    """The share of runs that reach an accuracy, and the expected seconds until one does.

    A run that does not reach it is repeated with another seed, so its whole time counts (the
    expected running time of Hansen et al., 2021, arXiv:1603.08785). None where no run does.
    """
    times = [run.seconds_to(target) for run in runs]
    reached = sum(when is not None for when in times)
    spent = sum(
        run.seconds if when is None else when for run, when in zip(runs, times, strict=True)
    )
    return reached / len(runs), spent / reached if reached else None


def tables(results: dict[str, list[Timed]], targets: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each target and way."""
    rows = []
    for name, target in targets.items():
        base = expected_seconds(results["plain loop"], target)[1] if results["plain loop"] else None
        for way, runs in results.items():
            if not runs:
                continue
            share, seconds = expected_seconds(runs, target)
            ratio = base / seconds if base and seconds else None
            rows.append(
                {
                    "target": name,
                    "accuracy": round(target, 4),
                    "way": way,
                    "runs": len(runs),
                    "reached": round(share, 2),
                    "seconds": seconds and round(seconds, 1),
                    "faster": ratio and round(ratio, 2),
                }
            )
    return rows


def markdown(content: dict[str, Any]) -> str:
    """results.md: the command, the machine and the table."""
    lines = [
        "Written by the command; do not edit.\n",
        f"    {content['command']}\n",
        f"{content['machine']}. {content['data']}\n",
        "| target | way | runs | reached it | expected seconds | faster than the plain loop |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        seconds = "never" if row["seconds"] is None else f"{row['seconds']:.0f}"
        faster = "" if row["faster"] is None else f"{row['faster']:.1f} x"
        lines.append(
            f"| {row['target']}: {row['accuracy']:.3f} | {row['way']} | {row['runs']} | "
            f"{row['reached']:.0%} | {seconds} | {faster} |"
        )
    return "\n".join(lines) + "\n"


def prepare(options: argparse.Namespace) -> tuple[list[str], Path, str]:
    """Overrides that choose the data, a table of its files for the other loops, and a sentence."""
    if options.root:
        overrides = ["data=upper_limb", f"data.root='{options.root.resolve()}'"]
    else:
        counts = {split: max(6, round(n * options.share)) for split, n in COUNTS.items()}
        listed = ", ".join(f"{split}: {n}" for split, n in counts.items())
        root = (options.folder / f"phantoms_{counts['train']}_{options.context}").resolve()
        overrides = ["data=upper_limb_phantom", f"data.root='{root}'"]
        overrides += [f"data.counts={{{listed}}}", f"data.context={options.context}"]
    overrides.append(f"image_size={options.size}")
    config = check(compose_config(overrides))
    dataset = build(config.data.plain(), "data")
    dataset.prepare()
    manifest = dataset.manifest()
    table = manifest.table[["path", "label", "split"]]
    table = table.assign(path=[str(manifest.root / path) for path in table["path"]])
    options.folder.mkdir(parents=True, exist_ok=True)
    labels = options.folder.resolve() / "labels.csv"
    table.to_csv(labels, index=False)
    sizes = " / ".join(str(int((table["split"] == split).sum())) for split in COUNTS)
    kind = "The real set" if options.root else f"Phantoms (context={options.context})"
    return overrides, labels, f"{kind}, {sizes} images, {options.size} pixels."


def main() -> None:
    """Time every way with every seed; write results.json and results.md after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", type=Path, help="the real upper-limb set; else phantoms are drawn"
    )
    parser.add_argument("--folder", type=Path, default=Path("data/clock"), help="for phantoms")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="for the results")
    parser.add_argument("--share", type=float, default=1.0, help="of the published 1,804 images")
    parser.add_argument("--context", default="part", choices=("part", "wide"), help="of phantoms")
    parser.add_argument("--size", type=int, default=224, help="pixels per side")
    parser.add_argument("--epochs", type=int, default=6, help="of the plain loop and the template")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--target", type=float, default=0.8, help="validation accuracy")
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a run ends")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("overrides", nargs="*", help="of fracnet.train, for its three ways")
    options = parser.parse_args()
    try:
        data, labels, sentence = prepare(options)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    results: dict[str, list[Timed]] = {way: [] for way in WAYS if way in options.ways}
    # What the probe reaches is a target of the others, so it comes first.
    order = sorted(results, key=lambda way: way != "fracnet probe")
    for seed in range(options.seeds):
        for way in order:
            goal = options.target
            if way == "fracnet probe":
                goal = 2.0  # never: it ends by itself
            elif probes := results.get("fracnet probe"):
                goal = max(goal, *(best(run) for run in probes))
            with tempfile.TemporaryDirectory() as scratch:
                results[way].append(
                    time_run(
                        command_of(way, data, labels, seed, Path(scratch), options),
                        Path(scratch) / "cache",
                        options.limit,
                        goal,
                    )
                )
            print(f"{way}, seed {seed}: {results[way][-1].curve}", flush=True)
            write(results, options, sentence)


def best(run: Timed) -> float:
    """The highest accuracy of a run."""
    return max(accuracy for _, accuracy in run.curve)


def command_of(
    way: str, data: list[str], labels: Path, seed: int, scratch: Path, options: argparse.Namespace
) -> list[str]:
    """The command line of one training."""
    what = WAYS[way]
    if isinstance(what, str):
        module = f"experiments.clock.{what}"
        numbers = [str(number) for number in (options.epochs, seed, options.size)]
        return [sys.executable, "-m", module, str(labels), *numbers]
    if way == "fracnet fast" and options.size != FULL:
        what = [*what, f"trainer.image_sizes={[round(n * options.size / FULL) for n in GROWING]}"]
    own = [*what, *data, "model=efficientnet_lite0", f"seed={seed}", *FRACNET]
    run = f"hydra.run.dir='{scratch / 'run'}'"
    return [sys.executable, "-m", "fracnet.train", *own, *options.overrides, run]


def write(results: dict[str, list[Timed]], options: argparse.Namespace, data: str) -> None:
    """Write what has been measured so far."""
    targets = {"the goal": options.target}
    if probes := results.get("fracnet probe"):
        targets["what the probe reaches"] = float(np.median([best(run) for run in probes]))
    content = {
        "command": f"python -m experiments.clock.run {shlex.join(shown(sys.argv[1:]))}".strip(),
        "machine": f"{available_cores()} CPU cores, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[2]:.1f} in the 15 minutes before"
        f"{', ' + torch.cuda.get_device_name() if torch.cuda.is_available() else ''}",
        "data": data,
        "rows": tables({way: runs for way, runs in results.items() if runs}, targets)
        if results.get("plain loop")
        else [],
        "curves": {way: [run.curve for run in runs] for way, runs in results.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(content, indent=1) + "\n")
    (options.out / "results.md").write_text(markdown(content))


def shown(arguments: list[str]) -> list[str]:
    """The arguments without folders of this machine."""
    hidden = {"--folder", "--out", "--root"}
    kept, skip = [], False
    for argument in arguments:
        if skip or argument in hidden:
            skip = argument in hidden
            continue
        kept.append(argument)
    return kept


if __name__ == "__main__":
    main()
