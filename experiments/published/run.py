"""Examine a claim of the two published works: five seeds of each arm, compared with intervals.

python -m experiments.published.run claim=clahe                      # phantoms or real, in minutes
python -m experiments.published.run claim=clahe size=full            # as published
python -m experiments.published.run claim=leak data.root=/data/multi_region
"""

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import fracnet
from experiments.published import epochs
from experiments.published.claims import (
    ALL,
    COMMON,
    EPOCHS,
    SEEDS,
    SMALL,
    SMALL_PHANTOMS,
    Claim,
)
from experiments.published.page import RESULTS, sentence, write_page
from experiments.small_phantoms import compose_config
from fracnet.data.manifest import read_table
from fracnet.evaluation.comparison import Candidate, Comparison, Member, compare
from fracnet.evaluation.predictions import Predictions
from fracnet.utils.errors import UserError

OWN = ("claim", "size", "folder")
EPOCH_CALLBACK = "+callbacks.by_epoch={_target_: experiments.published.epochs.AccuracyByEpoch}"


def is_real(claim: Claim, overrides: Sequence[str]) -> bool:
    """Whether the claim's real dataset lies at its `data.root`."""
    roots = [o for o in overrides if o.startswith("data.root=")]
    root = Path(compose_config([f"data={claim.data}", *roots])["data"].get("root") or "")
    return bool(root.parts) and root.is_dir() and any(root.iterdir())


def sweep_overrides(claim: Claim, size: str, real: bool, overrides: Sequence[str]) -> list[str]:
    """The command line of the sweep, after `python -m fracnet.train -m`."""
    keys = {arm.partition("=")[0] for arm in claim.arms.values()}
    assert len(keys) == 1, keys
    values = [arm.partition("=")[2] for arm in claim.arms.values()]
    small = [*SMALL, *claim.small] if size == "small" else []
    # The recipe's validation metric chooses the epoch; the test metrics of all arms are the study.
    words = [*claim.common, f"data={claim.data if real else claim.phantom}", *COMMON, *small]
    words += SMALL_PHANTOMS if size == "small" and not real else ()
    words += [EPOCH_CALLBACK] if claim is EPOCHS else []
    return [
        *words,
        *overrides,
        f"{keys.pop()}={','.join(values)}",
        f"seed={','.join(map(str, SEEDS))}",
    ]


def candidates(folder: Path, claim: Claim) -> list[Candidate]:
    """The arms with their runs, in the order of `claim.arms` and the seeds.

    Raises UserError for a job that has not finished.
    """
    arms = []
    for a, name in enumerate(claim.arms):
        members = []
        for s, seed in enumerate(SEEDS):
            run = folder / str(a * len(SEEDS) + s)
            if not (run / "predictions.csv").is_file():
                raise UserError(f"{run} has no predictions: see {folder}/sweep.csv for the reason.")
            table = read_table(run / "predictions.csv")
            members.append(Member(f"{name}, seed {seed}", Predictions.trusted(table)))
        arms.append(Candidate(name, tuple(members)))
    return arms


def compared(arms: Sequence[Candidate], metric: str, class_name: str | None) -> dict[str, Any]:
    """The metric of each arm and its differences to the first, in plain containers."""
    result: Comparison = compare(
        arms, metric, class_name=class_name, reference=arms[0].name, resamples=2000
    )
    standings = {row.name: row for row in result.standings}
    return {
        "metric": metric,
        "class_name": class_name,
        "n": result.n,
        "arms": {
            arm.name: {
                "mean": standings[arm.name].value,
                "low": standings[arm.name].low,
                "high": standings[arm.name].high,
                "seeds": list(standings[arm.name].values),
            }
            for arm in arms
        },
        "differences": [
            {k: getattr(row, k) for k in ("name", "reference", "value", "low", "high", "p", "holm")}
            | {"verdict": row.verdict}
            for row in result.configurations
        ],
    }


def examine(claim: Claim, size: str, folder: Path, overrides: Sequence[str]) -> Path:
    """Run the sweep, or resume it, compare, and write the result; its path."""
    real = is_real(claim, overrides)
    if not real and not claim.phantom:
        raise UserError(
            f"claim={claim.name} needs the real images: give their folder as data.root=, and "
            f"audit it first (python -m fracnet.audit data={claim.data} data.root=...). What "
            "copies do to phantoms is measured by python -m experiments.leakage.run."
        )
    words = sweep_overrides(claim, size, real, overrides)
    place = folder / f"{claim.name}_{'real' if real else 'phantoms'}_{size}"
    if (place / "plan.json").is_file():
        print(f"Resuming the sweep in {place}; its finished jobs stay.")
        subprocess.run([sys.executable, "-m", "fracnet.sweep", f"resume={place}"], check=False)
    else:
        fracnet.sweep(*words, folder=place)
    arms = candidates(place, claim)
    runs = [place / str(job) for job in range(len(arms) * len(SEEDS))]
    records = [json.loads((run / "provenance.json").read_text()) for run in runs]
    first = records[0]
    counts = {k: sum(v.values()) for k, v in first["data"]["counts"].items()}
    by_class = first["data"]["counts"]["train"]
    content: dict[str, Any] = {
        "claim": claim.name,
        "size": size,
        "phantoms": not real,
        "data": claim.data if real else claim.phantom,
        "images": counts,
        "fingerprint": first["data_fingerprint"],
        "seeds": list(SEEDS),
        "command": ["python", "-m", "fracnet.train", "-m", *words],
        "commit": commit(),
        "machine": f"{first['device']}, {platform.machine()}",
        "seconds": round(sum(record["seconds"] for record in records)),
    }
    if claim is EPOCHS:
        curves = [pd.read_csv(place / str(s) / epochs.FILE) for s in range(len(SEEDS))]
        content["epochs"] = epochs.summarize(curves)
    else:
        content["metrics"] = [
            compared(arms, "sensitivity", min(by_class, key=lambda name: by_class[name]))
            if metric == "rarest"
            else compared(arms, metric, None)
            for metric in claim.metrics
        ]
    path = RESULTS / f"{claim.name}_{'real' if real else 'phantoms'}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=float) + "\n")
    return path


def commit() -> str:
    """The commit of the code, with a mark if it was changed; "" outside of git."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main() -> None:
    """Examine the claim that the command names."""
    given = dict(word.partition("=")[::2] for word in sys.argv[1:] if word.partition("=")[0] in OWN)
    overrides = [word for word in sys.argv[1:] if word.partition("=")[0] not in OWN]
    claim, size = ALL.get(given.get("claim", "")), given.get("size", "small")
    try:
        if claim is None or size not in ("small", "full"):
            raise UserError(
                f"claim={given.get('claim', '')} size={size}; allowed: claim={'|'.join(ALL)}, "
                "size=small|full."
            )
        folder = Path(given.get("folder", "data/studies/published"))
        result = json.loads(examine(claim, size, folder, overrides).read_text())
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"\n{claim.text}.\n{sentence(claim, result)}")
    print(f"\nPage: {write_page()}")


if __name__ == "__main__":
    main()
