"""Train the default, experiment=fast and experiment=strong with three seeds: cost and gain.

OMP_NUM_THREADS=1 python -m experiments.recipes.ladder limb
OMP_NUM_THREADS=1 python -m experiments.recipes.ladder mura
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.published.run import commit
from fracnet.data.manifest import read_table
from fracnet.evaluation.aggregation import to_level
from fracnet.evaluation.comparison import Candidate, Member, compare
from fracnet.evaluation.predictions import Predictions

COMMON = [
    "model=efficientnet_lite0",
    "data.num_workers=0",
    "data.batch_size=16",
    "trainer.accelerator=cpu",
    "trainer.progress_bar=false",
    "logger=none",
    "explain=none",
    "evaluation.figures=false",
    "evaluation.resamples=200",
]


@dataclass(frozen=True)
class Ladder:
    """One dataset and the recipes for it.

    data: the real dataset. phantoms: overrides of the small ones that stand in. recipes: overrides,
    and sizes for the small phantoms, which keep the proportions: 96 to 136 pixels is 224 to 320,
    as is 192 to 272.
    level: image or study. metrics: those compared at that level, on the test split.
    """

    data: str
    phantoms: list[str]
    recipes: dict[str, tuple[list[str], list[str]]]
    level: str
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]


LADDERS = {
    "limb": Ladder(
        "upper_limb",
        [
            "data=upper_limb_phantom",
            "data.context=wide",
            "data.counts={train: 280, val: 100, test: 600}",
            "data.unlabeled=0",
        ],
        {
            "no localization": (["loss.localization=0"], ["image_size=96"]),
            "default": ([], ["image_size=96"]),
            "fast": (["experiment=fast"], ["image_size=96", "trainer.image_sizes=[48,72,96]"]),
            "strong": (["experiment=strong"], ["image_size=136"]),
        },
        "image",
        ("accuracy", "macro_auc"),
        (0, 1, 2),
    ),
    "mura": Ladder(
        "mura",
        ["data=mura_phantom", "data.patients={train: 200, valid: 160}", "data.val_share=0.2"],
        {
            "default": ([], ["image_size=192"]),
            "mura_fast": (
                ["experiment=mura_fast"],
                ["image_size=272", "trainer.image_sizes=[112,192,272]"],
            ),
            "mura_strong": (["experiment=mura_strong"], ["image_size=272"]),
        },
        "study",
        ("auc", "kappa"),
        (0, 1),
    ),
}


def call(command: str, *words: str) -> float:
    """Run a command of fracnet and return the processor seconds that it took.

    The output goes to the terminal. Raises SystemExit where it fails, which it has explained.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code := subprocess.run([sys.executable, "-m", f"fracnet.{command}", *words]).returncode:
        raise SystemExit(code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def load(name: str, run: Path, level: str) -> Member:
    """The predictions of a run folder."""
    predictions = Predictions.trusted(read_table(run / "predictions.csv"))
    return Member(name, to_level(predictions.split("test"), level))


def estimates(
    candidates: Sequence[Candidate], metrics: Sequence[str], reference: str
) -> dict[str, Any]:
    """Each metric of each candidate, and its difference to `reference`, with intervals.

    Differences are those of one model each; of a few seeds, none are computed.
    """
    content: dict[str, Any] = {}
    for metric in metrics:
        result = compare(candidates, metric, reference=reference, resamples=2000)
        values = {r.name: [r.value, r.low, r.high, *r.values] for r in result.standings}
        content[metric] = {"values": values}
        if len(candidates[0].members) == 1:
            content[metric][f"minus {reference}"] = {
                r.name: [r.value, r.low, r.high, r.holm, r.verdict] for r in result.models
            }
    return content


def climb(ladder: Ladder, root: str | None, folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Train what `folder` lacks, average the seeds of each recipe, and compare."""
    spent, recipes, means = {}, [], []
    for name, (recipe, sizes) in ladder.recipes.items():
        words = [*recipe, *(COMMON if root is None else [COMMON[0]])]
        words += [*ladder.phantoms, *sizes] if root is None else [f"data={ladder.data}"]
        words += [f"seed={','.join(map(str, seeds))}"]
        place = folder / name.replace(" ", "_")
        spent[name] = trained(words, f"data.root={root or folder / 'phantoms'}", place)
        runs = [
            load(f"{name}, seed {s}", place / str(k), ladder.level) for k, s in enumerate(seeds)
        ]
        recipes.append(Candidate(name, tuple(runs)))
        if len(seeds) > 1:
            mean = load(f"{name}, mean", place / "mean", ladder.level)
            means.append(Candidate(mean.name, (mean,)))
    content = {"recipes": spent, "seeds": estimates(recipes, ladder.metrics, "default")}
    if means:
        result = estimates(means, ladder.metrics, "default, mean")
        content["means over seeds and mirror images"] = result
    return content


def trained(words: list[str], root: str, place: Path) -> dict[str, Any]:
    """What training and averaging took, which is done unless `place` has it already.

    Raises SystemExit where `place` holds runs of another command.
    """
    record = place / "spent.json"
    if not record.is_file():
        training = call("train", "-m", *words, root, f"hydra.sweep.dir={place}")
        spent: dict[str, Any] = {"command": words, "commit": commit()}
        spent["processor seconds, training"] = training
        if "," in words[-1]:  # several seeds
            mean = f"hydra.run.dir={place}/mean"
            spent["averaging"] = call("ensemble", f"runs={place}/[0-9]", "tta=hflip", mean)
        record.write_text(json.dumps(spent))
    content: dict[str, Any] = json.loads(record.read_text())
    if content["command"] != words:
        raise SystemExit(f"{place} holds runs of another command: give another --folder.")
    return content


def main() -> None:
    """Write ladder_<name>.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ladder", choices=list(LADDERS))
    parser.add_argument("--root", help="folder of the real dataset; default: small phantoms")
    parser.add_argument("--folder", type=Path, default=Path("data/studies/ladder"))
    parser.add_argument("--seeds", type=int, nargs="+")
    options = parser.parse_args()
    ladder = LADDERS[options.ladder]
    folder = options.folder.resolve() / options.ladder
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("FRACNET_CACHE", str(folder / "cache"))
    content = climb(ladder, options.root, folder, options.seeds or ladder.seeds)
    kind = "phantoms" if options.root is None else "real"
    path = Path(__file__).with_name(f"ladder_{options.ladder}_{kind}.json")
    path.write_text(json.dumps(content, indent=1, default=float) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
