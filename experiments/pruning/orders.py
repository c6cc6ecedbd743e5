"""What other options of the pruners would do, had the jobs of each search come in other orders.

python -m experiments.pruning.orders

Reads the curves in results.json and trains nothing.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

ORDERS = 20
OPTIONS: dict[str, Callable[[], BasePruner]] = {
    "median, 2 jobs, 1 epoch": lambda: MedianPruner(2, 1),
    "median, 3 jobs, 1 epoch": lambda: MedianPruner(3, 1),
    "median, 4 jobs, 2 epochs": lambda: MedianPruner(4, 2),
    "best 40 %, 2 jobs, 1 epoch": lambda: PercentilePruner(40, 2, 1),
    "asha, halves": lambda: SuccessiveHalvingPruner(1, 2),
    "asha, thirds": lambda: SuccessiveHalvingPruner(1, 3),
    "asha, thirds, from epoch 2": lambda: SuccessiveHalvingPruner(2, 3),
}


def search(curves: list[list[float]], pruner: BasePruner) -> tuple[float, float]:
    """Share of the epochs that are trained, and the winner's metric minus the best of all."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    trained, finished = 0, []
    for curve in curves:
        trial = study.ask()
        for epoch, value in enumerate(curve):
            trained += 1
            trial.report(value, epoch)
            # As in fracnet: a job that has no further epoch is never pruned.
            if epoch + 1 < len(curve) and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, max(curve))
            finished.append(max(curve))
    return trained / sum(map(len, curves)), max(finished) - max(map(max, curves))


def main() -> None:
    """Print a row for each pruner."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    content: dict[str, Any] = json.loads(Path(__file__).with_name("results.json").read_text())
    searches = [[job["curve"] for job in jobs] for jobs in content["curves"]]
    print(
        "| | epochs trained | 95 % of orders | over half | same winner | mean difference | worst |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, pruner in OPTIONS.items():
        rng = np.random.default_rng(0)
        orders = [[jobs[i] for i in rng.permutation(len(jobs))] for jobs in searches * ORDERS]
        shares, losses = np.array([search(jobs, pruner()) for jobs in orders]).T
        print(
            f"| {name} | {shares.mean():.1%} | {np.quantile(shares, 0.95):.1%} | "
            f"{(shares > 0.5).mean():.0%} | {(losses == 0).mean():.0%} | {losses.mean():.4f} | "
            f"{losses.min():.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
